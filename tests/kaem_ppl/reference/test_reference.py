"""What a tilted prior asks of its reference, on every univariate continuous distribution, against SciPy in float64."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import kaem_ppl as kp
from kaem_ppl import reference as ref

from .references import CLOSED, REFERENCES, Tilted

MASSES = np.array([1e-16, 1e-12, 1e-8, 1e-5, 1e-3, 0.05, 0.2, 0.4, 0.49])
# One of each way to find tails; the exhaustive tier runs over all.
FAST = ["Normal", "Levy", "Shifted"]
SLOW = ["StudentT", "Weibull", "Beta", "MixtureGeneral", "Composed", "Gamma", "AsymmetricLaplace"]
EACH = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow if name in SLOW else pytest.mark.exhaustive)
    for name in REFERENCES
]
# Floats near 1000 are too coarse for a scale of a half.
COARSE_MOMENTS = {"Sech2": 1e-4}


def bar():
    return 1e-9 if jnp.result_type(float) == jnp.float64 else 1e-5


def size_of(z, law):
    """What an error of a point is relative to: the point, or a hundredth of the spread where it lies close to 0."""
    return np.maximum(np.abs(z), 0.05 * float(law.isf(0.25) - law.ppf(0.25)))


@pytest.mark.parametrize("name", EACH)
def test_quantiles_and_masses_of_both_tails(name, precision):
    # Oracle: SciPy's log masses at the points found; an error of mass over the density is one of the point.
    make, law = REFERENCES[name]
    fn = make()
    ref.check_reference(fn)
    log_masses = jnp.asarray(np.log(MASSES))
    points = [ref.lower_quantile(fn, log_masses), ref.upper_quantile(fn, log_masses)]
    found = [ref.log_lower_tail(fn, points[0]), ref.log_upper_tail(fn, points[1])]
    eps = float(jnp.finfo(points[0].dtype).eps)
    low, high = law.support()
    for z, log_mass, exact in zip(points, found, (law.logcdf, law.logsf), strict=True):
        z, log_mass = (np.asarray(x, float) for x in (z, log_mass))
        assert np.isfinite(z).all()
        assert ((z >= low - 4 * eps * abs(low)) & (z <= high + 4 * eps * abs(high))).all() or np.isinf(
            [low, high]
        ).any()
        with np.errstate(all="ignore"):
            density = np.exp(law.logpdf(z))
            # Close to an end of the support other than 0 no float has such a mass beyond it.
            inside = (z > low) & (z < high) & np.isfinite(density) & (density > 0)
            error = np.abs(np.exp(exact(z)) - MASSES) / (density * size_of(z, law))
            rounding = 4 * eps * np.abs(z) * density / np.exp(exact(z))
            inside &= rounding < 0.1
            wrong = np.abs(log_mass - exact(z))
        assert np.all(error[inside] < bar()), error
        assert np.all(wrong[inside] < (bar() + rounding)[inside]), wrong


def _each_moments():
    """Names with both precisions."""
    for name, dtype in itertools.product(REFERENCES, ("float32", "float64")):
        is_slow = (name, dtype) in (("Normal", "float64"), ("Levy", "float32"))
        yield pytest.param(name, dtype, marks=pytest.mark.slow if is_slow else pytest.mark.exhaustive)


@pytest.mark.parametrize(("name", "precision"), list(_each_moments()), indirect=["precision"])
def test_moments_at_no_energy_and_at_a_steep_one(name, precision):
    # Oracle: Gauss-Legendre sums of SciPy's density on 900 panels, in float64.
    make, law = REFERENCES[name]
    a, b = (float(np.float32(x)) for x in (law.ppf(0.02), law.isf(0.02)))
    rises = np.array([0.0, 20.0, -20.0])
    energy = kp.UnivariateKAN.init(jax.random.key(0), (3,), basis=kp.BSpline(1, num_grid=9), domain=(a, b))
    coef = jnp.asarray(rises[:, None] * np.linspace(0, 1, energy.coef.shape[-1]), energy.coef.dtype)
    ones = jnp.ones_like(energy.base_weight)
    energy = dataclasses.replace(energy, coef=coef, base_weight=0 * ones, spline_weight=ones)
    prior = kp.KANTilted(energy, make())
    found = np.stack([np.asarray(x, float) for x in (prior.mean, prior.variance, prior.entropy())])
    exact = np.stack([Tilted(law, (a, b), rise).moments() for rise in rises], axis=1)
    if name in ("Cauchy", "HalfCauchy", "Levy"):
        assert np.isnan(found[:2]).all()
        found, exact = found[2:], exact[2:]
        scale = np.maximum(np.abs(exact), 0.1)
    else:
        scale = np.maximum(np.abs(exact), [0.1 * np.sqrt(exact[1]), 0 * rises, 0 * rises + 0.1])
    limit = bar() if name not in COARSE_MOMENTS else max(bar(), COARSE_MOMENTS[name])
    np.testing.assert_array_less(np.abs(found - exact) / scale, limit)


@pytest.mark.slow
def test_a_steep_energy_draws_finite_points():
    # 100,000 draws of each from a tilt of 20 nats, at which clipped masses gave infinite ones.
    for make in (REFERENCES[name][0] for name in ("Gumbel", "StudentT", "Exponential")):
        energy = kp.UnivariateKAN.init(jax.random.key(0), (), basis=kp.BSpline(1, num_grid=9), domain=(0.5, 3.0))
        coef = jnp.linspace(0.0, 20.0, energy.coef.shape[-1])
        energy = dataclasses.replace(energy, coef=coef, base_weight=jnp.zeros(()), spline_weight=jnp.ones(()))
        assert jnp.isfinite(kp.KANTilted(energy, make()).sample(jax.random.key(1), (100_000,))).all()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "name", ["TruncatedNormal", *(pytest.param(x, marks=pytest.mark.exhaustive) for x in ("Gamma", "StudentT", "Beta"))]
)
def test_derivatives_in_the_parameters(name, x64):
    # Oracle: central differences of the same functions, parameters traced and so the table as well.
    makers = {
        "Gamma": lambda a: dist.Gamma(a, 1.5),
        "StudentT": lambda a: dist.StudentT(a, 0.5, 2.0),
        "Beta": lambda a: dist.Beta(a, 3.0),
        "TruncatedNormal": lambda a: dist.TruncatedNormal(0.0, 1.0, low=-a, high=4.0),
    }
    make, a, h = makers[name], 2.5, 1e-5
    functions = (
        lambda a: ref.upper_quantile(make(a), jnp.log(1e-6)),
        lambda a: ref.log_lower_tail(make(a), jnp.array(0.3)),
    )
    for function in functions:
        function = jax.jit(function)
        numerical = (function(a + h) - function(a - h)) / (2 * h)
        np.testing.assert_allclose(jax.jit(jax.grad(function))(a), numerical, rtol=1e-6)


@pytest.mark.slow
def test_batches_broadcast():
    fn = dist.Gamma(jnp.array([[0.5], [3.0]]), jnp.array([1.0, 2.0, 4.0])).expand((5, 2, 3))
    z = ref.lower_quantile(fn, jnp.full((7, 5, 2, 3), jnp.log(0.1)))
    exact = stats.gamma([[0.5], [3.0]], scale=[1.0, 0.5, 0.25]).ppf(0.1)
    np.testing.assert_allclose(z, np.broadcast_to(exact, z.shape), rtol=1e-5)
    wide = dist.Normal(0.0, 1.0).expand((3,))
    assert ref.check_reference(wide) is None
    np.testing.assert_allclose(ref.log_upper_tail(wide, jnp.full(3, 9.0)), stats.norm.logsf(9.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "bounds"),
    [
        (CLOSED["Normal"][0], (-np.inf, np.inf)),
        (CLOSED["LogNormal"][0], (0.0, np.inf)),
        (CLOSED["Uniform"][0], (-1.0, 4.0)),
        (REFERENCES["Decreasing"][0], (-np.inf, 2.0)),
        (REFERENCES["Levy"][0], (0.5, np.inf)),
        (REFERENCES["InverseGamma"][0], (0.0, np.inf)),
        (lambda: dist.Beta(2.0, 3.0), (0.0, 1.0)),
    ],
)
def test_support_bounds(make, bounds):
    assert tuple(float(x) for x in ref.support_bounds(make())) == bounds


def test_tail_expectation(x64):
    # Oracle: the closed form of a truncated normal's mean and second moment beyond 1, and of a power law's variance.
    exact = stats.truncnorm(1, np.inf)
    log_mass = jnp.asarray(stats.norm.logsf(1.0))
    upper = lambda m: ref.upper_quantile(dist.Normal(0.0, 1.0), m)  # noqa: E731
    for function, moment in ((lambda z: z, exact.mean()), (jnp.square, exact.moment(2))):
        np.testing.assert_allclose(ref.tail_expectation(upper, log_mass, function), moment, rtol=1e-10)
    assert float(ref.tail_expectation(upper, jnp.array(-jnp.inf), jnp.square)) == 0.0
    # Beyond 1 a power law of exponent 2.1 has the second moment 21, most of it where masses are below e^-80.
    power = lambda m: jnp.exp(-m / 2.1)  # noqa: E731
    np.testing.assert_allclose(ref.tail_expectation(power, jnp.array(0.0), jnp.square), 21.0, rtol=1e-9)
    assert float(ref.tail_expectation(lambda m: jnp.exp(-m), jnp.array(0.0), lambda z: z)) == np.inf


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
        (dist.ImproperUniform(dist.constraints.real, (), ()), ValueError),
        (dist.Delta(0.0), ValueError),
        (dist.Unit(0.0), ValueError),
        (dist.LeftCensoredDistribution(dist.Normal(0.0, 1.0), jnp.array(0)), ValueError),
        (dist.HurdleGamma(0.3, 1.0, 1.0) if hasattr(dist, "HurdleGamma") else dist.Delta(0.0), ValueError),
    ],
)
def test_refused_references(reference, error):
    with pytest.raises(error, match="reference"):
        ref.check_reference(reference)
