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
        function: elementwise function of z.

    Returns:
        Conditional expectation, the shape of `log_mass`; 0 for an empty tail; infinite or NaN where it does not exist.
    """
    dtype = log_mass.dtype
    edges = _DEPTH * jnp.linspace(0, 1, 33, dtype=dtype) ** 2
    half = 0.5 * jnp.diff(edges)[:, None]
    s = ((edges[:-1, None] + half) + half * jnp.asarray(NODES, dtype)).reshape(-1)
    occupied = log_mass > -jnp.inf
    safe = jnp.where(occupied, log_mass, -1.0)
    shape = (-1,) + (1,) * log_mass.ndim
    z = quantile(safe - s.reshape(shape))
    finite = jnp.isfinite(z)
    # Where points leave the floats so does what they contribute, or there is no such moment.
    values = jnp.where(finite, function(jnp.where(finite, z, 0.0)), 0.0) * jnp.exp(-s).reshape(shape)
    weights = (half * jnp.asarray(KRONROD, dtype)).reshape(shape)
    total = jnp.sum(weights * values, axis=0)
    # Slope of the logarithm over the last panel, from its first node to its last.
    first, last = jnp.abs(values[-len(NODES)]), jnp.abs(values[-1])
    decay = jnp.log(jnp.where((first > 0) & (last > 0), first / jnp.where(last > 0, last, 1.0), 1.0))
    rate = decay / (s[-1] - s[-len(NODES)])
    decays = rate > 1e-4
    # What does not decay has no integral.
    endless = jnp.where((last > 0) & (first > 0), jnp.sign(values[-1]) * jnp.inf, 0.0)
    rest = jnp.where(decays, values[-1] / jnp.where(decays, rate, 1.0), endless)
    return jnp.where(occupied, total + rest, 0.0)
