"""What a tilted prior asks of its reference distribution: bounds of its support, and both tails to full precision.

NumPyro's distributions state the lower tail only (`cdf`, `icdf`). One minus a CDF has lost every digit a few standard
deviations out, so the upper tail is taken from symmetry or from the transformed base wherever there is one.
"""

import math

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

# Named by their module: ArviZ loads NumPyro lazily, and after it `numpyro.distributions.truncated` is no attribute.
from numpyro.distributions.truncated import (
    LeftTruncatedDistribution,
    RightTruncatedDistribution,
    TwoSidedTruncatedDistribution,
)

from .quadrature import KRONROD, NODES, safe_log

_SYMMETRIC = (dist.Normal, dist.Cauchy, dist.Laplace, dist.Logistic, dist.StudentT, dist.SoftLaplace)
_SMOOTH_TO_THE_ENDS = (
    dist.Uniform,
    LeftTruncatedDistribution,
    RightTruncatedDistribution,
    TwoSidedTruncatedDistribution,
)


def check_reference(reference: Distribution) -> None:
    """Refuse a reference that a tilted prior cannot be built on.

    Raises:
        TypeError: where it is not a NumPyro distribution.
        ValueError: where it is multivariate or discrete, or has no `cdf` or no `icdf`.
    """
    if not isinstance(reference, Distribution):
        raise TypeError(f"reference={reference!r}: expected a NumPyro distribution such as Normal(0, 1).")
    name = type(reference).__name__
    if reference.event_shape != ():
        raise ValueError(
            f"reference={name} has event shape {reference.event_shape}: expected a univariate distribution."
        )
    if reference.support is None or reference.support.is_discrete:
        raise ValueError(f"reference={name} is discrete or has no support: expected a continuous distribution.")
    for method in ("cdf", "icdf"):
        try:
            half = jax.ShapeDtypeStruct((), jnp.result_type(float))
            jax.eval_shape(getattr(reference, method), half)
        except NotImplementedError:
            raise ValueError(
                f"reference={name} has no {method}: expected a distribution with cdf and icdf, such as Normal, LogNormal, "
                "Uniform or TruncatedNormal."
            ) from None


def support_bounds(reference: Distribution) -> tuple[ArrayLike, ArrayLike]:
    """Ends of the support, each of a shape that broadcasts with the reference's batch shape; +-inf where unbounded."""
    support = reference.support
    return getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)


def is_rough_at_ends(reference: Distribution) -> tuple[bool, bool]:
    """Whether the density may be singular or essentially flat at its lower and upper end, so that panels shrink there."""
    while isinstance(reference, dist.ExpandedDistribution):
        reference = reference.base_dist
    if isinstance(reference, _SMOOTH_TO_THE_ENDS):
        return False, False
    lower, upper = support_bounds(reference)
    return not _is_infinite(lower), not _is_infinite(upper)


def _is_infinite(bound):
    return isinstance(bound, float) and math.isinf(bound)


def log_lower_tail(reference: Distribution, x: Array) -> Array:
    """log P(z < x)."""
    match reference:
        case dist.ExpandedDistribution():
            return log_lower_tail(reference.base_dist, x)
        case dist.Normal():
            return jax.scipy.special.log_ndtr((x - reference.loc) / reference.scale)
        case dist.TransformedDistribution(transforms=[dist.transforms.ExpTransform()]):
            return log_lower_tail(reference.base_dist, jnp.log(x))
        case _:
            return safe_log(reference.cdf(x))


def log_upper_tail(reference: Distribution, x: Array) -> Array:
    """log P(z > x)."""
    match reference:
        case dist.ExpandedDistribution():
            return log_upper_tail(reference.base_dist, x)
        case dist.Uniform():
            return safe_log((reference.high - x) / (reference.high - reference.low))
        case dist.TransformedDistribution(transforms=[dist.transforms.ExpTransform()]):
            return log_upper_tail(reference.base_dist, jnp.log(x))
        case _ if isinstance(reference, _SYMMETRIC):
            return log_lower_tail(reference, 2 * reference.loc - x)
        case _:
            return safe_log(1 - reference.cdf(x))


def log_outside(reference: Distribution, low: Array, high: Array) -> tuple[Array, Array]:
    """log P(z < low) and log P(z > high) for an interval inside the support; -inf where an end is the support's."""
    support_low, support_high = support_bounds(reference)
    middle = 0.5 * (low + high)
    left = log_lower_tail(reference, jnp.where(low > support_low, low, middle))
    right = log_upper_tail(reference, jnp.where(high < support_high, high, middle))
    return jnp.where(low > support_low, left, -jnp.inf), jnp.where(high < support_high, right, -jnp.inf)


def upper_quantile(reference: Distribution, mass: Array) -> Array:
    """The point with `mass` above it."""
    match reference:
        case dist.ExpandedDistribution():
            return upper_quantile(reference.base_dist, mass)
        case dist.TransformedDistribution(transforms=[dist.transforms.ExpTransform()]):
            return jnp.exp(upper_quantile(reference.base_dist, mass))
        case _ if isinstance(reference, _SYMMETRIC):
            return 2 * reference.loc - reference.icdf(mass)
        case _:
            return reference.icdf(1 - mass)


def tail_expectation(quantile, log_mass: Array, function) -> Array:
    """Integral of `function` times the reference density over one tail, divided by the tail's mass.

    With m the tail's mass and z = quantile(m e^-s), the integral over the tail is that of function(z) e^-s over s > 0,
    done by Kronrod panels up to the smallest mass that floats can hold.

    Args:
        quantile: maps a tail mass to the point that has it beyond.
        log_mass: logarithm of the tail's mass, any shape; -inf for an empty tail.
        function: elementwise function of z.

    Returns:
        Conditional expectation, the shape of `log_mass`; 0 for an empty tail.
    """
    dtype = log_mass.dtype
    depth = 32.0 if dtype == jnp.float64 else 16.0
    edges = depth * jnp.linspace(0, 1, 17, dtype=dtype) ** 2
    half = 0.5 * jnp.diff(edges)[:, None]
    s = ((edges[:-1, None] + half) + half * jnp.asarray(NODES, dtype)).reshape(-1)
    weights = (half * jnp.asarray(KRONROD, dtype)).reshape(-1) * jnp.exp(-s)
    occupied = log_mass > jnp.log(jnp.finfo(dtype).tiny) + depth
    safe = jnp.where(occupied, log_mass, -1.0)
    shape = (-1,) + (1,) * log_mass.ndim
    z = quantile(jnp.exp(safe - s.reshape(shape)))
    total = jnp.sum(weights.reshape(shape) * function(z), axis=0)
    return jnp.where(occupied, total, 0.0)
