import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from kaem_ppl.inference import importance_log_evidence


def assert_within(estimate, exact, errors=5.0):
    # 5 standard errors: a false alarm in 6e-7 of seeds for each datum.
    assert (jnp.abs(estimate.value - exact) < errors * estimate.std_error).all()


@pytest.mark.parametrize("chunk_size", [3000, 50_000])
def test_closed_form(linear_gaussian, chunk_size):
    # Oracle: the closed-form evidence; chunks that do not divide the draws, and one larger than all of them.
    estimate = importance_log_evidence(
        jax.random.key(0),
        linear_gaussian.model,
        linear_gaussian.x,
        params=linear_gaussian.params,
        num_draws=20_000,
        chunk_size=chunk_size,
    )
    assert_within(estimate, linear_gaussian.log_evidence(linear_gaussian.params, linear_gaussian.x))
    assert (estimate.std_error < 0.05).all()


def test_std_error_is_the_spread_of_repeated_estimates(linear_gaussian):
    # Oracle: 400 repetitions. Their standard deviation has a relative standard error of 1 / sqrt(800), 3.5 %; 18 % is
    # five of those: a false alarm in 4e-6 of seeds for six data.
    @jax.vmap
    def repeat(key):
        return importance_log_evidence(
            key, linear_gaussian.model, linear_gaussian.x, params=linear_gaussian.params, num_draws=2000
        )

    estimates = repeat(jax.random.split(jax.random.key(1), 400))
    np.testing.assert_allclose(estimates.std_error.mean(0), estimates.value.std(0), rtol=0.18)


def test_same_draws_however_they_are_counted(linear_gaussian):
    # Oracle: the definitions, from one chunk of weights.
    estimate = importance_log_evidence(
        jax.random.key(2), linear_gaussian.model, linear_gaussian.x, params=linear_gaussian.params, num_draws=500
    )
    np.testing.assert_allclose(
        estimate.std_error, np.sqrt(1 / estimate.effective_sample_size - 1 / 500), rtol=1e-4, atol=1e-6
    )
    assert (estimate.effective_sample_size <= 500).all()


def test_covariates_of_a_datum():
    # Oracle: x = c z + noise, with a covariate c of each datum, is Normal(0, sqrt(c^2 + 0.5^2)).
    def model(c, x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("x", dist.Normal(c * z, 0.5), obs=x)

    data = {"c": jnp.array([0.1, 1.0, 2.0, -1.5]), "x": jnp.array([0.3, -0.5, 1.0, 2.0])}
    estimate = importance_log_evidence(jax.random.key(3), model, data, num_draws=20_000)
    exact = dist.Normal(0, jnp.sqrt(data["c"] ** 2 + 0.25)).log_prob(data["x"])
    assert_within(estimate, exact)


def test_prior_that_reads_covariates():
    # Oracle: z ~ Normal(c, 1), x ~ Normal(z, 1) makes x Normal(c, sqrt(2)).
    def model(c, x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(c, 1))
            numpyro.sample("x", dist.Normal(z, 1), obs=x)

    c, x = jnp.array([0.0, 2.0, -3.0]), jnp.array([0.5, 1.0, -2.0])
    estimate = importance_log_evidence(jax.random.key(4), model, (c, x), num_draws=20_000)
    assert_within(estimate, dist.Normal(c, jnp.sqrt(2)).log_prob(x))


def test_missing_values():
    # Oracle: outputs a datum lacks drop out of its evidence; x_d = z + noise is correlated across outputs.
    def model(x, seen):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("x", dist.Normal(z[:, None], 0.7).expand([len(x), 3]).mask(seen).to_event(1), obs=x)

    x = jnp.array([[0.5, 0.1, 0.0], [1.0, 0.0, -0.3], [0.0, 0.0, 0.4]])
    seen = jnp.array([[True, True, False], [True, True, True], [False, False, True]])
    estimate = importance_log_evidence(jax.random.key(5), model, {"x": x, "seen": seen}, num_draws=20_000)
    covariance = np.ones((3, 3)) + 0.49 * np.eye(3)
    exact = [
        stats.multivariate_normal(cov=covariance[np.ix_(keep, keep)]).logpdf(row[keep])
        for row, keep in zip(np.asarray(x), np.asarray(seen), strict=True)
    ]
    assert_within(estimate, np.array(exact))


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
    assert_within(importance_log_evidence(jax.random.key(6), model, x, num_draws=20_000), exact)


def test_several_observed_sites_and_a_factor():
    # Oracle: two independent measurements of z, and a constant factor of 1.5 nats.
    # The same data as a dict and as a tuple, and the same draws, give the same numbers.
    def model(x, y):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("x", dist.Normal(z, 1), obs=x)
            numpyro.sample("y", dist.Normal(-z, 0.5), obs=y)
            numpyro.factor("bonus", 1.5 + 0 * z)

    x, y = jnp.array([0.2, -1.0]), jnp.array([0.4, 0.3])
    exact = stats.multivariate_normal(cov=[[2.0, -1.0], [-1.0, 1.25]]).logpdf(np.stack([x, y], -1)) + 1.5
    estimate = importance_log_evidence(jax.random.key(7), model, {"x": x, "y": y}, num_draws=20_000)
    assert_within(estimate, exact)
    from_tuple = importance_log_evidence(jax.random.key(7), model, (x, y), num_draws=20_000)
    np.testing.assert_array_equal(estimate.value, from_tuple.value)


def test_second_plate():
    # Oracle: three measurements of one latent, along a plate inside the datum, have covariance 1 1' + 0.25 I.
    def model(x):
        with numpyro.plate("data", len(x), dim=-2):
            z = numpyro.sample("z", dist.Normal(0, 1))
            with numpyro.plate("measurement", 3, dim=-1):
                numpyro.sample("x", dist.Normal(z, 0.5), obs=x)

    x = jnp.array([[0.5, 0.1, 0.0], [1.0, 0.0, -0.3]])
    exact = stats.multivariate_normal(cov=np.ones((3, 3)) + 0.25 * np.eye(3)).logpdf(x)
    assert_within(importance_log_evidence(jax.random.key(8), model, x, num_draws=20_000), exact)


def test_refuses(linear_gaussian):
    arguments = {"params": linear_gaussian.params, "num_draws": 10}
    for wrong, message in [
        ({"num_draws": 0}, "num_draws"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"params": None}, r"lacks the model's \['noise', 'offset', 'prior_loc', 'prior_scale', 'weight'\]"),
        ({"plate": "rows"}, r"'rows', but the model's plates are \['data'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            importance_log_evidence(jax.random.key(0), linear_gaussian.model, linear_gaussian.x, **(arguments | wrong))
