"""Tails of any density by quadrature: a table of log probabilities, extrapolated linearly beyond its ends."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from numpy.polynomial import chebyshev, legendre
from numpyro.distributions import Distribution

from ..quadrature import DEGREE, KRONROD, NODES, TO_LEGENDRE, contract
from .coordinates import Coordinate, bounded, log_density, to_coordinate, to_point
from .implicit import implicit_quantile
from .panels import find_coordinate, find_edges


def _running_mass() -> np.ndarray:
    """From values at the nodes to Chebyshev coefficients of Q, where (1 + s) Q(s) is the integral from -1 to s.

    In this form a small part of a panel keeps its relative digits.
    """
    s = np.cos(np.pi * (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1))
    polynomials = legendre.legvander(s, DEGREE + 1)
    orders = np.arange(1, DEGREE + 1)
    integrals = np.concatenate(
        [(s + 1)[:, None], (polynomials[:, 2:] - polynomials[:, :-2]) / (2 * orders + 1)], axis=1
    )
    values = (integrals / (s + 1)[:, None]) @ TO_LEGENDRE
    return np.linalg.inv(chebyshev.chebvander(s, DEGREE)) @ values


_TO_RUNNING_MASS = _running_mass()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TabulatedTails:
    """The distribution function of a reference by quadrature of its density, which need not be normalised.

    Of batch shape (...), N panels; see `coordinates` for t.

    Attributes:
        at: the coordinate.
        edges: of the panels, in t, increasing, shape (N + 1, ...).
        log_lower: log mass below each edge, shape (N + 1, ...).
        log_upper: log mass above each edge, shape (N + 1, ...).
        log_mass: of each panel, shape (N, ...).
        rising: coefficients of Q for the share of the panel's mass that lies below, shape (N, ..., 15).
        falling: the same for the share above, in -s.
        slopes: derivative of the log-density in t at both ends, towards the middle, shape (2, ...); 0 where no mass lies
            beyond.
        ends: which ends of the support are finite.
    """

    at: Coordinate
    edges: Array
    log_lower: Array
    log_upper: Array
    log_mass: Array
    rising: Array
    falling: Array
    slopes: Array
    ends: tuple[bool, bool] = field(metadata={"static": True})

    @classmethod
    def of(cls, reference: Distribution, low: ArrayLike, high: ArrayLike, zero: Array) -> Self:
        """Tabulate a reference with the given ends of its support; traceable, differentiable in its parameters.

        `zero` is that number in the working precision, traced where this is.
        """
        ends, dtype = bounded(low, high), zero.dtype
        at = find_coordinate(reference, low, high, zero)
        edges = find_edges(reference, ends, at)
        half = 0.5 * jnp.diff(edges, axis=0)
        column = lambda x: jnp.asarray(x, dtype).reshape(-1, *(1 for _ in half.shape))  # noqa: E731
        nodes = (edges[:-1] + half) + half * column(NODES)
        values = log_density(reference, ends)(at, nodes.reshape(-1, *half.shape[1:])).reshape(nodes.shape)
        peak = lax.stop_gradient(jnp.max(values, axis=0))
        peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
        shape = jnp.exp(values - peak)
        sums = jnp.sum(column(KRONROD) * shape, axis=0)
        occupied = (sums > 0) & (half > 0)
        log_mass = jnp.where(occupied, peak + jnp.log(jnp.where(occupied, half * sums, 1.0)), -jnp.inf)
        shape = shape / jnp.where(sums > 0, sums, 1.0)
        matrix = jnp.asarray(_TO_RUNNING_MASS, dtype)
        rising, falling = (contract("cj,j...->...c", matrix, x) for x in (shape, shape[::-1]))

        # Beyond the last panel log-densities are straight lines in t: what is left is the value there over the slope.
        slopes, rests = [], []
        for ends_of, sign in (((0, DEGREE // 2), 0), ((DEGREE, DEGREE // 2), -1)):
            outer, inner = (values[i, sign] for i in ends_of)
            gap = jnp.abs(nodes[ends_of[0], sign] - nodes[ends_of[1], sign])
            slope = (inner - outer) / jnp.where(gap > 0, gap, 1.0)
            straight = jnp.isfinite(slope) & (slope > 1e-3)
            safe = jnp.where(straight, slope, 1.0)
            at_edge = outer - safe * jnp.abs(nodes[ends_of[0], sign] - edges[sign])
            slopes.append(jnp.where(straight, slope, 0.0))
            rests.append(jnp.where(straight, at_edge - jnp.log(safe), -jnp.inf))
        lower = _running_sum(rests[0], log_mass)
        upper = _running_sum(rests[1], log_mass[::-1])[::-1]
        total = jnp.logaddexp(lower[-1], rests[1])
        return cls(at, edges, lower - total, upper - total, log_mass - total, rising, falling, jnp.stack(slopes), ends)

    def log_masses(self, x: Array) -> tuple[Array, Array]:
        """Log masses below and above points inside the support, of a shape that broadcasts with the batch's."""
        return self.masses_at(to_coordinate(self.ends, self.at, x))

    def masses_at(self, place: Array) -> tuple[Array, Array]:
        """Log masses below and above coordinates."""
        shape = lax.broadcast_shapes(jnp.shape(place), self.slopes.shape[1:])
        t = jnp.broadcast_to(place, shape)
        panel = self._search(lambda edge: edge <= t, self.edges, shape)
        take = self._taker(panel, shape)
        left, right = take(self.edges), take(self.edges[1:])
        width = jnp.where(right > left, right - left, 1.0)
        s = jnp.clip(2 * (jnp.clip(t, left, right) - left) / width - 1, -1, 1)
        log_mass = take(self.log_mass)
        below = _add(take(self.log_lower), log_mass, (1 + s) * _polynomial(take(self.rising), s)[0])
        above = _add(take(self.log_upper[1:]), log_mass, (1 - s) * _polynomial(take(self.falling), -s)[0])
        first, last = self.edges[0], self.edges[-1]
        before, after = (t < first) & (self.slopes[0] > 0), (t > last) & (self.slopes[1] > 0)
        far_below = self.log_lower[0] + self.slopes[0] * (jnp.where(before, t, first) - first)
        far_above = self.log_upper[-1] + self.slopes[1] * (last - jnp.where(after, t, last))
        below = jnp.where(before, far_below, below)
        above = jnp.where(after, far_above, above)
        return below, above

    def quantile(self, log_below: Array, log_above: Array) -> Array:
        """The point with given log masses, differentiable."""
        # The derivative is taken in the coordinate: a point may round to the end of the support.
        return to_point(self.ends, self.at, implicit_quantile(self, log_below, log_above))

    def search(self, log_below: Array, log_above: Array) -> Array:
        """Its coordinate, without derivatives."""
        shape = lax.broadcast_shapes(jnp.shape(log_below), jnp.shape(log_above), self.slopes.shape[1:])
        log_below, log_above = (jnp.broadcast_to(x, shape) for x in (log_below, log_above))
        from_below = log_below <= log_above
        edges = jnp.stack([self.log_lower, self.log_upper], axis=-1)
        passed = lambda pair: jnp.where(from_below, pair[..., 0] <= log_below, pair[..., 1] >= log_above)  # noqa: E731
        take = self._taker(self._search(passed, edges, shape), shape)
        log_mass = take(self.log_mass)
        wanted = jnp.where(from_below, log_below, log_above)
        rest = jnp.where(from_below, take(self.log_lower), take(self.log_upper[1:]))
        occupied = jnp.isfinite(log_mass)
        log_mass = jnp.where(occupied, log_mass, 0.0)
        share = jnp.where(occupied, jnp.exp(wanted - log_mass) - jnp.exp(rest - log_mass), 0.5)
        rows = jnp.where(from_below[..., None], take(self.rising), take(self.falling))
        s = _solve(jnp.moveaxis(rows, -1, 0), jnp.clip(share, 0, 1))
        left, right = take(self.edges), take(self.edges[1:])
        # From the panel's nearer edge, which loses no digits.
        step = 0.5 * (right - left) * (1 + s)
        t = jnp.where(from_below, left + step, right - step)
        before = (log_below < self.log_lower[0]) & (self.slopes[0] > 0)
        after = (log_above < self.log_upper[-1]) & (self.slopes[1] > 0)
        slopes = jnp.where(self.slopes > 0, self.slopes, 1.0)
        t = jnp.where(before, self.edges[0] + (log_below - self.log_lower[0]) / slopes[0], t)
        return jnp.where(after, self.edges[-1] - (log_above - self.log_upper[-1]) / slopes[1], t)

    def _search(self, passed: Callable[[Array], Array], edges: Array, shape: tuple[int, ...]) -> Array:
        """The panel of each point: how many inner edges it has passed, by bisection."""
        inner = lax.stop_gradient(edges[1:-1])
        number = len(inner)

        def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = (low + high) // 2
            is_past = passed(self._taker(jnp.minimum(middle, number - 1), shape)(inner)) & (low < high)
            return jnp.where(is_past, middle + 1, low), jnp.where(is_past | (low >= high), high, middle)

        zeros = jnp.zeros(shape, jnp.int32)
        return lax.fori_loop(0, int(np.ceil(np.log2(number + 1))) + 1, halve, (zeros, zeros + number))[0]

    def _taker(self, index: Array, shape: tuple[int, ...]) -> Callable[[Array], Array]:
        """Reads arrays of shape (N, ..., K) at each point's own entry of the batch and index, to shape + (K,)."""
        batch_shape = self.slopes.shape[1:]
        number = int(np.prod(batch_shape, dtype=int))
        place = index * number + jnp.broadcast_to(jnp.arange(number, dtype=index.dtype).reshape(batch_shape), shape)

        def take(array: Array) -> Array:
            rows = array.reshape(len(array) * number, *array.shape[1 + len(batch_shape) :])
            return rows.at[place].get(mode="promise_in_bounds")

        return take


