"""Which panels do not resolve a density yet, and panels of a function's own that do."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from .rule import DEGREE, Panels, decay, evaluate_few, log_total, pad_end, rounding, safe_log

# Of the tolerance, for one panel: few of them carry the mass and are hard at the same time.
_SHARE = 0.1
# A coefficient of this size, relative to the mass, is a peak that is not resolved rather than rounding.
_MOST_ROUNDING = 3e-4


class Resolution(NamedTuple):
    """How far panels are from resolving a density to working precision.

    Attributes:
        unresolved: logarithm of what each panel leaves unresolved, on the scale of the density, shape batch_shape + (N,).
        mass_bound: logarithm of a bound on each panel's mass.
        tolerance: what may be left unresolved, relative to the whole mass, shape batch_shape.
    """

    unresolved: Array
    mass_bound: Array
    tolerance: Array

    def excess(self, log_total: Array) -> Array:
        """How far each panel is over its share of the tolerance, in nats; -1 or more unless its mass is negligible: -inf.

        Args:
            log_total: logarithm of the whole mass, shape batch_shape.
        """
        level = self.level(log_total)[..., None]
        return jnp.where(self.mass_bound < level - 10, -jnp.inf, jnp.maximum(self.unresolved - level, -1.0))

    def level(self, log_total: Array) -> Array:
        """Logarithm of what one panel may leave unresolved, shape batch_shape."""
        return log_total + jnp.log(_SHARE * self.tolerance)


def assess(panels: Panels, log_total: Array, term_size: Array) -> Resolution:
    """The last Legendre coefficients of the density on each panel, against what rounding leaves of them.

    A peak may hide between two nodes, so the mass of a panel whose coefficients do not decay is bounded by raising its
    largest value by the largest step between nearby nodes.

    Args:
        panels: the density at its nodes.
        log_total: logarithm of the whole mass, shape batch_shape.
        term_size: as for `rounding`.
    """
    panels, log_total, term_size = jax.lax.stop_gradient((panels, log_total, term_size))
    edges, peak, sums, step = panels
    # Rounding of the energies themselves cannot be resolved away.
    tolerance = jnp.maximum(1e-11, rounding(panels, log_total, term_size))
    bound, unresolved = unresolved_mass(0.5 * jnp.diff(edges), peak, sums, step, tolerance[..., None])
    # A panel as narrow as the spacing of floats can't be divided.
    eps = jnp.finfo(sums.dtype).eps
    narrow = jnp.diff(edges) <= 64 * eps * (jnp.abs(edges[..., 1:]) + jnp.abs(edges[..., :-1]))
    return Resolution(jnp.where(narrow, -jnp.inf, unresolved), bound, tolerance)


def unresolved_mass(half_width: Array, peak: Array, sums: Array, step: Array, tolerance: Array) -> tuple[Array, Array]:
    """Logarithms of a bound on the mass of each panel, and of what its polynomial may miss of it, shape (..., N) each.

    The latter is -inf where it is within the tolerance relative to the panel itself, for rounding makes as much; where
    rounding is that of energies of thousands, up to the least that their peaks would show.
    """
    tolerance = jnp.minimum(tolerance, _MOST_ROUNDING)
    last, beyond = (x / DEGREE for x in decay(sums))
    bound = peak + safe_log(half_width) + jnp.where(last > 1e-3, step, 0.0)
    return bound, jnp.where(beyond > tolerance, bound + safe_log(beyond), -jnp.inf)


def refine(
    log_density: Callable[[Array], Array], seeds: Array, log_tails: Array, term_size: Array, num_panels: int
) -> Array:
    """Edges of panels that resolve each density, constants to derivatives.

    Panels without mass are merged and unresolved ones are divided, until all are resolved or a dozen rounds have passed.

    Args:
        log_density: maps points of shape (B, M) to values of that shape.
        seeds: first panels' edges, shape (B, N + 1).
        log_tails: logarithm of the mass outside the panels, on the scale of the density, shape (B,).
        term_size: as for `rounding`, shape (B,).
        num_panels: number of panels of each density, at least that of the seeds.

    Returns:
        Edges, shape (B, num_panels + 1); panels left over have no width.
    """

    class State(NamedTuple):
        edges: Array
        negligible: Array  # merged panels, known from narrower ones to hold no mass
        level: Array  # the largest total that a panel was found negligible against
        excess: Array
        rounds: Array

    def unfinished(state: State) -> Array:
        return (state.rounds == 0) | (jnp.any(state.excess > 0) & (state.rounds <= 12))

    def divide(state: State) -> State:
        edges, negligible = _divide(state.edges, state.excess)
        panels = jax.lax.stop_gradient(evaluate_few(log_density, edges)[0])
        total = log_total(panels, log_tails)
        # A total that was overestimated, by a node on a narrow peak, may have made a panel negligible that is not.
        level = jnp.maximum(state.level, total)
        still = negligible & (level < total + 10)[:, None]
        excess = jnp.where(still, -jnp.inf, assess(panels, total, term_size).excess(total))
        return State(edges, negligible, level, excess, state.rounds + 1)

    # Nothing exceeds at first, so the first round divides nothing: it assesses the seeds.
    none = jnp.zeros((len(seeds), num_panels), log_tails.dtype)
    edges = pad_end(seeds, num_panels + 1 - seeds.shape[-1])
    first = State(edges, none > 0, jnp.full_like(log_tails, -jnp.inf), none, jnp.zeros((), int))
    return jax.lax.while_loop(unfinished, divide, first).edges


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
