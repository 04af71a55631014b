"""Split single panels in four, by interpolating the energy between Gauss-Kronrod nodes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.polynomial import legendre

from ..compilation import running_sum
from .refinement import unresolved_mass
from .rule import DEGREE, NODES, TO_LEGENDRE, multiply_nodes, relative_truncation, safe_log, sums_of_nodes

NUM_PARTS = 4
# Nodes of the parts in the panel's coordinate on [-1, 1], shape (15, 4), and the values there of the polynomial through
# values at the panel's own nodes, shape (60, 15).
_PART_NODES = -1 + (2 * np.arange(NUM_PARTS) + 1 + NODES[:, None]) / NUM_PARTS
TO_PARTS = legendre.legvander(_PART_NODES.reshape(-1), DEGREE) @ TO_LEGENDRE


def part_nodes(edges: Array) -> Array:
    """Nodes of the four parts of every panel, shape (15, 4, N, ...) for edges of shape (N + 1, ...)."""
    half = 0.5 * jnp.diff(edges, axis=0)
    return (edges[:-1] + half) + half * jnp.asarray(_PART_NODES.reshape(-1, NUM_PARTS, *(1,) * half.ndim), edges.dtype)


def values_on_parts(values: Array) -> Array:
    """Polynomials of degree 14 at the nodes of the parts, from values at the panels' nodes: (15, ...) to (15, 4, ...)."""
    return multiply_nodes(TO_PARTS, values).reshape(len(NODES), NUM_PARTS, *values.shape[1:])


class Parts(NamedTuple):
    """Densities on the four parts of panels.

    Attributes:
        log_mass: shape (4, C).
        unresolved: logarithm of what the parts leave unresolved of the density, the largest of the four, shape (C,).
        error: error estimate of each part's mass, relative to it, shape (4, C).
        peak: log-density at the highest node of each part, shape (4, C).
        shape: the density over its peak at the nodes, shape (15, 4, C).
    """

    log_mass: Array
    unresolved: Array
    error: Array
    peak: Array
    shape: Array


def summarize_parts(log_density: Array, energy: Array, half_width: Array, tolerance: Array) -> Parts:
    """Masses of densities on the parts of panels, and how well these resolve them.

    Args:
        log_density: at the nodes of the parts, shape (15, 4, C), by the interpolant of the energy.
        energy: at the nodes of the panels, shape (15, C).
        half_width: of the panels, shape (C,).
        tolerance: as for `unresolved_mass`, shape (C,).
    """
    peak = jnp.max(log_density, axis=0)
    step = jnp.max(jnp.abs(jnp.diff(log_density[::2], axis=0)), axis=0)
    shape = jax.lax.optimization_barrier(jnp.exp(log_density - jnp.where(jnp.isfinite(peak), peak, 0.0)))
    sums = sums_of_nodes(shape)
    half = half_width / NUM_PARTS
    log_mass = peak + safe_log(half * sums[0])
    unresolved = jnp.max(unresolved_mass(half, peak, sums, step, tolerance)[1], axis=0)
    # An energy that is no polynomial of degree 14 on the panel is not what its interpolant says.
    misfit = jnp.sum(jnp.abs(multiply_nodes(TO_LEGENDRE[-2:], energy)), axis=0) / DEGREE
    missed = jnp.max(log_mass, axis=0) + safe_log(misfit)
    unresolved = jnp.maximum(unresolved, jnp.where(misfit > tolerance, missed, -jnp.inf))
    return Parts(log_mass, unresolved, relative_truncation(sums), peak, shape)


class Marked(NamedTuple):
    """Places of the marked entries of an array, in batches.

    Attributes:
        places: row-major index of each, shape (number of batches, size of a batch); the array's size in those left over.
        number: how many there are, shape ().
    """

    places: Array
    number: Array

    @classmethod
    def of(cls, marked: Array, most: int) -> "Marked":
        """Of entries marked True, at most `most` of them in a batch."""
        flat = marked.reshape(-1)
        size = min(most, flat.size)
        rank = running_sum(flat.astype(jnp.int32))
        room = jnp.full((-(-flat.size // size) * size,), flat.size, jnp.int32)
        where = jnp.where(flat, rank - 1, room.size)
        places = room.at[where].set(jnp.arange(flat.size, dtype=jnp.int32), mode="drop")
        return cls(places.reshape(-1, size), rank[-1])
