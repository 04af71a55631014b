"""What importing the package costs, and the examples in its docstrings."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import kaem_ppl


def test_import_is_light():
    # Law: the core imports JAX, NumPyro and NumPy only.
    code = "import kaem_ppl, sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"jax", "numpyro", "kaem_ppl"} <= set(loaded)
    assert not {"matplotlib", "sklearn", "flax", "arviz", "blackjax", "orbax"} & set(loaded)


def test_a_run_is_opened_by_a_room_that_is_imported_when_it_is_asked_for():
    code = "import kaem_ppl, sys; assert 'kaem_ppl.cli' not in sys.modules; print(kaem_ppl.open_run.__module__)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "kaem_ppl.cli.opening\n"
    with pytest.raises(AttributeError, match="has no attribute 'opn_run'"):
        kaem_ppl.opn_run  # noqa: B018


@pytest.mark.parametrize("first", ["arviz", "blackjax", "flax.nnx"])
def test_import_after_another_library(first):
    # ArviZ leaves NumPyro as a module loaded on demand, some of whose submodules are no attributes of their parent.
    code = f"import {first}, kaem_ppl, kaem_ppl.inference, kaem_ppl.models"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_docstring_example():
    # `kaem_ppl.models` and `kaem_ppl.inference` are found too, through the installed mapping.
    names = ["kaem_ppl"]
    names += [module.name for module in pkgutil.walk_packages(kaem_ppl.__path__, "kaem_ppl.")]
    for extra in ("kaem_ppl.models", "kaem_ppl.inference"):
        package = importlib.import_module(extra)
        names += [extra, *(module.name for module in pkgutil.walk_packages(package.__path__, extra + "."))]
    attempted, failed = 0, []
    for name in sorted(set(names)):
        if name.endswith("__main__"):
            continue
        result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
        attempted += result.attempted
        if result.failed:
            failed.append(name)
    assert not failed
    assert attempted >= 8


@pytest.mark.parametrize(
    "name",
    [
        *(
            "UnivariateKAN",
            "KANTilted",
            "KANTiltedMixture",
            "RBF",
            "BSpline",
            "Fourier",
            "Chebyshev",
            "RSWAF",
            "Morlet",
        ),
        *("KANCopula", "prior_from", "density_of_sum", "replace_priors", "symbolify", "FormulaBasis"),
    ],
)
def test_public_names_are_documented(name):
    assert len(getattr(kaem_ppl, name).__doc__) > 60
