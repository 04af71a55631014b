"""Truncated and censored tilted densities. Oracle: SciPy's quadrature of the log-density, and NumPyro's own shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to
from scipy import integrate, stats

import kaem_ppl as kp
from kaem_ppl.distributions import IntervalCensoredTilted, LeftCensoredTilted, RightCensoredTilted

from .. import members

SIZES = (None, 3, 10)


def _tilted():
    return members.tilted("RBF", "Normal", SIZES)


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [(-1.0, 0.5), (None, -3.5), (2.0, None), (4.0, 6.0), (None, None)])
def test_moments_and_masses(bounds):
    d = _tilted().truncate(*bounds)
    low, high = (-12 if bounds[0] is None else bounds[0]), (12 if bounds[1] is None else bounds[1])
    u = jnp.array([1e-6, 0.1, 0.5, 0.9])[:, None]
    np.testing.assert_allclose(d.cdf(d.icdf(u)), jnp.broadcast_to(u, (4, 3)), rtol=1e-4, atol=1e-6)
    draws = d.sample(jax.random.key(0), (1000,))
    assert np.all((draws >= low) & (draws <= high))
    for i in range(3):
        p = members.density("RBF", "Normal", i, SIZES)
        points = [x for x in (-3, -1, 0, 1, 3) if low < x < high] or None

        def moment(g, p=p, points=points):
            f = lambda z: g(z) * np.exp(p.log_prob(z))  # noqa: E731
            return integrate.quad(f, low, high, points=points, limit=500, epsabs=0)[0]

        mass = moment(lambda z: 1.0)
        mean = moment(lambda z: z) / mass
        variance = moment(lambda z, mean=mean: (z - mean) ** 2) / mass
        np.testing.assert_allclose(d.mean[i], mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(d.variance[i], variance, rtol=1e-4)
        middle = 0.5 * (low + high)
        np.testing.assert_allclose(d.log_prob(middle)[i], p.log_prob(middle) - np.log(mass), rtol=1e-5, atol=1e-5)


@pytest.mark.exhaustive
def test_truncated_as_a_distribution_of_numpyro():
    # Oracle: SciPy's truncated normal, for a tilted density without a tilt.
    flat = jax.tree.map(jnp.zeros_like, members.bank("RBF", (1.0,)))
    energy = members.bank("RBF", (1.0,))
    flat = kp.UnivariateKAN(
        flat.coef, flat.base_weight, flat.spline_weight, energy.grid, energy.width, energy.domain, energy.basis
    )
    d = kp.KANTilted(flat, dist.Normal(0.0, 1.0)).truncate(jnp.array([[-1.0], [3.5]]), 5.0)
    assert d.batch_shape == (2, 1)
    for i, low in enumerate((-1.0, 3.5)):
        oracle = stats.truncnorm(low, 5.0)
        np.testing.assert_allclose(d.mean[i, 0], oracle.mean(), rtol=1e-5)
        np.testing.assert_allclose(d.entropy()[i, 0], oracle.entropy(), rtol=1e-4)
        assert stats.kstest(np.asarray(d.sample(jax.random.key(1), (2000,))[:, i, 0]), oracle.cdf).pvalue > 1e-4
    np.testing.assert_array_equal(d.log_prob(6.0), -jnp.inf)
    again = jax.jit(lambda d: d.log_prob(4.0))(d)
    np.testing.assert_allclose(again, d.log_prob(4.0), rtol=1e-5)
    # The bound's own derivative: d/dlow log p(z) = p(low) / mass.
    slope = jax.grad(lambda low: _tilted().truncate(low).log_prob(1.0)[0])(0.5)
    np.testing.assert_allclose(slope, jnp.exp(_tilted().truncate(0.5).log_prob(0.5)[0]), rtol=1e-4)


def test_bounds_without_mass_are_refused():
    with pytest.raises(ValueError, match="low"):
        _tilted().truncate(1.0, 0.0)


@pytest.mark.parametrize("flags", [np.array([0, 1, 0]), np.array([[0, 1, 0], [1, 0, 0]]), np.array(1)])
def test_censored(flags):
    d, normal = _tilted(), dist.Normal(jnp.zeros(3), 1.0)
    z = jnp.broadcast_to(jnp.array([0.3, -0.2, 1.0]), np.broadcast_shapes((3,), flags.shape))
    key = jax.random.key(0)
    below, above = d.tails(z)
    for cls, theirs, mass in (
        (LeftCensoredTilted, dist.LeftCensoredDistribution, below),
        (RightCensoredTilted, dist.RightCensoredDistribution, above),
    ):
        ours, like = cls(d, flags), theirs(normal, flags)
        assert isinstance(ours, theirs)
        assert ours.batch_shape == like.batch_shape
        assert ours.sample(key, (2,)).shape == like.sample(key, (2,)).shape
        expected = jnp.where(flags, jnp.log(mass), d.log_prob(z))
        np.testing.assert_allclose(ours.log_prob(z), expected, rtol=1e-5, atol=1e-6)
    pairs = jnp.stack([z - 0.5, z + 0.5], axis=-1)
    between = IntervalCensoredTilted(d, 0 * flags, 0 * flags).log_prob(pairs)
    np.testing.assert_allclose(between, jnp.log(d.cdf(z + 0.5) - d.cdf(z - 0.5)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bounds", [(None, None), (0.5, None), (None, 0.5), (-1.0, 1.0)])
def test_support_of_a_truncation(bounds):
    # Law: NumPyro's own map from the real line reaches the support, also where a side is left as it is.
    d = _tilted().truncate(*bounds)
    z = biject_to(d.support)(jnp.array([[-3.0], [0.0], [3.0]]))
    assert np.all(np.isfinite(d.log_prob(z)))


def test_censored_far_out_keeps_its_digits():
    # Oracle: NumPyro's normal survival function in logarithms; the mass itself underflows in float32.
    energy = kp.UnivariateKAN.init(jax.random.key(0), (), basis=kp.RBF(20), domain=(-3.0, 3.0))
    prior = kp.KANTilted(energy, dist.Normal(0.0, 1.0))
    expected = prior.log_ratio(jnp.array(3.0)) + jax.scipy.stats.norm.logsf(20.0)
    found = RightCensoredTilted(prior, jnp.array(1)).log_prob(jnp.array(20.0))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
