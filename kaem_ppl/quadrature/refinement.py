"""Error indicators of panels, and adaptive refinement of panels of one density alone."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ..compilation import running_sum
from .rule import DEGREE, Panels, decay, log_total, rounding, safe_log

# Of the tolerance, for one panel: few of them carry the mass and are hard at the same time.
_SHARE = 0.1
# A coefficient of this size, relative to the mass, is a peak that is not resolved rather than rounding.
_MOST_ROUNDING = 3e-4
_MOST_ROUNDS = 12


class Resolution(NamedTuple):
    """How far panels are from resolving a density to working precision.

    Attributes:
        unresolved: logarithm of what each panel leaves unresolved, on the scale of the density, shape (N,) + batch_shape.
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
        level = log_total + jnp.log(_SHARE * self.tolerance)
        return jnp.where(self.mass_bound < level - 10, -jnp.inf, jnp.maximum(self.unresolved - level, -1.0))


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
    bound, unresolved = unresolved_mass(panels.half_width, peak, sums, step, tolerance)
    # A panel as narrow as the spacing of floats can't be divided.
    eps = jnp.finfo(sums.dtype).eps
    narrow = jnp.diff(edges, axis=0) <= 64 * eps * (jnp.abs(edges[1:]) + jnp.abs(edges[:-1]))
    return Resolution(jnp.where(narrow, -jnp.inf, unresolved), bound, tolerance)


def unresolved_mass(half_width: Array, peak: Array, sums: Array, step: Array, tolerance: Array) -> tuple[Array, Array]:
    """Logarithms of a bound on the mass of each panel, and of what its polynomial may miss of it, shape (N, ...) each.

    The latter is -inf where it is within the tolerance relative to the panel itself, for rounding makes as much; where
    rounding is that of energies of thousands, up to the least that their peaks would show.
    """
    tolerance = jnp.minimum(tolerance, _MOST_ROUNDING)
    last, beyond = (x / DEGREE for x in decay(sums))
    bound = peak + safe_log(half_width) + jnp.where(last > 1e-3, step, 0.0)
    return bound, jnp.where(beyond > tolerance, bound + safe_log(beyond), -jnp.inf)


def refine(
    evaluate: Callable[[Array], tuple[Panels, Array]],
    seeds: Array,
    log_tails: Array,
    term_size: Array,
    num_panels: int,
) -> tuple[Panels, Array]:
    """Densities on panels that resolve them, K densities on each set of panels.

    Panels without mass are merged and unresolved ones are divided, until all are resolved or a dozen rounds have passed.

    Args:
        evaluate: maps edges (N + 1, 1, B) to densities (K, B) on their panels, and these over their peaks at the nodes.
        seeds: first panels' edges, shape (N + 1, 1, B).
        log_tails: logarithm of the mass outside the panels, on the scale of the density, shape (K, B).
        term_size: as for `rounding`, shape (K, B).
        num_panels: number of panels of each set, at least that of the seeds.

    Returns:
        What `evaluate` gives for the last edges, (num_panels + 1, 1, B); panels left over have no width.
    """

    class State(NamedTuple):
        panels: Panels
        shape: Array
        negligible: Array  # merged panels, known from narrower ones to hold no mass
        level: Array  # the largest total that a panel was found negligible against
        excess: Array
        rounds: Array

    def unfinished(state: State) -> Array:
        return (state.rounds == 0) | (jnp.any(state.excess > 0) & (state.rounds <= _MOST_ROUNDS))

    def divide(state: State) -> State:
        edges, negligible = _divide(state.panels.edges, jnp.max(state.excess, axis=1, keepdims=True))
        panels, shape = evaluate(edges)
        total = log_total(panels, log_tails)
        # A total that was overestimated, by a node on a narrow peak, may have made a panel negligible that is not.
        level = jnp.maximum(state.level, total)
        still = negligible & (level < total + 10)
        excess = jnp.where(still, -jnp.inf, assess(panels, total, term_size).excess(total))
        return State(panels, shape, negligible, level, excess, state.rounds + 1)

    # Nothing exceeds at first, so the first round divides nothing: it assesses the seeds.
    spare = num_panels + 1 - len(seeds)
    edges = jnp.concatenate([seeds, jnp.repeat(seeds[-1:], spare, axis=0)])
    panels, shape = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(evaluate, edges))
    nowhere = jnp.zeros((num_panels, *edges.shape[1:]), bool)
    nothing = jnp.zeros_like(panels.peak), jnp.zeros((), int)
    first = State(panels._replace(edges=edges), shape, nowhere, jnp.full_like(log_tails, -jnp.inf), *nothing)
    last = jax.lax.while_loop(unfinished, divide, first)
    return last.panels, last.shape


def _divide(edges: Array, excess: Array) -> tuple[Array, Array]:
    """The same number of panels: neighbours without mass merge, and the panels so freed divide the unresolved ones.

    Also returns which panels hold no mass.
    """
    number = len(excess)
    empty = jnp.isneginf(excess)
    merged = empty & jnp.concatenate([jnp.zeros_like(empty[:1]), empty[:-1]])
    kept = jnp.where(merged, 0, 1)
    spare = number - jnp.sum(kept, axis=0)
    need = jnp.where(excess > 0, 1 + jnp.minimum(excess, 50.0), 0.0)
    granted = spare * running_sum(need) / jnp.maximum(jnp.sum(need, axis=0), 1e-30)
    ends = running_sum(kept) + jnp.floor(granted + 1e-3).astype(kept.dtype)
    counts = jnp.diff(ends, axis=0, prepend=0)

    position = jnp.arange(number).reshape(-1, *(1,) * (excess.ndim - 1))
    # The old panel that each new one starts in, and which of its parts that is.
    old = jnp.sum(ends[:, None] <= position, axis=0)
    left_over = old == number
    index = jnp.minimum(old, number - 1)
    # One look-up for all that is read of the old panels.
    columns = jnp.stack(
        [edges[:-1], jnp.diff(edges, axis=0), ends - counts, counts, empty.astype(edges.dtype)], axis=-1
    )
    left, width, begin, count, was_empty = jnp.unstack(jnp.take_along_axis(columns, index[..., None], axis=0), axis=-1)
    starts = left + width * (position - begin) / jnp.maximum(count, 1)
    starts = jnp.where(left_over, edges[-1:], starts)
    return jnp.concatenate([starts, edges[-1:]]), (was_empty > 0) | left_over
