"""Integrals over one tail of a distribution, however heavy."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from ..quadrature import KRONROD, NODES

# How far into the tail panels reach, in nats of its mass.
_DEPTH = 80.0


def tail_expectation(quantile: Callable[[Array], Array], log_mass: Array, function: Callable[[Array], Array]) -> Array:
    """Integral of `function` times the reference density over one tail, divided by the tail's mass.

    With M the tail's mass and z = quantile(log M - s), the integral over the tail is that of function(z) e^-s over s > 0,
    done by Kronrod panels. Beyond the last the integrand is taken as an exponential, as that of a power law is.

    Args:
        quantile: maps the logarithm of a tail mass to the point that has it beyond.
        log_mass: logarithm of the tail's mass, any shape; -inf for an empty tail.
        function: of points (S, ...), the trailing axes those of `log_mass` or ones that broadcast with them.

    Returns:
        Conditional expectation, the trailing shape of the values; 0 for an empty tail; infinite or NaN where there is none.
    """
    dtype = log_mass.dtype
    edges = _DEPTH * jnp.linspace(0, 1, 33, dtype=dtype) ** 2
    half = 0.5 * jnp.diff(edges)[:, None]
    s = ((edges[:-1, None] + half) + half * jnp.asarray(NODES, dtype)).reshape(-1)
    occupied = log_mass > -jnp.inf
    safe = jnp.where(occupied, log_mass, -1.0)
    shape = (-1,) + (1,) * log_mass.ndim
    z = quantile(safe - s.reshape(shape))
    values = function(z) * jnp.exp(-s).reshape(shape)
    # Where points reach the ends of the floats, panels stop.
    values = values.reshape(len(half), len(NODES), *values.shape[1:])
    usable = jnp.cumprod(jnp.all(jnp.isfinite(values), axis=1), axis=0)
    values = jnp.where(usable[:, None] == 1, values, 0.0)
    weights = half * jnp.asarray(KRONROD, dtype)
    total = jnp.tensordot(weights, values, axes=2, precision="highest")
    # The slope of the logarithm over the last panel, from its first node to its last.
    last_panel = jnp.maximum(jnp.sum(usable, axis=0).astype(jnp.int32) - 1, 0)
    ends = jnp.take_along_axis(values[:, jnp.asarray([0, -1])], last_panel[None, None], axis=0)[0]
    times = s.reshape(half.shape[0], -1)[last_panel]
    first, last = jnp.abs(ends[0]), jnp.abs(ends[1])
    some = (first > 0) & (last > 0)
    decay = jnp.where(some, jnp.log(jnp.where(some, first, 1.0)) - jnp.log(jnp.where(some, last, 1.0)), 0.0)
    rate = decay / (times[..., -1] - times[..., 0])
    decays = rate > 1e-3
    rate = jnp.where(decays, rate, 1.0)
    at_edge = ends[1] * jnp.exp(-rate * (edges[1:][last_panel] - times[..., -1]))
    # What does not decay has no integral.
    rest = jnp.where(decays, at_edge / rate, jnp.where(some, jnp.sign(ends[1]) * jnp.inf, 0.0))
    return jnp.where(occupied, total + rest, 0.0)
