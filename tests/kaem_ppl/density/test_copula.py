"""Gaussian copulas: against NumPyro's multivariate normal, whitening, draws, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import kaem_ppl as kp

CORRELATION = jnp.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.1], [-0.3, 0.1, 1.0]])


def energy(shape):
    return kp.UnivariateKAN.init(jax.random.key(0), shape, basis=kp.RBF(8), domain=(-3, 3))


@pytest.fixture(scope="module")
def joint():
    return kp.KANCopula([kp.KANTilted(energy((2,)), dist.Normal(0, 1)), dist.Gamma(2.0, 1.0)], CORRELATION)


def test_of_normal_marginals_it_is_the_multivariate_normal():
    loc, scale = jnp.array([1.0, -2.0, 0.0]), jnp.array([1.0, 2.0, 0.5])
    copula = kp.KANCopula(dist.Normal(loc, scale), CORRELATION)
    normal = dist.MultivariateNormal(loc, scale[:, None] * CORRELATION * scale)
    x = normal.sample(jax.random.key(0), (20,))
    np.testing.assert_allclose(copula.log_prob(x), normal.log_prob(x), rtol=2e-5, atol=2e-5)
    assert copula.support is dist.constraints.real_vector
    far = loc + 9 * scale
    np.testing.assert_allclose(copula.log_prob(far), normal.log_prob(far), rtol=1e-4)


@pytest.mark.slow
def test_draws_have_the_marginals_and_the_dependence_that_were_asked_for(joint):
    x = np.asarray(joint.sample(jax.random.key(1), (4000,)))
    # Three tests at 1e-4 each; the correlation of normal scores within four standard errors.
    for i in range(2):
        marginal = np.asarray(joint.marginals[0].cdf(x[:, :2]))[:, i]
        assert stats.kstest(marginal, "uniform").pvalue > 1e-4
    assert stats.kstest(x[:, 2], stats.gamma(2).cdf).pvalue > 1e-4
    scores = np.asarray(joint.whiten(x)) @ np.linalg.cholesky(CORRELATION).T
    np.testing.assert_allclose(np.corrcoef(scores.T), CORRELATION, atol=4 / np.sqrt(4000))


@pytest.mark.exhaustive
def test_whitening_goes_both_ways_and_explains_the_density(joint):
    w = jax.random.normal(jax.random.key(2), (50, 3))
    x = joint.unwhiten(w)
    np.testing.assert_allclose(joint.whiten(x), w, atol=2e-4)
    # p(x) = N(w; 0, I) |dw / dx|.
    jacobian = jax.vmap(jax.jacfwd(joint.unwhiten))(w)
    expected = dist.Normal(0, 1).log_prob(w).sum(axis=-1) - jnp.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(joint.log_prob(x), expected, atol=1e-3)
    assert jnp.isneginf(joint.log_prob(jnp.array([0.0, 0.0, -1.0])))


@pytest.mark.exhaustive
def test_it_is_a_pytree_and_a_site_that_can_be_whitened(joint):
    x = joint.sample(jax.random.key(3), (5,))
    np.testing.assert_allclose(jax.jit(lambda d, x: d.log_prob(x))(joint, x), joint.log_prob(x), rtol=1e-4, atol=1e-4)

    def model():
        numpyro.sample("x", joint)

    whitened = numpyro.handlers.reparam(model, config={"x": kp.InverseTransformReparam()})
    trace = numpyro.handlers.trace(numpyro.handlers.seed(whitened, jax.random.key(4))).get_trace()
    np.testing.assert_allclose(trace["x"]["value"], joint.unwhiten(trace["x_base"]["value"]), rtol=1e-6)
    np.testing.assert_allclose(joint.mean[2], 2.0, rtol=1e-6)
    np.testing.assert_allclose(joint.variance[:2], joint.marginals[0].variance, rtol=1e-6)


@pytest.mark.parametrize(
    ("marginals", "correlation", "name"),
    [
        (3, CORRELATION, "marginals"),
        ([], CORRELATION, "marginals"),
        ([dist.Normal(0, 1), 2], CORRELATION, "marginals"),
        (dist.Poisson(jnp.ones(3)), CORRELATION, "marginals"),
        (dist.Normal(jnp.zeros((2, 3)), 1.0), CORRELATION, "marginals"),
        (dist.Normal(jnp.zeros(2), 1.0), CORRELATION, "dependence"),
        (dist.Normal(jnp.zeros(3), 1.0), 2 * CORRELATION, "dependence"),
        (dist.Normal(jnp.zeros(3), 1.0), jnp.ones((3, 3)), "dependence"),
    ],
)
def test_wrong_arguments_are_refused(marginals, correlation, name, assert_refused):
    assert_refused(lambda: kp.KANCopula(marginals, correlation), name)
