"""What warm-up learns: the covariance of a correlated normal, and the longest direction of one with many coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from arviz_stats.base import array_stats

from kaem_ppl.inference import HMC, MALA, ParallelTempering, sample_posterior
from kaem_ppl.inference.kernels.adaptation import FAST, adapt, begin_adaptation, factor_covariance


def test_factor_of_a_covariance_in_any_units():
    covariance = np.array([[1e6, 0.999e2], [0.999e2, 1e-2]], np.float32)
    factor = np.asarray(factor_covariance(jnp.asarray(covariance), 10_000))
    np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-5)
    assert np.isfinite(factor_covariance(jnp.zeros((3, 3)), 25)).all()


@pytest.mark.parametrize(("acceptance", "is_bounded"), [(0.6, True), (0.1, False)])
def test_steps_that_no_longer_help_are_not_shortened(acceptance, is_bounded):
    # Where rounding makes a density rough, trajectories of any step are accepted alike. The bound is the step that takes a
    # trajectory of mean length, pi / 2 standard deviations, in `max_integration_steps`; below it chains move less far.
    kernel = HMC()
    position = {"z": jnp.zeros(3)}

    def step(adaptation, _):
        return adapt(kernel, adaptation, position, jnp.asarray(acceptance), jnp.asarray(FAST), jnp.asarray(False)), None

    adaptation = jax.jit(lambda first: jax.lax.scan(step, first, None, 1000)[0])(begin_adaptation(kernel, position))
    bound = np.pi / (1 + kernel.shortest_step) / kernel.max_integration_steps
    assert (float(adaptation.tuning.step_size) > bound / 3) == is_bounded


@pytest.mark.parametrize("kernel", [HMC(), MALA()], ids=["HMC", "MALA"])
def test_a_correlated_normal(kernel):
    # Oracle: the covariance itself. Means and variances of 4 chains within 5 Monte Carlo errors (of at least 400 effective
    # draws): a false alarm in 1e-5 of seeds.
    covariance = jnp.array([[1.0, 0.995], [0.995, 1.0]])

    def model():
        x = numpyro.sample("x", dist.Normal(0, 3).expand([2]).to_event(1))
        numpyro.factor("normal", dist.MultivariateNormal(jnp.zeros(2), covariance).log_prob(x) + (x**2).sum() / 18)

    draws = sample_posterior(
        jax.random.key(0), model, sampler=kernel, num_samples=1000, num_warmup=800, progress_bar=False
    )
    x = np.asarray(draws.samples["x"]).reshape(-1, 2)
    assert (np.abs(x.mean(0)) < 5 / 20).all()
    assert (np.abs(x.var(0) - 1) < 5 * np.sqrt(2) / 20).all()
    assert abs(np.corrcoef(x.T)[0, 1] - 0.995) < 0.003


@pytest.mark.slow
def test_the_number_of_temperatures_follows_the_barrier():
    # A posterior a hundredth as wide as its prior in each of ten coordinates: the barrier is far above what 8 temperatures
    # serve well.
    def model(x):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([10]).to_event(1))
        numpyro.sample("x", dist.Normal(z, 0.01).to_event(1), obs=x)

    draws = sample_posterior(
        jax.random.key(0), model, jnp.zeros(10), sampler=ParallelTempering(), num_chains=2, num_samples=300, num_warmup=300,
        progress_bar=False,
    )  # fmt: skip
    barrier = float(draws.summary["communication_barrier"].max())
    number = draws.summary["temperatures"].shape[-1]
    assert number > 8
    assert 1.2 * barrier < number < 3 * barrier + 8
    assert draws.sample_stats["swap_acceptance"].mean((0, 1)).min() > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [HMC(), MALA()], ids=["HMC", "MALA"])
def test_starts_a_thousand_deviations_away(kernel):
    # Oracle: the conjugate posterior, in double precision. Heights around 170 correlate intercept and slope by -0.9993.
    # Means of 4 chains within 4.5 Monte Carlo errors, three of them: a false alarm in 2e-5 of seeds.
    rng = np.random.default_rng(0)
    design = np.stack([np.ones(200), rng.normal(170, 6, 200), rng.normal(size=200)], axis=1)
    y = design @ [-40.0, 0.7, 2.0] + rng.normal(0, 2, 200)

    def model(design, y):
        w = numpyro.sample("w", dist.Normal(0, 100).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(design @ w, 2), obs=y)

    draws = sample_posterior(
        jax.random.key(1),
        model,
        jnp.asarray(design),
        jnp.asarray(y),
        sampler=kernel,
        num_samples=1000,
        progress_bar=False,
    )
    covariance = np.linalg.inv(design.T @ design / 4 + np.eye(3) / 1e4)
    mean, deviation = covariance @ (design.T @ y / 4), np.sqrt(np.diag(covariance))
    w = np.asarray(draws.samples["w"], float)
    effective = [float(array_stats.ess(w[..., i], chain_axis=0, draw_axis=1, method="mean")) for i in range(3)]
    assert min(effective) > 400
    assert (np.abs(w.mean((0, 1)) - mean) < 4.5 * deviation / np.sqrt(effective)).all()
    np.testing.assert_allclose(w.std((0, 1)), deviation, rtol=0.2)
