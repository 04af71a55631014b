"""Examples in docstrings: every public name has one, and all of them run."""

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import kaem_ppl
import kaem_ppl.inference
import kaem_ppl.models

# Modules whose examples take more than about two seconds of processor time, most of it compilation.
SLOW = {
    "kaem_ppl.cli.opening",
    "kaem_ppl.density.copula",
    "kaem_ppl.density.posterior",
    "kaem_ppl.density.sums",
    "kaem_ppl.density.symbolic.symbolify",
    "kaem_ppl.density.vine.d_vine",
    "kaem_ppl.distributions.mixture",
    "kaem_ppl.distributions.tilted",
    "kaem_ppl.network",
    "kaem_ppl.symbolic.symbolify_functions",
    "kaem_ppl.models.baselines",
    "kaem_ppl.models.denoisers",
    "kaem_ppl.models.diffusion",
    "kaem_ppl.models.image_distance.classifier",
    "kaem_ppl.models.encoders",
    "kaem_ppl.models.generators",
    "kaem_ppl.models.kaem",
    "kaem_ppl.models.latents",
    *(
        f"kaem_ppl.inference.{name}"
        for name in (
            "diagnostics.calibration",
            "diagnostics.diagnose",
            "evidence.annealed_importance",
            "evidence.bridge_sampling",
            "evidence.cross_check",
            "evidence.evidence_bounds",
            "evidence.nested_sampling",
            "kernels.elliptical_slice",
            "kernels.hamiltonian",
            "kernels.langevin",
            "kernels.pcnl",
            "sampling.blocks",
            "sampling.chains_state",
            "sampling.draws",
            "sampling.importance.importance_sampling",
            "sampling.importance.proposals",
            "sampling.run",
            "sampling.sample_posterior",
            "sampling.stopping",
            "tempering.parallel_tempering",
            "tempering.replica_exchange",
            "tempering.tempered_smc",
            "training.adaptive_grid",
            "training.history",
            "training.state",
            "training.strategies.contrastive_mle",
            "training.strategies.importance_mle",
            "training.strategies.langevin_mle",
            "training.strategies.thermodynamic_mle",
            "training.strategies.variational_mle",
        )
    ),
}
# Of these, what takes ten seconds.
LONGEST = {
    "kaem_ppl.density.copula",
    "kaem_ppl.inference.evidence.cross_check",
    "kaem_ppl.cli.opening",
    "kaem_ppl.inference.evidence.annealed_importance",
    "kaem_ppl.inference.training.adaptive_grid",
    "kaem_ppl.models.kaem",
    "kaem_ppl.density.symbolic.symbolify",
}
REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def modules():
    """Names of all modules; `kaem_ppl.models` and `kaem_ppl.inference` are found through the installed mapping."""
    names = {"kaem_ppl"}
    for package in ("kaem_ppl", "kaem_ppl.models", "kaem_ppl.inference"):
        path = importlib.import_module(package).__path__
        names |= {package, *(module.name for module in pkgutil.walk_packages(path, f"{package}."))}
    return sorted(name for name in names if not name.endswith("__main__"))


def run_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0, name
    return result.attempted


def test_short_examples():
    names = modules()
    assert set(names) >= SLOW
    assert sum(run_examples(name) for name in names if name not in SLOW) >= 100


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.exhaustive] if name in LONGEST else []) for name in sorted(SLOW)]
)
def test_longer_examples(name):
    assert run_examples(name) > 0


def public_names():
    core = set(kaem_ppl._ON_DEMAND) | {
        name
        for name, value in vars(kaem_ppl).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("kaem_ppl.")
    }
    names = {f"kaem_ppl.{name}" for name in core}
    for room in (kaem_ppl.inference, kaem_ppl.models):
        names |= {f"{room.__name__}.{name}" for name in room.__all__}
    return sorted(names)


def test_every_public_name_has_an_example_and_a_place_in_the_reference():
    pages = "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))
    without_example, without_page = [], []
    for name in public_names():
        value = getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2])
        # A dictionary has no docstring of its own: what is said of it stands in the reference.
        page = pages.partition(f"py:data:: {name}")[2].partition("\n.. ")[0]
        if ">>> " not in (page if isinstance(value, dict) else inspect.getdoc(value) or ""):
            without_example.append(name)
        if f":: {name}\n" not in pages:
            without_page.append(name)
    assert not without_example
    assert not without_page
    assert len(public_names()) >= 130


def test_examples_of_the_reference():
    assert doctest.testfile(str(REFERENCE / "data.md"), module_relative=False).failed == 0
