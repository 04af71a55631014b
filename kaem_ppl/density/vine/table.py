"""Copula densities that are bilinear in the cells of the grid: conditional distribution functions in closed form.

c(u, v) is piecewise bilinear, constant beyond the last nodes. Along either axis its integrals are piecewise quadratic, and
so have closed inverses; and both margins are uniform everywhere where they are at the nodes.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from ...reference.log_masses import log_normal_mass, normal_quantile
from .grid import ABOVE, BELOW, MIDDLE, NODE_WEIGHTS, NUM_CELLS, WIDTHS, Place, at_cell, locate

# What is looked up for each cell: densities at its corners (00, 01, 10, 11, the first variable's end first), and masses
# of either variable outside of the cell, given that the other one is at its lower or upper end there.
NUM_ENTRIES = 12
# Rounds of proportional fitting, which take most where dependence is strong: the error shrinks by the squared correlation.
_MOST_ROUNDS = 5000
_MARGIN_TOLERANCE = 1e-10
# Share of the independent density in every table, so that no cell is empty: the logarithm stays above -14.
_INDEPENDENT_SHARE = 1e-6


class Conditioned(NamedTuple):
    """A pair of variables, each given the other, at points.

    Attributes:
        log_density: of the copula.
        first: normal scores of the first variable given the second.
        second: of the second given the first.
    """

    log_density: Array
    first: Array
    second: Array


def with_uniform_margins(log_values: np.ndarray) -> np.ndarray:
    """Densities at the nodes (K, K), scaled by a function of each variable so that both margins are uniform.

    By iterative proportional fitting (Deming and Stephan 1940; Sinkhorn 1964).

    Args:
        log_values: logarithms of positive densities up to a constant.
    """
    # Bounded relative to a density of 1 at the centre of mass: no node is so improbable that floats can't hold it.
    log_values = log_values - np.sum(log_values * NODE_WEIGHTS[:, None] * NODE_WEIGHTS)
    values = np.exp(np.clip(log_values, -600.0, 600.0))
    rows, columns = np.ones(len(values)), np.ones(len(values))
    for _ in range(_MOST_ROUNDS):
        columns = 1 / (values.T @ (NODE_WEIGHTS * rows))
        new = 1 / (values @ (NODE_WEIGHTS * columns))
        change = np.max(np.abs(new / rows - 1))
        rows = new
        if change < _MARGIN_TOLERANCE:
            break
    return (1 - _INDEPENDENT_SHARE) * rows[:, None] * values * columns + _INDEPENDENT_SHARE


def make_cells(values: np.ndarray) -> np.ndarray:
    """What is looked up, shape (C, C, 12), of a density at the nodes (K, K) whose margins are uniform."""
    ends = np.pad(values, 1, mode="edge")
    second_below, second_above = _masses_outside(ends)
    first_below, first_above = (x.T for x in _masses_outside(ends.T))
    low, high = slice(None, -1), slice(1, None)
    return np.stack(
        [
            *(ends[i, j] for i in (low, high) for j in (low, high)),
            second_below[low], second_below[high], second_above[low], second_above[high],
            first_below[:, low], first_below[:, high], first_above[:, low], first_above[:, high],
        ],
        axis=-1,
    )  # fmt: skip


def _masses_outside(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masses of the second variable below and above each cell, (C + 1, C), given the first at each of the cells' ends."""
    masses = 0.5 * WIDTHS * (ends[:, :-1] + ends[:, 1:])
    total = masses.sum(axis=1, keepdims=True)
    masses = masses / total
    nothing = np.zeros((len(ends), 1))
    below = np.concatenate([nothing, np.cumsum(masses, axis=1)[:, :-1]], axis=1)
    above = np.concatenate([np.cumsum(masses[:, ::-1], axis=1)[:, ::-1][:, 1:], nothing], axis=1)
    return below, above


def condition(cells: Array, number: Array, first: Array, second: Array) -> Conditioned:
    """Density and conditional scores of pairs at points.

    Args:
        cells: of T tables, shape (T, C, C, 12).
        number: of the table of each pair, a shape that broadcasts with that of the scores.
        first: normal scores of the first variables, shape (...).
        second: of the second ones, shape (...).

    Returns:
        Arrays of shape (...), differentiable.
    """
    x, y = locate(first), locate(second)
    entries = cells[number, x.cell, y.cell]
    corner = [entries[..., i] for i in range(NUM_ENTRIES)]
    # Along the second variable, at where the first one is; and the other way.
    low = x.above * corner[0] + x.below * corner[2]
    high = x.above * corner[1] + x.below * corner[3]
    of_second = _score(y, low, high, *(x.above * corner[i] + x.below * corner[i + 1] for i in (4, 6)))
    left = y.above * corner[0] + y.below * corner[1]
    right = y.above * corner[2] + y.below * corner[3]
    of_first = _score(x, left, right, *(y.above * corner[i] + y.below * corner[i + 1] for i in (8, 10)))
    return Conditioned(jnp.log(y.above * low + y.below * high), of_first, of_second)


