"""What a tilted prior asks of its reference, against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from kaem_ppl import reference as ref

TAILS = {
    "Normal": (lambda: dist.Normal(0.5, 2.0), stats.norm(0.5, 2.0)),
    "LogNormal": (lambda: dist.LogNormal(0.1, 0.7), stats.lognorm(s=0.7, scale=np.exp(0.1))),
    "Uniform": (lambda: dist.Uniform(-1.0, 4.0), stats.uniform(-1, 5)),
    "TruncatedNormal": (lambda: dist.TruncatedNormal(0.0, 1.0, low=-2.0, high=4.0), stats.truncnorm(-2, 4)),
    "Cauchy": (lambda: dist.Cauchy(0.5, 2.0), stats.cauchy(0.5, 2.0)),
    "Logistic": (lambda: dist.Logistic(0.5, 2.0), stats.logistic(0.5, 2.0)),
    "Laplace": (lambda: dist.Laplace(0.5, 2.0), stats.laplace(0.5, 2.0)),
    "Exponential": (lambda: dist.Exponential(1.5), stats.expon(scale=1 / 1.5)),
}


@pytest.mark.parametrize("name", TAILS)
def test_tails(name, x64):
    # Oracle: SciPy's logcdf and logsf where the tail mass is above 1e-12: one minus a CDF can do no better in general.
    make, exact = TAILS[name]
    probabilities = np.array([1e-8, 1e-3, 0.3, 0.7, 1 - 1e-3, 1 - 1e-8])
    z = exact.ppf(probabilities)
    np.testing.assert_allclose(ref.log_lower_tail(make(), jnp.asarray(z)), exact.logcdf(z), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(ref.log_upper_tail(make(), jnp.asarray(z)), exact.logsf(z), rtol=1e-6, atol=1e-12)
    masses = np.array([1e-8, 0.01, 0.4, 0.9])
    np.testing.assert_allclose(ref.upper_quantile(make(), jnp.asarray(masses)), exact.isf(masses), rtol=1e-5)


@pytest.mark.parametrize("name", ["Normal", "LogNormal"])
def test_far_tails_in_float32(name):
    # Oracle: SciPy; ten standard deviations out one minus a CDF would have no digit left.
    make, exact = TAILS[name]
    for probability in (1e-6, 1e-20, 1e-30):
        low, high = exact.ppf(probability), exact.isf(probability)
        np.testing.assert_allclose(ref.log_lower_tail(make(), jnp.array(low)), np.log(probability), rtol=1e-5)
        np.testing.assert_allclose(ref.log_upper_tail(make(), jnp.array(high)), np.log(probability), rtol=1e-5)
        np.testing.assert_allclose(ref.upper_quantile(make(), jnp.array(probability)), high, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "bounds"),
    [
        (TAILS["Normal"][0], (-np.inf, np.inf)),
        (TAILS["LogNormal"][0], (0.0, np.inf)),
        (TAILS["Uniform"][0], (-1.0, 4.0)),
        (TAILS["TruncatedNormal"][0], (-2.0, 4.0)),
        (lambda: dist.Beta(2.0, 3.0), (0.0, 1.0)),
    ],
)
def test_support_bounds(make, bounds):
    assert tuple(float(x) for x in ref.support_bounds(make())) == bounds


def test_expanded_references_keep_their_tails():
    wide = dist.Normal(0.0, 1.0).expand((3,))
    np.testing.assert_allclose(ref.log_upper_tail(wide, jnp.full(3, 9.0)), stats.norm.logsf(9.0), rtol=1e-5)
    np.testing.assert_allclose(ref.log_lower_tail(wide, jnp.full(3, -9.0)), stats.norm.logcdf(-9.0), rtol=1e-5)
    np.testing.assert_allclose(ref.upper_quantile(wide, jnp.full(3, 1e-9)), stats.norm.isf(1e-9), rtol=1e-5)


def test_tail_expectation(x64):
    # Oracle: the closed form of a truncated normal's mean and second moment beyond 1.
    exact = stats.truncnorm(1, np.inf)
    log_mass = jnp.asarray(stats.norm.logsf(1.0))
    upper = lambda m: ref.upper_quantile(dist.Normal(0.0, 1.0), m)  # noqa: E731
    for function, moment in ((lambda z: z, exact.mean()), (jnp.square, exact.moment(2))):
        np.testing.assert_allclose(ref.tail_expectation(upper, log_mass, function), moment, rtol=1e-10)
    assert float(ref.tail_expectation(upper, jnp.array(-jnp.inf), jnp.square)) == 0.0


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("Normal", TypeError),
        (stats.norm, TypeError),
        (None, TypeError),
        (dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), ValueError),
        (dist.Normal(jnp.zeros(2), 1.0).to_event(1), ValueError),
        (dist.Poisson(3.0), ValueError),
        (dist.Bernoulli(0.5), ValueError),
        (dist.VonMises(0.0, 1.0), ValueError),
        (dist.Delta(0.0), ValueError),
    ],
)
def test_refused_references(reference, error):
    with pytest.raises(error, match="reference"):
        ref.check_reference(reference)


@pytest.mark.parametrize("name", TAILS)
def test_accepted_references(name):
    assert ref.check_reference(TAILS[name][0]()) is None
    assert jax.tree.leaves(TAILS[name][0]())
