"""Particles meet data in pieces of bounded memory, and results do not depend on the pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from kaem_ppl.compilation import largest_array
from kaem_ppl.inference import (
    MALA,
    AnnealedImportanceSampling,
    GivenLadder,
    ImportanceSampling,
    TemperedSMC,
    log_evidence,
    sample_posterior,
)
from kaem_ppl.inference.model.power_posterior import read_power_posterior
from kaem_ppl.inference.sampling import batching

X = jax.random.normal(jax.random.key(3), (7, 2))


def rows(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(jnp.stack([z, z], -1), 1).to_event(1), obs=x)


def whole(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(loc, 1).expand([2]).to_event(1), obs=x)


@pytest.fixture
def small_budget(monkeypatch):
    """A budget of three particles of two data; programs that were compiled with another one are forgotten."""

    def shrink(num_bytes):
        monkeypatch.setattr(batching, "MEMORY_BUDGET", num_bytes)
        jax.clear_caches()

    yield shrink
    jax.clear_caches()


@pytest.mark.parametrize(
    ("model", "plate"),
    [pytest.param(rows, "data", marks=pytest.mark.slow), pytest.param(whole, None, marks=pytest.mark.slow)],
    ids=["with a plate", "whole"],
)
def test_importance_sampling_does_not_depend_on_the_pieces(model, plate, small_budget):
    def run():
        return sample_posterior(
            0, model, X, plate=plate, sampler=ImportanceSampling(40), num_chains=2, num_samples=10, progress_bar=False
        )

    at_once = run()
    small_budget(3000)
    in_pieces = run()
    for name in ("log_evidence", "pareto_k", "effective_sample_size"):
        np.testing.assert_allclose(in_pieces.summary[name], at_once.summary[name], rtol=1e-4)
    for x, y in zip(jax.tree.leaves(in_pieces.samples), jax.tree.leaves(at_once.samples), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)
    np.testing.assert_allclose(in_pieces.log_likelihood["x"], at_once.log_likelihood["x"], rtol=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        TemperedSMC(50, MALA(), num_mutation_steps=2, ladder=GivenLadder((0, 0.1, 1))),
        AnnealedImportanceSampling(50, MALA(0.1), GivenLadder((0, 0.1, 1))),
    ],
    ids=lambda method: type(method).__name__,
)
@pytest.mark.slow
def test_other_particles_do_not_depend_on_the_pieces(method, small_budget):
    def run():
        return log_evidence(0, whole, X, method=method, num_chains=2, progress_bar=False).value

    at_once = run()
    small_budget(3000)
    np.testing.assert_allclose(run(), at_once, rtol=1e-4)


def test_shared_draws_do_not_depend_on_the_pieces(small_budget):
    def run():
        evidence = log_evidence(
            0, rows, X, method=ImportanceSampling(50), plate="data", num_chains=1, progress_bar=False
        )
        return evidence.value, evidence.std_error

    at_once = run()
    small_budget(4 * 20 * 4 * 3)
    for x, y in zip(run(), at_once, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4)


def test_own_draws_do_not_depend_on_the_pieces(small_budget):
    def model(t, x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(t, 1))
            numpyro.sample("x", dist.Normal(jnp.stack([z, z], -1), 1).to_event(1), obs=x)

    def run():
        evidence = log_evidence(
            0, model, jnp.arange(7.0), X, method=ImportanceSampling(50), plate="data", num_chains=1, progress_bar=False
        )
        return evidence.value, evidence.std_error

    at_once = run()
    small_budget(4 * 20 * 4 * 3)
    for x, y in zip(run(), at_once, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4)


def test_the_size_of_an_evaluation_is_that_of_its_largest_array():
    # Oracle: of 7 x 2 numbers of 4 bytes the largest array is the difference from the mean.
    posterior = read_power_posterior(whole, (X,), {})
    evaluation, kept = batching.evaluation_bytes(posterior)
    assert kept == 3 * 4
    assert evaluation >= 7 * 2 * 4
    assert largest_array(jax.make_jaxpr(lambda x: (x[:, None] * x).sum())(jnp.ones(9))) == 81 * 4


def test_draws_of_a_flat_prior_are_evaluated():
    # Nothing can be drawn from it, so an evaluation is measured at the draws. Oracle: the density by hand.
    def model(x):
        loc = numpyro.sample("loc", dist.ImproperUniform(dist.constraints.real, (), ()))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", dist.Normal(loc, 1), obs=x)

    draws = sample_posterior(
        0, model, X[:, 0], sampler=MALA(0.1), num_chains=1, num_samples=5, num_warmup=0, progress_bar=False
    )
    exact = dist.Normal(draws.samples["loc"][..., None], 1).log_prob(X[:, 0])
    np.testing.assert_allclose(draws.log_likelihood["x"], exact, rtol=1e-5)
