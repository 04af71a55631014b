import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from kaem_ppl.inference.whitening import check_whitening, from_standard_normal

# Distribution, and SciPy's of the same law.
FAMILIES = {
    "normal": (dist.Normal(1.0, 2.0), st.norm(1, 2)),
    "lognormal": (dist.LogNormal(0.3, 0.7), st.lognorm(0.7, scale=np.exp(0.3))),
    "uniform": (dist.Uniform(-1.0, 3.0), st.uniform(-1, 4)),
    "half normal": (dist.HalfNormal(2.0), st.halfnorm(scale=2)),
    "half Cauchy": (dist.HalfCauchy(5.0), st.halfcauchy(scale=5)),
    "exponential": (dist.Exponential(2.0), st.expon(scale=0.5)),
    "Gumbel": (dist.Gumbel(0.5, 1.5), st.gumbel_r(0.5, 1.5)),
    "logistic": (dist.Logistic(0.5, 1.5), st.logistic(0.5, 1.5)),
    "Laplace": (dist.Laplace(0.5, 1.5), st.laplace(0.5, 1.5)),
    "Cauchy": (dist.Cauchy(0.5, 1.5), st.cauchy(0.5, 1.5)),
    "turned round": (
        dist.TransformedDistribution(dist.Exponential(1.0), dist.transforms.AffineTransform(2.0, -3.0)),
        None,
    ),
    "expanded": (dist.HalfNormal(2.0).expand((3,)).to_event(1), st.halfnorm(scale=2)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_agrees_with_scipy_in_both_tails(name):
    # Oracle: SciPy's quantile and survival quantile in double precision.
    fn, law = FAMILIES[name]
    e = jnp.array([-7.0, -5.0, -1.3, -0.1, 0.0, 0.4, 2.0, 5.0, 7.0])
    shape = (9, *fn.batch_shape, *fn.event_shape)
    z = np.asarray(from_standard_normal(fn, jnp.broadcast_to(e.reshape(9, *(1 for _ in shape[1:])), shape)))
    if law is None:
        exact = 2 - 3 * st.expon.isf(st.norm.cdf(np.asarray(e, float)))
    else:
        mass = st.norm.cdf(-np.abs(np.asarray(e, float)))
        exact = np.where(e < 0, law.ppf(mass), law.isf(mass))
    exact = np.broadcast_to(exact.reshape(9, *(1 for _ in shape[1:])), shape)
    # Where a location is added to a tail, only digits of the sum are left.
    np.testing.assert_allclose(z, exact, rtol=2e-5, atol=1e-6 if np.abs(exact).min() > 1e-3 else 1e-12)
    slopes = jax.vmap(jax.grad(lambda e: jnp.sum(from_standard_normal(fn, jnp.broadcast_to(e, shape[1:])))))(e)
    assert np.isfinite(slopes).all()
    assert (slopes > 0).all()


def test_one_sided_distribution_stays_inside_its_support():
    fn = dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0)
    z = from_standard_normal(fn, jnp.array([-9.0, 0.0, 9.0]))
    assert np.isfinite(z).all()
    assert ((z >= -1) & (z <= 2)).all()


def test_multivariate_normal():
    # Oracle: the covariance of a linear map.
    scale_tril = jnp.array([[1.0, 0.0], [0.5, 2.0]])
    fn = dist.MultivariateNormal(jnp.ones(2), scale_tril=scale_tril)
    np.testing.assert_allclose(
        from_standard_normal(fn, jnp.array([1.0, -1.0])), 1 + scale_tril @ jnp.array([1.0, -1.0])
    )
    check_whitening("z", fn)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (dist.VonMises(0.0, 1.0), "'z' has the distribution VonMises, which has no icdf"),
        (dist.Dirichlet(jnp.ones(3)), "'z' has the multivariate distribution Dirichlet"),
        (dist.ImproperUniform(dist.constraints.real, (), ()), "no icdf"),
    ],
)
def test_refuses(fn, message):
    with pytest.raises(ValueError, match=message):
        check_whitening("z", fn)
