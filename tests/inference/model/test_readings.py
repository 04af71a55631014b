"""The log density of every reading against `numpyro.infer.util.log_density`."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import log_density

from kaem_ppl.inference.model.coordinates import Unconstrained, Whitened
from kaem_ppl.inference.model.power_posterior import read_power_posterior

from .example_models import (
    READ,
    READ_ALONG_PLATE,
    REFUSED,
    SERIES,
    X,
    Y,
    local_level,
    looks_at_data,
    plate_with_mean_of_data,
)


def read(example, plate=None, coordinates=Unconstrained()):  # noqa: B008
    return read_power_posterior(
        example.model, example.args, example.kwargs, params=example.params, plate=plate, coordinates=coordinates
    )


def seeded(example):
    return handlers.seed(handlers.substitute(example.model, data=example.params), 0)


def numpyros(example, values):
    """NumPyro's log density at values; that of unconstrained ones as far as the Jacobian goes; and all terms' sizes summed.

    No handler scales the Jacobian, other than in NumPyro's own potential energy.
    """
    exact, sites = log_density(seeded(example), example.args, example.kwargs, values)
    latents = [site for site in sites.values() if site["type"] == "sample" and not site["is_observed"]]
    jacobian, size = 0.0, 1.0
    for site in latents:
        transform = biject_to(site["fn"].support)
        coordinate = transform.inv(site["value"])
        jacobian += transform.log_abs_det_jacobian(coordinate, site["value"]).sum()
    for site in sites.values():
        if site["type"] == "sample":
            size += jnp.abs(site["fn"].log_prob(site["value"])).sum()
    return exact, jacobian, size


def radii(position, values):
    """Log-density of the radii r at which points stand for angles, by area: log-normal, of scale 0.2."""
    points = [x for name, x in position.items() if x.ndim > values[name].ndim]
    logs = [jnp.log(jnp.linalg.norm(x, axis=-1)) for x in points]
    return sum(jnp.sum(jax.scipy.stats.norm.logpdf(x, 0, 0.2) - 2 * x) for x in logs)


# Of models that ask the same of the reading the fast tests take one.
LIKE_ANOTHER = (
    *("eight schools, not centred", "baseball", "AR2", "Holt-Winters", "stochastic volatility", "UCB admissions"),
    *("ordinal regression", "Gaussian process", "zero-inflated Poisson", "hierarchical series", "funnel", "VAR"),
    *("Bayesian network", "mixture", "scan of supports", "scan under handlers", "cond in scan", "scale", "substitute"),
    *("supports", "whitened", "KAEM"),
)


@pytest.mark.parametrize("name", [pytest.param(x, marks=[pytest.mark.slow] * (x in LIKE_ANOTHER)) for x in READ])
def test_is_numpyros_log_density(name):
    example = READ[name]
    posterior = read(example)
    target = posterior.target(())

    @jax.jit
    def densities(key):
        position = target.draw(key)
        values = posterior.values((), position)
        ours = target.log_prior(position) + target.log_likelihood(position)
        exact, jacobian, size = numpyros(example, values)
        return values, ours, exact, jacobian + radii(position, values), size

    values, ours, exact, jacobian, size = densities(jax.random.key(1))
    assert jnp.isfinite(exact)
    np.testing.assert_allclose(ours, exact + jacobian, rtol=0, atol=1e-5 * size)
    assert set(values) == {site.name for site in posterior.latents}


@pytest.mark.parametrize("name", READ_ALONG_PLATE)
def test_data_together_are_numpyros_log_density(name):
    example = READ_ALONG_PLATE[name]
    posterior = read(example, "data")

    @jax.jit
    def densities(keys):
        def one(key, datum):
            target = posterior.target(datum)
            position = target.draw(key)
            return posterior.values(datum, position), target.log_prior(position) + target.log_likelihood(position)

        values, ours = jax.vmap(one)(keys, posterior.rows)
        axes = {site.name: site.plate_axis for site in posterior.latents}
        whole = {name: jnp.moveaxis(value, 0, axes[name]) for name, value in values.items()}
        return ours, *numpyros(example, whole)

    ours, exact, jacobian, size = densities(jax.random.split(jax.random.key(1), posterior.num_data))
    np.testing.assert_allclose(ours.sum(), exact + jacobian, rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_by_name(name):
    example, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        read(example)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
@pytest.mark.parametrize("coordinates", [Unconstrained(), Whitened()], ids=["unconstrained", "whitened"])
def test_scan_is_the_linear_gaussian_model(reverse, coordinates):
    # Oracle: the joint normal law of the observations; values stand in the order of the data, also where the scan runs
    # backwards.
    posterior = read_power_posterior(local_level, (SERIES,), {"reverse": reverse}, coordinates=coordinates)
    target = posterior.target(())
    walk = np.minimum.outer(np.arange(1, 5), np.arange(1, 5)).astype(np.float32)
    walk = walk[::-1, ::-1] if reverse else walk

    @jax.jit
    def sample(keys):
        def one(key):
            position = target.draw(key)
            values = posterior.values((), position)["level"]
            ours = target.log_prior(position) + target.log_likelihood(position)
            return position["level"], values, ours, target.log_likelihood(position)

        return jax.lax.map(one, keys, batch_size=1000)

    position, levels, joint, log_likelihood = sample(jax.random.split(jax.random.key(0), 40_000))
    np.testing.assert_allclose(np.cov(levels.T), walk, atol=0.15)
    prior = dist.MultivariateNormal(covariance_matrix=walk).log_prob(levels)
    if isinstance(coordinates, Whitened):
        prior = dist.Normal(0, 1).log_prob(position).sum(-1)
    likelihood = dist.Normal(levels, 1).log_prob(SERIES).sum(-1)
    np.testing.assert_allclose(joint, prior + likelihood, rtol=1e-4, atol=1e-3)
    # Four standard errors of the importance-sampling estimate.
    exact = dist.MultivariateNormal(covariance_matrix=walk + np.eye(4)).log_prob(SERIES)
    weights = np.exp(log_likelihood - exact)
    assert abs(weights.mean() - 1) < 4 * weights.std() / 200
    if not reverse:
        np.testing.assert_allclose(exact, -6.318, atol=1e-3)
    predicted = posterior.predict(jax.random.key(2), (), jax.tree.map(lambda x: x[0], {"level": position}))
    assert predicted["y"].shape == (4,)
    assert abs(predicted["y"] - SERIES).min() > 1e-4


def test_a_row_that_depends_on_others_is_refused():
    with pytest.raises(ValueError, match=r"of site 'x' of datum 0 .* all rows"):
        read_power_posterior(plate_with_mean_of_data, (Y,), {}, plate="data")


def test_a_global_that_changes_is_noticed():
    # Oracle: the model itself.
    offset = 0.0

    def model(y):
        z = numpyro.sample("z", dist.Normal(offset, 1))
        numpyro.sample("y", dist.Normal(z, 1), obs=y)

    @jax.jit
    def log_prior(posterior):
        return posterior.target(()).log_prior({"z": jnp.array(0.5)})

    def run():
        return log_prior(read_power_posterior(model, (SERIES,), {}))

    first, again = run(), run()
    assert log_prior._cache_size() == 1
    offset = 2.0
    np.testing.assert_allclose(
        [first, again, run()], dist.Normal(jnp.array([0.0, 0.0, 2.0]), 1).log_prob(0.5), rtol=1e-6
    )
    assert log_prior._cache_size() == 2


def test_arguments_that_are_looked_at_are_compiled_once_for_equal_values():
    @jax.jit
    def shape(posterior):
        return posterior.target(()).draw(jax.random.key(0))["z"]

    def run(levels):
        return shape(read_power_posterior(looks_at_data, (np.array(levels), SERIES, 2), {})).shape

    assert run([1, 0, 2, 1]) == run([1, 0, 2, 1]) == (2, 4)
    assert shape._cache_size() == 1
    assert run([1, 0, 4, 1]) == (2, 6)


def test_a_program_serves_other_data_of_the_same_shapes():
    @jax.jit
    def log_likelihood(posterior):
        return posterior.target(()).log_likelihood({"level": jnp.zeros(4)})

    for y in (SERIES, 2 * SERIES):
        posterior = read_power_posterior(local_level, (y,), {})
        np.testing.assert_allclose(log_likelihood(posterior), dist.Normal(0, 1).log_prob(y).sum(), rtol=1e-5)
    assert log_likelihood._cache_size() == 1


def test_a_model_that_differs_at_each_run_is_refused():
    numbers = iter(range(100))

    def model(y):
        z = numpyro.sample("z", dist.Normal(next(numbers), 1))
        numpyro.sample("y", dist.Normal(z, 1), obs=y)

    with pytest.raises(ValueError, match=r"of site 'z' is .* by NumPyro's own `log_density`"):
        read_power_posterior(model, (X[:, 0],), {})


def test_a_mean_over_data_beside_another_array_is_refused():
    def model(x, y):
        with numpyro.plate("data", len(y)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("y", dist.Normal(z + x - x.mean(), 1), obs=y)

    with pytest.raises(ValueError, match=r"of site 'y' of datum 0 .* all rows"):
        read_power_posterior(model, (X[:, 0], Y), {}, plate="data")


def test_rows_that_are_looked_at_are_refused():
    def model(y):
        with numpyro.plate("data", len(y)):
            z = numpyro.sample("z", dist.Normal(np.asarray(y).max(), 1))
            numpyro.sample("y", dist.Normal(z, 1), obs=y)

    with pytest.raises(ValueError, match="looks at the values of its data"):
        read_power_posterior(model, (Y,), {}, plate="data")
