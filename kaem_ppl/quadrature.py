"""Composite Gauss-Kronrod quadrature on panels that shrink to where a log-density needs them."""

import functools
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.polynomial import legendre

# The (7, 15) pair on [-1, 1] (Kronrod 1965; QUADPACK, Piessens et al. 1983). Nodes and weights for x >= 0.
_HALF_NODES = np.array([
    0.991455371120812639206854697526329, 0.949107912342758524526189684047851, 0.864864423359769072789712788640926,
    0.741531185599394439863864773280788, 0.586087235467691130294144691693013, 0.405845151377397166906606412076961,
    0.207784955007898467600689403773245, 0.000000000000000000000000000000000,
])  # fmt: skip
_HALF_KRONROD = np.array([
    0.022935322010529224963732008058970, 0.063092092629978553290700663189204, 0.104790010322250183839876322541518,
    0.140653259715525918745189590510238, 0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
    0.204432940075298892414161999234649, 0.209482141084727828012999174891714,
])  # fmt: skip
_HALF_GAUSS = np.array([
    0.0, 0.129484966168869693270611432679082, 0.0, 0.279705391489276667901467771423780,
    0.0, 0.381830050505118944950369775488975, 0.0, 0.417959183673469387755102040816327,
])  # fmt: skip
NODES = np.concatenate([-_HALF_NODES, _HALF_NODES[-2::-1]])
KRONROD = np.concatenate([_HALF_KRONROD, _HALF_KRONROD[-2::-1]])
GAUSS = np.concatenate([_HALF_GAUSS, _HALF_GAUSS[-2::-1]])
DEGREE = len(NODES) - 1
# Legendre coefficients of a polynomial of degree 14 to its values at the nodes, and back.
FROM_LEGENDRE = legendre.legvander(NODES, DEGREE)
TO_LEGENDRE = np.linalg.inv(FROM_LEGENDRE)
_SUMS = np.stack([KRONROD, KRONROD - GAUSS, *TO_LEGENDRE[-2:]], axis=1)

# Matrix products keep every digit of the working precision on every device.
contract = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class Panels(NamedTuple):
    """What quadrature needs of a density, known up to a factor, on its panels.

    Attributes:
        edges: shape (N + 1,) or batch_shape + (N + 1,), increasing; a panel may have no width.
        peak: log-density at the panel's highest node, shape batch_shape + (N,); -inf for a panel of no width.
        sums: of the density over its peak: Kronrod sum, Kronrod less Gauss sum, last two Legendre coefficients, shape
            batch_shape + (4, N).
        step: largest change of the log-density between nearby nodes, shape batch_shape + (N,).
    """

    edges: Array
    peak: Array
    sums: Array
    step: Array

    def mass(self, log_scale: Array) -> Array:
        """Each panel's integral over exp(log_scale), which broadcasts with it, shape batch_shape + (N,)."""
        return 0.5 * jnp.diff(self.edges) * self.sums[..., 0, :] * jnp.exp(self.peak - log_scale)

    def log_mass(self) -> Array:
        """Logarithm of each panel's integral, shape batch_shape + (N,)."""
        return self.peak + safe_log(0.5 * jnp.diff(self.edges) * self.sums[..., 0, :])


def panel_nodes(edges: Array) -> Array:
    """Kronrod nodes of every panel, shape (..., N, 15)."""
    half = 0.5 * jnp.diff(edges)[..., None]
    return (edges[..., :-1, None] + half) + half * jnp.asarray(NODES, edges.dtype)


def evaluate(log_density: Callable[[Array], Array], edges: Array) -> tuple[Panels, Array]:
    """A density at all nodes of its panels at once.

    Args:
        log_density: maps points of shape (..., M) to values of shape batch_shape + (M,).
        edges: shape (N + 1,) or batch_shape + (N + 1,).

    Returns:
        The panels; and the density over its peak at the nodes, shape batch_shape + (15, N), in [0, 1].
    """
    used, nodes = _usable_nodes(edges)
    if edges.ndim == 1:
        values = log_density(nodes.T.reshape(-1))
        values = values.reshape(*values.shape[:-1], *nodes.T.shape)
    else:
        values = jax.lax.map(lambda points: _in_pieces(log_density, points), jnp.moveaxis(nodes, -1, 0))
        values = jnp.moveaxis(values, 0, -2)
    # Without barriers XLA's CPU compiler evaluates values, exponentials and sums anew for each of their uses. Sums are
    # written out node by node, for it does not vectorise a reduction over so short an axis.
    values = jax.lax.optimization_barrier(values)
    peak = jax.lax.stop_gradient(functools.reduce(jnp.maximum, _nodes_of(values)))
    shape = jax.lax.optimization_barrier(jnp.exp(values - jnp.where(jnp.isfinite(peak), peak, 0.0)[..., None, :]))
    every_other = itertools.pairwise(_nodes_of(jax.lax.stop_gradient(values))[::2])
    step = functools.reduce(jnp.maximum, [jnp.abs(after - before) for before, after in every_other])
    summary = jax.lax.optimization_barrier((jnp.where(used, peak, -jnp.inf), sums_of_nodes(shape), step))
    return Panels(edges, *summary), shape


