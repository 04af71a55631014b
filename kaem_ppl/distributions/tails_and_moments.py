"""CDF, survival function, quantiles and moments from the table of a tilted density and its reference's tails.

Compiled once per kind and shape of distribution. Inside the interval of the energy the table answers; beyond it the density
is the reference's times a constant, and its log masses are the reference's plus one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from .. import reference as ref
from ..quadrature import FROM_LEGENDRE, KRONROD, contract, panel_nodes, safe_log
from ..quadrature.table import Table, quantile, tails

if TYPE_CHECKING:
    from .base import TiltedDistribution


@jax.jit
def log_tails(self: TiltedDistribution, table: Table, outer: ref.Tails, value: ArrayLike) -> tuple[Array, Array]:
    """Log masses below and above points, the smaller accurate."""
    value = jnp.asarray(value, table.lower.dtype)
    value = jnp.broadcast_to(value, lax.broadcast_shapes(value.shape, self.batch_shape))
    low, high = self.interval
    inner = self._by_function(jnp.clip(value, low, high))
    inside = tuple(safe_log(self._by_sample(x, value.shape)) for x in tails(table, inner))

    support_low, support_high = ref.support_bounds(self.reference)
    in_left, in_right = (value < low) & (value > support_low), (value > high) & (value < support_high)
    left, _ = ref.complete(*outer.log_masses(jnp.where(in_left, value, self._middle)))
    _, right = ref.complete(*outer.log_masses(jnp.where(in_right, value, self._middle)))
    left = jnp.where(in_left, table.left_factor + left, -jnp.inf)
    right = jnp.where(in_right, table.right_factor + right, -jnp.inf)
    is_left, is_right = value < low, value > high
    below = jnp.where(is_left, left, jnp.where(is_right, _rest(right), inside[0]))
    above = jnp.where(is_right, right, jnp.where(is_left, _rest(left), inside[1]))
    return below, above


def _rest(log_mass: Array) -> Array:
    return ref.log_remainder(jnp.where(log_mass < 0, log_mass, -jnp.inf))


@jax.jit
def quantile_at(
    self: TiltedDistribution,
    table: Table,
    outer: ref.Tails,
    masses: tuple[Array, Array],
    logs: tuple[Array, Array] | None = None,
) -> Array:
    """The point with given masses below and above; from their logarithms where these are given."""
    dtype = table.lower.dtype
    shape = lax.broadcast_shapes(*(jnp.shape(x) for x in masses), self.batch_shape)
    lower, upper = (jnp.broadcast_to(x, shape) for x in masses)
    low, high = self.interval
    inner = self._by_sample(quantile(table, self._by_function(lower), self._by_function(upper)), shape)
    inner = jnp.clip(inner, low, high)

    in_left, in_right = lower < table.lower[..., 0], upper < table.upper[..., -1]
    log_mass = safe_log(jnp.where(in_left, lower, upper)) if logs is None else jnp.where(in_left, *logs)
    at_end = log_mass == -jnp.inf
    # The reference's mass out there; a number of its own stands in elsewhere.
    log_mass = jnp.minimum(log_mass - jnp.where(in_left, table.left_factor, table.right_factor), 0.0)
    log_mass = jnp.where((in_left | in_right) & ~at_end, log_mass, -1.0)
    log_rest = ref.log_remainder(log_mass)
    outside = outer.quantile(jnp.where(in_left, log_mass, log_rest), jnp.where(in_left, log_rest, log_mass))
    outside = jnp.where(in_left, jnp.minimum(outside, low), jnp.maximum(outside, high))
    z = jnp.where(in_left | in_right, outside, inner)
    # No mass at all on one side is the end of the support, whether or not there is a tail.
    none_below, none_above = (lower <= 0, upper <= 0) if logs is None else (x == -jnp.inf for x in logs)
    support_low, support_high = ref.support_bounds(self.reference)
    return jnp.where(none_below, support_low, jnp.where(none_above, support_high, z)).astype(dtype)


@jax.jit
def mean(self: TiltedDistribution, table: Table, outer: ref.Tails) -> Array:
    """Mean, NaN where there is none."""
    return _where_finite(expectation(self, table, outer, lambda z: z))


@jax.jit
def variance(self: TiltedDistribution, table: Table, outer: ref.Tails) -> Array:
    """Variance, NaN where there is none."""
    centre = expectation(self, table, outer, lambda z: z)
    return _where_finite(expectation(self, table, outer, lambda z: jnp.square(z - centre)))


@jax.jit
def entropy(self: TiltedDistribution, table: Table, outer: ref.Tails) -> Array:
    """Differential entropy in nats."""
    return -expectation(self, table, outer, lambda z: self.log_ratio(z) + self.reference.log_prob(z))


def _where_finite(value: Array) -> Array:
    """NaN where the integral over a tail diverges."""
    return jnp.where(jnp.isfinite(value), value, jnp.nan)


def expectation(self: TiltedDistribution, table: Table, outer: ref.Tails, function: Callable[[Array], Array]) -> Array:
    """E[function(z)]: Kronrod sums on the table's panels, and the reference's tails through its quantiles."""
    low, high = self.interval
    nodes = jnp.clip(panel_nodes(jnp.moveaxis(table.edges, -1, 0)), low, high)
    values = jnp.moveaxis(function(nodes), (0, 1), (-1, -2))
    weights = contract("...nd,jd->...nj", table.density, jnp.asarray(FROM_LEGENDRE * KRONROD[:, None], values.dtype))
    # Each panel's mass from whichever running sum is the more accurate.
    from_low = table.lower[..., :-1] < table.upper[..., 1:]
    mass = jnp.where(from_low, jnp.diff(table.lower), -jnp.diff(table.upper))
    inner = jnp.sum(mass[..., None] * weights * jnp.where(mass[..., None] > 0, values, 0.0), axis=(-2, -1))

    def from_below(log_mass: Array) -> Array:
        return outer.quantile(*ref.complete(log_mass, ref.log_remainder(log_mass)))

    def from_above(log_mass: Array) -> Array:
        return outer.quantile(*ref.complete(ref.log_remainder(log_mass), log_mass))

    result = inner
    for point, mass, factor in (
        (from_below, table.lower[..., 0], table.left_factor),
        (from_above, table.upper[..., -1], table.right_factor),
    ):
        log_mass = jnp.where(mass > 0, jnp.minimum(safe_log(mass) - factor, 0.0), -jnp.inf)
        tail = ref.tail_expectation(point, log_mass, function)
        result = result + jnp.where(mass > 0, mass * tail, 0.0)
    return result
