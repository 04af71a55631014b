"""Paths of temperatures that start at a distribution fitted to draws, against conjugate posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from kaem_ppl.inference import (
    HMC,
    NUTS,
    EllipticalSlice,
    ParallelTempering,
    PowerLadder,
    StudentProposal,
    TemperedSMC,
    diagnose,
    log_evidence,
    sample_posterior,
)

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(1.0, 0.5, (3, 5)))


def model(x):
    # A prior a thousand times as wide as the posterior.
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 300).expand([2]).to_event(1))
        numpyro.sample("x", dist.Normal(z.sum(-1, keepdims=True), 0.5).expand([len(x), 5]).to_event(1), obs=x)
        numpyro.sample("difference", dist.Normal(z[..., 0] - z[..., 1], 0.5), obs=jnp.zeros(len(x)))


def exact(x):
    """Log-evidence, posterior mean and covariance of one datum, in double precision."""
    design = np.concatenate([np.ones((5, 2)), [[1.0, -1.0]]])
    y = np.append(np.asarray(x, float), 0.0)
    evidence = stats.multivariate_normal(np.zeros(6), 9e4 * design @ design.T + 0.25 * np.eye(6)).logpdf(y)
    covariance = np.linalg.inv(design.T @ design / 0.25 + np.eye(2) / 9e4)
    return evidence, covariance @ design.T @ y / 0.25, covariance


@pytest.fixture(scope="module")
def reference():
    settings = {"plate": "data", "num_warmup": 200, "num_samples": 100, "progress_bar": False}
    return StudentProposal(sample_posterior(KEY, model, X, sampler=NUTS(max_tree_depth=4), **settings))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["smc", pytest.param("tempering", marks=pytest.mark.exhaustive)])
def test_draws_and_evidence_of_each_datum(kind, reference):
    # 4.5 standard errors of 3 evidences, and of 6 means and 6 variances, the effective sizes at least 400: a false alarm in
    # 2e-4 of seeds. From the prior, 300 times as wide, the same ladder would see nothing.
    if kind == "tempering":
        sampler = ParallelTempering(HMC(), PowerLadder(4, power=1), reference=reference)
    else:
        sampler = TemperedSMC(1000, reference=reference)
    settings = {"plate": "data", "num_samples": 1000, "num_warmup": 300, "progress_bar": False}
    draws = sample_posterior(jax.random.key(1), model, X, sampler=sampler, **settings)
    found = log_evidence(jax.random.key(2), model, X, method=sampler, **settings)
    assert np.all(found.is_trustworthy)
    assert not diagnose(draws).warnings
    z = np.asarray(draws.samples["z"], float)
    for n in range(3):
        evidence, mean, covariance = exact(X[n])
        assert abs(found.value[n] - evidence) < 4.5 * found.std_error[n] + 1e-3
        assert found.std_error[n] < 0.1
        deviation = np.sqrt(np.diag(covariance))
        assert (abs(z[:, :, n].mean((0, 1)) - mean) < 4.5 * deviation / 20).all()
        assert (abs(z[:, :, n].var((0, 1)) / deviation**2 - 1) < 4.5 * np.sqrt(2) / 20).all()
    # Prior and likelihood of the draws are the model's.
    log_prior = stats.norm(0, 300).logpdf(z).sum(-1)
    np.testing.assert_allclose(draws.sample_stats["log_prior"], log_prior, rtol=1e-5)
    np.testing.assert_allclose(
        draws.sample_stats["lp"], draws.sample_stats["log_prior"] + draws.sample_stats["log_likelihood"], rtol=1e-5
    )


def flat(y):
    z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
    numpyro.sample("y", dist.Normal(z, 1), obs=y)


@pytest.mark.slow
def test_a_flat_prior_has_draws_and_no_evidence():
    # Posterior N(2, 1 / 4). Mean within 4.5 errors of 400 effective draws: a false alarm in 7e-6 of seeds.
    y, settings = jnp.array([1.0, 2.0, 3.0, 2.0]), {"num_chains": 2, "num_warmup": 200, "progress_bar": False}
    first = sample_posterior(KEY, flat, y, sampler=NUTS(max_tree_depth=3), num_samples=50, **settings)
    sampler = ParallelTempering(HMC(), PowerLadder(3, power=1), reference=StudentProposal(first))
    draws = sample_posterior(jax.random.key(1), flat, y, sampler=sampler, num_samples=500, **settings)
    assert abs(float(np.mean(draws.samples["z"])) - 2) < 4.5 * 0.5 / 20
    with pytest.raises(ValueError, match="flat"):
        log_evidence(KEY, flat, y, method=sampler, progress_bar=False)


def test_refuses(reference):
    with pytest.raises(TypeError, match="`reference` of ParallelTempering"):
        ParallelTempering(reference="prior")
    with pytest.raises(TypeError, match="`reference` of TemperedSMC"):
        TemperedSMC(reference=NUTS())
    for sampler, x, message in (
        (ParallelTempering(EllipticalSlice(), reference=reference), X, "moves in whitened ones"),
        (ParallelTempering(reference=reference), X + 10, "another posterior"),
    ):
        with pytest.raises(ValueError, match=message):
            sample_posterior(KEY, model, x, sampler=sampler, plate="data", progress_bar=False)