def sums_of_nodes(shape: Array) -> Array:
    """`Panels.sums` of a density over its peak at the nodes, (..., 15, N) to (..., 4, N)."""
    columns = [sum(float(w) * x for w, x in zip(column, _nodes_of(shape), strict=True) if w) for column in _SUMS.T]
    return jnp.stack(columns, axis=-2)


def _nodes_of(values):
    return [values[..., j, :] for j in range(len(NODES))]


def summarize(log_density: Callable[[Array], Array], edges: Array) -> Panels:
    """A density on its panels, a node at a time: nothing larger than a number per panel is kept.

    Args:
        log_density: maps points of shape (..., M) to values of shape batch_shape + (M,).
        edges: shape batch_shape + (N + 1,).
    """
    used, nodes = _usable_nodes(edges)

    def add(panels, node):
        previous, peak, sums, step = panels
        points, weights = node
        value = _in_pieces(log_density, points)
        highest = jax.lax.stop_gradient(jnp.maximum(peak, value))
        finite = jnp.where(jnp.isfinite(highest), highest, 0.0)
        old, new = (jnp.exp(x - finite)[..., None, :] for x in (peak, value))
        sums = sums * old + weights[:, None] * new
        change = jnp.where(jnp.isnan(previous), 0.0, jnp.abs(value - previous))
        return jax.lax.stop_gradient((value, highest)) + (sums, jax.lax.stop_gradient(jnp.maximum(step, change))), None

    shape = jax.eval_shape(log_density, nodes[..., 0])
    zeros = jnp.zeros(shape.shape, shape.dtype)
    empty = (zeros + jnp.nan, zeros - jnp.inf, jnp.stack([zeros] * _SUMS.shape[1], axis=-2), zeros)
    each = (jnp.moveaxis(nodes, -1, 0), jnp.asarray(_SUMS, shape.dtype))
    (_, peak, sums, step), _ = jax.lax.scan(jax.checkpoint(add), empty, each)
    return Panels(edges, jnp.where(used, peak, -jnp.inf), sums, step)


