"""kl_divergence of tilted densities. Oracle: SciPy's adaptive quadrature of the two log-densities in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import kl_divergence
from scipy import integrate, stats

import kaem_ppl as kp

from .. import members

SIZES = (None, 3, 10)
PAIRS = {
    "its reference": (lambda: dist.Normal(0.0, 1.0), lambda i: stats.norm()),
    "another normal": (lambda: dist.Normal(jnp.array([0.0, 0.5, -1.0]), 2.0), lambda i: stats.norm([0, 0.5, -1][i], 2)),
    "a logistic": (lambda: dist.Logistic(0.3, 0.7), lambda i: stats.logistic(0.3, 0.7)),
}


def _tilted():
    return members.tilted("RBF", "Normal", SIZES)


def _other():
    return kp.KANTilted(members.bank("Fourier", (1, 2, 3)), dist.Normal(0.0, 1.0))


def _integrate(log_p, log_q):
    def integrand(z):
        a, b = float(log_p(z)), float(log_q(z))
        return np.exp(a) * (a - b) if a > -200 else 0.0

    return integrate.quad(integrand, -40, 40, points=[-9, -3, -1.5, 0, 1.5, 3, 9], limit=1000)[0]


@pytest.mark.parametrize(
    "pair", [pytest.param(name, marks=() if name == "another normal" else pytest.mark.slow) for name in PAIRS]
)
def test_against_a_distribution_of_numpyro(pair):
    make, oracle = PAIRS[pair]
    forward, backward = kl_divergence(_tilted(), make()), kl_divergence(make(), _tilted())
    for i in range(3):
        p, q = members.density("RBF", "Normal", i, SIZES), oracle(i)
        np.testing.assert_allclose(forward[i], _integrate(p.log_prob, q.logpdf), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(backward[i], _integrate(q.logpdf, p.log_prob), rtol=1e-5, atol=1e-5)


def test_of_two_tilted_densities():
    divergence = kl_divergence(_tilted(), _other())
    for i in range(3):
        p, q = members.density("RBF", "Normal", i, SIZES), members.density("Fourier", "Normal", i, (1, 2, 3))
        np.testing.assert_allclose(divergence[i], _integrate(p.log_prob, q.log_prob), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_laws_of_divergences():
    p = _tilted()
    mixture = kp.KANTiltedMixture(jnp.zeros(3), members.bank("RBF", SIZES), dist.Normal(0.0, 1.0))
    for d in (p, mixture):
        np.testing.assert_allclose(kl_divergence(d, d), 0.0, atol=1e-6)
    # A mixture is nearer to a density that its components are near to; by convexity no further than they are on average.
    normal = dist.Normal(0.0, 1.0)
    assert kl_divergence(mixture, normal) <= jnp.mean(kl_divergence(p, normal)) + 1e-5
    assert kl_divergence(p, dist.Normal(jnp.zeros((2, 1)), 1.0)).shape == (2, 3)
    assert kl_divergence(dist.Normal(jnp.zeros((2, 1)), 1.0), p).shape == (2, 3)
    events = kl_divergence(p.to_event(1), dist.Normal(jnp.zeros(3), 1.0).to_event(1))
    np.testing.assert_allclose(events, jnp.sum(kl_divergence(p, normal)), rtol=1e-5)
    np.testing.assert_allclose(kl_divergence(p.expand((2, 3)), p), 0.0, atol=1e-6)


@pytest.mark.slow
def test_infinite_where_there_is_no_density():
    assert np.all(kl_divergence(_tilted(), dist.Uniform(-4.0, 4.0)) == np.inf)
    assert np.all(kl_divergence(_tilted(), dist.HalfNormal(1.0)) == np.inf)
    assert np.all(np.isfinite(kl_divergence(dist.Uniform(-1.0, 1.0), _tilted())))
    assert np.all(np.isfinite(kl_divergence(dist.Uniform(5.0, 6.0), _tilted())))


@pytest.mark.exhaustive
def test_gradient(x64):
    # Oracle: central differences in float64.
    energy = members.bank("RBF", SIZES)

    def divergence(scale):
        p = kp.KANTilted(dataclasses.replace(energy, coef=scale * energy.coef), dist.Normal(0.0, 1.0))
        return jnp.sum(kl_divergence(p, dist.Normal(0.0, 1.0)))

    difference = (divergence(1 + 1e-4) - divergence(1 - 1e-4)) / 2e-4
    np.testing.assert_allclose(jax.grad(divergence)(1.0), difference, rtol=1e-6)
