"""The map from a standard normal variable, on every univariate continuous distribution, and the masses draws come from."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st
from numpyro import handlers

import kaem_ppl as kp
from kaem_ppl.inference import PCNL, EllipticalSlice, sample_posterior
from kaem_ppl.whitening import check_whitening, from_standard_normal, uniform_masses

from .reference.references import REFERENCES, Shifted
from .reference.test_reference import EACH, bar, size_of

E = np.array([-8.0, -7.0, -5.0, -3.0, -1.3, -0.1, 0.0, 0.4, 2.0, 5.0, 5.5, 8.0])


@pytest.mark.parametrize(
    "name", [pytest.param("Shifted", marks=pytest.mark.slow) if p.values == ("Shifted",) else p for p in EACH]
)
def test_agrees_with_scipy_from_minus_8_to_8(name, precision):
    # Oracle: SciPy's log masses in float64; an error of mass over the density is one of the point.
    make, law = REFERENCES[name]
    fn, e = make(), jnp.asarray(E)
    check_whitening("z", fn)
    z = from_standard_normal(fn, e)
    with handlers.substitute(data={"z_base": e}):
        reparameterised = handlers.reparam(
            lambda: numpyro.sample("z", fn.expand((len(E),))), config={"z": kp.InverseTransformReparam()}
        )()
    np.testing.assert_array_equal(reparameterised, z)
    slopes = jax.grad(lambda e: jnp.sum(from_standard_normal(fn, e)))(e)
    assert np.isfinite(z).all()
    assert np.isfinite(slopes).all()
    assert (slopes >= 0).all()
    z = np.asarray(z, float)
    low, high = law.support()
    with np.errstate(all="ignore"):
        density = np.exp(law.logpdf(z))
        mass = np.where(E < 0, np.exp(law.logcdf(z)), np.exp(law.logsf(z)))
        inside = (z > low) & (z < high) & (density > 0)
        error = np.abs(mass - st.norm.sf(np.abs(E))) / (density * size_of(z, law))
    assert np.all(error[inside] < bar()), error


def test_multivariate_normal():
    # Oracle: the covariance of a linear map.
    scale_tril = jnp.array([[1.0, 0.0], [0.5, 2.0]])
    fn = dist.MultivariateNormal(jnp.ones(2), scale_tril=scale_tril)
    e = jnp.array([1.0, -1.0])
    np.testing.assert_allclose(from_standard_normal(fn, e), 1 + scale_tril @ e)
    check_whitening("z", fn)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (dist.Poisson(1.0), "'z' has the distribution Poisson, which is discrete"),
        (dist.Dirichlet(jnp.ones(3)), "'z' has the multivariate distribution Dirichlet"),
        (dist.ImproperUniform(dist.constraints.real, (), ()), "no density"),
    ],
)
def test_refuses(fn, message):
    with pytest.raises(ValueError, match=message):
        check_whitening("z", fn)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_uniform_masses(dtype):
    # Binomial tests of counts below 2^-k and Kolmogorov-Smirnov: nine of a million draws, 1e-4 false alarms in all.
    with jax.enable_x64(dtype == jnp.float64):
        lower, upper = (np.asarray(x) for x in uniform_masses(jax.random.key(0), (1_000_000,), dtype))
    assert lower.dtype == dtype
    assert (np.minimum(lower, upper) > 0).all()
    assert np.unique(np.minimum(lower, upper)).size > (0.99 if dtype == jnp.float64 else 0.9) * 1_000_000
    assert st.kstest(lower, "uniform").pvalue > 1e-5
    for x in (lower, upper):
        for k in (2, 8, 12, 16):
            assert st.binomtest(int((x < 2.0**-k).sum()), x.size, 2.0**-k).pvalue > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [EllipticalSlice(), pytest.param(PCNL(), marks=pytest.mark.exhaustive)])
def test_a_users_subclass_keeps_its_law(sampler):
    # Oracle: N(3, 1) with a datum 1 of unit noise has the posterior N(2, 1/2), though `loc` says 0.
    def model(x):
        z = numpyro.sample("z", Shifted())
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    draws = sample_posterior(
        jax.random.key(0), model, jnp.array(1.0), sampler=sampler, num_chains=4, num_samples=1000, num_warmup=300
    )
    # Five standard errors of at least 300 effective draws: a false alarm in a million seeds.
    assert abs(float(jnp.mean(draws.samples["z"])) - 2.0) < 5 * np.sqrt(0.5 / 300)