def _in_pieces(log_density, points):
    """log_density(points), a few points of each function at a time: features of every function's own points are many."""
    *batch_shape, number = points.shape
    fits = [n for n in range(1, number + 1) if number % n == 0 and n * math.prod(batch_shape) <= 2**15]
    size = max(fits, default=1)
    if size == number:
        return log_density(points)
    pieces = jnp.moveaxis(points.reshape(*batch_shape, number // size, size), -2, 0)
    values = jnp.moveaxis(jax.lax.map(jax.checkpoint(log_density), pieces), 0, -2)
    return values.reshape(*values.shape[:-2], number)


def _usable_nodes(edges):
    """Which panels have a width, and nodes; those of the others in the middle of the whole, where the density is finite."""
    used = jnp.diff(edges) > 0
    middle = 0.5 * (edges[..., :1] + edges[..., -1:])
    return used, jnp.where(used[..., None], panel_nodes(edges), middle[..., None])


def resolved(panels: Panels, log_tails: Array) -> Array:
    """Whether the density is, to working precision, a polynomial of degree 14 on every panel whose mass matters.

    Args:
        panels: the density at its nodes.
        log_tails: logarithm of the mass outside the panels, on the scale of the density, shape batch_shape.

    Returns:
        Shape batch_shape.
    """
    panels, log_tails = jax.lax.stop_gradient((panels, log_tails))
    return jnp.all(_excess(panels, log_tails)[0] <= 0, axis=-1)


def refine(log_density: Callable[[Array], Array], seeds: Array, log_tails: Array) -> Array:
    """Edges of panels that resolve each density, twice as many as the seeds' panels.

    Panels without mass are merged and unresolved ones are divided, until all are resolved or a dozen rounds have passed.

    Args:
        log_density: maps points of shape (..., M) to values of shape batch_shape + (M,).
        seeds: first panels' edges, shape (N + 1,) or batch_shape + (N + 1,).
        log_tails: as for `resolved`.

    Returns:
        Edges, shape batch_shape + (2 N + 1,).
    """

    class State(NamedTuple):
        edges: Array
        asleep: Array  # merged panels, known from narrower ones to hold no mass
        level: Array  # the largest total that a panel was put to sleep against
        excess: Array
        rounds: int

    def unfinished(state):
        return (state.rounds == 0) | (jnp.any(state.excess > 0) & (state.rounds <= 12))

    def divide(state):
        edges, asleep = _divide(state.edges, state.excess)
        excess, level = _excess(summarize(log_density, edges), log_tails, asleep, state.level)
        return State(edges, asleep, level, excess, state.rounds + 1)

    number, batch_shape = seeds.shape[-1] - 1, log_tails.shape
    # Nothing exceeds at first, so the first round divides nothing: it assesses the seeds.
    none = jnp.zeros((*batch_shape, 2 * number), log_tails.dtype)
    level = jnp.full((*batch_shape, 1), -jnp.inf, log_tails.dtype)
    first = State(with_spare_panels(seeds, batch_shape), none > 0, level, none, 0)
    return jax.lax.while_loop(unfinished, divide, first).edges


def with_spare_panels(seeds: Array, batch_shape: tuple[int, ...]) -> Array:
    """Each function's own copy of the seeds and as many panels of no width, shape batch_shape + (2 N + 1,)."""
    edges = pad_end(seeds, seeds.shape[-1] - 1)
    return jnp.broadcast_to(edges, (*batch_shape, edges.shape[-1]))


def edges_of_tier(seeds: Array, tier: int, own: Array | None, batch_ndim: int) -> Array:
    """Edges of the first, second or third kind of panels, each finer and dearer than the one before.

    Functions that share their points are evaluated by one matrix product; points of each one's own cost about a hundred
    times as much.

    Args:
        seeds: edges of tier 0, shape (N + 1,) or batch_shape + (N + 1,).
        tier: 0 for the seeds, 1 for the seeds' panels divided by four, 2 for each function's own.
        own: edges that `refine` found, for tier 2.
        batch_ndim: number of batch axes.

    Returns:
        Edges. The two ends are the seeds', and so are derivatives in them; positions of inner edges are constants as far
        as integrals are concerned, for none depends on them.
    """
    if tier == 0:
        return seeds
    return divide_seeds(seeds, batch_ndim) if tier == 1 else with_ends_of(seeds, own)


def with_ends_of(seeds: Array, edges: Array) -> Array:
    """The edges, ending where the seeds end, so that a derivative in the ends finds its way."""
    return with_ends(edges, seeds[..., :1], seeds[..., -1:])


def with_ends(edges: Array, low: Array, high: Array) -> Array:
    """The edges between low and high, those at an end being that end itself: panels without a width may stand there."""
    is_low, is_high = (jax.lax.stop_gradient(x) for x in (edges <= low, edges >= high))
    return jnp.where(is_low, low, jnp.where(is_high, high, edges))


def divide_seeds(seeds: Array, batch_ndim: int) -> Array:
    """Each panel in four, shape (1, ..., 1, 4 N + 1) for shared seeds: functions keep sharing points, a node at a time."""
    parts = seeds[..., :-1, None] + jnp.diff(seeds)[..., None] * jnp.arange(4, dtype=seeds.dtype) / 4
    edges = jnp.concatenate([parts.reshape(*seeds.shape[:-1], -1), seeds[..., -1:]], axis=-1)
    return edges if edges.ndim > 1 else edges.reshape((1,) * batch_ndim + edges.shape)


def log_total(panels: Panels, log_tails: Array) -> Array:
    """Logarithm of the whole mass, shape batch_shape."""
    highest = jnp.max(panels.peak, axis=-1, keepdims=True)
    highest = jnp.where(jnp.isfinite(highest), highest, 0.0)
    inside = highest[..., 0] + safe_log(jnp.sum(panels.mass(highest), axis=-1))
    return jnp.logaddexp(inside, log_tails)


def relative_error(panels: Panels, log_tails: Array, term_size: Array) -> Array:
    """Error estimate of the integral, relative to it: QUADPACK's, by the embedded Gauss rule, plus rounding.

    A panel of mass m contributes m min(1, (200 |K - G| / m)^1.5) (after Piessens et al. 1983, sec. 2.2.4.1); rounding
    counts as 8 units of the largest log-density that matters and of the terms that add up to it.

    Args:
        panels: the density at its nodes.
        log_tails: logarithm of the mass outside the panels, shape batch_shape.
        term_size: bound on the sum of the sizes of the log-density's terms, which may cancel; shape batch_shape.

    Returns:
        Shape batch_shape.
    """
    total = log_total(panels, log_tails)[..., None]
    mass = panels.mass(total)
    ratio = 200 * jnp.abs(panels.sums[..., 1, :]) / jnp.where(mass > 0, panels.sums[..., 0, :], 1.0)
    truncation = jnp.sum(mass * jnp.minimum(1.0, ratio**1.5), axis=-1)
    return truncation + 8 * jnp.finfo(mass.dtype).eps * (1 + _largest_energy(panels, total)[..., 0] + term_size)


def _largest_energy(panels, total):
    """The largest log-density on panels that may hold a mass that matters, shape batch_shape + (1,)."""
    matters = panels.peak + safe_log(jnp.diff(panels.edges)) > total - 20
    return jnp.max(jnp.where(matters, jnp.abs(panels.peak), 0.0), axis=-1, keepdims=True)


def pad_end(x: Array, number: int) -> Array:
    """Repeat the last entry along the last axis `number` times more."""
    return jnp.concatenate([x, jnp.repeat(x[..., -1:], number, axis=-1)], axis=-1)


def safe_log(x: Array) -> Array:
    """Logarithm, -inf at 0 with a gradient of 0."""
    positive = x > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, x, 1.0)), -jnp.inf)


