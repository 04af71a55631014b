"""The penalised likelihood of many densities as arrays: features and masses at quadrature nodes, means of features.

The likelihood of exact observations depends on them by the mean of each basis function alone. On a panel a basis function
is its polynomial of degree 14, as everywhere in the quadrature, so that mean is a sum over the panels' Legendre moments:
no basis function is evaluated at an observation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Distribution

from ... import reference as ref
from ...basis import RBF, Basis, BSpline
from ...quadrature import DEGREE, KRONROD, NODES, TO_LEGENDRE, contract, panel_nodes, safe_log
from ...univariate import uniform_grid
from ..bank import integration_interval, seed_panels
from .censoring import Intervals, make_intervals
from .observations import Observations

# Bases whose functions on a domain are those on another one, moved and stretched.
_FOLLOW_THE_DOMAIN = (BSpline, RBF)
# Derivative of the energy whose variance the penalty is.
_ORDER = 2


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["features", "log_mass", "target", "counts", "penalty", "products", "intervals"],
    meta_fields=["pairs"],
)
@dataclass(frozen=True)
class Problem:
    """Q penalised likelihoods over F coefficients each, M nodes; L is 1 where all share their features, else Q.

    Attributes:
        features: at the nodes, and at both ends of the domain for the tails, shape (L, M, F).
        log_mass: of the reference that each node stands for, shape (Q, M).
        target: sum of weights times features over exact observations, shape (Q, F).
        counts: sum of squared weights of the exact observations nearest to each node, shape (Q, M).
        penalty: P of the roughness c' P c, shape (L, F, F).
        products: of the pairs of features that overlap, shape (M, number of pairs); None where features are not shared.
        intervals: of observations that are not exact; None without any.
        pairs: indices of these features.
    """

    features: Array
    log_mass: Array
    target: Array
    counts: Array
    penalty: Array
    products: Array | None
    intervals: Intervals | None
    pairs: tuple[tuple[int, ...], tuple[int, ...]]


def make_problem(observations: Observations, basis: Basis, reference: Distribution, domain: Array) -> Problem:
    """The arrays, in double precision: to be called where that is enabled.

    Args:
        observations: of Q densities.
        basis: of their energies.
        reference: of a batch shape that broadcasts to that of the observations.
        domain: shape (2,) or batch_shape + (2,).
    """
    batch, rows = observations.batch_shape, len(observations.values)
    domain = jnp.asarray(domain, jnp.float64)
    width = widths(basis, domain)
    tails = ref.tails_of(reference)
    frame = _make_frame(basis, reference, tails, jnp.broadcast_to(domain, (*batch, 2)))
    # Where panels lie alike in all domains, one density's features are those of all.
    edges, ends = np.asarray(frame.edges), np.asarray(frame.ends)
    relative = (edges - ends[:, :1]) / (ends[:, 1:] - ends[:, :1])
    alike = isinstance(basis, _FOLLOW_THE_DOMAIN) or domain.ndim == 1
    is_shared = rows == 1 or (alike and np.allclose(relative, relative[:1], rtol=0, atol=1e-9))
    number = 1 if is_shared else rows
    own_width = jnp.broadcast_to(width, batch).reshape(rows)
    features, by_degree, penalty = _make_features(
        basis, *(x[:number] for x in (frame.edges, frame.ends, frame.interval, frame.grid, own_width))
    )

    moments, counts = _moments(observations, edges, *np.split(np.asarray(frame.interval), 2, axis=1))
    flat = np.asarray(features[0])
    overlap = np.triu(np.abs(flat).T @ np.abs(flat) > 1e-300)
    first, second = np.nonzero(overlap) if is_shared else (np.zeros(0, int), np.zeros(0, int))
    intervals = None
    if not np.all(observations.is_exact):
        grid = frame.grid.reshape(*batch, -1)
        interval = (x.reshape(batch) for x in np.split(np.asarray(frame.interval), 2, axis=1))
        intervals = make_intervals(observations, reference, tails, tuple(interval), (basis, grid, width))
    return Problem(
        features,
        frame.log_mass,
        jnp.asarray(moments @ np.asarray(by_degree[0]) if is_shared else np.einsum("qm,qmf->qf", moments, by_degree)),
        jnp.asarray(np.pad(counts, ((0, 0), (0, 2)))),
        penalty,
        jnp.asarray(flat[:, first] * flat[:, second]) if is_shared else None,
        intervals,
        (tuple(first.tolist()), tuple(second.tolist())),
    )


class _Frame(NamedTuple):
    """Panels of Q densities and the reference on them.

    Attributes:
        edges: shape (Q, N + 1).
        ends: of the domain, shape (Q, 2).
        interval: that is integrated, shape (Q, 2).
        grid: shape (Q, G).
        log_mass: of the reference that each node, and either tail, stands for, shape (Q, 15 N + 2).
    """

    edges: Array
    ends: Array
    interval: Array
    grid: Array
    log_mass: Array


@partial(jax.jit, static_argnums=0)
def _make_frame(basis: Basis, reference: Distribution, tails: ref.Tails, domain: Array) -> _Frame:
    batch = domain.shape[:-1]
    rows = math.prod(batch)
    grid = basis.init_grid(domain)
    interval = integration_interval((domain[..., 0], domain[..., 1]), reference)
    edges = seed_panels(basis, basis.breakpoints(grid), interval, reference)
    edges = jnp.broadcast_to(edges, (*batch, edges.shape[-1])).reshape(rows, -1)
    nodes, half = _nodes(edges)
    low, high = (jnp.broadcast_to(x, batch).reshape(rows, 1) for x in interval)
    used = half > 0
    log_reference = by_rows(reference.log_prob, jnp.where(used, nodes, 0.5 * (low + high)), batch)
    inner = jnp.where(used, safe_log(half * np.tile(KRONROD, edges.shape[1] - 1)) + log_reference, -jnp.inf)
    outside = ref.log_outside(reference, *interval, tails)
    log_mass = [inner, *(jnp.broadcast_to(x, batch).reshape(rows, 1) for x in outside)]
    grid = jnp.broadcast_to(grid, (*batch, grid.shape[-1])).reshape(rows, -1)
    ends = domain.reshape(rows, 2)
    return _Frame(edges, ends, jnp.concatenate([low, high], axis=1), grid, jnp.concatenate(log_mass, axis=1))


def _nodes(edges: Array) -> tuple[Array, Array]:
    """Nodes of all panels and half the width of the panel of each, shape (L, 15 N) each."""
    nodes = jnp.moveaxis(panel_nodes(edges.T), -1, 0).swapaxes(1, 2)
    half = jnp.broadcast_to(0.5 * jnp.diff(edges)[..., None], nodes.shape)
    return nodes.reshape(len(edges), -1), half.reshape(len(edges), -1)


@partial(jax.jit, static_argnums=0)
def _make_features(
    basis: Basis, edges: Array, ends: Array, interval: Array, grid: Array, width: Array
) -> tuple[Array, Array, Array]:
    """Features at the nodes and both ends (L, M, F), their Legendre coefficients (L, 15 N, F), and the penalty."""

    def evaluate(points: Array) -> Array:
        return basis(points, grid[:, None], width[:, None])

    nodes, half = _nodes(edges)
    inner = evaluate(nodes)
    by_panel = inner.reshape(len(inner), -1, len(NODES), inner.shape[-1])
    by_degree = contract("jd,lpdf->lpjf", TO_LEGENDRE, by_panel).reshape(inner.shape)
    length = (ends[:, 1] - ends[:, 0])[:, None, None]
    weights = (half * np.tile(KRONROD, edges.shape[1] - 1))[..., None]
    penalty = _penalty(basis, evaluate, nodes, weights, length)
    return jnp.concatenate([inner, evaluate(interval)], axis=1), by_degree, penalty


def widths(basis: Basis, domain: Array) -> Array:
    """tau, shape () for a domain of all densities and for a basis whose tau does not depend on it, else batch_shape."""
    if domain.ndim == 1 or isinstance(basis, _FOLLOW_THE_DOMAIN):
        first = np.asarray(domain).reshape(-1, 2)[0]
        return uniform_grid(basis, (float(first[0]), float(first[1])))["width"]
    ends = np.asarray(domain).reshape(-1, 2).tolist()
    found = [basis.default_width((a, b)) if basis.width is None else basis.width for a, b in ends]
    return jnp.asarray(np.reshape(found, domain.shape[:-1]), domain.dtype)


def by_rows(function: Callable[[Array], Any], points: Array, batch_shape: tuple[int, ...]) -> Array:
    """A distribution's function of points (Q, M), Q being the product of its batch shape."""
    values = function(points.T.reshape(points.shape[1], *batch_shape))
    return jnp.broadcast_to(values, (points.shape[1], *batch_shape)).reshape(points.shape[1], -1).T


