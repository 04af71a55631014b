"""Find where an unnormalised density has its mass, and split it into panels of equal difficulty.

All of this is a constant to derivatives: integrals do not depend on where panels end.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from .coordinates import Coordinate, bounded, kinks, log_density, magnitudes, to_coordinate

# How far below its highest value, in nats, the density is integrated; beyond, its tail is a straight line in t.
_DEPTH = 80.0
_NUM_MAGNITUDES = 400
_NUM_ZOOMED = 33
_ZOOMS = 7
_NUM_SCANNED = 1025


def number_of_panels(dtype: jnp.dtype) -> int:
    """Panels of a table, before kinks are added."""
    return 144 if dtype == jnp.float64 else 96


def find_coordinate(reference: Distribution, low: ArrayLike, high: ArrayLike, zero: Array) -> Coordinate:
    """A coordinate centred on the mode of the density in it, ends of the support as given, differentiable in these.

    Everything begins with `zero`, so that a compiled program's constants are not evaluated one by one while it is traced.
    """
    dtype = zero.dtype
    ends, shape = bounded(low, high), reference.batch_shape
    start, stop = (
        jnp.broadcast_to(jnp.asarray(x if end else 0.0, dtype) + zero, shape)
        for x, end in zip((low, high), ends, strict=True)
    )
    ones = jnp.ones(shape, dtype)
    if all(ends):
        return Coordinate(start, stop, ones)
    density = log_density(reference, ends)
    if any(ends):
        # In the logarithm of the distance to the end, whatever its magnitude.
        grid = zero + jnp.asarray(np.log(magnitudes(dtype, _NUM_MAGNITUDES)), dtype)
        at = Coordinate(start, stop, ones)
        mode = _highest(lambda t: density(at, t), grid, shape)
        return Coordinate(start, stop, jax.lax.stop_gradient(jnp.exp(mode if ends[0] else -mode)))
    sizes = magnitudes(dtype, _NUM_MAGNITUDES)
    points = zero + jnp.asarray(np.concatenate([-sizes[::-1], [0.0], sizes]), dtype)
    log_prob = lambda x: _usable(reference.log_prob(x))  # noqa: E731
    centre = _highest(log_prob, points, shape)
    distances = _column(jnp.asarray(sizes, dtype), shape)
    top = log_prob(centre[None])
    fallen = (top - jnp.maximum(log_prob(centre + distances), log_prob(centre - distances))) >= 1
    first = jnp.argmax(fallen, axis=0)
    scale = jnp.where(jnp.any(fallen, axis=0), jnp.asarray(sizes, dtype)[first], 1.0)
    return Coordinate(*jax.lax.stop_gradient((centre, stop, scale)))


def find_edges(reference: Distribution, ends: tuple[bool, bool], at: Coordinate) -> Array:
    """Edges in t of panels over all that is less than 80 nats below the mode, shape (N + 1,) + batch_shape.

    On each the logarithm of the density changes by a few nats and is smooth enough for a polynomial.
    """
    at = jax.lax.stop_gradient(at)
    dtype, shape = at.start.dtype, reference.batch_shape
    evaluate = log_density(reference, ends)
    density = lambda t: jax.lax.stop_gradient(evaluate(at, t))  # noqa: E731
    low, high = _range(density, dtype, shape)
    levels = jnp.linspace(0, 1, _NUM_SCANNED, dtype=dtype)
    points = low + (high - low) * _column(levels, shape)
    # A second scan on the first one's panels finds what was narrower than its steps.
    for number in (_NUM_SCANNED - 1, number_of_panels(dtype)):
        points = _equidistribute(points, density(points), number)
    # Rounding may have put the ends elsewhere.
    points = jnp.concatenate([low[None], jnp.clip(points[1:-1], low, high), high[None]])
    extra = [jnp.broadcast_to(jnp.asarray(x, dtype), shape) for x in jax.lax.stop_gradient(kinks(reference))]
    if extra:
        inner = jnp.clip(to_coordinate(ends, at, jnp.stack(extra)), low, high)
        inner = jnp.where(jnp.isnan(inner), low, inner)
        points = jnp.sort(jnp.concatenate([points, inner]), axis=0)
    return points


def _range(density: Callable[[Array], Array], dtype: jnp.dtype, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Ends of the range of t where the density is close to its highest value and x a finite float."""
    longest = 0.97 * float(np.log(float(jnp.finfo(dtype).max)))
    mode = _highest(density, jnp.linspace(-longest, longest, _NUM_MAGNITUDES + 1, dtype=dtype), shape)
    steps = np.exp(np.linspace(np.log(1e3 * float(jnp.finfo(dtype).eps)), np.log(2 * longest), _NUM_MAGNITUDES))
    steps = _column(jnp.asarray(steps, dtype), shape)
    top = density(mode[None])[0]

    def reach(sign: int) -> Array:
        t = jnp.clip(mode + sign * steps, -2 * longest, 2 * longest)
        values = density(t)
        enough = (values > top - _DEPTH) & (jnp.abs(t) < 2 * longest)
        # The last of those before the next falls short, and that next one where it still has a density.
        last = jnp.max(jnp.where(enough, jnp.arange(len(steps)).reshape(-1, *(1 for _ in shape)), 0), axis=0)
        return jnp.take_along_axis(t, last[None], axis=0)[0]

    return reach(-1), reach(1)