def _excess(panels: Panels, log_tails: Array, asleep=False, level=-jnp.inf) -> tuple[Array, Array]:
    """How far each panel is from resolved, in nats, shape batch_shape + (N,); -inf where its mass does not matter.

    Positive where the last Legendre coefficients of the density, on the scale of the total mass, exceed the tolerance.
    A peak may hide between two nodes, so the mass of a panel whose coefficients do not decay is bounded by raising its
    largest value by the largest step between nearby nodes.

    Also returns the largest total mass so far: what was negligible against it may matter against a smaller one.
    """
    edges, peak, sums, step = panels
    dtype, number = sums.dtype, sums.shape[-1]
    total = log_total(panels, log_tails)[..., None]

    # Rounding of the energies themselves cannot be resolved away.
    eps = jnp.finfo(dtype).eps
    rounding = 4 * eps * jnp.maximum(_largest_energy(panels, total), 1.0)
    tolerance = jnp.log(jnp.maximum(1e-11, rounding) / number)

    decay = (jnp.abs(sums[..., 2, :]) + jnp.abs(sums[..., 3, :])) / DEGREE
    bound = peak + safe_log(0.5 * jnp.diff(edges)) - total + jnp.where(decay > 1e-3, step, 0.0)
    # A total that was overestimated, by a node on a narrow peak, wakes what fell asleep against it.
    level = jnp.maximum(level, total)
    still = asleep & (level < total + 10)
    negligible = (bound < tolerance - 10) | still | jnp.isneginf(peak)
    excess = bound + safe_log(decay) - tolerance
    # A panel as narrow as the spacing of floats can't be divided.
    ulps = jnp.diff(edges) / (eps * (jnp.abs(edges[..., 1:]) + jnp.abs(edges[..., :-1])))
    excess = jnp.where(ulps > 64, excess, jnp.minimum(excess, 0.0))
    return jnp.where(negligible | jnp.isnan(excess), -jnp.inf, excess), level


def _divide(edges: Array, excess: Array) -> tuple[Array, Array]:
    """The same number of panels: neighbours without mass merge, and the panels so freed divide the unresolved ones.

    Also returns which panels hold no mass.
    """
    number = excess.shape[-1]
    empty = jnp.isneginf(excess)
    merged = empty & jnp.concatenate([jnp.zeros_like(empty[..., :1]), empty[..., :-1]], axis=-1)
    counts = jnp.where(merged, 0, 1)
    spare = number - jnp.sum(counts, axis=-1, keepdims=True)
    need = jnp.where(excess > 0, 1 + jnp.minimum(excess, 50.0), 0.0)
    share = jnp.cumsum(need, axis=-1) / jnp.maximum(jnp.sum(need, axis=-1, keepdims=True), 1e-30)
    granted = jnp.floor(spare * share + 1e-3).astype(counts.dtype)
    counts = counts + jnp.diff(granted, axis=-1, prepend=0)

    ends = jnp.cumsum(counts, axis=-1)
    position = jnp.arange(number)
    # The old panel that each new one starts in, and which of its parts that is.
    old = jnp.sum(ends[..., None, :] <= position[:, None], axis=-1)
    left_over = old == number
    take = partial(jnp.take_along_axis, indices=jnp.minimum(old, number - 1), axis=-1)
    part = position - take(ends - counts)
    starts = take(edges[..., :-1]) + take(jnp.diff(edges)) * part / jnp.maximum(take(counts), 1)
    starts = jnp.where(left_over, edges[..., -1:], starts)
    return jnp.concatenate([starts, edges[..., -1:]], axis=-1), take(empty) | left_over