def _running_sum(first: Array, log_mass: Array) -> Array:
    """Logarithms of the running sums of exp(log_mass), begun with `first`; increasing."""
    sums = lax.cumlogsumexp(jnp.concatenate([first[None], log_mass]), axis=0)
    values = lax.stop_gradient(sums)
    return jnp.where(jnp.isfinite(values), sums + (lax.cummax(values, axis=0) - values), values)


def _add(log_rest: Array, log_mass: Array, share: Array) -> Array:
    """log(exp(log_rest) + share exp(log_mass)), with a derivative where either vanishes."""
    some = (share > 0) & jnp.isfinite(log_mass)
    part = jnp.where(some, log_mass + jnp.log(jnp.where(some, share, 1.0)), -jnp.inf)
    either = some | jnp.isfinite(log_rest)
    result = jnp.logaddexp(jnp.where(either, log_rest, 0.0), jnp.where(either, part, 0.0))
    return jnp.where(either, result, -jnp.inf)


def _polynomial(rows: Array, s: Array) -> tuple[Array, Array]:
    """A Chebyshev series with coefficients (..., 15), and its derivative (Clenshaw)."""
    return _clenshaw([rows[..., n] for n in range(DEGREE + 1)], s)


def _clenshaw(rows: Array | list[Array], s: Array) -> tuple[Array, Array]:
    b1 = b2 = d1 = d2 = jnp.zeros_like(s)
    for n in range(DEGREE, 0, -1):
        b1, b2, d1, d2 = rows[n] + 2 * s * b1 - b2, b1, 2 * b1 + 2 * s * d1 - d2, d1
    return rows[0] + s * b1 - b2, b1 + s * d1 - d2


