"""Closed forms of log CDF, log survival function and their inverses, by distribution.

Each form is of one class of NumPyro and its parameters. Every quantile takes a pair of log masses that both are accurate
(`complete`) and reads the one whose formula loses no digits. Formulas are those of Johnson, Kotz and Balakrishnan,
Continuous Univariate Distributions, 1994 and 1995, unless said otherwise.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import erfinv
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from .log_masses import LOG_2, log_hazard, log_normal_mass, log_remainder, normal_quantile, safe_exponential_rate

_HALF_PI = 0.5 * math.pi

# Distributions are `Any` below: of its parameters NumPyro's annotations say that they may be tuples.


class Form(NamedTuple):
    """How one class of distributions states its tails.

    Attributes:
        log_masses: distribution and points to log masses below and above, of which the smaller is accurate.
        quantile: distribution, log mass below and log mass above to points.
        bounds: distribution to the ends of its support.
    """

    log_masses: Callable[[Any, Array], tuple[Array, Array]]
    quantile: Callable[[Any, Array, Array], Array]
    bounds: Callable[[Any], tuple[ArrayLike, ArrayLike]]


def _real(_: Distribution) -> tuple[ArrayLike, ArrayLike]:
    return -math.inf, math.inf


def _positive(_: Distribution) -> tuple[ArrayLike, ArrayLike]:
    return 0.0, math.inf


def _small(log_below: Array, log_above: Array, below: Array, above: Array) -> Array:
    """`below` where the mass below is the smaller one, else `above`."""
    return jnp.where(log_below <= log_above, below, above)


def _location_scale(
    log_masses: Callable[[Array], tuple[Array, Array]], quantile: Callable[[Array, Array], Array]
) -> Form:
    """The form of a family x = loc + scale y from that of y, on the real line."""
    return Form(
        lambda d, x: log_masses((x - d.loc) / d.scale),
        lambda d, below, above: d.loc + d.scale * quantile(below, above),
        _real,
    )


def _normal_quantile(below: Array, above: Array) -> Array:
    z = normal_quantile(_small(below, above, below, above))
    return _small(below, above, z, -z)


def _cauchy(y: Array) -> tuple[Array, Array]:
    return jnp.log(jnp.arctan2(1.0, -y) / math.pi), jnp.log(jnp.arctan2(1.0, y) / math.pi)


def _cauchy_quantile(below: Array, above: Array) -> Array:
    y = 1 / jnp.tan(math.pi * jnp.exp(_small(below, above, below, above)))
    return _small(below, above, -y, y)


def _laplace(y: Array) -> tuple[Array, Array]:
    # The larger of the two is completed from the smaller.
    left = y <= 0
    return jnp.where(left, y, 0.0) - LOG_2, jnp.where(left, 0.0, -y) - LOG_2


def _laplace_quantile(below: Array, above: Array) -> Array:
    return _small(below, above, below + LOG_2, -(above + LOG_2))


def _soft_laplace_tail(y: Array) -> Array:
    """log of 2 / pi atan(exp(y)) (NumPyro's SoftLaplace)."""
    far = y < -20
    return math.log(2 / math.pi) + jnp.where(far, y, jnp.log(jnp.arctan(jnp.exp(jnp.where(far, 0.0, y)))))


def _soft_laplace_quantile(below: Array, above: Array) -> Array:
    small = _small(below, above, below, above)
    far = small < -20
    angle = _HALF_PI * jnp.exp(jnp.where(far, -1.0, small))
    y = jnp.where(far, small + math.log(_HALF_PI), jnp.log(jnp.tan(angle)))
    return _small(below, above, y, -y)


def _gumbel(y: Array) -> tuple[Array, Array]:
    below = -jnp.exp(-y)
    far = y > 20
    return below, jnp.where(far, -y, log_remainder(jnp.where(far, -1.0, below)))


def _gumbel_quantile(below: Array, above: Array) -> Array:
    return -log_hazard(above, below)


def _half_normal(d: Any, x: Array) -> tuple[Array, Array]:
    y = x / d.scale
    return jnp.log(jax.scipy.special.erf(y / math.sqrt(2))), LOG_2 + log_normal_mass(-y)


def _half_normal_quantile(d: Any, below: Array, above: Array) -> Array:
    near = math.sqrt(2) * erfinv(jnp.exp(jnp.minimum(below, -0.5)))
    return d.scale * _small(below, above, near, -normal_quantile(above - LOG_2))


def _half_cauchy(d: Any, x: Array) -> tuple[Array, Array]:
    y = x / d.scale
    return jnp.log(jnp.arctan2(y, 1.0) / _HALF_PI), jnp.log(jnp.arctan2(1.0, y) / _HALF_PI)


def _half_cauchy_quantile(d: Any, below: Array, above: Array) -> Array:
    t = jnp.tan(_HALF_PI * jnp.exp(_small(below, above, below, above)))
    return d.scale * _small(below, above, t, 1 / t)


def _uniform(d: Any, x: Array) -> tuple[Array, Array]:
    width = d.high - d.low
    return jnp.log((x - d.low) / width), jnp.log((d.high - x) / width)


def _uniform_quantile(d: Any, below: Array, above: Array) -> Array:
    width = d.high - d.low
    return _small(below, above, d.low + width * jnp.exp(below), d.high - width * jnp.exp(above))


def _asymmetric_laplace(d: Any, x: Array) -> tuple[Array, Array]:
    left, right = d.scale * d.asymmetry, d.scale / d.asymmetry
    y, total = x - d.loc, left + right
    below = jnp.log(left / total) + jnp.where(y < 0, y, 0.0) / left
    above = jnp.log(right / total) - jnp.where(y < 0, 0.0, y) / right
    # On its own side of the mode each is what it says, on the other the rest of the other.
    return jnp.where(y < 0, below, log_remainder(above)), jnp.where(y < 0, log_remainder(below), above)


def _asymmetric_laplace_quantile(d: Any, below: Array, above: Array) -> Array:
    left, right = d.scale * d.asymmetry, d.scale / d.asymmetry
    log_left, log_right = jnp.log(left / (left + right)), jnp.log(right / (left + right))
    is_left = below < log_left
    return d.loc + jnp.where(is_left, left * (below - log_left), -right * (above - log_right))


def _from_above(log_above: Callable[[Any, Array], Array]) -> Callable[[Any, Array], tuple[Array, Array]]:
    """Both log masses where the one above is accurate everywhere, also near 0."""

    def log_masses(d: Any, x: Array) -> tuple[Array, Array]:
        above = log_above(d, x)
        return log_remainder(above), above

    return log_masses


def _weibull_log_hazard(d: Any, x: Array) -> Array:
    return d.concentration * jnp.log(x / d.scale)


def _hazard_masses(log_h: Array) -> tuple[Array, Array]:
    """Log masses of a law whose log mass above is -exp(log_h)."""
    above = -jnp.exp(log_h)
    far = log_h < -20
    return jnp.where(far, log_h, log_remainder(jnp.where(far, -1.0, above))), above


def _kumaraswamy(d: Any, x: Array) -> tuple[Array, Array]:
    log_power = d.concentration1 * jnp.log(x)
    far = log_power < -20
    rest = log_remainder(jnp.where(far, -1.0, log_power))
    log_h = jnp.log(d.concentration0) + jnp.where(far, log_power, jnp.log(-rest))
    return _hazard_masses(log_h)


def _kumaraswamy_quantile(d: Any, below: Array, above: Array) -> Array:
    log_h = log_hazard(below, above) - jnp.log(d.concentration0)
    return jnp.exp(_hazard_masses(log_h)[0] / d.concentration1)


def _levy(d: Any, x: Array) -> tuple[Array, Array]:
    z = jnp.sqrt(d.scale / (x - d.loc))
    return LOG_2 + log_normal_mass(-z), jnp.log(jax.scipy.special.erf(z / math.sqrt(2)))


def _levy_quantile(d: Any, below: Array, above: Array) -> Array:
    # 1 / z^2 has no derivative in z left in float32 where the root is tiny, but one in its logarithm.
    is_tiny = above < -12
    root = math.sqrt(2) * erfinv(jnp.exp(jnp.where(is_tiny, -1.0, jnp.minimum(above, -0.5))))
    log_root = jnp.where(is_tiny, above + 0.5 * math.log(_HALF_PI), jnp.log(root))
    near = jnp.log(-normal_quantile(jnp.where(below <= above, below, -1.0) - LOG_2))
    return d.loc + d.scale * jnp.exp(-2 * _small(below, above, near, log_root))


def _dagum(d: Any, x: Array) -> tuple[Array, Array]:
    log_power = -d.sharpness * jnp.log(x / d.scale)
    far = log_power < -20
    log_g = jnp.where(far, log_power, jnp.log(jax.nn.softplus(jnp.where(far, 0.0, log_power))))
    above, below = _hazard_masses(jnp.log(d.concentration) + log_g)
    return below, above


def _dagum_quantile(d: Any, below: Array, above: Array) -> Array:
    log_g = log_hazard(above, below) - jnp.log(d.concentration)
    # log(expm1(g)) for g from 0 to infinity.
    near, far = log_g < -20, log_g > 3
    g = jnp.exp(jnp.where(near, 0.0, log_g))
    log_power = jnp.where(near, log_g, jnp.where(far, g, jnp.log(jnp.expm1(jnp.where(far, 1.0, g)))))
    log_power = log_power + jnp.where(far & ~near, log_remainder(-jnp.where(far, g, 1.0)), 0.0)
    return d.scale * jnp.exp(-log_power / d.sharpness)


def _power_law(d: Any, x: Array) -> Array:
    return (1 + d.alpha) * jnp.log1p((x - d.low) / d.low)


def _bounded_power_law(d: Any, x: Array) -> tuple[Array, Array]:
    """In y = log(x / low) the density is exp(a y) on [0, L], a = alpha + 1."""
    a, length = safe_exponential_rate(1 + d.alpha), jnp.log(d.high / d.low)
    y, rest = jnp.log1p((x - d.low) / d.low), jnp.log1p((x - d.high) / d.high)
    below = jnp.log(jnp.expm1(a * y) / jnp.expm1(a * length))
    above = jnp.log(jnp.expm1(a * rest) / jnp.expm1(-a * length))
    return below, above


def _bounded_power_law_quantile(d: Any, below: Array, above: Array) -> Array:
    a, length = safe_exponential_rate(1 + d.alpha), jnp.log(d.high / d.low)
    left = jnp.log1p(jnp.exp(below) * jnp.expm1(a * length)) / a
    right = jnp.log1p(jnp.exp(above) * jnp.expm1(-a * length)) / a
    return _small(below, above, d.low * jnp.exp(left), d.high * jnp.exp(right))


FORMS: dict[type[Distribution], Form] = {
    dist.Normal: _location_scale(lambda y: (log_normal_mass(y), log_normal_mass(-y)), _normal_quantile),
    dist.Cauchy: _location_scale(_cauchy, _cauchy_quantile),
    dist.Laplace: _location_scale(_laplace, _laplace_quantile),
    dist.SoftLaplace: _location_scale(
        lambda y: (_soft_laplace_tail(y), _soft_laplace_tail(-y)), _soft_laplace_quantile
    ),
    dist.Logistic: _location_scale(
        lambda y: (jax.nn.log_sigmoid(y), jax.nn.log_sigmoid(-y)), lambda below, above: below - above
    ),
    dist.Gumbel: _location_scale(_gumbel, _gumbel_quantile),
    dist.AsymmetricLaplace: Form(_asymmetric_laplace, _asymmetric_laplace_quantile, _real),
    dist.AsymmetricLaplaceQuantile: Form(
        lambda d, x: _asymmetric_laplace(d._ald, x),
        lambda d, below, above: _asymmetric_laplace_quantile(d._ald, below, above),
        _real,
    ),
    dist.HalfNormal: Form(_half_normal, _half_normal_quantile, _positive),
    dist.HalfCauchy: Form(_half_cauchy, _half_cauchy_quantile, _positive),
    dist.Uniform: Form(_uniform, _uniform_quantile, lambda d: (d.low, d.high)),
    dist.Exponential: Form(_from_above(lambda d, x: -d.rate * x), lambda d, below, above: -above / d.rate, _positive),
    dist.Weibull: Form(
        lambda d, x: _hazard_masses(_weibull_log_hazard(d, x)),
        lambda d, below, above: d.scale * jnp.exp(log_hazard(below, above) / d.concentration),
        _positive,
    ),
    dist.Gompertz: Form(
        _from_above(lambda d, x: -d.concentration * jnp.expm1(d.rate * x)),
        lambda d, below, above: jnp.log1p(-above / d.concentration) / d.rate,
        _positive,
    ),
    dist.Kumaraswamy: Form(_kumaraswamy, _kumaraswamy_quantile, lambda d: (0.0, 1.0)),
    dist.Levy: Form(_levy, _levy_quantile, lambda d: (d.loc, math.inf)),
    dist.Dagum: Form(_dagum, _dagum_quantile, _positive),
    dist.LowerTruncatedPowerLaw: Form(
        _from_above(_power_law),
        lambda d, below, above: d.low * jnp.exp(above / (1 + d.alpha)),
        lambda d: (d.low, math.inf),
    ),
    dist.DoublyTruncatedPowerLaw: Form(_bounded_power_law, _bounded_power_law_quantile, lambda d: (d.low, d.high)),
}
"""By the class that states the law; a subclass with a law of its own has no entry."""