def _equidistribute(points: Array, values: Array, number: int) -> Array:
    """Edges of `number` intervals on which a polynomial finds it equally hard to follow exp(values)."""
    values = jnp.maximum(values, jnp.max(values, axis=0) - 2 * _DEPTH)
    widths, steps = jnp.diff(points, axis=0), jnp.diff(values, axis=0)
    safe = jnp.where(widths > 0, widths, 1.0)
    slopes = steps / safe
    bends = jnp.abs(jnp.diff(slopes, axis=0)) * 2 / (safe[1:] + safe[:-1])
    bends = jnp.maximum(jnp.concatenate([bends[:1], bends]), jnp.concatenate([bends, bends[-1:]]))
    share = jnp.abs(steps) / 3 + jnp.sqrt(bends) * widths
    total = jnp.sum(share, axis=0)
    even = widths / jnp.maximum(points[-1] - points[0], jnp.finfo(points.dtype).tiny)
    share = share + 0.1 * jnp.maximum(total, 1e-6) * even
    length = jnp.concatenate([jnp.zeros_like(share[:1]), jnp.cumsum(share, axis=0)])
    wanted = jnp.linspace(0, 1, number + 1, dtype=points.dtype)

    def invert(length: Array, points: Array) -> Array:
        return jnp.interp(wanted * length[-1], length, points)

    shape = points.shape[1:]
    flat = (x.reshape(len(x), -1) for x in (length, points))
    return jax.vmap(invert, in_axes=1, out_axes=1)(*flat).reshape(-1, *shape)


def _highest(function: Callable[[Array], Array], grid: Array, shape: tuple[int, ...]) -> Array:
    """The point of the highest value found: the best of a grid, then of ever finer ones around it; shape (...)."""
    points = jnp.broadcast_to(_column(grid, shape), (len(grid), *shape))
    fractions = _column(jnp.linspace(0, 1, _NUM_ZOOMED, dtype=grid.dtype), shape)

    def zoom(points: Array) -> tuple[Array, Array, Array]:
        best = jnp.argmax(_usable(jax.lax.stop_gradient(function(points))), axis=0)[None]
        take = lambda index: jnp.take_along_axis(points, jnp.clip(index, 0, len(points) - 1), axis=0)  # noqa: E731
        return take(best - 1)[0], take(best)[0], take(best + 1)[0]

    def finer(_: int, triple: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        low, high = triple[0], triple[2]
        return zoom(low + (high - low) * fractions)

    return jax.lax.stop_gradient(jax.lax.fori_loop(0, _ZOOMS, finer, zoom(points))[1])


def _usable(values: ArrayLike) -> Array:
    return jnp.where(jnp.isnan(values), -jnp.inf, values)


def _column(x: Array, shape: tuple[int, ...]) -> Array:
    return x.reshape(-1, *(1 for _ in shape))
