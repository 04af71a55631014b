"""Maps from any support to an interval on which a density is smooth.

A half-line is low + m exp(t), or high - m exp(-t); the real line is c + s sinh(t); an interval is
low + (high - low) sigmoid(t). Power laws, at an end of the support and at infinity, are straight lines in t.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.distributions.truncated import (
    LeftTruncatedDistribution,
    RightTruncatedDistribution,
    TwoSidedTruncatedDistribution,
)

# `Any` below is for parameters, of which NumPyro's annotations say that they may be tuples.
_TRUNCATED = (LeftTruncatedDistribution, RightTruncatedDistribution, TwoSidedTruncatedDistribution)


class Coordinate(NamedTuple):
    """A monotone map from t on the real line to a support.

    Attributes:
        start: the low end of a half-line or an interval, or c; a shape that broadcasts with the batch shape.
        stop: the high end of a half-line or an interval; ignored on the real line.
        scale: m or s; ignored on an interval.
    """

    start: Array
    stop: Array
    scale: Array


def bounded(low: ArrayLike, high: ArrayLike) -> tuple[bool, bool]:
    """Which ends of a support are finite."""
    is_low, is_high = (not (isinstance(x, float) and math.isinf(x)) for x in (low, high))
    return is_low, is_high


def to_point(ends: tuple[bool, bool], at: Coordinate, t: Array) -> Array:
    """The point of a coordinate."""
    match ends:
        case True, True:
            width = at.stop - at.start
            left = t < 0
            small = jax.nn.sigmoid(-jnp.abs(t))
            return jnp.where(left, at.start + width * small, at.stop - width * small)
        case True, False:
            return at.start + at.scale * jnp.exp(t)
        case False, True:
            return at.stop - at.scale * jnp.exp(-t)
    return at.start + at.scale * jnp.sinh(t)


def to_coordinate(ends: tuple[bool, bool], at: Coordinate, x: Array) -> Array:
    """The coordinate of a point inside the support."""
    match ends:
        case True, True:
            return jnp.log(x - at.start) - jnp.log(at.stop - x)
        case True, False:
            return jnp.log((x - at.start) / at.scale)
        case False, True:
            return -jnp.log((at.stop - x) / at.scale)
    return jnp.arcsinh((x - at.start) / at.scale)


def log_jacobian(ends: tuple[bool, bool], at: Coordinate, t: Array) -> Array:
    """log dx / dt, up to a constant where that is one."""
    match ends:
        case True, True:
            return jax.nn.log_sigmoid(t) + jax.nn.log_sigmoid(-t)
        case True, False:
            return t
        case False, True:
            return -t
    size = jnp.abs(t)
    return size + jnp.log1p(jnp.exp(-2 * size))


def log_density(reference: Distribution, ends: tuple[bool, bool]) -> Callable[[Coordinate, Array], Array]:
    """The reference's log-density in t, up to a constant, as a function of a coordinate and points (M, ...) of it."""
    if isinstance(reference, _TRUNCATED) and type(reference).log_prob in {c.log_prob for c in _TRUNCATED}:
        # Without the normaliser, in which a truncation far out leaves no digits.
        log_prob = reference.base_dist.log_prob
    elif isinstance(reference, dist.Beta) and type(reference).log_prob is dist.Beta.log_prob:
        # No float lies close to 1, where the density may be singular: in t it is a sum of two sigmoids.
        return partial(_beta, reference)
    else:
        log_prob = reference.log_prob

    def value(at: Coordinate, t: Array) -> Array:
        largest = jnp.finfo(t.dtype).max
        point = jnp.clip(to_point(ends, at, t), -largest, largest)
        result = log_prob(point) + log_jacobian(ends, at, t)
        return jnp.where(jnp.isnan(result) | (result == jnp.inf), -jnp.inf, result)

    return value


def _beta(reference: Any, at: Coordinate, t: Array) -> Array:
    a, b = reference.concentration1, reference.concentration0
    return a * jax.nn.log_sigmoid(t) + b * jax.nn.log_sigmoid(-t)


def kinks(reference: Distribution) -> list[Any]:
    """Points inside the support at which the density of a known class is not smooth."""
    match reference:
        case dist.Laplace() | dist.AsymmetricLaplace() | dist.AsymmetricLaplaceQuantile():
            return [reference.loc]
        case dist.FoldedDistribution():
            return [jnp.abs(x) for x in kinks(reference.base_dist)]
        case _ if isinstance(reference, (*_TRUNCATED, dist.ExpandedDistribution)):
            return kinks(reference.base_dist)
    return []


def magnitudes(dtype: jnp.dtype, number: int) -> np.ndarray:
    """Positive numbers of every magnitude that floats and their squares have, increasing, shape (number,)."""
    info = jnp.finfo(dtype)
    return np.exp(np.linspace(np.log(float(info.tiny)) * 0.9, np.log(float(info.max)) * 0.9, number))
