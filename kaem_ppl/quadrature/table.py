"""A tabulated CDF: exact at panel edges, a polynomial inside each panel, inverted in one pass."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ..compilation import rising_sum
from .rule import DEGREE, TO_LEGENDRE, multiply_nodes, safe_log

# Legendre coefficients that a panel's point is first found by.
_FIRST_TERMS = 6
# Points that are inverted together on a CPU.
_POINTS_AT_ONCE = 2**14


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


def tabulate(
    edges: Array, level: Array, density: Array, factors: tuple[Array, Array], outside: tuple[Array, Array]
) -> Table:
    """Normalise densities on their panels, with their two tails.

    Args:
        edges: of the panels, shape (N + 1, Q).
        level: logarithm that the density is relative to on each panel, shape (N, Q).
        density: at the nodes, shape (15, N, Q).
        factors: logarithms of the density over the reference's, left and right of the panels, shape (Q,) each.
        outside: logarithms of the reference's masses there, shape (Q,) each.

    Returns:
        The table, of batch shape (Q,).
    """
    coefficients = multiply_nodes(TO_LEGENDRE, density)
    # The constant term times the panel's length, 2, is the mass.
    log_mass = level + safe_log(jnp.diff(edges, axis=0) * coefficients[0])
    left, right = (f + o for f, o in zip(factors, outside, strict=True))
    parts = jnp.concatenate([left[None], log_mass, right[None]])
    log_normalizer = jax.nn.logsumexp(parts, axis=0)
    masses = jnp.exp(parts - log_normalizer)
    # From below and from above at once.
    sums = rising_sum(jnp.stack([masses[:-1], masses[:0:-1]], axis=1))
    # An empty panel is never inverted: any density does.
    mass = 2 * coefficients[0]
    coefficients = coefficients / jnp.where(mass > 0, mass, 1.0)
    left_factor, right_factor = (factor - log_normalizer for factor in factors)
    return Table(
        edges.T,
        sums[:, 0].T,
        sums[::-1, 1].T,
        jnp.moveaxis(coefficients, -1, 0).swapaxes(-1, -2),
        left_factor,
        right_factor,
    )


@jax.custom_jvp
def tails(table: Table, z: Array) -> tuple[Array, Array]:
    """Mass below and above points that lie on the panels.

    Args:
        table: of batch shape (...).
        z: points, shape (..., S).

    Returns:
        Two arrays of the shape of z; the smaller of the two is accurate relative to itself.
    """
    left, right, lower, upper, mass, rows = _panels(table, table, _panel_of_point(table, z))
    integrals, _ = _legendre(_local(left, right, z))
    part = jnp.sum(rows * integrals, axis=-1)
    return lower + mass * part, upper + mass * (1 - part)


@tails.defjvp
def _tails_jvp(
    primals: tuple[Table, Array], tangents: tuple[Table, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    table, z = primals
    d_table, dz = tangents
    below, above, density, d_below, d_above = _differentiate(table, d_table, z)
    return (below, above), (d_below + density * dz, d_above - density * dz)


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
    return _solve(table, lower, upper)


@quantile.defjvp
def _quantile_jvp(primals: tuple[Table, Array, Array], tangents: tuple[Table, Array, Array]) -> tuple[Array, Array]:
    table, _, _ = primals
    d_table, d_lower, d_upper = tangents
    z = quantile(*primals)
    below, above, density, d_below, d_above = _differentiate(table, d_table, z)
    residual = jnp.where(below < above, d_lower - d_below, d_above - d_upper)
    return z, residual / jnp.maximum(density, jnp.finfo(z.dtype).tiny)


def _differentiate(table: Table, d_table: Table, z: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Masses below and above fixed points, the density there, and what a change of the table makes of the masses.

    Written out, for differentiating through the recurrence of the polynomials compiles for minutes.
    """
    panel = _panel_of_point(table, z)
    left, right, lower, upper, mass, rows = _panels(table, table, panel)
    d_left, d_right, d_lower, d_upper, d_mass, d_rows = _panels(table, d_table, panel)
    width = jnp.where(right > left, right - left, 1.0)
    t = _local(left, right, z)
    integrals, polynomials = _legendre(t)
    part, value = (jnp.sum(rows * x, axis=-1) for x in (integrals, polynomials))
    d_t = -(2 * d_left + (t + 1) * (d_right - d_left)) / width
    d_part = jnp.sum(d_rows * integrals, axis=-1) + value * d_t
    d_below = d_lower + d_mass * part + mass * d_part
    d_above = d_upper + d_mass * (1 - part) - mass * d_part
    return lower + mass * part, upper + mass * (1 - part), 2 * mass * value / width, d_below, d_above


