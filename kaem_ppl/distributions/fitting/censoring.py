"""Observations known only to lie in intervals: nodes on each of them, for its mass and the features' means over it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Distribution

from ... import reference as ref
from ...basis import Basis
from ...quadrature import contract
from .observations import Observations

# Panels of one interval, and Gauss-Legendre nodes of each.
_NUM_PANELS = 16
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(5)


class Intervals(NamedTuple):
    """C different intervals of each of Q densities, K nodes on each.

    Attributes:
        features: at the nodes, and at both ends of the domain for what of the interval is outside, shape (Q, C, K, F).
        log_mass: of the reference that each node stands for, shape (Q, C, K).
        weights: sum of weights of the observations, 0 for an interval that fills the array, shape (Q, C).
        squares: sum of their squared weights, shape (Q, C).
    """

    features: Array
    log_mass: Array
    weights: Array
    squares: Array


def make_intervals(
    observations: Observations,
    reference: Distribution,
    tails: ref.Tails,
    interval: tuple[np.ndarray, ...],
    function: tuple[Basis, Array, Array],
) -> Intervals:
    """Nodes on the intervals of observations that are not exact, equal ones counted together.

    Args:
        observations: of Q densities.
        reference: of a batch shape that broadcasts to theirs.
        tails: the reference's.
        interval: ends of what is integrated, of the batch shape each.
        function: basis, grid and width of the energies.
    """
    bounds, weights, squares = _distinct(observations)
    # Densities last, as a reference broadcasts.
    low, high = (bounds[..., i].T.reshape(-1, *observations.batch_shape) for i in (0, 1))
    basis, grid, width = function
    features, log_mass = _at_nodes(basis, reference, tails, (low, high), interval, (grid, width))
    return Intervals(features, log_mass, jnp.asarray(weights), jnp.asarray(squares))


@partial(jax.jit, static_argnums=0)
def _at_nodes(
    basis: Basis,
    reference: Distribution,
    tails: ref.Tails,
    bounds: tuple[Array, Array],
    interval: tuple[Array, Array],
    function: tuple[Array, Array],
) -> tuple[Array, Array]:
    """Features and log-masses of `Intervals`, of bounds (C,) + batch_shape."""
    support = [jnp.asarray(x, bounds[0].dtype) for x in ref.support_bounds(reference)]
    low, high = (jnp.clip(x, *support) for x in bounds)
    a, b = interval
    inner_low, inner_high = jnp.clip(low, a, b), jnp.clip(high, a, b)
    step = (inner_high - inner_low) / (2 * _NUM_PANELS)
    centres = ((2 * np.arange(_NUM_PANELS) + 1)[:, None] + _NODES).reshape(-1, *(1,) * low.ndim)
    used = step > 0
    nodes = jnp.where(used, inner_low + step * centres, 0.5 * (a + b))
    log_weights = np.log(np.tile(_WEIGHTS, _NUM_PANELS)).reshape(centres.shape) + jnp.log(jnp.where(used, step, 1.0))
    log_mass = jnp.where(used, log_weights + reference.log_prob(nodes), -jnp.inf)
    masses = partial(_masses, reference, tails, 0.5 * (a + b))
    left = _log_difference(masses, low, jnp.minimum(high, a), 0)
    right = _log_difference(masses, jnp.maximum(low, b), high, 1)
    log_mass = jnp.concatenate([log_mass, left[None], right[None]])
    nodes = jnp.concatenate([nodes, *(jnp.broadcast_to(x, nodes[:1].shape) for x in (a, b))])
    features = basis(nodes, *function)

    def rows(x: Array, event: tuple[int, ...] = ()) -> Array:
        """(K, C) + batch_shape to (Q, C, K)."""
        return jnp.moveaxis(x.reshape(*nodes.shape[:2], -1, *event), 2, 0).swapaxes(1, 2)

    return rows(features, features.shape[-1:]), rows(log_mass)


def _distinct(observations: Observations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bounds (Q, C, 2), weights and squared weights (Q, C) of the different intervals; whole lines of weight 0 fill up."""
    assert observations.upper is not None
    found = []
    for low, high, weight, exact in zip(
        observations.values, observations.upper, observations.weights, observations.is_exact, strict=True
    ):
        used = ~exact & (weight > 0)
        pairs, place = np.unique(np.stack([low[used], high[used]], axis=1), axis=0, return_inverse=True)
        place = place.reshape(-1)
        found.append((pairs, *(np.bincount(place, x, len(pairs)) for x in (weight[used], weight[used] ** 2))))
    most = max(len(pairs) for pairs, _, _ in found)
    bounds = np.stack([np.concatenate([p, np.tile([-np.inf, np.inf], (most - len(p), 1))]) for p, _, _ in found])
    weights, squares = (np.stack([np.pad(x[i], (0, most - len(x[i]))) for x in found]) for i in (1, 2))
    return bounds, weights, squares


def _log_difference(masses: Callable[[Array], tuple[Array, Array]], low: Array, high: Array, side: int) -> Array:
    """Logarithm of the reference's mass between two points on one side of the interval, by the tail there."""
    used = high > low
    difference = jnp.abs(masses(high)[side] - masses(low)[side])
    occupied = used & (difference > 0)
    return jnp.where(occupied, jnp.log(jnp.where(occupied, difference, 1.0)), -jnp.inf)


def _masses(reference: Distribution, tails: ref.Tails, middle: Array, point: Array) -> tuple[Array, Array]:
    """Of the reference below and above a point, also at and beyond the ends of its support."""
    low, high = ref.support_bounds(reference)
    inside = (point > low) & (point < high)
    below, above = ref.complete(*tails.log_masses(jnp.where(inside, point, middle)))
    return (
        jnp.where(inside, jnp.exp(below), jnp.where(point <= low, 0.0, 1.0)),
        jnp.where(inside, jnp.exp(above), jnp.where(point >= high, 0.0, 1.0)),
    )


class Within(NamedTuple):
    """Of each interval under the density: log mass (Q, C), features' means (Q, C, F), nodes' probabilities (Q, C, K)."""

    log_mass: Array
    mean: Array
    probability: Array


def within(intervals: Intervals, coef: Array) -> Within:
    """What the energies with these coefficients, (Q, F), make of the intervals."""
    values = contract("qckf,qf->qck", intervals.features, coef) + intervals.log_mass
    peak = jnp.max(values, axis=-1, keepdims=True)
    mass = jnp.exp(values - peak)
    total = jnp.sum(mass, axis=-1, keepdims=True)
    probability = mass / total
    mean = contract("qck,qckf->qcf", probability, intervals.features)
    return Within((peak + jnp.log(total))[..., 0], mean, probability)


def covariance_within(intervals: Intervals, found: Within) -> Array:
    """Sum of weights times the covariance of the features over each interval, shape (Q, F, F)."""
    weighted = intervals.weights[..., None] * found.probability
    second = contract("qckf,qck,qckg->qfg", intervals.features, weighted, intervals.features)
    return second - contract("qcf,qc,qcg->qfg", found.mean, intervals.weights, found.mean)
