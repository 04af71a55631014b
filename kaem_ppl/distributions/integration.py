"""Normalisers and tables of many densities at once, by as many subintervals as each needs, and their derivatives.

Three stages, so that no function pays for what another one needs:

1. All functions on the same few panels, by one matrix product.
2. Single panels of single functions, where the density (not its energy) asks for more, in four parts each: the energy's
   own interpolant gives the density there, whatever the basis costs.
3. Densities that are still unresolved, a few at a time, on panels of their own.

The second and the third run in batches of a fixed size, as many as there is work for, also where nothing is known before
the program runs.

Derivatives pass through none of this. Of the first two stages d log Z = sum_j W_j dV_j + (tails), V being the log-density
at the seeds' nodes, for on a panel in parts the density is that of an interpolant linear in V; the weights W are found
with log Z. On panels of a density's own, V is its log-density at their nodes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from ..quadrature.division import NUM_PARTS, TO_PARTS, Marked, part_nodes, values_on_parts
from ..quadrature.rule import KRONROD, multiply_nodes, panel_nodes, with_ends
from ..quadrature.table import Table, tabulate
from . import stages
from .bank import Bank
from .stages import Integrals

# Points of all functions that are evaluated together.
_POINTS_AT_ONCE = 2**19


def integrate(bank: Bank) -> tuple[Array, Array, Table]:
    """log Z of each component and its error estimate, a constant to derivatives, shape (K, Q), and the table (Q,)."""
    if not bank.log_weights.size:
        return integrate_coarsely(bank)[0]
    return _tabulate(bank, *_over_rows(bank, lambda bank: _without_weights(_integrate(bank))))


def integrate_coarsely(bank: Bank) -> tuple[tuple[Array, Array, Table], Array]:
    """The same by the first stage alone, and whether the later ones are needed, shape ()."""

    def first_stage(bank: Bank) -> tuple[tuple[Array, ...], Array]:
        coarse = stages.evaluate_seeds(bank)
        return _without_weights(stages.coarse_integrals(bank, coarse)), jnp.any(coarse.marked, axis=(0, 1))

    found, unresolved = _over_rows(bank, first_stage)
    return _tabulate(bank, *found), jnp.any(unresolved)


def _without_weights(found: Integrals) -> tuple[Array, ...]:
    return found.total, found.error, found.edges, found.level, found.density


def _tabulate(
    bank: Bank, total: Array, error: Array, edges: Array, level: Array, density: Array
) -> tuple[Array, Array, Table]:
    log_weights = bank.log_weights - total
    left, right = (jax.nn.logsumexp(log_weights + energy, axis=0) for energy in bank.end_energies)
    return total, lax.stop_gradient(error), tabulate(edges, level, density, (left, right), bank.log_outside)


def _over_rows(bank: Bank, work: Callable[[Bank], Any]) -> Any:
    """`work` of the bank, whose results have rows last; of some rows after others where the bank is large.

    Arrays over the nodes of all functions would be large, and those of some rows stay in the processor's cache.
    """
    num_components, num_rows = bank.log_weights.shape
    points = num_components * len(KRONROD) * (len(bank.seeds) - 1)
    if num_rows * points <= 2 * _POINTS_AT_ONCE or bank.reference.batch_shape:
        return work(bank)
    size = max(1, -(-num_rows // -(-num_rows * points // _POINTS_AT_ONCE)))
    order = jnp.minimum(jnp.arange(-(-num_rows // size) * size), num_rows - 1).reshape(-1, size)
    found = lax.map(lambda index: work(bank.rows(index)), order)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1)[..., :num_rows], found)


@jax.custom_jvp
def _integrate(bank: Bank) -> Integrals:
    coarse = stages.evaluate_seeds(bank)
    # Branches are left to work on single panels, for XLA's CPU compiler runs other work slowly there.
    return lax.cond(jnp.any(coarse.marked), stages.fine_integrals, stages.coarse_integrals, bank, coarse)


def _differentiate(primals: tuple[Bank], tangents: tuple[Bank]) -> tuple[Integrals, Integrals]:
    (bank,), (d_bank,) = primals, tangents
    found = _integrate(bank)
    weights = _weights_of(bank, found.weights, found.marked)

    def moving(bank: Bank) -> tuple[Array, Array, Array]:
        half_width = 0.5 * jnp.diff(bank.seeds, axis=0)
        return bank.log_density(panel_nodes(bank.seeds)), half_width, bank.log_tails

    (_, half_width, log_tails), (d_values, d_half_width, d_log_tails) = _jvp(moving, bank, d_bank)
    # The weights of a panel add up to its mass, which is proportional to its width.
    stretched = d_half_width / jnp.where(half_width > 0, half_width, 1.0)
    d_total = jnp.sum(weights * (jnp.where(weights > 0, d_values, 0.0) + stretched), axis=(0, 1))
    in_tails = jnp.exp(log_tails - found.total)
    d_total = d_total + jnp.where(in_tails > 0, in_tails * d_log_tails, 0.0)

    def totals(bank: Bank, total: Array) -> Array:
        edges = _moving_ends(bank, found.edges)
        return _where_any(found.own, lambda: stages.replace_own_totals(bank, found.own, edges, total), total)

    # Branches are computed anew in a backward pass.
    d_total = _jvp(jax.checkpoint(totals), bank, d_bank, found.total, d_total)[1]
    sums = jax.checkpoint(lambda bank, total: _sums(bank, total, found))
    d_edges, d_density = _jvp(sums, bank, d_bank, found.total, d_total)[1]
    zeros = jax.tree.map(
        lambda x: np.zeros(x.shape, jax.dtypes.float0) if x.dtype == bool else jnp.zeros_like(x), found
    )
    return found, zeros._replace(total=d_total, edges=d_edges, density=d_density)


_integrate.defjvp(_differentiate, symbolic_zeros=True)


def _jvp(function: Callable[..., Any], bank: Bank, d_bank: Bank, *more: Array) -> tuple[Any, Any]:
    """`jax.jvp` of a function of a bank, and of an array with its tangent, in those numbers of the bank that move."""
    leaves, structure = jax.tree.flatten(bank)
    tangents = jax.tree.leaves(d_bank, is_leaf=lambda x: isinstance(x, SymbolicZero))
    moves = [not isinstance(tangent, SymbolicZero) for tangent in tangents]

    def of_moving(moving: list[Array], *more: Array) -> Any:
        remaining = iter(moving)
        rebuilt = [next(remaining) if does else leaf for leaf, does in zip(leaves, moves, strict=True)]
        return function(jax.tree.unflatten(structure, rebuilt), *more)

    moving, d_moving = ([x for x, does in zip(xs, moves, strict=True) if does] for xs in (leaves, tangents))
    return jax.jvp(of_moving, (moving, *more[::2]), (d_moving, *more[1::2]))


def _moving_ends(bank: Bank, edges: Array) -> Array:
    """Edges whose inner ones are constants to derivatives, for no integral depends on them; the ends move."""
    return with_ends(lax.stop_gradient(edges), bank.seeds[0], bank.seeds[-1])


def _where_any(chosen: Array, replace: Callable[[], Array], values: Array) -> Array:
    """What `replace` gives, where any entry is chosen."""
    return lax.cond(jnp.any(chosen), lambda _: replace(), lambda values: values, values)


def _sums(bank: Bank, total: Array, found: Integrals) -> tuple[Array, Array]:
    """Edges and density of the table as functions of the densities and their log Z, which `found` has as numbers."""
    edges, own, marked = _moving_ends(bank, found.edges), found.own, found.marked
    # Of densities with panels of their own this is not the seeds': they are replaced.
    seed_level = jnp.where(own, jnp.inf, found.level[::NUM_PARTS])
    level = jnp.where(jnp.isfinite(seed_level), seed_level, 0.0)
    values = bank.log_density(panel_nodes(bank.seeds))
    counted = ~marked & jnp.isfinite(seed_level)[:, None]
    height = jnp.where(counted, values + (bank.log_weights - total) - level[:, None], -jnp.inf)
    density = jnp.sum(jnp.exp(height), axis=2)
    batches = Marked.of(marked, stages.PANELS_AT_ONCE)
    divided = lambda: stages.divided_sums(bank, values, marked, batches, total, seed_level, density)  # noqa: E731
    density = _where_any(marked, divided, stages.first_parts(density))
    replaced = lambda: stages.replace_own_sums(bank, own, edges, total, density, found.level)  # noqa: E731
    return edges, _where_any(own, replaced, density)


@jax.custom_jvp
def _weights_of(bank: Bank, weights: Array, marked: Array) -> Array:
    """The weights as a function of the densities, which derivatives of the second order ask for."""
    return weights


@_weights_of.defjvp
def _differentiate_weights(
    primals: tuple[Bank, Array, Array], tangents: tuple[Bank, Array, Array]
) -> tuple[Array, Array]:
    (bank, weights, marked), (d_bank, _, _) = primals, tangents

    def everywhere(bank: Bank) -> Array:
        """Both kinds on all panels, of which one is taken."""
        total, half_width = _integrate(bank).total, 0.5 * jnp.diff(bank.seeds, axis=0)
        nodes = panel_nodes(bank.seeds)
        values = bank.log_density(nodes)
        undivided = stages.undivided_weights(half_width, total, jnp.exp(values - total), total)
        reference = bank.log_reference(nodes)
        on_parts = values_on_parts(values - reference) + bank.log_reference(part_nodes(bank.seeds))
        density = jnp.exp(jnp.minimum(on_parts - total, 80.0)) * (half_width / NUM_PARTS)
        density = density * jnp.asarray(KRONROD, density.dtype).reshape(-1, 1, 1, 1, 1)
        divided = multiply_nodes(TO_PARTS.T, density.reshape(len(TO_PARTS), *values.shape[1:]))
        return jnp.where(marked, divided, undivided)

    return weights, jax.jvp(everywhere, (bank,), (d_bank,))[1]
