"""The density of a sum against closed forms, and against draws of a learnt prior."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import kaem_ppl as kp


@pytest.mark.parametrize(
    ("prior", "exact"),
    [
        (dist.Normal(jnp.linspace(-1, 1, 5), jnp.array([0.5, 1.0, 2.0, 1.0, 0.7])), stats.norm(0, np.sqrt(6.74))),
        (dist.Exponential(jnp.full(4, 2.0)), stats.gamma(4, scale=0.5)),
        (dist.Uniform(jnp.zeros(12), 1.0), None),
    ],
    ids=["normal", "exponential", "uniform"],
)
def test_closed_forms(prior, exact):
    # Oracle: SciPy; for twelve uniform variables the formula of Irwin and Hall.
    total = kp.density_of_sum(prior)
    if exact is None:
        x = np.linspace(3.0, 9.0, 31)
        k = np.arange(13)
        terms = stats.binom(12, 0.5).pmf(k) * 2.0**12 * (-1.0) ** k * np.maximum(x[:, None] - k, 0) ** 11
        density, mean, variance = terms.sum(-1) / 39916800, 6.0, 1.0
    else:
        x = exact.ppf(np.linspace(0.001, 0.999, 41))
        density, mean, variance = exact.pdf(x), exact.mean(), exact.var()
        np.testing.assert_allclose(total.cdf(x), exact.cdf(x), atol=2e-4)
        np.testing.assert_allclose(
            total.icdf(jnp.array([0.01, 0.5, 0.99])), exact.ppf([0.01, 0.5, 0.99]), rtol=2e-3, atol=2e-3
        )
    np.testing.assert_allclose(np.exp(total.log_prob(x)), density, rtol=2e-3, atol=2e-4 * density.max())
    np.testing.assert_allclose([total.mean, total.variance], [mean, variance], rtol=1e-5, atol=1e-5)


@pytest.mark.exhaustive
def test_a_learnt_prior_over_either_axis():
    # Oracle: 20,000 draws of the prior, summed; six tests of Kolmogorov and Smirnov at 1e-3 fail by chance in 0.6 %.
    bank = kp.UnivariateKAN.init(jax.random.key(0), (2, 4), basis=kp.RBF(8), domain=(-3, 3))
    prior = kp.KANTilted(dataclasses.replace(bank, coef=10 * bank.coef), dist.Normal(0, 1))
    draws = np.asarray(prior.sample(jax.random.key(1), (20_000,)))
    for axis in (-1, 0):
        total = kp.density_of_sum(prior, axis)
        sums = draws.sum(axis if axis < 0 else axis + 1)
        assert total.batch_shape == sums.shape[1:]
        cdf = np.asarray(total.cdf(sums))
        for i in range(cdf.shape[1]):
            assert stats.kstest(cdf[:, i], "uniform").pvalue > 1e-3
        np.testing.assert_allclose(total.sample(jax.random.key(2), (5000,)).mean(0), total.mean, atol=0.2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kp.density_of_sum(dist.Normal(0, 1)), ValueError, "`axis` must be one of the prior's batch shape"),
        (lambda: kp.density_of_sum(dist.StudentT(1.5, jnp.zeros(2), 1)), ValueError, "variance that is not finite"),
        (lambda: kp.density_of_sum(dist.Poisson(jnp.ones(2))), ValueError, "`prior` is Poisson, which"),
        (lambda: kp.density_of_sum(3.0), TypeError, "`prior` must be a univariate continuous distribution"),
        (
            lambda: kp.density_of_sum(dist.Normal(jnp.zeros(2), jnp.array([1e-3, 10.0]))),
            ValueError, "`num_points` must be at least",
        ),
    ],
)  # fmt: skip
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
