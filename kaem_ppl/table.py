"""A tabulated distribution function: exact at panel edges, a polynomial inside each panel, inverted without a chain."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from .quadrature import DEGREE, TO_LEGENDRE, Panels, contract, pad_end


class Table(NamedTuple):
    """Masses of a normalised density on panels, from both ends, and its polynomial inside each panel.

    Both running sums are kept, for one minus a sum has no digits left in the other tail.

    Attributes:
        edges: shape (..., N + 1).
        lower: mass below each edge, shape (..., N + 1).
        upper: mass above each edge, shape (..., N + 1).
        density: Legendre coefficients of the density given its panel, in t on [-1, 1], shape (..., N, 15).
        left_factor: logarithm of the density over the reference's left of the panels, shape (...).
        right_factor: the same right of the panels.
    """

    edges: Array
    lower: Array
    upper: Array
    density: Array
    left_factor: Array
    right_factor: Array


def tabulate(panels: Panels, factors: tuple[Array, Array], outside: tuple[Array, Array], size: int) -> Table:
    """Normalise a density on its panels, with its two tails, and pad the table to `size` panels.

    Args:
        panels: the density, up to a factor.
        factors: logarithms of the density over the reference's, left and right of the panels, up to the same factor,
            shape batch_shape each.
        outside: logarithms of the reference's masses there, of shapes that broadcast with batch_shape.
        size: number of panels in the table, at least those of `panels`.
    """
    log_mass = panels.log_mass()
    batch_shape = log_mass.shape[:-1]
    left, right = (jnp.broadcast_to(f + o, batch_shape)[..., None] for f, o in zip(factors, outside, strict=True))
    parts = jnp.concatenate([left, log_mass, right], axis=-1)
    log_normalizer = jax.nn.logsumexp(parts, axis=-1)
    masses = jnp.exp(parts - log_normalizer[..., None])
    # A parallel running sum is not monotone to the last digit.
    lower = jax.lax.cummax(jnp.cumsum(masses[..., :-1], axis=-1), axis=log_mass.ndim - 1)
    upper = jnp.flip(jnp.cumsum(jnp.flip(masses[..., 1:], axis=-1), axis=-1), axis=-1)
    upper = jax.lax.cummax(upper, axis=log_mass.ndim - 1, reverse=True)

    coefficients = contract("...nj,dj->...nd", panels.shape, jnp.asarray(TO_LEGENDRE, panels.shape.dtype))
    # The constant term times the panel's length, 2, is the mass. An empty panel is never inverted: any density does.
    mass = 2 * coefficients[..., :1]
    coefficients = coefficients / jnp.where(mass > 0, mass, 1.0)

    spare = size - log_mass.shape[-1]
    edges = jnp.broadcast_to(panels.edges, (*batch_shape, panels.edges.shape[-1]))
    padding = [(0, 0)] * len(batch_shape) + [(0, spare), (0, 0)]
    factors = (jnp.broadcast_to(f - log_normalizer, batch_shape) for f in factors)
    return Table(*(pad_end(x, spare) for x in (edges, lower, upper)), jnp.pad(coefficients, padding), *factors)


def tails(table: Table, z: Array) -> tuple[Array, Array]:
    """Mass below and above points that lie on the panels.

    Args:
        table: of batch shape (...).
        z: points, shape (..., S).

    Returns:
        Two arrays of the shape of z; the smaller of the two is accurate relative to itself.
    """
    edges = table.edges
    panel = _count(edges[..., 1:-1], jax.lax.stop_gradient(z))
    left, right, lower, upper = _ends(table, panel)
    width = right - left
    t = jnp.where(width > 0, 2 * (z - left) / jnp.where(width > 0, width, 1.0) - 1, 0.0)
    part, _ = _cumulative(_rows(table.density, panel), jnp.clip(t, -1, 1))
    mass = _take(jnp.diff(table.lower), panel)
    # The panel's mass from whichever running sum is the more accurate.
    mass = jnp.where(lower < upper, mass, _take(-jnp.diff(table.upper), panel))
    return lower + mass * part, upper + mass * (1 - part)


@jax.custom_jvp
def quantile(table: Table, lower: Array, upper: Array) -> Array:
    """Points on the panels with given mass below and above.

    Differentiable by the implicit function theorem, dz = (du - dF(z)) / p(z) (Figurnov et al. 2018, eq. 5).

    Args:
        table: of batch shape (...).
        lower: mass below, shape (..., S); masses in the tails map to the ends.
        upper: mass above, 1 - lower, given separately for its digits.

    Returns:
        Points, shape (..., S).
    """
    return _solve(table, lower, upper)[0]


@quantile.defjvp
def _quantile_jvp(primals, tangents):
    table, lower, upper = primals
    d_table, d_lower, d_upper = tangents
    z = quantile(*primals)
    (below, above), (d_below, d_above) = jax.jvp(lambda table: tails(table, z), (table,), (d_table,))
    residual = jnp.where(below < above, d_lower - d_below, d_above - d_upper)
    p = density(table, z)
    tiny = jnp.finfo(z.dtype).tiny
    return z, residual / jnp.maximum(p, tiny)


def density(table: Table, z: Array) -> Array:
    """The polynomial density at points on the panels, shape (..., S)."""
    panel = _count(table.edges[..., 1:-1], jax.lax.stop_gradient(z))
    left, right, lower, upper = _ends(table, panel)
    width = jnp.where(right > left, right - left, 1.0)
    _, p = _cumulative(_rows(table.density, panel), jnp.clip(2 * (z - left) / width - 1, -1, 1))
    mass = jnp.where(lower < upper, _take(jnp.diff(table.lower), panel), _take(-jnp.diff(table.upper), panel))
    return 2 * mass * p / width


def _solve(table, lower, upper):
    """Invert the polynomial of the right panel by Newton steps kept inside a shrinking bracket."""
    panel = _count(_order(table.lower[..., 1:-1], table.upper[..., 1:-1]), _order(lower, upper))
    left, right, below, above = _ends(table, panel)
    mass = jnp.where(below < above, _take(jnp.diff(table.lower), panel), _take(-jnp.diff(table.upper), panel))
    mass = jnp.maximum(mass, jnp.finfo(mass.dtype).tiny)
    above_right = _take(table.upper[..., 1:], panel)
    target = jnp.where(lower < upper, (lower - below) / mass, 1 - (upper - above_right) / mass)
    target = jnp.clip(target, 0, 1)
    rows = _rows(table.density, panel)

    def step(state):
        t, low, high, _, rounds = state
        part, p = _cumulative(rows, t)
        error = part - target
        low, high = jnp.where(error < 0, t, low), jnp.where(error < 0, high, t)
        newton = t - error / jnp.where(p > 0, p, 1.0)
        inside = (p > 0) & (newton >= low) & (newton <= high)
        new = jnp.where(inside, newton, 0.5 * (low + high))
        return new, low, high, jnp.max(jnp.abs(new - t)), rounds + 1

    eps = jnp.finfo(target.dtype).eps

    def moving(state):
        return (state[3] > 8 * eps) & (state[4] < 60)

    ones = jnp.ones_like(target)
    start = 2 * target - 1
    t, *_ = jax.lax.while_loop(moving, step, (start, -ones, ones, jnp.asarray(jnp.inf, target.dtype), 0))
    return left + 0.5 * (right - left) * (t + 1), panel


def _cumulative(rows, t):
    """The density's integral from -1 to t and its value at t, from Legendre coefficients, rows of shape (..., 15).

    The integral of P_n from -1 is (P_{n+1} - P_{n-1}) / (2 n + 1), that of P_0 is t + 1.
    """
    before, current = jnp.ones_like(t), t
    value = rows[..., 0]
    integral = rows[..., 0] * (t + 1)
    for n in range(1, DEGREE + 1):
        after = ((2 * n + 1) * t * current - n * before) / (n + 1)
        value = value + rows[..., n] * current
        integral = integral + rows[..., n] * (after - before) / (2 * n + 1)
        before, current = current, after
    return integral, value


def _order(lower, upper):
    """A number that grows with the quantile and keeps the relative precision of the smaller tail."""
    return jnp.where(lower < upper, -1 / lower, 1 / upper)


@partial(jnp.vectorize, signature="(n),(s)->(s)")
def _count(inner, x):
    """How many inner edges each point has passed: the index of its panel."""
    return jnp.searchsorted(inner, x, side="right", method="scan_unrolled")


def _ends(table, panel):
    """Edges of each panel and the masses below its left and above its left edge."""
    return (
        _take(table.edges[..., :-1], panel),
        _take(table.edges[..., 1:], panel),
        _take(table.lower[..., :-1], panel),
        _take(table.upper[..., :-1], panel),
    )


_take = partial(jnp.take_along_axis, axis=-1)


def _rows(density, panel):
    return jnp.take_along_axis(density, panel[..., None], axis=-2)
