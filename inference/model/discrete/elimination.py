"""Sums over discrete variables of products of tables, in log space: variable elimination with plates."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .support import MAX_JOINT_STATES, Plates, Variable


class Factor(NamedTuple):
    """A table of log-densities.

    Attributes:
        variables: that it depends on, sorted; one leading axis for each.
        plates: along which it is a product of independent factors.
        table: the axes of the variables, then batch axes, as many for all factors, of size 1 where there is no plate.
        sites: names of the observed sites in it.
    """

    variables: tuple[Variable, ...]
    plates: Plates
    table: jax.Array
    sites: frozenset[str] = frozenset()


def multiply(factors: Iterable[Factor]) -> Factor:
    """The product of factors.

    Raises:
        ValueError: it has too many joint states.
    """
    factors = list(factors)
    variables = tuple(sorted({v for factor in factors for v in factor.variables}))
    sizes = {v: n for factor in factors for v, n in zip(factor.variables, factor.table.shape, strict=False)}
    check_num_states(sizes)
    table = sum(align(factor.table, factor.variables, variables) for factor in factors)
    return Factor(
        variables,
        frozenset().union(*(factor.plates for factor in factors)),
        jnp.asarray(table),
        frozenset().union(*(factor.sites for factor in factors)),
    )


def align(table: jax.Array, variables: tuple[Variable, ...], wanted: tuple[Variable, ...]) -> jax.Array:
    """Insert axes of size 1 for the variables that a table does not depend on; both are sorted."""
    sizes = dict(zip(variables, table.shape, strict=False))
    return table.reshape([sizes.get(v, 1) for v in wanted] + list(table.shape[len(variables) :]))


def sum_out(
    factors: Iterable[Factor],
    plates_of: Mapping[Variable, Plates],
    keep: frozenset[Variable] = frozenset(),
    keys: Iterator[jax.Array] | None = None,
) -> list[Factor]:
    """Sum a product of factors over all variables but some.

    Args:
        factors: the factors; each stands in all plates of its variables.
        plates_of: for each variable, its plates.
        keep: variables that remain.
        keys: where given, derivatives of the result are not probabilities of states but states that are drawn with them;
            see `logsumexp`.

    Returns:
        Factors of the variables that remain, and factors without a variable, not yet multiplied along their plates.

    Raises:
        ValueError: a sum can't be taken variable by variable, or has too many joint states.

    Source: Obermeyer et al., Tensor variable elimination for plated factor graphs, ICML 2019, algorithm 1.
    """
    pending, done = list(factors), []
    while pending:
        leaf = max((factor.plates for factor in pending), key=lambda plates: (len(plates), sorted(plates)))
        here = [factor for factor in pending if factor.plates == leaf]
        pending = [factor for factor in pending if factor.plates != leaf]
        local = {v for f in here for v in f.variables if plates_of[v] == leaf and v not in keep}
        for group in _connected(here, local):
            factor = _eliminate(group, local, keys)
            outer = frozenset().union(*(plates_of[v] for v in factor.variables))
            if not factor.variables or (outer == leaf and keep.issuperset(factor.variables)):
                done.append(factor)
            elif outer == leaf:
                raise ValueError(
                    f"Discrete latent sites {_names(factor.variables)} stand in different plates and meet at one site, so "
                    "they can't be summed out one after another. Put one's plate inside the other's."
                )
            else:
                pending.append(product_over(factor, leaf - outer))
    return done


def product_over(factor: Factor, plates: Plates) -> Factor:
    """The product along plates; the axes stay, with size 1."""
    table = factor.table.sum([factor.table.ndim + dim for _, dim in plates], keepdims=True)
    return factor._replace(table=table, plates=factor.plates - plates)


def logsumexp(table: jax.Array, axis: int, key: jax.Array | None = None) -> jax.Array:
    """log sum exp along an axis; where all is -inf its derivative is 0.

    With a key, the derivative is not the vector of probabilities, softmax, but a one-hot vector drawn from it. Chained
    from the last sum back to the first, as derivatives are, these draws are exact joint draws of all variables: forward
    filtering, backward sampling.
    """
    if key is None:
        return _logsumexp(table, axis)
    return _drawing_logsumexp(jnp.moveaxis(table, axis, 0), key)


def check_num_states(sizes: Mapping[Variable, int]) -> None:
    """Raise ValueError where variables have too many joint states."""
    if math.prod(sizes.values()) > MAX_JOINT_STATES:
        raise ValueError(
            f"Discrete latent sites {_names(sizes)} depend on each other: {math.prod(sizes.values()):,} joint states must "
            f"be summed at once, and at most {MAX_JOINT_STATES:,} are. Give them fewer values, or put those that are "
            "independent into a `numpyro.plate`."
        )


def _names(variables: Iterable[Variable]) -> list[str]:
    return sorted({v.site for v in variables})


def _connected(factors: list[Factor], local: set[Variable]) -> list[list[Factor]]:
    """Groups of factors that share no local variable."""
    groups: list[tuple[set[Variable], list[Factor]]] = []
    for factor in factors:
        variables, members = local.intersection(factor.variables), [factor]
        apart = []
        for group in groups:
            if group[0].isdisjoint(variables):
                apart.append(group)
            else:
                variables, members = group[0] | variables, group[1] + members
        groups = [*apart, (variables, members)]
    return [members for _, members in groups]


def _eliminate(factors: list[Factor], local: set[Variable], keys: Iterator[jax.Array] | None) -> Factor:
    """Sum over the local variables of connected factors, the cheapest first."""
    remaining = {v for factor in factors for v in factor.variables if v in local}

    def cost(v: Variable) -> tuple[int, Variable]:
        sizes = {u: n for f in factors if v in f.variables for u, n in zip(f.variables, f.table.shape, strict=False)}
        return math.prod(sizes.values()), v

    while remaining:
        v = min(remaining, key=cost)
        remaining.remove(v)
        joint = multiply(factor for factor in factors if v in factor.variables)
        axis = joint.variables.index(v)
        table = logsumexp(joint.table, axis, None if keys is None else next(keys))
        summed = joint._replace(variables=tuple(u for u in joint.variables if u != v), table=table)
        factors = [factor for factor in factors if v not in factor.variables] + [summed]
    return multiply(factors)


def make_keys(key: jax.Array) -> Iterator[jax.Array]:
    """Different keys, one after another."""
    return (jax.random.fold_in(key, number) for number in itertools.count())


def _logsumexp(table: jax.Array, axis: int) -> jax.Array:
    high = jax.lax.stop_gradient(table.max(axis, keepdims=True))
    high = jnp.where(jnp.isfinite(high), high, 0)
    total = jnp.exp(table - high).sum(axis)
    # Both branches are differentiated: neither may divide by 0.
    is_zero = total == 0
    return jnp.where(is_zero, -jnp.inf, jnp.log(jnp.where(is_zero, 1, total)) + high.squeeze(axis))


@jax.custom_vjp
def _drawing_logsumexp(table: jax.Array, key: jax.Array) -> jax.Array:
    return _logsumexp(table, 0)


def _forward(table: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _logsumexp(table, 0), (table, key)


def _backward(residual: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, None]:
    table, key = residual
    state = jax.random.categorical(key, table, axis=0)
    return jax.nn.one_hot(state, table.shape[0], axis=0, dtype=table.dtype) * cotangent, None


_drawing_logsumexp.defvjp(_forward, _backward)
