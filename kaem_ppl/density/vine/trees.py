"""The trees of a D-vine (Aas, Czado, Frigessi and Bakken 2009): which pairs they join, and the recursions along them.

In tree t the variables at places i and i + t of the order are joined, given those in between. The recursions compute
F(x_i | x_(i+1), ..., x_(i+t)) and F(x_(i+t) | x_i, ..., x_(i+t-1)) of one tree from those of the tree before.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .table import condition, second_given_first


def num_pairs(number: int, num_trees: int) -> int:
    """Pairs in the first trees of a D-vine of a number of variables."""
    return sum(number - tree for tree in range(1, num_trees + 1))


def first_pair(number: int, tree: int) -> int:
    """The place of a tree's first pair among all pairs, tree by tree."""
    return num_pairs(number, tree - 1)


def log_density_and_coordinates(
    scores: Array, correlations: Array, cells: Array, tabulated: Sequence[int], num_trees: int
) -> tuple[Array, Array]:
    """Log-density of the copula, and independent coordinates: Rosenblatt's transform (1952).

    Args:
        scores: normal scores in the order of the vine, shape (..., d).
        correlations: of all pairs, shape (P,).
        cells: of the tabulated pairs, shape (T, C, C, 12).
        tabulated: which pairs they are, ascending.
        num_trees: trees beyond which variables are independent.

    Returns:
        Shapes (...) and (..., d).
    """
    number = scores.shape[-1]
    left, right = scores, scores
    total, coordinates = jnp.zeros(scores.shape[:-1], scores.dtype), [scores[..., :1]]
    for tree in range(1, num_trees + 1):
        start = first_pair(number, tree)
        u, v = left[..., :-1], right[..., 1:]
        correlation = correlations[start : start + number - tree]
        density = gaussian_log_density(correlation, u, v)
        left, right = gaussian_given(correlation, u, v), gaussian_given(correlation, v, u)
        here = [pair - start for pair in tabulated if start <= pair < start + number - tree]
        if here:
            tables = jnp.asarray([list(tabulated).index(start + place) for place in here])
            places = np.asarray(here)
            found = condition(cells, tables, u[..., places], v[..., places])
            density = density.at[..., places].set(found.log_density)
            left, right = left.at[..., places].set(found.first), right.at[..., places].set(found.second)
        total = total + jnp.sum(density, axis=-1)
        coordinates.append(right if tree == num_trees else right[..., :1])
    if not num_trees:
        coordinates = [scores]
    return total, jnp.concatenate(coordinates, axis=-1)


def scores_of(coordinates: Array, correlations: Array, cells: Array, tabulated: Sequence[int], num_trees: int) -> Array:
    """The inverse: normal scores in the order of the vine of independent coordinates, both (..., d).

    One loop over all pairs, so that the time to compile does not grow with their number.

    Args:
        coordinates: standard normal, shape (..., d).
        correlations: as above.
        cells: as above.
        tabulated: as above.
        num_trees: as above.
    """
    number = coordinates.shape[-1]
    if not num_trees:
        return coordinates
    w = jnp.moveaxis(coordinates.reshape(-1, number), -1, 0)
    steps = [(end, tree) for end in range(1, number) for tree in range(min(end, num_trees), 0, -1)]
    pairs = [first_pair(number, tree) + end - tree for end, tree in steps]
    table_of = {pair: table for table, pair in enumerate(tabulated)}

    def step(carry: tuple[Array, Array], at: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        # `given` holds, tree by tree, what is known of variables up to the one before: F(x_i | those after it).
        given, wanted = carry
        end, tree, pair, table, is_tabulated, is_first, is_last = at
        wanted = jnp.where(is_first, w[end], wanted)
        u, correlation = given[tree - 1], correlations[pair]
        found = gaussian_inverse(correlation, u, wanted)
        first = gaussian_given(correlation, u, found)
        if tabulated:
            by_table = second_given_first(cells, table, u, wanted)
            found = jnp.where(is_tabulated, by_table, found)
            first = jnp.where(is_tabulated, condition(cells, table, u, found).first, first)
        given = given.at[tree].set(first)
        given = given.at[0].set(jnp.where(is_last, found, given[0]))
        return (given, found), found

    xs = (
        jnp.asarray([end for end, _ in steps]),
        jnp.asarray([tree for _, tree in steps]),
        jnp.asarray(pairs),
        jnp.asarray([table_of.get(pair, 0) for pair in pairs]),
        jnp.asarray([pair in table_of for pair in pairs]),
        jnp.asarray([tree == min(end, num_trees) for end, tree in steps]),
        jnp.asarray([tree == 1 for _, tree in steps]),
    )
    given = jnp.zeros((num_trees + 1, w.shape[1]), w.dtype).at[0].set(w[0])
    _, found = lax.scan(step, (given, w[0]), xs)
    last = np.asarray([place for place, (_, tree) in enumerate(steps) if tree == 1])
    scores = jnp.concatenate([w[:1], found[last]])
    return jnp.moveaxis(scores, 0, -1).reshape(coordinates.shape)


def gaussian_log_density(correlation: Array, first: Array, second: Array) -> Array:
    """Of Gaussian copulas at normal scores."""
    rest = 1 - jnp.square(correlation)
    squares = jnp.square(correlation) * (jnp.square(first) + jnp.square(second)) - 2 * correlation * first * second
    return -0.5 * jnp.log(rest) - 0.5 * squares / rest


def gaussian_given(correlation: Array, of: Array, given: Array) -> Array:
    """The conditional normal score of one variable given the other, of Gaussian copulas."""
    return (of - correlation * given) / jnp.sqrt(1 - jnp.square(correlation))


def gaussian_inverse(correlation: Array, given: Array, wanted: Array) -> Array:
    """The normal score of a variable that has a wanted conditional score given the other."""
    return correlation * given + jnp.sqrt(1 - jnp.square(correlation)) * wanted
