"""Chains of discrete sites inside `scan`, summed out step by step from the end, in time linear in their length."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .elimination import Factor, make_keys, multiply, product_over, sum_out
from .evaluation import ScanInfo
from .support import Plates, Variable


def chain_factors(
    rolled: Sequence[Factor],
    scan: ScanInfo,
    plates_of: Mapping[Variable, Plates],
    key: jax.Array | None = None,
) -> list[Factor]:
    """Sum out the steps of a scan behind its head, from the last to the first.

    Args:
        rolled: the factors of these steps, time as the first axis, in the order in which the scan runs.
        scan: the scan.
        plates_of: for each variable, its plates.
        key: where given, derivatives draw states; see `elimination.logsumexp`.

    Returns:
        Factors of the states of the head on which the first of these steps depends, and of variables outside.

    Raises:
        ValueError: what the scan carries stands in different plates.
    """
    current = {v for factor in rolled for v in factor.variables if v.site in scan.sites and v.step == scan.start}
    others = frozenset(v for factor in rolled for v in factor.variables) - current
    before = _frontier(rolled, current, scan)
    plates = frozenset().union(*(plates_of[v] for v in before))
    if any(plates_of[v] != plates for v in before if v.site in scan.sites):
        raise ValueError(
            f"Discrete latent sites {sorted(scan.sites)} are carried by one `scan` but stand in different plates, or "
            "depend on a discrete site that stands in more of them. Put them into the same ones."
        )
    # The sum over the steps behind, as a function of the states that they depend on.
    message = Factor(tuple(_later(v, scan) for v in before), plates, _zeros(rolled, before, plates))
    constants: list[Factor] = []

    def step(table: jax.Array, inputs: tuple[list[jax.Array], Any]) -> tuple[jax.Array, list[jax.Array]]:
        factors = [factor._replace(table=x) for factor, x in zip(rolled, inputs[0], strict=True)]
        keys = None if inputs[1] is None else make_keys(inputs[1])
        done = sum_out([*factors, message._replace(table=table)], plates_of, others | set(before), keys)
        linked = [x for x in done if any(v.site in scan.sites for v in x.variables)]
        constants[:] = [x for x in done if all(v.site not in scan.sites for v in x.variables)]
        new = multiply([Factor(before, plates, jnp.zeros_like(table)), *linked])
        return new.table, [x.table for x in constants]

    keys = None if key is None else jax.random.split(key, rolled[0].table.shape[0])
    table, tables = lax.scan(step, message.table, ([factor.table for factor in rolled], keys), reverse=True)
    sites = frozenset().union(*(factor.sites for factor in rolled))
    sums = [x._replace(table=stacked.sum(0)) for x, stacked in zip(constants, tables, strict=True)]
    return [Factor(before, plates, table, sites if before else frozenset()), *sums]


def _zeros(rolled: Sequence[Factor], variables: tuple[Variable, ...], plates: Plates) -> jax.Array:
    """A table of zeros over the states of variables and along plates."""
    sizes = {v.site: n for x in rolled for v, n in zip(x.variables, x.table.shape[1:], strict=False)}
    steps = [product_over(x._replace(table=x.table[0]), x.plates - plates) for x in rolled]
    batch = jnp.broadcast_shapes(*(x.table.shape[len(x.variables) :] for x in steps))
    return jnp.zeros(tuple(sizes[v.site] for v in variables) + batch, rolled[0].table.dtype)


def _frontier(rolled: Sequence[Factor], current: set[Variable], scan: ScanInfo) -> tuple[Variable, ...]:
    """Variables other than a step's own on which it and the later ones depend, by connection over time."""
    linked = {v for f in rolled for v in f.variables if v.site in scan.sites and v not in current}
    while more := {u for u in (_later(v, scan) for v in linked) if u.step < scan.start} - linked:
        linked |= more
    if not linked:
        return ()
    # Those outside the scan may be connected with them at any step.
    return tuple(sorted(linked | {v for f in rolled for v in f.variables if v.site not in scan.sites}))


def _later(v: Variable, scan: ScanInfo) -> Variable:
    """The variable as the next step calls it."""
    return v._replace(step=v.step + 1) if v.site in scan.sites else v
