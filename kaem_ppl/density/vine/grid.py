"""The grid of normal scores on which copula densities are tabulated: its masses, and where scores lie in it.

Cells are equally wide in normal scores between -4 and 4, and one more on either side holds the mass beyond. Lengths are
masses: a node's own tail mass tells it from others where 1 - u would not.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from ...reference.log_masses import log_normal_mass

# Mass of 3e-5 lies beyond on either side. Linear interpolation over 1/8 of a score costs 1e-4 nats at a correlation of 0.9.
BOUND, NUM_INTERVALS = 4.0, 64
NODES = np.linspace(-BOUND, BOUND, NUM_INTERVALS + 1)
NUM_CELLS = NUM_INTERVALS + 2
# Of a score in a cell below this one, and of its lower tail, the mass below is the one to compute with.
MIDDLE = NUM_CELLS // 2


def _masses_below(scores: np.ndarray) -> np.ndarray:
    return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in scores])


# Masses below and above the ends of all cells, from 0 to 1 and from 1 to 0.
BELOW = np.concatenate([[0.0], _masses_below(NODES), [1.0]])
ABOVE = BELOW[::-1].copy()
WIDTHS = np.where(np.arange(NUM_CELLS) < MIDDLE, np.diff(BELOW), -np.diff(ABOVE))
# Integrals of the piecewise linear functions that are 1 at one node and 0 at all others, constant beyond the last node.
NODE_WEIGHTS = 0.5 * (WIDTHS[:-1] + WIDTHS[1:])
NODE_WEIGHTS[[0, -1]] += 0.5 * WIDTHS[0]


class Place(NamedTuple):
    """Where scores lie: a cell, and the shares of its mass on either side, each accurate relative to itself.

    Attributes:
        cell: its number, from 0.
        below: share of the cell's mass below the score.
        above: share above.
        log_below: log-mass of the whole line below the score.
        log_above: log-mass above.
    """

    cell: Array
    below: Array
    above: Array
    log_below: Array
    log_above: Array


def locate(scores: Array) -> Place:
    """The cells of scores, all arrays of their shape; differentiable."""
    place = jnp.floor((scores + BOUND) * (NUM_INTERVALS / (2 * BOUND)))
    cell = jnp.clip(place, -1, NUM_INTERVALS).astype(jnp.int32) + 1
    log_below, log_above = log_normal_mass(scores), log_normal_mass(-scores)
    is_left = cell < MIDDLE
    mass = jnp.exp(jnp.where(is_left, log_below, log_above))
    outside = jnp.where(is_left, at_cell(BELOW[:-1], cell, mass.dtype), at_cell(ABOVE[1:], cell, mass.dtype))
    near = jnp.clip((mass - outside) / at_cell(WIDTHS, cell, mass.dtype), 0.0, 1.0)
    return Place(cell, jnp.where(is_left, near, 1 - near), jnp.where(is_left, 1 - near, near), log_below, log_above)


def at_cell(values: np.ndarray, cell: Array, dtype: jnp.dtype) -> Array:
    """One number for each cell, looked up."""
    return jnp.asarray(values, dtype)[cell]
