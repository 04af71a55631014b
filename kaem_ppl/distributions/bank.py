"""Arrays of densities as rows of mixture components, and the subintervals that their integration starts with."""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpyro.distributions import Distribution

from .. import reference as ref
from ..basis import Basis
from ..quadrature.division import NUM_PARTS
from ..quadrature.rule import with_ends
from ..reference.coordinates import kinks
from ..univariate import UnivariateKAN

# Between the end of a support and what is integrated, relative to the latter.
_MARGIN = {"float32": 2.0**-22, "float64": 2.0**-44}
# Features of all functions that are evaluated together where every function has points of its own.
_FEATURES_AT_ONCE = 2**22
# Axes of what a bank may share, which are not the batch's.
_SHARED_NDIM = {"grid": 1, "width": 0, "domain": 1}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["energy", "reference", "log_weights", "seeds", "end_energies", "log_outside"],
    meta_fields=["batch_shape"],
)
@dataclass(frozen=True)
class Bank:
    """Q densities, each a sum of K tilted components over one reference.

    Attributes:
        energy: of shape (K, Q).
        reference: of a batch shape that broadcasts with `batch_shape`.
        log_weights: of the components, shape (K, Q).
        seeds: edges of the first panels, shape (N + 1, 1, 1) or (N + 1, 1, Q).
        end_energies: energies at both ends of the panels, shape (K, Q) each.
        log_outside: log-masses of the reference beyond them, shape (Q,) each.
        batch_shape: of the densities; its product is Q.
    """

    energy: UnivariateKAN
    reference: Distribution
    log_weights: Array
    seeds: Array
    end_energies: tuple[Array, Array]
    log_outside: tuple[Array, Array]
    batch_shape: tuple[int, ...]

    @property
    def log_tails(self) -> Array:
        """Logarithm of each component's mass outside the panels, shape (K, Q)."""
        return add_tails(self.end_energies, self.log_outside)

    @property
    def num_rows(self) -> int:
        """The number Q of densities."""
        return self.log_weights.shape[1]

    @property
    def num_panels(self) -> int:
        """Number of panels of every density in the table."""
        return NUM_PARTS * (len(self.seeds) - 1)

    def log_reference(self, points: Array) -> Array:
        """log pi_0 at points (..., 1, 1) or each density's own (..., 1, Q), shape (..., 1, 1) or (..., 1, Q)."""
        if not self.reference.batch_shape:
            return cast(Array, self.reference.log_prob(points))
        lead = points.shape[:-2]
        own = self.batch_shape if points.shape[-1] == self.num_rows else (1,) * len(self.batch_shape)
        values = self.reference.log_prob(points.reshape(math.prod(lead), *own))
        return jnp.broadcast_to(values, (math.prod(lead), *self.batch_shape)).reshape(*lead, 1, self.num_rows)

    def log_density(self, points: Array) -> Array:
        """exp(f) pi_0 in logarithms at points (15, N, 1, 1) or (15, N, 1, Q), shape (15, N, K, Q)."""
        reference = self.log_reference(points)
        num_points, own = math.prod(points.shape[:2]), points.shape[-1]
        if own == 1 and self.energy.is_shared:
            # What is common to all components is one more basis function: one product gives the whole.
            common = reference.reshape(-1) if reference.shape[-1] == 1 else None
            values = self.energy.at_points(points.reshape(-1), common).reshape(
                *points.shape[:2], *self.log_weights.shape
            )
            return values if common is not None else values + reference
        flat = points.reshape(num_points, own)
        # Of functions that share a grid, each density evaluates its features once.
        evaluations = self.num_rows if self.energy.is_shared else self.log_weights.size
        features = evaluations * self.energy.coef.shape[-1] + self.log_weights.size
        size = _largest_divisor(num_points, _FEATURES_AT_ONCE // max(1, features))
        pieces = flat.reshape(-1, size, own)

        def evaluate(piece: Array) -> Array:
            return jnp.moveaxis(self.energy.outer(piece[:, 0] if own == 1 else piece.T), -1, 0)

        values = evaluate(flat) if len(pieces) == 1 else lax.map(jax.checkpoint(evaluate), pieces)
        return values.reshape(*points.shape[:2], *self.log_weights.shape) + reference

    def rows(self, index: Array) -> "Bank":
        """The densities at an index (B,)."""
        energy, shape = self.energy, self.log_weights.shape
        names = ["coef", "base_weight", "spline_weight"] + [name for name in _SHARED_NDIM if not self._shares(name)]
        numbers = [getattr(energy, name) for name in names]
        numbers += [self.log_weights, *self.end_energies, *(jnp.broadcast_to(x, shape) for x in self.log_outside)]
        # One look-up for all of them.
        columns = [x.reshape(*shape, -1) for x in numbers]
        taken = jnp.take(jnp.concatenate(columns, axis=-1), index, axis=1)
        pieces = jnp.split(taken, np.cumsum([x.shape[-1] for x in columns])[:-1].tolist(), axis=-1)
        pieces = [x.reshape(*x.shape[:2], *y.shape[2:]) for x, y in zip(pieces, numbers, strict=True)]
        *functions, log_weights, low, high, left, right = pieces
        energy = dataclasses.replace(energy, **dict(zip(names, functions, strict=True)))
        seeds = self.seeds if self.seeds.shape[-1] == 1 else self.seeds[..., index]
        # Where the reference has a batch shape the index is that of all densities, in order.
        batch_shape = self.batch_shape if self.reference.batch_shape else index.shape
        return Bank(energy, self.reference, log_weights, seeds, (low, high), (left[0], right[0]), batch_shape)

    def _shares(self, name: str) -> bool:
        return jnp.ndim(getattr(self.energy, name)) == _SHARED_NDIM[name]


def _largest_divisor(number: int, most: int) -> int:
    return max((n for n in range(1, number + 1) if number % n == 0 and n <= most), default=1)


def add_tails(factors: tuple[Array, Array], outside: tuple[Array, Array]) -> Array:
    """Logarithm of the mass of both tails, from the density's factor over the reference and the reference's own mass."""
    left, right = (factor + mass for factor, mass in zip(factors, outside, strict=True))
    # Two empty tails are an empty one, without the NaN that logaddexp would give as its derivative.
    occupied = (left > -jnp.inf) | (right > -jnp.inf)
    total = jnp.logaddexp(jnp.where(occupied, left, 0.0), jnp.where(occupied, right, 0.0))
    return jnp.where(occupied, total, -jnp.inf)


def integration_interval(domain: tuple[Array, Array], reference: Distribution) -> tuple[Array, Array]:
    """What is integrated: domain and support of the reference overlapping.

    At an end of the support where the reference may be singular it begins a few floats further in: what lies beyond is the
    reference's own, and the energy is constant there as far as floats can tell.
    """
    low, high = ref.support_bounds(reference)
    a, b = domain
    low, high = jnp.maximum(a, low).astype(a.dtype), jnp.minimum(b, high).astype(b.dtype)
    margin = (high - low) * _MARGIN[low.dtype.name]
    rough_low, rough_high = ref.is_rough_at_ends(reference)
    return (low + margin if rough_low else low), (high - margin if rough_high else high)


def seed_panels(
    basis: Basis, breakpoints: Array | None, interval: tuple[Array, Array], reference: Distribution
) -> Array:
    """Edges of the first panels on the interval, shape (N + 1,) or the interval's batch shape + (N + 1,).

    Equal panels, or equal parts of the intervals between breakpoints; an edge where the reference has a kink; more and
    more narrow panels towards an end of the support where it may be singular, or flat to every order as a log-normal is
    at 0.
    """
    low, high = jnp.broadcast_arrays(*lax.stop_gradient(interval))
    number = basis.num_panels * (2 if low.dtype == jnp.float64 else 1)
    if breakpoints is None:
        edges = jnp.linspace(low, high, number + 1, axis=-1)
    else:
        breakpoints = lax.stop_gradient(breakpoints)
        parts = -(-number // (breakpoints.shape[-1] - 1))
        fractions = jnp.arange(parts, dtype=low.dtype) / parts
        inside = breakpoints[..., :-1, None] + jnp.diff(breakpoints)[..., None] * fractions
        edges = jnp.concatenate([inside.reshape(*breakpoints.shape[:-1], -1), breakpoints[..., -1:]], axis=-1)
        edges = jnp.clip(edges, low[..., None], high[..., None])
    marks = [lax.stop_gradient(jnp.asarray(x, low.dtype))[..., None] for x in kinks(reference)]
    smallest, ratio = _MARGIN[low.dtype.name], 4.0 if low.dtype == jnp.float32 else 2.0
    narrowing = ratio ** -np.arange(1, np.ceil(np.log(1 / (number * smallest)) / np.log(ratio)))
    for rough, end, sign in zip(ref.is_rough_at_ends(reference), (low, high), (1, -1), strict=True):
        if rough:
            marks.append(end[..., None] + sign * (high - low)[..., None] / number * np.asarray(narrowing, low.dtype))
    if marks:
        marks = [jnp.clip(x, low[..., None], high[..., None]) for x in marks]
        shape = lax.broadcast_shapes(edges.shape[:-1], *(x.shape[:-1] for x in marks))
        edges = jnp.concatenate([jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in (edges, *marks)], axis=-1)
        edges = jnp.sort(edges, axis=-1)
    return with_ends(edges, *(x[..., None] for x in interval))


def make_bank(
    energy: UnivariateKAN,
    reference: Distribution,
    batch_shape: tuple[int, ...],
    seeds: Array,
    end_energies: tuple[Array, Array],
    log_outside: tuple[Array, Array],
    log_weights: Array | None = None,
) -> Bank:
    """The densities as rows of components, from energies and weights whose last axis is that of the components.

    Args:
        energy: of shape batch_shape or batch_shape + (K,), or one that broadcasts with it.
        reference: of the distribution.
        batch_shape: of the distribution.
        seeds: edges of the first panels, shape (N + 1,) or a shape that broadcasts with batch_shape + (N + 1,).
        end_energies: energies at both ends of the interval, shape batch_shape or batch_shape + (K,) each.
        log_outside: log-masses of the reference beyond both ends, of shapes that broadcast with batch_shape.
        log_weights: of the components, shape that broadcasts with batch_shape + (K,); None for a single one.
    """
    single = log_weights is None
    num_rows = math.prod(batch_shape)
    bank = batch_shape if single else (*batch_shape, energy.batch_shape[-1])
    num_components = 1 if single else bank[-1]

    def rows(x: Array, ndim: int = 0) -> Array:
        own = x.shape[x.ndim - ndim :]
        return jnp.broadcast_to(x, (*bank, *own)).reshape(num_rows, num_components, *own).swapaxes(0, 1)

    constants = {
        name: getattr(energy, name) if jnp.ndim(getattr(energy, name)) == ndim else rows(getattr(energy, name), ndim)
        for name, ndim in _SHARED_NDIM.items()
    }
    energy = dataclasses.replace(
        energy,
        coef=rows(energy.coef, 1),
        base_weight=rows(energy.base_weight),
        spline_weight=rows(energy.spline_weight),
        **constants,
    )
    if seeds.ndim > 1:
        seeds = jnp.broadcast_to(seeds, (*batch_shape, seeds.shape[-1])).reshape(num_rows, seeds.shape[-1]).T
    seeds = seeds[:, None] if seeds.ndim == 2 else seeds[:, None, None]
    left, right = (jnp.broadcast_to(x, batch_shape).reshape(num_rows) for x in log_outside)
    low, high = (rows(x) for x in end_energies)
    weights = jnp.zeros((1, num_rows), seeds.dtype) if log_weights is None else rows(log_weights)
    return Bank(energy, reference, weights, seeds, (low, high), (left, right), batch_shape)
