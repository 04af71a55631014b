"""Adaptive subdivision in three stages: shared panels, single panels split in four, panels of one density alone."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..quadrature.division import NUM_PARTS, TO_PARTS, Marked, part_nodes, summarize_parts, values_on_parts
from ..quadrature.refinement import assess, refine
from ..quadrature.rule import (
    KRONROD,
    Panels,
    evaluate,
    log_total,
    multiply_nodes,
    panel_nodes,
    rounding,
    safe_log,
    truncation,
)
from .bank import Bank

# Panels that are divided together, and features that are evaluated together on panels of functions' own.
PANELS_AT_ONCE = 4096
_FEATURES_AT_ONCE = 2**20

Sums = TypeVar("Sums")


class Coarse(NamedTuple):
    """All densities on the same panels.

    Attributes:
        panels: all components on the seeds.
        shape: the densities over their peaks at the nodes, shape (15, N, K, Q).
        log_density: at the nodes, shape (15, N, K, Q).
        marked: panels that do not resolve the density of a component, shape (N, K, Q).
        total: logarithm of the whole mass, shape (K, Q).
        unresolved: what panels that are not marked leave unresolved, relative to the whole mass, shape (K, Q).
        tolerance: what may be left unresolved, relative to the whole mass, shape (K, Q).
        rounding: error estimate of the whole mass, relative to it, shape (K, Q).
    """

    panels: Panels
    shape: Array
    log_density: Array
    marked: Array
    total: Array
    unresolved: Array
    tolerance: Array
    rounding: Array


class Integrals(NamedTuple):
    """What densities integrate to, and the sums over components at the nodes of the table's panels.

    Attributes:
        total: log Z of each component, shape (K, Q).
        error: error estimate of log Z, shape (K, Q).
        own: which densities have panels of their own, shape (Q,).
        edges: of the table's panels, shape (4 N + 1, Q).
        level: logarithm that the sums are relative to on each panel, shape (4 N, Q).
        density: sums over components of w / Z exp(f) pi_0, shape (15, 4 N, Q).
        weights: of the log-density at the seeds' nodes in the derivative of log Z, shape (15, N, K, Q).
        marked: panels of the seeds that are in four parts, shape (N, K, Q).
    """

    total: Array
    error: Array
    own: Array
    edges: Array
    level: Array
    density: Array
    weights: Array
    marked: Array


def evaluate_seeds(bank: Bank) -> Coarse:
    """All densities on the seeds' panels."""
    panels, shape, log_density = evaluate(bank.log_density, bank.seeds)
    total = log_total(panels, bank.log_tails)
    resolution = assess(panels, total, bank.energy.term_size)
    # A barrier, for XLA would evaluate all of this anew for each of its uses.
    marked, unresolved = lax.optimization_barrier((resolution.excess(total) > 0, resolution.unresolved))
    unresolved = jnp.sum(jnp.where(marked, 0.0, jnp.exp(jnp.minimum(unresolved - total, 80.0))), axis=0)
    rounded = 2 * rounding(panels, total, bank.energy.term_size)
    return Coarse(panels, shape, log_density, marked, total, unresolved, resolution.tolerance, rounded)


def coarse_integrals(bank: Bank, coarse: Coarse) -> Integrals:
    """Where the seeds' panels resolve every density."""
    error = jnp.sum(truncation(coarse.panels, coarse.total), axis=0) + coarse.rounding
    level, density = _undivided_sums(bank.log_weights - coarse.total, coarse)
    own = jnp.zeros(bank.num_rows, bool)
    edges = part_edges(bank, jnp.zeros(level.shape, bool))
    weights = undivided_weights(coarse.panels.half_width, coarse.panels.peak, coarse.shape, coarse.total)
    level, density = jnp.repeat(level, NUM_PARTS, axis=0), first_parts(density)
    return Integrals(coarse.total, error, own, edges, level, density, weights, coarse.marked)


def fine_integrals(bank: Bank, coarse: Coarse) -> Integrals:
    """Where they do not: marked panels in four, and then panels of their own for the densities that still need them."""
    marked = Marked.of(coarse.marked, PANELS_AT_ONCE)
    total, error, own, weights = _divided_totals(bank, coarse, marked)
    level, density = _undivided_sums(bank.log_weights - total, coarse)
    density = divided_sums(bank, coarse.log_density, coarse.marked, marked, total, level, density)
    edges, level = part_edges(bank, jnp.any(coarse.marked, axis=1)), jnp.repeat(level, NUM_PARTS, axis=0)
    replaced = _replace(bank, own, _own_integrals, (total, error, edges, level, density))
    total, error, edges, level, density = replaced
    return Integrals(total, error, own, edges, level, density, weights, coarse.marked)


