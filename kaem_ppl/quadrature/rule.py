"""The composite Gauss-Kronrod rule: a density at the nodes of its panels, sums of it, and an error estimate."""

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
SUMS = np.stack([KRONROD, KRONROD - GAUSS, *TO_LEGENDRE[-4:]], axis=1)

# Matrix products keep every digit of the working precision on every device.
contract = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class Panels(NamedTuple):
    """What quadrature needs of a density, known up to a factor, on its panels.

    Attributes:
        edges: shape (N + 1,) or batch_shape + (N + 1,), increasing; a panel may have no width.
        peak: log-density at the panel's highest node, shape batch_shape + (N,); -inf for a panel of no width.
        sums: of the density over its peak: Kronrod sum, Kronrod less Gauss sum, last four Legendre coefficients, shape
            batch_shape + (6, N).
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


def evaluate(log_density: Callable[[Array], Array], edges: Array) -> tuple[Panels, Array, Array]:
    """A density at all nodes of its panels at once.

    Args:
        log_density: maps points of shape (..., M) to values of shape batch_shape + (M,).
        edges: shape (N + 1,), or (..., N + 1) with a leading part that broadcasts with batch_shape.

    Returns:
        The panels; the density over its peak at the nodes, in [0, 1], and the log-density there, shape
        batch_shape + (15, N) each.
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
    return Panels(edges, *summary), shape, values


def sums_of_nodes(shape: Array) -> Array:
    """`Panels.sums` of a density over its peak at the nodes, (..., 15, N) to (..., 6, N)."""
    columns = [sum(float(w) * x for w, x in zip(column, _nodes_of(shape), strict=True) if w) for column in SUMS.T]
    return jnp.stack(columns, axis=-2)


def kronrod_sum(shape: Array) -> Array:
    """The Kronrod sum of values at the nodes, (..., 15, N) to (..., N)."""
    return sum(float(w) * x for w, x in zip(KRONROD, _nodes_of(shape), strict=True))


def _nodes_of(values: Array) -> list[Array]:
    return [values[..., j, :] for j in range(len(NODES))]


def evaluate_few(log_density: Callable[[Array], Array], edges: Array) -> tuple[Panels, Array]:
    """A few densities on panels of their own: as `evaluate`, in less time to compile and more to run.

    Args:
        log_density: maps points of shape (B, M) to values of that shape.
        edges: shape (B, N + 1).

    Returns:
        The panels; and the density over its peak at the nodes, shape (B, 15, N), in [0, 1].
    """
    used, nodes = _usable_nodes(edges)
    values = jnp.swapaxes(log_density(nodes.reshape(len(nodes), -1)).reshape(nodes.shape), -1, -2)
    fixed = jax.lax.stop_gradient(values)
    peak = jnp.max(fixed, axis=-2)
    shape = jnp.exp(values - jnp.where(jnp.isfinite(peak), peak, 0.0)[..., None, :])
    step = jnp.max(jnp.abs(jnp.diff(fixed[..., ::2, :], axis=-2)), axis=-2)
    sums = contract("...jn,jc->...cn", shape, jnp.asarray(SUMS, shape.dtype))
    return Panels(edges, jnp.where(used, peak, -jnp.inf), sums, step), shape


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


def log_total(panels: Panels, log_tails: Array) -> Array:
    """Logarithm of the whole mass, shape batch_shape."""
    highest = jnp.max(panels.peak, axis=-1, keepdims=True)
    highest = jnp.where(jnp.isfinite(highest), highest, 0.0)
    inside = highest[..., 0] + safe_log(jnp.sum(panels.mass(highest), axis=-1))
    return jnp.logaddexp(inside, log_tails)


def decay(sums: Array) -> tuple[Array, Array]:
    """The last two Legendre coefficients of a density, and what they say of those to come, over its peak, (..., N) each.

    The next two are taken to be smaller in the proportion in which the last two are smaller than those before, sixteen
    times at most; not where rounding makes them alike.

    Args:
        sums: as in `Panels`.
    """
    before, last = (jnp.abs(sums[..., i, :]) + jnp.abs(sums[..., i + 1, :]) for i in (2, 4))
    return last, last * jnp.clip(last / jnp.where(before > 0, before, 1.0), 1 / 16, 1.0)


def relative_truncation(sums: Array) -> Array:
    """Error estimate of a panel's integral, relative to it, (..., 6, N) to (..., N).

    QUADPACK's, min(1, (200 |K - G| / K)^1.5) by the embedded Gauss rule (after Piessens et al. 1983, sec. 2.2.4.1), or
    the Legendre coefficients beyond the last if these are less: Kronrod's sum errs by later ones only.
    """
    mass = jnp.where(sums[..., 0, :] > 0, sums[..., 0, :], 1.0)
    ratio = 200 * jnp.abs(sums[..., 1, :]) / mass
    by_gauss = jnp.minimum(1.0, ratio * jnp.sqrt(ratio))
    return jnp.minimum(by_gauss, decay(sums)[1] / mass)


def truncation(panels: Panels, log_total: Array) -> Array:
    """Error estimate of each panel's integral relative to the whole mass, shape batch_shape + (N,).

    Args:
        panels: the density at its nodes.
        log_total: logarithm of the whole mass, of a shape that broadcasts with the panels' masses.
    """
    return panels.mass(log_total) * relative_truncation(panels.sums)


def rounding(panels: Panels, log_total: Array, term_size: Array) -> Array:
    """Rounding errors of the log-density that quadrature can't undo, in nats, shape batch_shape.

    Four units of the largest log-density that matters, and one of the sum of the sizes of its terms, for they may cancel.

    Args:
        panels: the density at its nodes.
        log_total: logarithm of the whole mass, shape batch_shape.
        term_size: sum of the sizes of the log-density's terms, of a shape that broadcasts with batch_shape.
    """
    matters = panels.peak + safe_log(jnp.diff(panels.edges)) > log_total[..., None] - 20
    largest = jnp.max(jnp.where(matters, jnp.abs(panels.peak), 0.0), axis=-1)
    return jnp.finfo(largest.dtype).eps * (4 * jnp.maximum(largest, 1.0) + term_size)


def with_ends(edges: Array, low: Array, high: Array) -> Array:
    """The edges between low and high, those at an end being that end itself: panels without a width may stand there."""
    is_low, is_high = (jax.lax.stop_gradient(x) for x in (edges <= low, edges >= high))
    return jnp.where(is_low, low, jnp.where(is_high, high, edges))


def pad_end(x: Array, number: int) -> Array:
    """Repeat the last entry along the last axis `number` times more."""
    return jnp.concatenate([x, jnp.repeat(x[..., -1:], number, axis=-1)], axis=-1)


def safe_log(x: Array) -> Array:
    """Logarithm, -inf at 0 with a gradient of 0."""
    positive = x > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, x, 1.0)), -jnp.inf)