def _score(place: Place, low: Array, high: Array, outside_below: Array, outside_above: Array) -> Array:
    """The normal score of a conditional mass: densities at the ends of the cell, masses outside of it."""
    width = at_cell(WIDTHS, place.cell, low.dtype)
    t, rest = place.below, place.above
    below = outside_below + width * t * (low * (1 - 0.5 * t) + high * (0.5 * t))
    above = outside_above + width * rest * (high * (1 - 0.5 * rest) + low * (0.5 * rest))
    is_first, is_last = place.cell == 0, place.cell == NUM_CELLS - 1
    # In the outermost cells the density is constant, and the logarithm keeps masses that underflow.
    log_below = jnp.where(is_first, jnp.log(low) + place.log_below, jnp.log(jnp.where(is_first, 1.0, below)))
    log_above = jnp.where(is_last, jnp.log(high) + place.log_above, jnp.log(jnp.where(is_last, 1.0, above)))
    is_left = log_below <= log_above
    score = normal_quantile(jnp.where(is_left, log_below, log_above))
    return jnp.where(is_left, score, -score)


def second_given_first(cells: Array, number: Array, first: Array, wanted: Array) -> Array:
    """The second variable's score that has a wanted conditional score given the first: the inverse of `condition`.

    Args:
        cells: of T tables, shape (T, C, C, 12).
        number: of the table, shape ().
        first: normal scores of the first variable, shape (...).
        wanted: conditional normal scores of the second one given the first, shape (...).

    Returns:
        Normal scores of the second one, shape (...), differentiable.
    """
    x = locate(first)
    log_below, log_above = log_normal_mass(wanted), log_normal_mass(-wanted)
    is_left = wanted <= 0
    log_target = jnp.where(is_left, log_below, log_above)
    target = jnp.exp(log_target)

    def along(entry: int) -> Array:
        """Masses outside of the second variable's cells, shape (..., C)."""
        low, high = (cells[number, x.cell, :, i] for i in (entry, entry + 1))
        return x.above[..., None] * low + x.below[..., None] * high

    last = NUM_CELLS - 1
    cell_of_below = jnp.sum(along(4)[..., 1:] <= target[..., None], axis=-1)
    cell_of_above = jnp.sum(along(6)[..., :last] >= target[..., None], axis=-1)
    cell = jnp.where(is_left, cell_of_below, cell_of_above)
    entries = cells[number, x.cell, cell]
    corner = [entries[..., i] for i in range(8)]
    low = x.above * corner[0] + x.below * corner[2]
    high = x.above * corner[1] + x.below * corner[3]
    outside = jnp.where(is_left, x.above * corner[4] + x.below * corner[5], x.above * corner[6] + x.below * corner[7])
    near, far = jnp.where(is_left, low, high), jnp.where(is_left, high, low)
    width = at_cell(WIDTHS, cell, low.dtype)
    # Of width (near x + (far - near) x^2 / 2) = mass, in the form that loses no digits where near and far are close.
    mass = jnp.maximum(target - outside, 0.0) / width
    root = jnp.sqrt(jnp.maximum(near * near + 2 * (far - near) * mass, 1e-30))
    share = jnp.clip(2 * mass / (near + root), 0.0, 1.0)
    below, above = jnp.where(is_left, share, 1 - share), jnp.where(is_left, 1 - share, share)
    # The outermost cells by logarithms, as there.
    is_end = jnp.where(is_left, cell == 0, cell == last)
    score = normal_quantile(log_target - jnp.log(near))
    at_end = jnp.where(is_left, score, -score)
    in_left_half = cell < MIDDLE
    small = jnp.where(
        in_left_half,
        at_cell(BELOW[:-1], cell, low.dtype) + width * below,
        at_cell(ABOVE[1:], cell, low.dtype) + width * above,
    )
    score = normal_quantile(jnp.log(jnp.maximum(jnp.where(is_end, 0.5, small), 1e-30)))
    return jnp.where(is_end, at_end, jnp.where(in_left_half, score, -score))