def _divided_totals(bank: Bank, coarse: Coarse, marked: Marked) -> tuple[Array, Array, Array, Array]:
    """log Z and its error with the marked panels in four, which densities stay unresolved, and the nodes' weights."""
    scale = coarse.total.reshape(-1)
    tolerance, half_width = coarse.tolerance.reshape(-1), coarse.panels.half_width
    parts_of, num_functions = parts_of_panels(bank, coarse.log_density), scale.size

    def add(carry: tuple[Array, Array], places: Array) -> tuple[Array, Array]:
        sums, weights = carry
        function, exists = places % num_functions, places < coarse.marked.size
        half = _at(half_width, places, bank)
        parts = summarize_parts(*parts_of(places), half, tolerance[function])
        mass = jnp.exp(jnp.minimum(parts.log_mass - scale[function], 80.0))
        unresolved = jnp.exp(jnp.minimum(parts.unresolved - scale[function], 80.0))
        new = jnp.stack([jnp.sum(mass, axis=0), jnp.sum(mass * parts.error, axis=0), unresolved], axis=-1)
        sums = sums.at[jnp.where(exists, function, num_functions)].add(new, mode="drop")
        height = jnp.exp(jnp.minimum(parts.peak - scale[function], 80.0)) * (half / NUM_PARTS)
        on_parts = jnp.asarray(KRONROD, height.dtype)[:, None, None] * height * parts.shape
        at_nodes = multiply_nodes(TO_PARTS.T, on_parts.reshape(len(TO_PARTS), -1))
        return sums, weights.at[:, places].set(at_nodes, mode="drop")

    zeros = jnp.zeros((num_functions, 3), scale.dtype), jnp.zeros((len(KRONROD), coarse.marked.size), scale.dtype)
    sums, weights = _over_marked(marked, add, zeros)
    inside, error, unresolved = (x.reshape(coarse.total.shape) for x in sums.T)
    fixed = jnp.where(coarse.marked, 0.0, coarse.panels.mass(coarse.total))
    truncated = jnp.where(coarse.marked, 0.0, truncation(coarse.panels, coarse.total))
    total = jnp.logaddexp(coarse.total + safe_log(inside + jnp.sum(fixed, axis=0)), bank.log_tails)
    relative = jnp.exp(coarse.total - total)
    error = (error + jnp.sum(truncated, axis=0)) * relative + coarse.rounding
    own = (unresolved + coarse.unresolved) * relative > 2 * coarse.tolerance
    weights = weights.reshape(coarse.shape.shape) * relative
    fixed = undivided_weights(coarse.panels.half_width, coarse.panels.peak, coarse.shape, total)
    return total, error, jnp.any(own | ~jnp.isfinite(total), axis=0), jnp.where(coarse.marked, weights, fixed)


def undivided_weights(half_width: Array, peak: Array, shape: Array, total: Array) -> Array:
    """Weights of the nodes where panels are not divided, shape (15, N, K, Q): those of the rule times the density."""
    height = half_width * jnp.exp(jnp.minimum(peak - total, 80.0))
    return jnp.asarray(KRONROD, height.dtype).reshape(-1, 1, 1, 1) * height * shape


def _undivided_sums(log_weights: Array, coarse: Coarse) -> tuple[Array, Array]:
    """Level (N, Q) and density (15, N, Q) of the sums over components, those on marked panels left out.

    A sum of resolved densities is resolved. `log_weights` are log w - log Z, shape (K, Q).
    """
    return sum_components(log_weights, coarse.panels.peak, coarse.shape, ~coarse.marked)


def sum_components(log_weights: Array, peak: Array, shape: Array, counted: Array | None = None) -> tuple[Array, Array]:
    """Level (N, Q) and density (15, N, Q) of sums over components, from peaks (N, K, Q) and shapes (15, N, K, Q)."""
    height = log_weights + peak
    level = lax.stop_gradient(jnp.max(height, axis=1))
    relative = jnp.exp(height - jnp.where(jnp.isfinite(level), level, 0.0)[:, None])
    if counted is not None:
        relative = jnp.where(counted, relative, 0.0)
    return level, jnp.sum(relative * shape, axis=2)


