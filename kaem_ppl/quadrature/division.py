"""Single panels in four parts: the energy's interpolant gives the density between the nodes of a panel."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.polynomial import legendre

from .refinement import unresolved_mass
from .rule import DEGREE, NODES, SUMS, TO_LEGENDRE, contract, relative_truncation, safe_log

NUM_PARTS = 4
# Nodes of the parts in the panel's coordinate on [-1, 1], shape (60,), and the values there of the polynomial through
# values at the panel's own nodes, shape (15, 60).
_PART_NODES = np.concatenate([-1 + (2 * part + 1 + NODES) / NUM_PARTS for part in range(NUM_PARTS)])
_TO_PARTS = (legendre.legvander(_PART_NODES, DEGREE) @ TO_LEGENDRE).T


def part_nodes(edges: Array) -> Array:
    """Nodes of the four parts of every panel, shape (..., N, 60) for edges of shape (..., N + 1)."""
    half = 0.5 * jnp.diff(edges)[..., None]
    return (edges[..., :-1, None] + half) + half * jnp.asarray(_PART_NODES, edges.dtype)


def values_on_parts(values: Array) -> Array:
    """Polynomials of degree 14 at the nodes of the parts, from values at the panels' nodes: (..., 15) to (..., 60)."""
    return contract("...j,jm->...m", values, jnp.asarray(_TO_PARTS, values.dtype))


class Parts(NamedTuple):
    """Densities on the four parts of a panel.

    Attributes:
        log_mass: shape (4, C).
        unresolved: logarithm of what the parts leave unresolved of the density, the largest of the four, shape (C,).
        error: error estimate of each part's mass, relative to it, shape (4, C).
    """

    log_mass: Array
    unresolved: Array
    error: Array


def summarize_parts(log_density: Array, energy: Array, half_width: Array, tolerance: Array) -> Parts:
    """Masses of densities on the parts of panels, and how well these resolve them.

    Args:
        log_density: at the nodes of the parts, shape (C, 60), by the interpolant of the energy.
        energy: at the nodes of the panels, shape (C, 15).
        half_width: of the panels, shape (C,).
        tolerance: as for `unresolved_mass`, shape (C,).
    """
    # The functions stay last: XLA vectorises over them.
    log_density = jnp.moveaxis(log_density.reshape(-1, NUM_PARTS, len(NODES)), 0, -1)
    log_density = jnp.swapaxes(log_density, 0, 1)
    fixed = jax.lax.stop_gradient(log_density)
    peak = jnp.max(fixed, axis=0)
    step = jnp.max(jnp.abs(jnp.diff(fixed[::2], axis=0)), axis=0)
    shape = jnp.exp(log_density - jnp.where(jnp.isfinite(peak), peak, 0.0))
    sums = jnp.tensordot(jnp.asarray(SUMS.T, shape.dtype), shape, 1, precision=jax.lax.Precision.HIGHEST)
    half = half_width / NUM_PARTS
    log_mass = peak + safe_log(half * sums[0])
    last = jnp.moveaxis(jax.lax.stop_gradient(sums), 0, -2)
    unresolved = jnp.max(unresolved_mass(half, peak, last, step, tolerance)[1], axis=0)
    # An energy that is no polynomial of degree 14 on the panel is not what its interpolant says.
    energy = contract("cj,ij->ic", jax.lax.stop_gradient(energy), jnp.asarray(TO_LEGENDRE[-2:], energy.dtype))
    misfit = jnp.sum(jnp.abs(energy), axis=0) / DEGREE
    missed = jnp.max(jax.lax.stop_gradient(log_mass), axis=0) + safe_log(misfit)
    unresolved = jnp.maximum(unresolved, jnp.where(misfit > tolerance, missed, -jnp.inf))
    return Parts(log_mass, unresolved, relative_truncation(last))


class Marked(NamedTuple):
    """The marked panels of R functions, counted.

    Attributes:
        count: number of marked panels up to and with each panel of a function, shape (R, N).
        ends: number of marked panels up to and with each function, shape (R,).
    """

    count: Array
    ends: Array

    @classmethod
    def of(cls, marked: Array) -> "Marked":
        """Of panels marked True, shape (R, N)."""
        count = jnp.cumsum(marked, axis=-1, dtype=jnp.int32)
        return cls(count, jnp.cumsum(count[:, -1], dtype=jnp.int32))

    def batch(self, start: Array, size: int) -> tuple[Array, Array, Array]:
        """Functions and panels of the marked ones from `start` on, and which of them exist, shape (size,) each."""
        rank = start + jnp.arange(size, dtype=jnp.int32)
        function = jnp.minimum(jnp.searchsorted(self.ends, rank, side="right"), len(self.ends) - 1)
        count = self.count[function]
        within = rank - (self.ends[function] - count[:, -1])
        panel = jnp.minimum(jnp.sum(count <= within[:, None], axis=-1), count.shape[-1] - 1)
        return function, panel, rank < self.ends[-1]
