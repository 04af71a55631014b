"""Composite Gauss-Kronrod quadrature on panels that shrink to where a log-density needs them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

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

T = TypeVar("T")

# Matrix products keep every digit of the working precision on every device.
contract = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class Panels(NamedTuple):
    """A density, known up to a factor, at the quadrature nodes of its panels: exp(peak) * shape.

    Attributes:
        edges: shape (N + 1,) or batch_shape + (N + 1,), increasing; a panel may have no width.
        peak: log-density at the panel's highest node, shape batch_shape + (N,); -inf for a panel of no width.
        shape: density over its highest value in the panel, shape batch_shape + (N, 15), in [0, 1].
        step: largest change of the log-density between neighbouring nodes, shape batch_shape + (N,).
    """

    edges: Array
    peak: Array
    shape: Array
    step: Array

    def log_mass(self, weights: np.ndarray = KRONROD) -> Array:
        """Logarithm of each panel's integral by a rule on the fifteen nodes, shape batch_shape + (N,)."""
        half = 0.5 * jnp.diff(self.edges)
        return self.peak + safe_log(half * contract("...j,j->...", self.shape, jnp.asarray(weights, self.shape.dtype)))


def panel_nodes(edges: Array) -> Array:
    """Kronrod nodes of every panel, shape (..., N * 15)."""
    half = 0.5 * jnp.diff(edges)[..., None]
    nodes = (edges[..., :-1, None] + half) + half * jnp.asarray(NODES, edges.dtype)
    return nodes.reshape(*edges.shape[:-1], -1)


def evaluate(log_density: Callable[[Array], Array], edges: Array) -> Panels:
    """A density at the nodes of its panels.

    Args:
        log_density: maps points of shape (..., M) to values of shape batch_shape + (M,).
        edges: shape (N + 1,) or batch_shape + (N + 1,).
    """
    # A panel without width is evaluated in the middle of the whole, where the density is finite, and counts for nothing.
    used = jnp.diff(edges) > 0
    middle = 0.5 * (edges[..., :1] + edges[..., -1:])
    values = log_density(jnp.where(jnp.repeat(used, len(NODES), axis=-1), panel_nodes(edges), middle))
    values = values.reshape(*values.shape[:-1], edges.shape[-1] - 1, len(NODES))
    peak = jax.lax.stop_gradient(jnp.max(values, axis=-1))
    shape = jnp.exp(values - jnp.where(jnp.isfinite(peak), peak, 0.0)[..., None])
    step = jax.lax.stop_gradient(jnp.max(jnp.abs(jnp.diff(values, axis=-1)), axis=-1))
    return Panels(edges, jnp.where(used, peak, -jnp.inf), shape, step)


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
    The positions of inner edges are constants to differentiation, for no integral depends on them; the outer edges are
    those of the seeds.

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

    def assess(edges, asleep, level, rounds):
        panels = evaluate(lambda z: jax.lax.stop_gradient(log_density(z)), edges)
        return State(edges, asleep, *_excess(panels, log_tails, asleep, level)[::-1], rounds)

    def unfinished(state):
        return jnp.any(state.excess > 0) & (state.rounds < 12)

    def divide(state):
        return assess(*_divide(state.edges, state.excess), state.level, state.rounds + 1)

    log_tails = jax.lax.stop_gradient(log_tails)
    number, batch_shape = seeds.shape[-1] - 1, log_tails.shape
    edges = jnp.broadcast_to(pad_end(jax.lax.stop_gradient(seeds), number), (*batch_shape, 2 * number + 1))
    asleep = jnp.zeros((*batch_shape, 2 * number), bool)
    level = jnp.full((*batch_shape, 1), -jnp.inf, log_tails.dtype)
    edges = jax.lax.while_loop(unfinished, divide, assess(edges, asleep, level, 0)).edges
    return edges.at[..., 0].set(seeds[..., 0]).at[..., -1].set(seeds[..., -1])