def divided_sums(
    bank: Bank, log_density: Array, is_marked: Array, marked: Marked, total: Array, level: Array, density: Array
) -> Array:
    """Density of the sums on the table's panels, (15, 4 N, Q), with panels in four where a component is marked.

    Args:
        bank: the densities.
        log_density: at the seeds' nodes, shape (15, N, K, Q).
        is_marked: shape (N, K, Q).
        marked: the same, in batches.
        total: log Z, shape (K, Q).
        level: what the sums are relative to on the seeds, in logarithms, shape (N, Q).
        density: of the sums without what is marked, shape (15, N, Q).
    """
    log_weights = (bank.log_weights - total).reshape(-1)
    finite = jnp.where(jnp.isfinite(level), level, 0.0).reshape(-1)
    num_rows, num_functions, num_sums = bank.num_rows, log_weights.size, level.size
    parts_of = parts_of_panels(bank, log_density)

    def add(on_parts: Array, places: Array) -> Array:
        function, exists = places % num_functions, places < is_marked.size
        where = places // num_functions * num_rows + places % num_rows
        values = parts_of(places)[0] + (log_weights[function] - finite[jnp.minimum(where, num_sums - 1)])
        values = jnp.exp(jnp.minimum(values, 80.0)).reshape(-1, len(places)).T
        return on_parts.at[jnp.where(exists, where, num_sums)].add(values, mode="drop")

    on_parts = values_on_parts(density).reshape(-1, num_sums).T
    on_parts = _over_marked(marked, add, on_parts).T.reshape(len(density), NUM_PARTS, *level.shape)
    on_parts = jnp.moveaxis(on_parts, 1, 2).reshape(len(density), bank.num_panels, num_rows)
    divided = jnp.repeat(jnp.any(is_marked, axis=1), NUM_PARTS, axis=0)
    return jnp.where(divided, on_parts, first_parts(density))


def first_parts(density: Array) -> Array:
    """Density (15, N, Q) on the table's panels, (15, 4 N, Q), where no panel is divided: the other parts have no width."""
    padded = jnp.pad(density[:, :, None], ((0, 0), (0, 0), (0, NUM_PARTS - 1), (0, 0)), constant_values=1.0)
    return padded.reshape(len(density), NUM_PARTS * density.shape[1], density.shape[-1])


def part_edges(bank: Bank, divided: Array) -> Array:
    """Edges of the table's panels, (4 N + 1, Q), of seeds that are divided in four or not, shape (N, Q)."""
    seeds = bank.seeds[:, 0]
    left, right = seeds[:-1, None], seeds[1:, None]
    parts = np.arange(NUM_PARTS, dtype=seeds.dtype)[:, None]
    fractions = jnp.where(divided[:, None], parts / NUM_PARTS, np.minimum(parts, 1.0))
    edges = jnp.where(fractions == 1, right, left + (right - left) * fractions)
    edges = edges.reshape(bank.num_panels, bank.num_rows)
    return jnp.concatenate([edges, jnp.broadcast_to(seeds[-1:], (1, bank.num_rows))])


def parts_of_panels(bank: Bank, log_density: Array) -> Callable[[Array], tuple[Array, Array]]:
    """Of places (C,) in (N, K, Q): log-densities on the parts, (15, 4, C), and energies on the panels, (15, C)."""
    at_nodes, at_parts = (bank.log_reference(points(bank.seeds)) for points in (panel_nodes, part_nodes))
    flat = log_density.reshape(len(log_density), -1)

    def parts(places: Array) -> tuple[Array, Array]:
        reference = _at(at_nodes, places, bank)
        known = jnp.isfinite(reference)
        energy = jnp.where(known, jnp.take(flat, places, axis=1, mode="clip") - jnp.where(known, reference, 0.0), 0.0)
        return values_on_parts(energy) + _at(at_parts, places, bank), energy

    return parts


def _at(x: Array, places: Array, bank: Bank) -> Array:
    """Of an array (..., N, 1, 1) or (..., N, 1, Q), what stands at places (C,) in (N, K, Q), shape (..., C)."""
    panel = places // bank.log_weights.size
    index = panel if x.shape[-1] == 1 else panel * bank.num_rows + places % bank.num_rows
    return jnp.take(x.reshape(*x.shape[:-3], -1), index, axis=-1, mode="clip")


def _over_marked(marked: Marked, add: Callable[[Sums, Array], Sums], initial: Sums) -> Sums:
    """add(sums, places) over all marked panels, some at a time."""

    @jax.checkpoint
    def step(sums: Sums, batch: tuple[Array, Array]) -> tuple[Sums, None]:
        start, places = batch
        return lax.cond(start < marked.number, add, lambda sums, _: sums, sums, places), None

    starts = jnp.arange(len(marked.places), dtype=jnp.int32) * marked.places.shape[1]
    return lax.scan(step, initial, (starts, marked.places))[0]