def _panel_of_point(table: Table, z: Array) -> Array:
    return jax.lax.stop_gradient(_count(table.edges[..., 1:-1], z))


def _local(left: Array, right: Array, z: Array) -> Array:
    """Points in their panels' coordinate on [-1, 1]."""
    width = jnp.where(right > left, right - left, 1.0)
    return jnp.clip(2 * (z - left) / width - 1, -1, 1)


def _solve(table: Table, lower: Array, upper: Array) -> Array:
    """Invert the table at points: on a CPU at some of many after others, which stay in its cache with what they read."""
    *batch_shape, number = lower.shape
    num_blocks = -(-lower.size // _POINTS_AT_ONCE)
    if num_blocks < 2 or number < num_blocks:
        return _solve_at_once(table, lower, upper)
    size = -(-number // num_blocks)

    def in_blocks(table: Table, lower: Array, upper: Array) -> Array:
        def divide(x: Array) -> Array:
            padding = [(0, 0)] * len(batch_shape) + [(0, num_blocks * size - number)]
            x = jnp.pad(x, padding, constant_values=0.5)
            return jnp.moveaxis(x.reshape(*batch_shape, num_blocks, size), -2, 0)

        blocks = jax.lax.map(lambda masses: _solve_at_once(table, *masses), (divide(lower), divide(upper)))
        return jnp.moveaxis(blocks, 0, -2).reshape(*batch_shape, -1)[..., :number]

    return jax.lax.platform_dependent(table, lower, upper, cpu=in_blocks, default=_solve_at_once)


def _solve_at_once(table: Table, lower: Array, upper: Array) -> Array:
    """Invert the polynomial of the right panel by Newton steps kept inside a shrinking bracket."""
    panel = _count(_order(table.lower[..., 1:-1], table.upper[..., 1:-1]), _order(lower, upper))
    left, right, below, above, mass, rows = _panels(table, table, panel)
    mass = jnp.maximum(mass, jnp.finfo(mass.dtype).tiny)
    target = jnp.clip(jnp.where(lower < upper, (lower - below) / mass, 1 - (upper - above) / mass), 0, 1)
    # Points are read side by side, a coefficient at a time.
    rows = jax.lax.optimization_barrier(jnp.moveaxis(rows, -1, 0))
    eps = jnp.finfo(target.dtype).eps
    # What rounding may leave of the sum of the polynomials, each of which is at most 1 in size.
    rounding = eps * jnp.sum(jnp.abs(rows), axis=0)

    def step(state: _Search) -> _Search:
        t, low, high, best, smallest, _, rounds = state
        part, density = _cumulative(rows, t)
        error = part - target
        better = jnp.abs(error) < smallest
        best, smallest = jnp.where(better, t, best), jnp.minimum(jnp.abs(error), smallest)
        low, high = jnp.where(error < 0, t, low), jnp.where(error < 0, high, t)
        newton = t - error / jnp.where(density > 0, density, 1.0)
        inside = (density > 0) & (newton >= low) & (newton <= high)
        new = jnp.where(inside, newton, 0.5 * (low + high))
        stalled = ~better & (smallest < 16 * rounding)
        moving = (smallest > rounding) & ~stalled & (jnp.abs(new - t) > 4 * eps)
        return _Search(jnp.where(moving, new, t), low, high, best, smallest, jnp.any(moving), rounds + 1)

    # Start where a density linear in t would put the point.
    slope = jnp.clip(2 * rows[1], -0.99, 0.99)
    constant = 1 - 0.5 * slope - 2 * target
    start = -2 * constant / (1 + jnp.sqrt(jnp.maximum(1 - 2 * slope * constant, 0)))
    start, ones = jnp.clip(start, -1, 1), jnp.ones_like(target)
    # Then two steps by the polynomial's first terms, which save one or two by all of it.
    for _ in range(2):
        part, density = _cumulative(rows[:_FIRST_TERMS], start)
        start = jnp.clip(start - jnp.clip((part - target) / jnp.maximum(density, 0.1), -0.3, 0.3), -1, 1)
    state = _Search(start, -ones, ones, start, jnp.full_like(target, jnp.inf), True, 0)
    # The point with the smallest error met, for the last one need not be it.
    best = jax.lax.while_loop(lambda state: state.moving & (state.rounds < 60), step, state).best
    return left + 0.5 * (right - left) * (best + 1)


class _Search(NamedTuple):
    t: Array
    low: Array
    high: Array
    best: Array
    smallest: Array
    moving: Array | bool
    rounds: Array | int


def _cumulative(rows: Array, t: Array) -> tuple[Array, Array]:
    """The density's integral from -1 to t and its value at t, from Legendre coefficients, the first axis of rows.

    The integral of P_n from -1 is (P_{n+1} - P_{n-1}) / (2 n + 1), that of P_0 is t + 1.
    """
    before, current = jnp.ones_like(t), t
    value = rows[0]
    integral = rows[0] * (t + 1)
    for n in range(1, len(rows)):
        after = ((2 * n + 1) * t * current - n * before) / (n + 1)
        value = value + rows[n] * current
        integral = integral + rows[n] * (after - before) / (2 * n + 1)
        before, current = current, after
    return integral, value


def _legendre(t: Array) -> tuple[Array, Array]:
    """Integrals from -1 to t of the Legendre polynomials up to degree 14, and their values, shape (..., 15) each.

    A loop, for XLA compiles the stacked recurrence in time exponential in the degree.
    """

    def next_order(pair: tuple[Array, Array], n: Array) -> tuple[tuple[Array, Array], Array]:
        before, current = pair
        return (current, ((2 * n + 1) * t * current - n * before) / (n + 1)), current

    orders = jnp.arange(DEGREE + 1, dtype=t.dtype) + 1
    _, values = jax.lax.scan(next_order, (jnp.ones_like(t), t), orders)
    values = jnp.concatenate([jnp.ones_like(t)[None], values])
    differences = jnp.moveaxis(values[2:] - values[:-2], 0, -1) / (2 * orders[:-1] + 1)
    integrals = jnp.concatenate([t[..., None] + 1, differences], axis=-1)
    return integrals, jnp.moveaxis(values[:-1], 0, -1)


def _order(lower: Array, upper: Array) -> Array:
    """A number that grows with the quantile and keeps the relative precision of the smaller tail."""
    return jnp.where(lower < upper, -1 / lower, 1 / upper)


@partial(jnp.vectorize, signature="(n),(s)->(s)")
def _count(inner: Array, x: Array) -> Array:
    """How many inner edges each point has passed: the index of its panel.

    A loop: XLA would copy an unrolled search into each of its uses, and compile for minutes.
    """
    return jnp.searchsorted(inner, x, side="right", method="scan")


def _panels(table: Table, of: Table, panel: Array) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Of a table or its tangent: both edges, masses left and right of the panel, its own mass, and its coefficients."""
    take = partial(jnp.take_along_axis, indices=panel, axis=-1)
    # The panel's own mass from whichever running sum is the more accurate.
    from_below = take(table.lower[..., :-1]) < take(table.upper[..., 1:])
    mass = jnp.where(from_below, take(jnp.diff(of.lower)), take(-jnp.diff(of.upper)))
    rows = jnp.take_along_axis(of.density, panel[..., None], axis=-2)
    return (
        take(of.edges[..., :-1]),
        take(of.edges[..., 1:]),
        take(of.lower[..., :-1]),
        take(of.upper[..., 1:]),
        mass,
        rows,
    )
