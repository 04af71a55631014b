"""Paths through the latents of a prior, and how much each latent matters, against what follows from the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import kaem_ppl as kp
from kaem_ppl.models import interpolate, latent_effects, traverse


@pytest.fixture(scope="module")
def prior():
    basis = kp.RBF(8, coef_scale=2.0)
    energy = kp.UnivariateKAN.init(jax.random.key(0), (3,), basis=basis, domain=(-3, 3))
    return kp.KANTilted(energy, dist.Normal(0, 1))


@pytest.mark.slow
def test_every_point_between_draws_follows_the_prior(prior):
    # Kolmogorov-Smirnov against the prior's own CDF, 15 tests: a false alarm in 1.5e-3 of seeds. A straight line's midpoint
    # fails all of them.
    start, end = prior.sample(jax.random.key(1), (2, 5000))
    path = interpolate(prior.to_event(1), start, end, 5)
    np.testing.assert_array_equal(path[0], start)
    np.testing.assert_array_equal(path[-1], end)
    masses = np.asarray(prior.cdf(path))
    assert min(stats.kstest(masses[i, :, j], "uniform").pvalue for i in range(5) for j in range(3)) > 1e-4
    straight = np.asarray(prior.cdf(0.5 * (start + end)))
    assert max(stats.kstest(straight[:, j], "uniform").pvalue for j in range(3)) < 1e-4


def test_of_normal_priors_it_is_the_great_circle():
    start, end = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
    path = interpolate(dist.Normal(0, 1).expand([2]).to_event(1), start, end, 3)
    np.testing.assert_allclose(path[1], (start + end) / np.sqrt(2), rtol=1e-5)


@pytest.mark.slow
def test_a_traversal_moves_one_latent_along_its_quantiles(prior):
    z = prior.sample(jax.random.key(2))
    path = traverse(prior, z, 1, 5, mass=0.8)
    np.testing.assert_allclose(prior.cdf(path)[:, 1], np.linspace(0.1, 0.9, 5), atol=2e-6)
    np.testing.assert_array_equal(path[:, [0, 2]], jnp.broadcast_to(z[jnp.array([0, 2])], (5, 2)))


def test_effects_of_a_linear_generator_are_its_coefficients(prior):
    weight = jnp.array([[2.0, 0.0], [0.0, 0.0], [1.0, -1.0]])
    effects = latent_effects(0, lambda z: z @ weight, prior, mass=0.8)
    width = np.asarray(prior.icdf(0.9) - prior.icdf(0.1))
    np.testing.assert_allclose(effects, width * np.sqrt((np.asarray(weight) ** 2).mean(1)), rtol=1e-5)


def test_latents_that_are_added_up_move_together():
    # Of normal latents the sum of three has the standard deviation sqrt(3), and the quantiles of that.
    prior = dist.Normal(1.0, 2.0).expand([2, 3])
    effects = latent_effects(0, lambda z: z.sum(-1) @ jnp.array([[1.0], [0.0]]), prior, mass=0.8, num_axes=1)
    np.testing.assert_allclose(effects, [2 * np.sqrt(3) * 2 * stats.norm.ppf(0.9), 0.0], rtol=1e-4, atol=1e-6)
    z = prior.sample(jax.random.key(0))
    path = traverse(prior, z, 1, 3, mass=0.8)
    expected = 3 + 2 * np.sqrt(3) * stats.norm.ppf([0.1, 0.5, 0.9])
    np.testing.assert_allclose(path[:, 1].sum(-1), expected, rtol=1e-4)
    np.testing.assert_array_equal(path[:, 0], jnp.broadcast_to(z[0], (3, 3)))


def test_refuses(prior, assert_refused):
    z = jnp.zeros(3)
    for name, call in (
        ("start", lambda: interpolate(prior, jnp.zeros(2), z)),
        ("end", lambda: interpolate(dist.LogNormal(0, 1).expand([3]), z + 1, z - 1)),
        ("num_points", lambda: interpolate(prior, z, z, 1)),
        ("prior", lambda: interpolate(dist.Poisson(jnp.ones(3)), z, z)),
        ("index", lambda: traverse(prior, z, 3)),
        ("mass", lambda: traverse(prior, z, 0, mass=1.0)),
        ("`z`", lambda: traverse(prior, jnp.zeros(2), 0)),
        ("decode", lambda: latent_effects(0, None, prior)),
        ("num_axes", lambda: latent_effects(0, jnp.sin, prior, num_axes=0)),
        ("num_draws", lambda: latent_effects(0, jnp.sin, prior, num_draws=0)),
    ):
        assert_refused(call, name)
