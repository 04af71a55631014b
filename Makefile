# Two commands on a fresh machine: `make demo` and `make test`. Both build .venv first.
PYTHON ?= $(shell command -v python3.12 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
.DEFAULT_GOAL := help
.PHONY: help train-vanilla train-importance train-langevin train-thermo train-variational train-sequential demo test test-slow test-all notebooks docs bench bench-quick lint format clean

help:  ## list the targets
	@grep -hE '^[a-z -]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
		{ echo "kaem-ppl needs Python 3.12 or newer; $(PYTHON) is older. Set PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# Compiles a quarter faster than the default, and runs as fast.
demo: export XLA_FLAGS := --xla_backend_optimization_level=1 $(XLA_FLAGS)
demo: $(VENV)/.installed  ## train a KAEM on real digits and leave the results in runs/digits
	$(RUN) -m kaem_ppl.cli.demo

train-vanilla train-importance train-langevin train-thermo train-variational: train-%: $(VENV)/.installed  ## train on a data set: make train-importance DATASET=MNIST
	$(RUN) -m kaem_start train $* --dataset $(or $(DATASET),$(error DATASET is missing: make $@ DATASET=MNIST)) $(FLAGS)

train-sequential: $(VENV)/.installed  ## train one run after another: make train-sequential CONFIG=jobs.txt
	$(RUN) -m kaem_start train-sequential $(or $(CONFIG),$(error CONFIG is missing: make $@ CONFIG=jobs.txt))

# Programs of the tests and the notebooks run once: they are compiled quickly rather than well.
# Programs that tests have in common are compiled once, in whatever process and run: what a compiler made is kept, small
# programs too, for the smallest takes 17 ms to compile and 3 ms to read.
test test-slow notebooks: export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/$(VENV)/compiled
test test-slow notebooks: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0
test test-slow notebooks: export XLA_FLAGS := --xla_backend_optimization_level=0 $(XLA_FLAGS)
test: $(VENV)/.installed  ## the fast tests
	$(RUN) -m pytest -n auto --dist loadfile --durations=15 -m "not slow and not exhaustive"

test-slow: $(VENV)/.installed  ## the long statistical checks
	$(RUN) -m pytest -n auto --dist loadfile --durations=15 -m "slow and not exhaustive"

test-all: $(VENV)/.installed  ## these, every basis with every reference, and the longest runs
	$(RUN) -m pytest -n auto --dist loadfile

notebooks: $(VENV)/.installed  ## execute every notebook from scratch
	$(RUN) tests/run_notebooks.py

$(VENV)/.installed-docs: $(VENV)/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

docs: $(VENV)/.installed-docs  ## build the site into docs/_build/html, without the network
	$(RUN) -m sphinx -q -W --keep-going -b html docs docs/_build/html
	$(RUN) docs/check_links.py docs/_build/html

bench: $(VENV)/.installed  ## every benchmark, as ratios to rivals, into benchmarks/results: make bench MINUTES=60
	$(RUN) benchmarks/run.py --minutes $(or $(MINUTES),60) $(FLAGS)

# Compilation is most of what few and small settings take.
bench-quick: export XLA_FLAGS := --xla_backend_optimization_level=1 $(XLA_FLAGS)
bench-quick: $(VENV)/.installed  ## the same with few and small settings
	$(RUN) benchmarks/run.py --quick --out benchmarks/results/quick

# Types and arrows between rooms are checked in the package as it is installed, for its three folders meet only there.
lint: $(VENV)/.installed  ## check style, types, and which room imports which
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) docs/check_links.py
	rm -rf build
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --target build/installed .
	cd build/installed && $(CURDIR)/$(VENV)/bin/lint-imports $(CURDIR)/pyproject.toml
	$(VENV)/bin/basedpyright

format: $(VENV)/.installed  ## rewrite the code in the house style
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:  ## remove the environment, caches and runs
	rm -rf $(VENV) build dist docs/_build docs/notebooks *.egg-info .pytest_cache .ruff_cache runs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
