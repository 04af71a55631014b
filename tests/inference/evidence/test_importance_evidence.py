"""Importance sampling from the prior: draws that all data share, and a datum's own, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from kaem_ppl.inference import ImportanceSampling, log_evidence
from kaem_ppl.inference.evidence.importance_evidence import summarize, weigh_prior_draws
from kaem_ppl.inference.model.power_posterior import read_power_posterior
from kaem_ppl.inference.sampling import batching
from kaem_ppl.inference.sampling.importance.psis import pareto_k
from kaem_ppl.inference.sampling.run import Run


def estimate(key, model, *args, num_draws=20_000, **settings):
    return log_evidence(
        jax.random.key(key), model, *args, method=ImportanceSampling(num_draws), plate="data", num_chains=1,
        progress_bar=False, **settings,
    )  # fmt: skip


def assert_within(estimate, exact, errors=5.0):
    # 5 standard errors: a false alarm in 6e-7 of seeds for each datum.
    assert (jnp.abs(estimate.value - exact) < errors * estimate.std_error).all()


@pytest.fixture
def posterior(linear_gaussian):
    one = linear_gaussian
    return read_power_posterior(one.model, (one.x[jnp.array([0, 0, 0, 0, 0, 1])],), {}, params=one.params, plate="data")


@pytest.mark.parametrize("largest", [3000, 700])
def test_closed_form(linear_gaussian, largest, monkeypatch):
    # Oracle: the closed-form evidence; batches that do not divide the draws, and data in parts.
    monkeypatch.setattr(batching, "MEMORY_BUDGET", 16 * largest)
    found = estimate(0, linear_gaussian.model, linear_gaussian.x, params=linear_gaussian.params)
    assert_within(found, linear_gaussian.log_evidence(linear_gaussian.params, linear_gaussian.x))
    assert (found.std_error < 0.05).all()
    assert found.is_trustworthy.all()


@pytest.mark.parametrize(("noise", "seed"), [(0.056, 2), pytest.param(0.058, 6, marks=pytest.mark.slow)])
def test_one_draw_with_all_the_weight_is_not_trusted(noise, seed):
    # Errors of 226 and 186 nats, with a standard error of 1.
    def model(y):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([10]).to_event(1))
        numpyro.sample("y", dist.Normal(z, noise).to_event(1), obs=y)

    found = log_evidence(
        jax.random.key(seed), model, jnp.ones(10), method=ImportanceSampling(), num_chains=4, progress_bar=False
    )
    assert not found.is_trustworthy
    assert not found.checks["Pareto k-hat"]


@pytest.mark.slow
def test_std_errors_are_the_spread_of_repeated_estimates(posterior):
    # Oracle: 200 repetitions. Their standard deviation has a relative standard error of 1 / sqrt(400), 5 %; 25 % is five
    # of those: a false alarm in 4e-6 of seeds for six data and their sum, whose error counts that draws are shared.
    assert posterior.draws_are_shared
    found = [weigh_prior_draws(jax.random.key(seed), posterior, 2000, Run()) for seed in range(200)]
    value, std_error = (np.array([getattr(x, name) for x in found]) for name in ("value", "std_error"))
    total = np.array([x.log_bias.std_error_of_sum for x in found])
    np.testing.assert_allclose(std_error.mean(0), value.std(0), rtol=0.25)
    np.testing.assert_allclose(total.mean(), value.sum(-1).std(), rtol=0.25)
    # Five data are equal, so that a root of the sum of squares would be far too small.
    assert np.sqrt(np.square(std_error).sum(-1)).mean() < 0.7 * total.mean()


def test_batches_are_summed_as_one():
    # Oracle: the definitions, and the tail of all weights at once; some are 0, one row all but.
    log_weights = np.random.default_rng(0).exponential(size=(3, 3000)) * np.array([[0.2], [0.5], [0.9]])
    log_weights[1, ::3], log_weights[2, 20:] = -np.inf, np.nan
    found = summarize(iter(np.array_split(log_weights, 7, axis=1)), 3000, False)
    weights = np.where(np.isnan(log_weights), 0, np.exp(log_weights))
    np.testing.assert_allclose(found.value, np.log(weights.mean(1)))
    np.testing.assert_allclose(found.std_error, weights.std(1) / weights.mean(1) / 3000**0.5)
    np.testing.assert_allclose(found.effective_sample_size, weights.sum(1) ** 2 / np.square(weights).sum(1))
    np.testing.assert_allclose(found.pareto_k, pareto_k(np.where(np.isnan(log_weights), -np.inf, log_weights).T[None]))
    assert found.pareto_k[2] == np.inf


def test_an_array_that_all_data_share():
    # Oracle: the closed form, with a matrix among the arguments that is no row of the data.
    def model(weight, x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
            numpyro.sample("x", dist.Normal(z @ weight, 0.5).to_event(1), obs=x)

    weight, x = jnp.array([[1.0, 0.2, 0.1], [0.0, 0.5, -1.0]]), jax.random.normal(jax.random.key(1), (5, 3))
    exact = stats.multivariate_normal(cov=weight.T @ weight + 0.25 * np.eye(3)).logpdf(x)
    assert read_power_posterior(model, (weight, x), {}, plate="data").draws_are_shared
    assert_within(estimate(9, model, weight, x), exact)


def test_covariates_of_a_datum():
    # Oracle: x = c z + noise, with a covariate c of each datum, is Normal(0, sqrt(c^2 + 0.5^2)).
    def model(c, x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("x", dist.Normal(c * z, 0.5), obs=x)

    data = {"c": jnp.array([0.1, 1.0, 2.0, -1.5]), "x": jnp.array([0.3, -0.5, 1.0, 2.0])}
    found = estimate(3, model, **data)
    exact = dist.Normal(0, jnp.sqrt(data["c"] ** 2 + 0.25)).log_prob(data["x"])
    assert_within(found, exact)


def test_prior_that_reads_covariates():
    # Oracle: z ~ Normal(c, 1), x ~ Normal(z, 1) makes x Normal(c, sqrt(2)).
    def model(c, x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(c, 1))
            numpyro.sample("x", dist.Normal(z, 1), obs=x)

    c, x = jnp.array([0.0, 2.0, -3.0]), jnp.array([0.5, 1.0, -2.0])
    found = estimate(4, model, c, x)
    assert_within(found, dist.Normal(c, jnp.sqrt(2)).log_prob(x))


def test_missing_values():
    # Oracle: outputs a datum lacks drop out of its evidence; x_d = z + noise is correlated across outputs.
    def model(x, seen):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("x", dist.Normal(z[:, None], 0.7).expand([len(x), 3]).mask(seen).to_event(1), obs=x)

    x = jnp.array([[0.5, 0.1, 0.0], [1.0, 0.0, -0.3], [0.0, 0.0, 0.4]])
    seen = jnp.array([[True, True, False], [True, True, True], [False, False, True]])
    found = estimate(5, model, x, seen)
    covariance = np.ones((3, 3)) + 0.49 * np.eye(3)
    exact = [
        stats.multivariate_normal(cov=covariance[np.ix_(keep, keep)]).logpdf(row[keep])
        for row, keep in zip(np.asarray(x), np.asarray(seen), strict=True)
    ]
    assert_within(found, np.array(exact))


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_scaled_likelihood(power):
    # Oracle: integral of Normal(z; 0, 1) Normal(x; z, 1)^power, a Gaussian of variance 1 / power up to a constant.
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            with numpyro.handlers.scale(scale=power):
                numpyro.sample("x", dist.Normal(z, 1), obs=x)

    x = jnp.array([0.2, -1.0])
    constant = 0.5 * jnp.log(2 * jnp.pi / power) - 0.5 * power * jnp.log(2 * jnp.pi)
    exact = dist.Normal(0, jnp.sqrt(1 + 1 / power)).log_prob(x) + constant
    assert_within(estimate(6, model, x), exact)


def test_several_observed_sites_and_a_factor():
    # Oracle: two independent measurements of z, and a constant factor of 1.5 nats.
    # The same data by name and by position, and the same draws, give the same numbers.
    def model(x, y):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("x", dist.Normal(z, 1), obs=x)
            numpyro.sample("y", dist.Normal(-z, 0.5), obs=y)
            numpyro.factor("bonus", 1.5 + 0 * z)

    x, y = jnp.array([0.2, -1.0]), jnp.array([0.4, 0.3])
    exact = stats.multivariate_normal(cov=[[2.0, -1.0], [-1.0, 1.25]]).logpdf(np.stack([x, y], -1)) + 1.5
    found = estimate(7, model, x=x, y=y)
    assert_within(found, exact)
    by_position = estimate(7, model, x, y)
    np.testing.assert_array_equal(found.value, by_position.value)


def test_second_plate():
    # Oracle: three measurements of one latent, along a plate inside the datum, have covariance 1 1' + 0.25 I.
    def model(x):
        with numpyro.plate("data", len(x), dim=-2):
            z = numpyro.sample("z", dist.Normal(0, 1))
            with numpyro.plate("measurement", 3, dim=-1):
                numpyro.sample("x", dist.Normal(z, 0.5), obs=x)

    x = jnp.array([[0.5, 0.1, 0.0], [1.0, 0.0, -0.3]])
    exact = stats.multivariate_normal(cov=np.ones((3, 3)) + 0.25 * np.eye(3)).logpdf(x)
    assert_within(estimate(8, model, x), exact)
