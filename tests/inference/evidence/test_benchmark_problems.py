"""The benchmark beside other evidence programs: problems say the same in NumPyro and on the unit cube; its verdicts."""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy.special import ndtri

FOLDER = Path(__file__).parents[3] / "benchmarks"
NAMES = (
    "Gaussian shells, 10", "eggbox, 2", "linear regression, 20", "beta-binomial, 10", "logistic regression, 3",
    "eight schools, 10", "two modes, 5", "Rosenbrock, 4",
)  # fmt: skip


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(FOLDER))
    names = ("evidence_problems", "evidence_models", "evidence_rivals")
    try:
        return {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(FOLDER))


def plain(law):
    """A distribution without what makes vectors of it."""
    while isinstance(law, dist.Independent | dist.ExpandedDistribution):
        law = law.base_dist
    return law


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_the_problem_on_the_unit_cube(modules, name):
    problem = modules["evidence_problems"].PROBLEMS[name]()
    model, settings = modules["evidence_models"].make_model(name)
    u = np.random.default_rng(0).uniform(0.2, 0.8, (2, problem.dimension))
    z = problem.transform(u, np, ndtri)
    sites = ("mu", "tau", "z") if "schools" in name else ("weights", "rate", "z")
    values = dict(zip(sites, (z[0, 0], z[0, 1], z[0, 2:]) if "schools" in name else (z[0],) * 3, strict=True))
    found = handlers.trace(handlers.seed(handlers.substitute(model, data=values), 0)).get_trace(**settings)
    parts = [x["fn"].log_prob(x["value"]) for x in found.values() if x["type"] == "sample" and x["is_observed"]]
    likelihood = problem.log_likelihood(z, np)
    assert likelihood.shape == (2,)
    assert float(sum(map(jnp.sum, parts))) == pytest.approx(likelihood[0], rel=1e-4)
    # The prior's distribution function leads back to the unit cube.
    back = [np.atleast_1d(plain(found[site]["fn"]).cdf(values[site])) for site in sites if site in found]
    np.testing.assert_allclose(np.concatenate(back), u[0], atol=1e-5)
    on_jax = problem.log_likelihood(problem.transform(jnp.asarray(u), jnp, jax.scipy.special.ndtri), jnp)
    np.testing.assert_allclose(on_jax, likelihood, rtol=1e-3)


# Feroz, Hobson and Bridges (2009); theirs of the eggbox comes from a grid.
@pytest.mark.parametrize(("name", "published"), [("Gaussian shells, 10", -14.59), ("eggbox, 2", 235.88)])
def test_truths_are_the_published_ones(modules, name, published):
    assert modules["evidence_problems"].PROBLEMS[name]().truth() == pytest.approx(published, abs=0.03)


@pytest.mark.parametrize(
    ("last", "stopped", "outcome"),
    [
        ({"estimate": 0.05, "std_error": 0.01, "trusted": None}, "", "reached"),
        ({"estimate": 0.25, "std_error": 0.09, "trusted": True}, "cut off", "reached"),
        ({"estimate": 0.35, "std_error": 0.09, "trusted": True}, "", "wrong"),
        ({"estimate": 0.05, "std_error": 0.2, "trusted": None}, "", "not reached"),
        ({"estimate": 0.05, "std_error": 0.01, "trusted": False}, "", "not trusted"),
        ({"estimate": 0.05, "std_error": 0.2, "trusted": None}, "cut off", "cut off"),
        (None, "failed", "failed"),
    ],
)
def test_the_verdict_on_a_method(modules, last, stopped, outcome):
    assert modules["evidence_rivals"].judge([last] if last else [], stopped, 0.0) == outcome