def over_panels(
    log_density: Callable[[Array], Array], seeds: Array, log_tails: Array, reduce: Callable[[Panels, int], T]
) -> T:
    """Reduce a batch of densities on panels that resolve them: on the seeds where they do, else on each one's own panels.

    On the seeds every function is evaluated at the same points, and that is one matrix product.

    Args:
        log_density: maps points of shape (..., M) to values of shape batch_shape + (M,).
        seeds: first panels' edges, shape (N + 1,) or batch_shape + (N + 1,).
        log_tails: logarithm of the mass outside the panels, on the scale of the density, shape batch_shape.
        reduce: maps the panels, and the largest number that there can be of them, to arrays whose shapes do not depend
            on how many there are.
    """
    size = 2 * (seeds.shape[-1] - 1)
    panels = evaluate(log_density, seeds)

    # Recomputed in the backward pass: features at every function's own nodes are too many to keep.
    @jax.checkpoint
    def refined(seeds):
        return reduce(evaluate(log_density, refine(log_density, seeds, log_tails)), size)

    return jax.lax.cond(jnp.all(resolved(panels, log_tails)), lambda _: reduce(panels, size), refined, seeds)


def log_total(panels: Panels, log_tails: Array) -> Array:
    """Logarithm of the whole mass, shape batch_shape."""
    return jnp.logaddexp(jax.nn.logsumexp(panels.log_mass(), axis=-1), log_tails)


def relative_error(panels: Panels, log_tails: Array) -> Array:
    """Error estimate of the integral, relative to it: QUADPACK's, by the embedded Gauss rule, plus rounding.

    Each panel contributes d * min(1, (200 |K - G| / d)^1.5), d the integral of the density's distance from its mean
    (Piessens et al. 1983, sec. 2.2.4.1); rounding counts as 8 units of the largest energy that matters.

    Args:
        panels: the density at its nodes.
        log_tails: logarithm of the mass outside the panels, shape batch_shape.

    Returns:
        Shape batch_shape.
    """
    kronrod, gauss = (jnp.asarray(w, panels.shape.dtype) for w in (KRONROD, GAUSS))
    log_mass = panels.log_mass()
    total = log_total(panels, log_tails)[..., None]
    scale = jnp.exp(panels.peak + safe_log(0.5 * jnp.diff(panels.edges)) - total)
    mean = 0.5 * contract("...j,j->...", panels.shape, kronrod)
    distance = scale * contract("...j,j->...", jnp.abs(panels.shape - mean[..., None]), kronrod)
    difference = scale * jnp.abs(contract("...j,j->...", panels.shape, kronrod - gauss))
    ratio = 200 * difference / jnp.where(distance > 0, distance, 1.0)
    truncation = jnp.sum(distance * jnp.minimum(1.0, ratio**1.5), axis=-1)
    largest = jnp.max(jnp.where(log_mass > total - 20, jnp.abs(panels.peak), 0.0), axis=-1)
    return truncation + 8 * jnp.finfo(panels.shape.dtype).eps * (1 + largest)


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
    largest value by the largest step between neighbouring nodes.

    Also returns the largest total mass so far: what was negligible against it may matter against a smaller one.
    """
    edges, peak, shape, step = panels
    dtype, number = shape.dtype, shape.shape[-2]
    log_mass = panels.log_mass()
    total = log_total(panels, log_tails)[..., None]

    # Rounding of the energies themselves cannot be resolved away.
    eps = jnp.finfo(dtype).eps
    largest = jnp.max(jnp.where(log_mass > total - 20, jnp.abs(peak), 0.0), axis=-1, keepdims=True)
    tolerance = jnp.log(jnp.maximum(1e-11, 4 * eps * jnp.maximum(largest, 1.0)) / number)

    last = contract("...j,jc->...c", shape, jnp.asarray(TO_LEGENDRE.T[:, -2:], dtype))
    decay = jnp.sum(jnp.abs(last), axis=-1) / DEGREE
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