def _solve(rows: Array, share: Array) -> Array:
    """The s at which (1 + s) Q(s) is the given share, by Newton steps inside a shrinking bracket; the best point met."""
    rows = lax.optimization_barrier(rows)
    eps = jnp.finfo(share.dtype).eps

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        s, low, high, best, least, _, rounds = state
        value, slope = _clenshaw(rows, s)
        error = (1 + s) * value - share
        density = value + (1 + s) * slope
        low, high = jnp.where(error < 0, s, low), jnp.where(error < 0, high, s)
        is_best = jnp.abs(error) <= least
        best, least = jnp.where(is_best, s, best), jnp.where(is_best, jnp.abs(error), least)
        newton = s - error / jnp.where(density > 0, density, 1.0)
        inside = (density > 0) & (newton >= low) & (newton <= high)
        new = jnp.where(inside, newton, 0.5 * (low + high))
        moving = jnp.any((jnp.abs(error) > eps * share) & (jnp.abs(new - s) > 2 * eps * (1 + s)))
        return new, low, high, best, least, moving, rounds + 1

    start = 2 * share - 1
    ones = jnp.ones_like(share)
    state = (start, -ones, ones, start, jnp.full_like(share, jnp.inf), True, 0)
    return lax.while_loop(lambda state: state[-2] & (state[-1] < 40), step, state)[3]