def _penalty(basis: Basis, evaluate: Callable[[Array], Array], nodes: Array, weights: Array, length: Array) -> Array:
    """P of c' P c, the variance of f's second derivative over the domain, z in units of the domain's length.

    For B-splines that of the second differences of the coefficients (Eilers and Marx 1996), in the same units. Parabolas
    are free, so that a reference of the observations' own moments claims no knowledge of them.
    """
    if isinstance(basis, BSpline):
        curvature = np.diff(np.eye(basis.num_features), _ORDER, axis=0) * (basis.num_grid - 1.0) ** _ORDER
        curvature -= curvature.mean(axis=0)
        return jnp.asarray(curvature.T @ curvature / (basis.num_grid - 1.0))[None]
    derivative = evaluate
    for _ in range(_ORDER):
        derivative = _differentiated(derivative)
    curvature = derivative(nodes) * length**_ORDER
    weights = weights / jnp.sum(weights, axis=1, keepdims=True)
    curvature = curvature - jnp.sum(weights * curvature, axis=1, keepdims=True)
    return contract("lmf,lmg->lfg", curvature * weights, curvature)


def _differentiated(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda z: jax.jvp(function, (z,), (jnp.ones_like(z),))[1]


def _moments(
    observations: Observations, edges: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of exact observations on each panel: weighted sums of Legendre polynomials, and squared weights by nearest node.

    Both have shape (Q, N * 15).
    """
    is_exact = observations.is_exact
    weights = np.where(is_exact, observations.weights, 0.0)
    points = np.clip(np.where(is_exact, observations.values, low), low, high)
    number = edges.shape[1] - 1
    between = 0.5 * (NODES[1:] + NODES[:-1])
    moments, counts = [], []
    for z, w, e in zip(points, weights, edges, strict=True):
        panel = np.clip(np.searchsorted(e, z, side="right") - 1, 0, number - 1)
        width = np.where(e[panel + 1] > e[panel], e[panel + 1] - e[panel], 1.0)
        t = 2 * (z - e[panel]) / width - 1
        sums = np.empty((DEGREE + 1, number))
        before, current = np.zeros_like(t), np.ones_like(t)
        for n in range(DEGREE + 1):
            sums[n] = np.bincount(panel, w * current, number)
            before, current = current, ((2 * n + 1) * t * current - n * before) / (n + 1)
        moments.append(sums.T.reshape(-1))
        node = panel * len(NODES) + np.searchsorted(between, t)
        counts.append(np.bincount(node, w * w, number * len(NODES)))
    return np.stack(moments), np.stack(counts)
