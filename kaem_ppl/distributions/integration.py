"""Normalisers and tables of a bank of densities, each by as many panels as it needs.

Three stages, so that no function pays for what another one needs:

1. All functions on the same few panels, by one matrix product.
2. Single panels of single functions, where the density (not its energy) asks for more, in four parts each: the energy's
   own interpolant gives the density there, whatever the basis costs.
3. Functions that are still unresolved, a few at a time, on panels of their own.

The second and the third run in batches of a fixed size, as many as there is work for, also where nothing is known before
the program runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from numpyro.distributions import Distribution

from ..quadrature.division import NUM_PARTS, Marked, part_nodes, summarize_parts, values_on_parts
from ..quadrature.refinement import assess, refine
from ..quadrature.rule import (
    Panels,
    contract,
    evaluate,
    evaluate_few,
    log_total,
    panel_nodes,
    rounding,
    safe_log,
    truncation,
    with_ends,
)
from ..table import Table, tabulate
from ..univariate import UnivariateKAN

# What is integrated: the table of masses; log-normalisers and their error estimates; or both, a pair, where the table is
# a constant to derivatives.
Quantity = Literal["table", "log_normalizer", "both"]

Sums = TypeVar("Sums")

# Recomputes what is cheap in the backward pass; the search for panels is not, and constants to derivatives.
_checkpoint = partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names("own edges"))

# Points of all functions that are evaluated together, panels that are divided together, and features that are evaluated
# together on panels of functions' own.
_POINTS_AT_ONCE = 2**19
_PANELS_AT_ONCE = 4096
_FEATURES_AT_ONCE = 2**20


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["energy", "reference", "log_weights", "seeds", "end_energies", "log_outside"],
    meta_fields=["batch_shape"],
)
@dataclass(frozen=True)
class Bank:
    """Q densities, each a sum of K tilted components over one reference.

    Attributes:
        energy: of shape (Q, K).
        reference: of a batch shape that broadcasts with `batch_shape`.
        log_weights: of the components, shape (Q, K).
        seeds: edges of the first panels, shape (N + 1,) or (Q, 1, N + 1).
        end_energies: energies at both ends of the panels, shape (Q, K) each.
        log_outside: log-masses of the reference beyond them, shape (Q, 1) each.
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
        """Logarithm of each component's mass outside the panels, shape (Q, K)."""
        return add_tails(self.end_energies, self.log_outside)

    @property
    def seeds_by_row(self) -> Array:
        """Edges of the first panels of each density, shape (Q, N + 1)."""
        num_edges = self.seeds.shape[-1]
        return jnp.broadcast_to(self.seeds.reshape(-1, num_edges), (len(self.log_weights), num_edges))

    @property
    def num_panels(self) -> int:
        """Number of panels of every density in the table."""
        return NUM_PARTS * (self.seeds.shape[-1] - 1)

    def log_reference(self, z: Array) -> Array:
        """log pi_0 at points (M,), shape (M,) or (Q, 1, M); or at each density's own points (Q, 1, M), of that shape."""
        if not self.reference.batch_shape:
            return self.reference.log_prob(z)
        batch_ndim = len(self.batch_shape)
        z = z.reshape(-1, *(1,) * batch_ndim) if z.ndim == 1 else jnp.moveaxis(z.reshape(*self.batch_shape, -1), -1, 0)
        values = self.reference.log_prob(z)
        values = jnp.broadcast_to(values, (len(z), *self.batch_shape))
        return jnp.moveaxis(values.reshape(len(z), -1), 0, -1)[:, None]

    def log_density(self, z: Array) -> Array:
        """exp(f) pi_0 in logarithms at points (M,) or (Q, 1, M), shape (Q, K, M)."""
        log_reference = self.log_reference(z)
        if log_reference.ndim == 1:
            return self.energy.outer(z, log_reference)
        return self.energy.outer(z) + log_reference

    def components_at(self, index: Array, z: Array) -> Array:
        """The same of single components, row-major index (B,), at points of their own (B, M), shape (B, M)."""
        num_components = self.log_weights.shape[-1]
        energy = take(self.energy, (index // num_components, index % num_components))
        return energy.outer(z) + self._log_reference_of(index // num_components, z)

    def sums_at(self, log_normalizer: Array, index: Array, z: Array) -> Array:
        """Log-density of whole densities, index (B,), at points of their own (B, M), shape (B, M)."""
        energy = take(self.energy, (index,)).outer(z[:, None])
        log_weights = (self.log_weights - log_normalizer)[index]
        return jax.nn.logsumexp(log_weights[..., None] + energy, axis=-2) + self._log_reference_of(index, z)

    def _log_reference_of(self, index: Array, z: Array) -> Array:
        if not self.reference.batch_shape:
            return self.reference.log_prob(z)
        # Point after point of every row, those of rows that are not asked for in the middle of the panels.
        middle = 0.5 * (self.seeds_by_row[:, :1] + self.seeds_by_row[:, -1:])

        def of_one(row: Array, z: Array) -> Array:
            points = jnp.broadcast_to(middle, (len(middle), len(z))).at[row].set(z)
            return self.log_reference(points[:, None])[row, 0]

        return lax.map(lambda pair: of_one(*pair), (index, z))


def take(energy: UnivariateKAN, index: tuple[Array, ...]) -> UnivariateKAN:
    """The functions of a bank at an index of its leading axes; what the bank shares stays shared."""
    shared_ndim = {"grid": 1, "width": 0, "domain": 1}
    fields = {name: getattr(energy, name) for name in ("coef", "base_weight", "spline_weight", *shared_ndim)}
    taken = {name: x if jnp.ndim(x) == shared_ndim.get(name) else x[index] for name, x in fields.items()}
    return UnivariateKAN(basis=energy.basis, activation=energy.activation, **taken)


class Coarse(NamedTuple):
    """All densities on the same panels.

    Attributes:
        peak: log-density at the highest node of each panel, shape (Q, K, N).
        shape: the densities over their peaks at the nodes, shape (Q, K, 15, N).
        log_density: at the nodes, shape (Q, K, 15, N).
        summary: what the later stages need to know.
    """

    peak: Array
    shape: Array
    log_density: Array
    summary: "Summary"


class Summary(NamedTuple):
    """What the panels of all give for each component.

    Attributes:
        marked: panels that do not resolve the density of a component, shape (Q, K, N).
        total: logarithm of the whole mass, shape (Q, K).
        mass: of the panels that are not marked, relative to the whole, shape (Q, K).
        truncated: error estimate of that mass.
        rounding: error estimate of the whole mass, relative to it.
        unresolved: logarithm of what panels that are not marked leave unresolved, the largest, shape (Q, K).
        tolerance: what may be left unresolved, relative to the whole mass, shape (Q, K).
    """

    marked: Array
    total: Array
    mass: Array
    truncated: Array
    rounding: Array
    unresolved: Array
    tolerance: Array


class Normalizers(NamedTuple):
    """What the components integrate to.

    Attributes:
        total: log Z of each component, shape (Q, K).
        error: error estimate of log Z, a constant to derivatives, shape (Q, K).
        own: which components need panels of their own, shape (Q, K).
    """

    total: Array
    error: Array
    own: Array


def integrate(bank: Bank, what: Quantity) -> tuple[Array, Array, Table | None]:
    """log Z of each component and its error estimate, shape (Q, K), and the table of batch shape (Q,) where asked for."""
    if not bank.log_weights.size:
        return integrate_coarsely(bank)[0]
    return _over_rows(bank, partial(_integrate, what=what))


def integrate_coarsely(bank: Bank) -> tuple[tuple[Array, Array, Table], Array]:
    """The same, log Z and the table, by the first stage alone, and whether the later ones are needed, shape ()."""

    def first_stage(bank: Bank) -> tuple[tuple[Array, Array, Table], Array]:
        coarse = evaluate_seeds(bank)
        normalizers = coarse_normalizers(coarse)
        table = coarse_table(bank, normalizers, add_components(bank, coarse, normalizers))
        unresolved = jnp.any(coarse.summary.marked, axis=(1, 2))
        return (normalizers.total, normalizers.error, table), unresolved

    result, unresolved = _over_rows(bank, first_stage)
    return result, jnp.any(unresolved)


def _over_rows(bank: Bank, work: Callable[[Bank], Any]) -> Any:
    """`work` of the bank, whose results have rows in front; of some rows after others where the bank is large.

    Arrays over the nodes of all functions would be large, and those of some rows stay in the processor's cache.
    """
    num_rows, num_components = bank.log_weights.shape
    points = num_components * 15 * (bank.seeds.shape[-1] - 1)
    if num_rows * points <= 2 * _POINTS_AT_ONCE or bank.reference.batch_shape:
        return work(bank)
    size = max(1, -(-num_rows // -(-num_rows * points // _POINTS_AT_ONCE)))
    order = jnp.minimum(jnp.arange(-(-num_rows // size) * size), num_rows - 1).reshape(-1, size)

    @_checkpoint
    def step(index: Array) -> Any:
        energy, seeds = take(bank.energy, (index,)), bank.seeds if bank.seeds.ndim == 1 else bank.seeds[index]
        rows = bank.log_weights, bank.end_energies, bank.log_outside
        log_weights, end_energies, log_outside = jax.tree.map(lambda x: x[index], rows)
        return work(Bank(energy, bank.reference, log_weights, seeds, end_energies, log_outside, (size,)))

    found = lax.map(step, order)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:num_rows], found)


def _integrate(bank: Bank, what: Quantity) -> tuple[Array, Array, Table | None]:
    coarse = evaluate_seeds(bank)
    is_unresolved = jnp.any(coarse.summary.marked)
    # Branches are left to work on single panels, for XLA's CPU compiler runs other work slowly there. They are recomputed
    # in the backward pass.
    fine = _checkpoint(fine_normalizers)
    normalizers = lax.cond(is_unresolved, fine, lambda _, coarse: coarse_normalizers(coarse), bank, coarse)
    if what == "log_normalizer":
        return normalizers.total, normalizers.error, None
    fixed = bank, coarse, normalizers
    bank, coarse, fixed = lax.stop_gradient(fixed) if what == "both" else fixed
    sums = add_components(bank, coarse, fixed)
    plain = coarse_table(bank, fixed, sums)
    table = lax.cond(is_unresolved, _checkpoint(fine_table), lambda *_: plain, bank, coarse, fixed, sums)
    return normalizers.total, normalizers.error, table


def evaluate_seeds(bank: Bank) -> Coarse:
    """All densities on the seeds' panels."""
    panels, shape, log_density = evaluate(bank.log_density, bank.seeds)
    total = log_total(panels, bank.log_tails)
    fixed, known = lax.stop_gradient((panels, total))
    term_size = lax.stop_gradient(bank.energy.term_size)
    resolution = assess(fixed, known, term_size)
    # A barrier, for XLA would evaluate all of this anew for each of its uses.
    marked, unresolved = lax.optimization_barrier((resolution.excess(known) > 0, resolution.unresolved))
    mass = jnp.where(marked, 0.0, panels.mass(known[..., None]))
    truncated = jnp.where(marked, 0.0, truncation(fixed, known[..., None]))
    unresolved = jnp.where(marked, -jnp.inf, unresolved)
    summary = Summary(
        marked,
        total,
        jnp.sum(mass, axis=-1),
        jnp.sum(truncated, axis=-1),
        2 * rounding(fixed, known, term_size),
        jnp.max(unresolved, axis=-1),
        resolution.tolerance,
    )
    return Coarse(panels.peak, shape, log_density, summary)


def coarse_normalizers(coarse: Coarse) -> Normalizers:
    """Where the seeds' panels resolve every density."""
    summary = coarse.summary
    return Normalizers(summary.total, summary.truncated + summary.rounding, jnp.zeros(summary.total.shape, bool))


def fine_normalizers(bank: Bank, coarse: Coarse) -> Normalizers:
    """Where they do not: marked panels in four, and then panels of their own for the components that still need them."""
    normalizers = _divided_normalizers(bank, coarse)
    num_components = bank.log_weights.shape[-1]
    log_tails, term_size = bank.log_tails.reshape(-1), bank.energy.term_size.reshape(-1)

    def work(index: Array) -> tuple[Array, ...]:
        own = log_tails[index], term_size[index]
        panels, _ = _own_panels(bank, index // num_components, partial(bank.components_at, index), *own)
        total = log_total(panels, own[0])
        error = jnp.sum(truncation(panels, total[..., None]), axis=-1) + 2 * rounding(panels, total, own[1])
        return total, lax.stop_gradient(error)

    values = (normalizers.total.reshape(-1), normalizers.error.reshape(-1))
    values = _replace(bank, normalizers.own.reshape(-1), work, values)
    return Normalizers(*(x.reshape(normalizers.own.shape) for x in values), normalizers.own)


def add_components(bank: Bank, coarse: Coarse, normalizers: Normalizers) -> tuple[Array, Array]:
    """Level and density of the sums over components on the seeds' panels, those on marked panels left out."""
    log_weights = bank.log_weights - normalizers.total
    return _add_components(log_weights, coarse.peak, coarse.shape, ~coarse.summary.marked)


def coarse_table(bank: Bank, normalizers: Normalizers, sums: tuple[Array, Array]) -> Table:
    """The table where the seeds' panels resolve every density."""
    return _tabulate(bank, normalizers, bank.seeds_by_row, *sums)


def fine_table(bank: Bank, coarse: Coarse, normalizers: Normalizers, sums: tuple[Array, Array]) -> Table:
    """The table where they do not."""
    log_weights = bank.log_weights - normalizers.total
    edges, level, density = _divided_table(bank, coarse, log_weights, sums)
    log_tails = jax.nn.logsumexp(log_weights + bank.log_tails, axis=-1)
    term_size = jnp.max(bank.energy.term_size, axis=-1)

    def work(index: Array) -> tuple[Array, ...]:
        log_density = partial(bank.sums_at, normalizers.total, index)
        panels, shape = _own_panels(bank, index, log_density, log_tails[index], term_size[index])
        return panels.edges, panels.peak, shape

    own = jnp.any(normalizers.own, axis=-1)
    return _tabulate(bank, normalizers, *_replace(bank, own, work, (edges, level, density)))


def _replace(
    bank: Bank, chosen: Array, work: Callable[[Array], tuple[Array, ...]], values: tuple[Array, ...]
) -> tuple[Array, ...]:
    """Arrays whose chosen entries along the first axis are replaced by what `work` gives for a few indices at a time.

    Args:
        bank: the densities; their number of points and features bounds how many indices are worked on together.
        chosen: shape (R,).
        work: maps indices (B,) to arrays like `values`, B for R.
        values: arrays of shape (R, ...).
    """
    num_rows = len(chosen)
    features = 15 * bank.num_panels * bank.energy.coef.shape[-1]
    size = max(1, min(num_rows, _FEATURES_AT_ONCE // features))
    # Rows with work to do come first.
    order = jnp.argsort(~chosen)
    batches = jnp.concatenate([order, jnp.broadcast_to(order[-1], (-num_rows % size,))]).reshape(-1, size)

    def nothing(index: Array) -> tuple[Array, ...]:
        return tuple(jnp.zeros((size, *x.shape[1:]), x.dtype) for x in values)

    @_checkpoint
    def step(start: Array, index: Array) -> tuple[Array, tuple[Array, ...]]:
        return start + size, lax.cond(start < jnp.sum(chosen), work, nothing, index)

    def replace(values: tuple[Array, ...]) -> tuple[Array, ...]:
        found = lax.scan(step, jnp.zeros((), order.dtype), batches)[1]
        place = jnp.argsort(order)

        def choose(new: Array, old: Array) -> Array:
            new = new.reshape(batches.size, *old.shape[1:])[place]
            return jnp.where(chosen.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

        return tuple(map(choose, found, values))

    return lax.cond(jnp.any(chosen), replace, lambda values: values, values)


def _tabulate(bank: Bank, normalizers: Normalizers, edges: Array, level: Array, density: Array) -> Table:
    log_weights = bank.log_weights - normalizers.total
    factors = tuple(jax.nn.logsumexp(log_weights + energy, axis=-1) for energy in bank.end_energies)
    outside = tuple(x[:, 0] for x in bank.log_outside)
    return tabulate(edges, level, density, factors, outside, bank.num_panels)


def _divided_normalizers(bank: Bank, coarse: Coarse) -> Normalizers:
    """With the marked panels in four; and which components stay unresolved."""
    summary, parts_of = coarse.summary, _parts_of(bank, coarse)
    scale = lax.stop_gradient(summary.total).reshape(-1)
    tolerance = summary.tolerance.reshape(-1)
    half_width = 0.5 * jnp.diff(bank.seeds_by_row)

    def add(sums: tuple[Array, ...], index: Array, panel: Array, exists: Array) -> tuple[Array, ...]:
        half = half_width[index // summary.marked.shape[1], panel]
        parts = summarize_parts(*parts_of(index, panel), half, tolerance[index])
        mass = jnp.exp(jnp.minimum(parts.log_mass - scale[index], 80.0))
        mass = jnp.where(exists, mass, 0.0)
        inside, error, unresolved = sums
        inside = inside.at[index].add(jnp.sum(mass, axis=0))
        error = error.at[index].add(jnp.sum(lax.stop_gradient(mass) * parts.error, axis=0))
        return inside, error, unresolved.at[index].max(jnp.where(exists, parts.unresolved, -jnp.inf))

    zeros = jnp.zeros_like(scale)
    sums = _over_marked(summary.marked, add, (zeros, zeros, zeros - jnp.inf))
    scale, inside, error, unresolved = (x.reshape(summary.total.shape) for x in (scale, *sums))
    total = jnp.logaddexp(scale + safe_log(inside + summary.mass), bank.log_tails)
    fixed = lax.stop_gradient(total)
    error = (error + summary.truncated) * jnp.exp(scale - fixed) + summary.rounding
    unresolved = jnp.maximum(unresolved, summary.unresolved) > fixed + jnp.log(2 * summary.tolerance)
    return Normalizers(total, lax.stop_gradient(error), unresolved | ~jnp.isfinite(fixed))


def _divided_table(
    bank: Bank, coarse: Coarse, log_weights: Array, sums: tuple[Array, Array]
) -> tuple[Array, Array, Array]:
    """Edges, level and density of the sums, with panels in four where a component is marked, shape (Q, 4 N) and so on."""
    marked = coarse.summary.marked
    num_rows, num_components, num_panels = marked.shape
    level, density = sums
    finite = jnp.where(jnp.isfinite(level), level, 0.0)
    density = jnp.moveaxis(density, -2, -1)
    parts_of, weights = _parts_of(bank, coarse), log_weights.reshape(-1)

    def add(on_parts: Array, index: Array, panel: Array, exists: Array) -> Array:
        where = index // num_components, panel
        values = parts_of(index, panel)[0] + (weights[index] - finite[where])[:, None]
        return on_parts.at[where].add(jnp.where(exists[:, None], jnp.exp(jnp.minimum(values, 80.0)), 0.0))

    on_parts = _over_marked(marked, add, values_on_parts(density))
    on_parts = on_parts.reshape(num_rows, num_panels, NUM_PARTS, -1)

    divided = jnp.any(marked, axis=1)[..., None]
    undivided = jnp.stack([density] + [jnp.ones_like(density)] * (NUM_PARTS - 1), axis=-2)
    density = jnp.where(divided[..., None], on_parts, undivided)
    seeds = bank.seeds_by_row
    parts = jnp.arange(NUM_PARTS, dtype=seeds.dtype)
    fractions = jnp.where(divided, parts / NUM_PARTS, jnp.minimum(parts, 1.0))
    left, right = seeds[:, :-1, None], seeds[:, 1:, None]
    edges = jnp.where(fractions == 1, right, left + (right - left) * fractions)
    edges = jnp.concatenate([edges.reshape(num_rows, -1), seeds[:, -1:]], axis=-1)
    density = jnp.moveaxis(density.reshape(num_rows, NUM_PARTS * num_panels, -1), -1, -2)
    return edges, jnp.repeat(level, NUM_PARTS, axis=-1), density


def _parts_of(bank: Bank, coarse: Coarse) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Of components and panels, (C,) each: log-densities on the parts, (C, 60), and energies on the panels, (C, 15)."""
    num_components = bank.log_weights.shape[-1]
    log_density = coarse.log_density.reshape(-1, *coarse.log_density.shape[2:])

    def reference_at(nodes: Array) -> Array:
        points = nodes.reshape(-1) if bank.seeds.ndim == 1 else nodes.reshape(len(nodes), 1, -1)
        return bank.log_reference(points).reshape(-1, *nodes.shape[-2:])

    at_nodes, at_parts = reference_at(panel_nodes(bank.seeds)), reference_at(part_nodes(bank.seeds))

    def parts(index: Array, panel: Array) -> tuple[Array, Array]:
        def of_panel(x: Array) -> Array:
            return x[0][panel] if len(x) == 1 else x[index // num_components, panel]

        reference = of_panel(at_nodes)
        known = jnp.isfinite(reference)
        energy = jnp.where(known, log_density[index, :, panel] - jnp.where(known, reference, 0.0), 0.0)
        return values_on_parts(energy) + of_panel(at_parts), energy

    return parts


def _over_marked(marked: Array, add: Callable[[Sums, Array, Array, Array], Sums], initial: Sums) -> Sums:
    """add(sums, components, panels, exists) over all marked panels (Q, K, N), some at a time."""
    counted = Marked.of(marked.reshape(-1, marked.shape[-1]))
    size = min(_PANELS_AT_ONCE, marked.size)

    @_checkpoint
    def step(sums: Sums, start: Array) -> tuple[Sums, None]:
        def work(sums: Sums) -> Sums:
            return add(sums, *counted.batch(start, size))

        return lax.cond(start < counted.ends[-1], work, lambda sums: sums, sums), None

    return lax.scan(step, initial, size * jnp.arange(-(-marked.size // size), dtype=jnp.int32))[0]


def _own_panels(
    bank: Bank, rows: Array, log_density: Callable[[Array], Array], log_tails: Array, term_size: Array
) -> tuple[Panels, Array]:
    """Some functions on panels of their own, as `evaluate_few` gives them.

    Args:
        bank: whose seeds they start from.
        rows: of the bank that they belong to, shape (B,).
        log_density: maps their points (B, M) to values (B, M).
        log_tails: logarithm of their masses outside the panels, shape (B,).
        term_size: as for `rounding`, shape (B,).
    """
    seeds = bank.seeds_by_row[rows]
    edges = refine(log_density, *lax.stop_gradient((seeds, log_tails, term_size)), num_panels=bank.num_panels)
    # Positions of inner edges are constants, for no integral depends on them; the ends are the seeds'.
    edges = checkpoint_name(lax.stop_gradient(edges), "own edges")
    edges = with_ends(edges, seeds[:, :1], seeds[:, -1:])
    return evaluate_few(log_density, edges)


def _add_components(log_weights: Array, peak: Array, shape: Array, counted: Array | None = None) -> tuple[Array, Array]:
    """Level and density of the sums over components, shape (Q, N) and (Q, 15, N).

    A sum of resolved densities is resolved.

    Args:
        log_weights: log w - log Z, shape (Q, K).
        peak: of each component on each panel, shape (Q, K, N).
        shape: the components over their peaks at the nodes, shape (Q, K, 15, N).
        counted: which panels of which component are summed, shape (Q, K, N).
    """
    height = log_weights[..., None] + peak
    level = lax.stop_gradient(jnp.max(height, axis=-2))
    relative = jnp.exp(height - jnp.where(jnp.isfinite(level), level, 0.0)[..., None, :])
    if counted is not None:
        relative = jnp.where(counted, relative, 0.0)
    return level, contract("...kn,...kjn->...jn", relative, shape)


def add_tails(factors: tuple[Array, Array], outside: tuple[Array, Array]) -> Array:
    """Logarithm of the mass of both tails, from the density's factor over the reference and the reference's own mass."""
    left, right = (factor + mass for factor, mass in zip(factors, outside, strict=True))
    # Two empty tails are an empty one, without the NaN that logaddexp would give as its derivative.
    occupied = (left > -jnp.inf) | (right > -jnp.inf)
    total = jnp.logaddexp(jnp.where(occupied, left, 0.0), jnp.where(occupied, right, 0.0))
    return jnp.where(occupied, total, -jnp.inf)