def _own_integrals(bank: Bank) -> tuple[Array, ...]:
    """log Z, its error, and edges, level and density of the sums, of a few densities on panels of their own."""
    term_size, log_tails = bank.energy.term_size, bank.log_tails

    seeds = jnp.broadcast_to(bank.seeds, (*bank.seeds.shape[:2], bank.num_rows))
    evaluate_on = lambda edges: evaluate(bank.log_density, edges)[:2]  # noqa: E731
    panels, shape = refine(evaluate_on, seeds, log_tails, term_size, bank.num_panels)
    total = log_total(panels, log_tails)
    error = jnp.sum(truncation(panels, total), axis=0) + 2 * rounding(panels, total, term_size)
    return total, error, panels.edges[:, 0], *sum_components(bank.log_weights - total, panels.peak, shape)


def replace_own_totals(bank: Bank, own: Array, edges: Array, total: Array) -> Array:
    """log Z, shape (K, Q), with the derivative on their own panels of densities that have some; the value stays."""

    def totals(bank: Bank, edges: Array, total: Array) -> tuple[Array]:
        edges = edges[:, None]
        values, half_width = bank.log_density(panel_nodes(edges)), 0.5 * jnp.diff(edges, axis=0)
        return (known_total(values, half_width, bank.log_tails, total),)

    return _replace(bank, own, totals, (total,), edges, lax.stop_gradient(total))[0]


@jax.custom_jvp
def known_total(values: Array, half_width: Array, log_tails: Array, total: Array) -> Array:
    """log Z, known as `total`, as a function of log-densities at the nodes, (15, N, K, Q), and of the mass beyond them."""
    return total


@known_total.defjvp
def _differentiate_total(
    primals: tuple[Array, Array, Array, Array], tangents: tuple[Array, Array, Array, Array]
) -> tuple[Array, Array]:
    (values, half_width, log_tails, _), (d_values, d_half_width, d_log_tails, _) = primals, tangents
    # Itself, so that the weights have their derivative in a derivative of the second order.
    total = known_total(*primals)
    density = jnp.asarray(KRONROD, values.dtype).reshape(-1, 1, 1, 1) * jnp.exp(jnp.minimum(values - total, 80.0))
    change = half_width * jnp.where(density > 0, d_values, 0.0) + d_half_width
    in_tails = jnp.exp(log_tails - total)
    in_tails = jnp.where(in_tails > 0, in_tails * d_log_tails, 0.0)
    return total, jnp.sum(density * change, axis=(0, 1)) + in_tails


def replace_own_sums(bank: Bank, own: Array, edges: Array, total: Array, density: Array, level: Array) -> Array:
    """The table's density with that of densities with panels of their own evaluated on these; differentiable."""

    def sums(bank: Bank, edges: Array, total: Array, level: Array) -> tuple[Array]:
        values = bank.log_density(panel_nodes(edges[:, None])) + (bank.log_weights - total)
        occupied = jnp.isfinite(level)[:, None]
        values = jnp.where(occupied, values - jnp.where(occupied, level[:, None], 0.0), -jnp.inf)
        return (jnp.sum(jnp.exp(values), axis=2),)

    return _replace(bank, own, sums, (density,), edges, total, level)[0]


def _replace(
    bank: Bank, chosen: Array, work: Callable[..., tuple[Array, ...]], values: tuple[Array, ...], *more: Array
) -> tuple[Array, ...]:
    """Arrays (..., Q) whose chosen entries are replaced by what `work` gives for a few densities at a time.

    Args:
        bank: the densities; their number of points and features bounds how many are worked on together.
        chosen: shape (Q,).
        work: maps a bank of B densities, and `more` of them, to arrays like `values`, B for Q.
        values: arrays of shape (..., Q).
        more: arrays of shape (..., Q).
    """
    num_rows, num_components = bank.num_rows, len(bank.log_weights)
    features = 15 * bank.num_panels * (bank.energy.coef.shape[-1] + num_components)
    size = max(1, min(num_rows, _FEATURES_AT_ONCE // features))
    # A reference of many parameters is that of all densities.
    size = num_rows if bank.reference.batch_shape else size
    batches = Marked.of(chosen, size)

    @jax.checkpoint
    def step(values: tuple[Array, ...], batch: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
        start, places = batch

        def replace(values: tuple[Array, ...]) -> tuple[Array, ...]:
            index = jnp.arange(num_rows) if bank.reference.batch_shape else jnp.minimum(places, num_rows - 1)
            where = jnp.where(chosen, index, num_rows) if bank.reference.batch_shape else places
            found = work(bank.rows(index), *(x[..., index] for x in more))
            return tuple(x.at[..., where].set(new, mode="drop") for x, new in zip(values, found, strict=True))

        return lax.cond(start < batches.number, replace, lambda values: values, values), None

    starts = jnp.arange(len(batches.places), dtype=jnp.int32) * size
    return lax.scan(step, values, (starts, batches.places))[0]
