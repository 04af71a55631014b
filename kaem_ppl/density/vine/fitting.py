"""Fit a D-vine's pairs tree by tree: each tree's pairs to the conditional scores that the tree before gives."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .grid import NUM_CELLS
from .order import kendall_tau
from .pair import DETERMINED, PairFit, fit_pair
from .table import NUM_ENTRIES, condition, make_cells

_condition = jax.jit(condition)


class FittedTrees(NamedTuple):
    """All pairs, tree by tree.

    Attributes:
        correlations: of normal scores, shape (P,).
        taus: Kendall's, shape (P,).
        gains: nats of a draw by which a table predicts better than the Gaussian copula, taken or not, shape (P,).
        cells: tables, shape (T, C, C, 12).
        tabulated: places of the pairs that have one.
    """

    correlations: np.ndarray
    taus: np.ndarray
    gains: np.ndarray
    cells: np.ndarray
    tabulated: tuple[int, ...]


def fit_trees(
    scores: np.ndarray, weights: np.ndarray, order: tuple[int, ...], num_trees: int, names: tuple[str, ...]
) -> FittedTrees:
    """The pairs of a vine.

    Args:
        scores: normal scores, shape (N, d).
        weights: of the draws, sum 1, shape (N,).
        order: of the variables along the first tree.
        num_trees: how many trees.
        names: of the variables, for the message.

    Raises:
        ValueError: where one variable determines another.
    """
    left = right = scores[:, order]
    fits, taus, tables, tabulated = [], [], [], []
    for tree in range(1, num_trees + 1):
        new_left, new_right = [], []
        for place in range(len(order) - tree):
            u, v = left[:, place], right[:, place + 1]
            fitted = fit_pair(u, v, weights)
            if abs(fitted.correlation) > DETERMINED:
                raise ValueError(
                    f"`scores` must be of variables that do not determine each other, got a correlation of "
                    f"{fitted.correlation:.6f} of {names[order[place]]} and {names[order[place + tree]]}: drop one."
                )
            if fitted.values is not None:
                tabulated.append(len(fits))
                tables.append(make_cells(fitted.values))
            fits.append(fitted)
            taus.append(kendall_tau(u, v, weights))
            first, second = _conditional_scores(fitted, tables, u, v)
            new_left.append(first)
            new_right.append(second)
        left, right = np.stack(new_left, axis=1), np.stack(new_right, axis=1)
    cells = np.stack(tables) if tables else np.zeros((0, NUM_CELLS, NUM_CELLS, NUM_ENTRIES))
    correlations, gains = (np.array([getattr(fit, name) for fit in fits]) for name in ("correlation", "gain"))
    return FittedTrees(correlations, np.array(taus), gains, cells, tuple(tabulated))


def _conditional_scores(
    fitted: PairFit, tables: list[np.ndarray], u: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores (N,) of either variable given the other."""
    if fitted.values is None:
        rest = (1 - fitted.correlation**2) ** 0.5
        return (u - fitted.correlation * v) / rest, (v - fitted.correlation * u) / rest
    cells = jnp.asarray(tables[-1][None], float)
    found = _condition(cells, jnp.asarray(0), jnp.asarray(u, float), jnp.asarray(v, float))
    return np.asarray(found.first, np.float64), np.asarray(found.second, np.float64)
