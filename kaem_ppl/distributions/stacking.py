"""Tilted distributions under `jax.vmap`, `lax.scan` and NumPyro's broadcasting of batch shapes.

A distribution is a pytree, and what maps over its arrays does not know its batch shape. NumPyro's own distributions
broadcast whatever arrays they hold; `promote_batch_shape` then corrects the shape they state. A tilted density has arrays
of its own ranks (a grid shared by all functions beside a coefficient of each), so it remembers the ranks they were made
with, and what an array has more is an axis in front of the whole batch.
"""

import copy
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate

import jax
import jax.numpy as jnp
from jax import Array, lax
from numpyro.distributions import Distribution

from ..univariate import UnivariateKAN

if TYPE_CHECKING:
    from .base import TiltedDistribution

# Axes of each array of a bank that are its own, not the batch's.
_EVENT_NDIMS = {"coef": 1, "base_weight": 0, "spline_weight": 0, "grid": 1, "width": 0, "domain": 1}

type Ranks = tuple[tuple[int, ...], tuple[int, ...], int, int]


def aligned_first[**P, T](
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], T]:
    """A method that runs on the distribution with its batch shape as its arrays have it; see `aligned`."""

    @functools.wraps(method)
    def run(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(aligned(self), *args, **kwargs)

    return run


def ranks_of(distribution: "TiltedDistribution") -> Ranks:
    """Ranks of the arrays of the energy and of the reference, of the logits (-1 without any) and of the batch."""
    logits = getattr(distribution, "logits", None)
    return (
        tuple(jnp.ndim(getattr(distribution.energy, name)) for name in _EVENT_NDIMS),
        tuple(jnp.ndim(leaf) for leaf in jax.tree.leaves(distribution.reference)),
        -1 if logits is None else jnp.ndim(logits),
        len(distribution.batch_shape),
    )


def aligned[D: "TiltedDistribution"](distribution: D) -> D:
    """The distribution itself, or where its arrays were stacked the same with arrays that broadcast and their batch shape.

    Leading axes of size 1 are left out: they broadcast with anything.
    """
    if "_aligned" in distribution.__dict__:
        return distribution.__dict__["_aligned"]
    if ranks_of(distribution) == distribution._ranks:
        return distribution
    new = _align_known(distribution, keep_ones=False)
    if new.is_known:
        # So that its integrals are kept too.
        vars(distribution)["_aligned"] = new
    return new


def _align_known[D: "TiltedDistribution"](distribution: D, *, keep_ones: bool) -> D:
    """`_align`, outside of the trace where the arrays are: what is known stays known."""
    if not distribution.is_known:
        return _align(distribution, keep_ones)
    with jax.ensure_compile_time_eval():
        return _align(distribution, keep_ones)


def _align(distribution: Any, keep_ones: bool) -> Any:
    # `Any`, for only mixtures have logits.
    energy_ranks, reference_ranks, logits_rank, batch_rank = distribution._ranks
    new = copy.copy(distribution)
    vars(new).pop("_memory", None)
    is_mixture = logits_rank >= 0
    bank_rank = batch_rank + is_mixture
    new.energy = _align_energy(distribution.energy, energy_ranks, bank_rank, keep_ones)
    own = new.energy.batch_shape[:-1] if is_mixture else new.energy.batch_shape
    if is_mixture:
        new.logits = _align_array(distribution.logits, logits_rank, 1, batch_rank, keep_ones)
        own = lax.broadcast_shapes(own, new.logits.shape[:-1])
    new.reference = _align_reference(distribution.reference, reference_ranks, batch_rank)
    new._batch_shape = lax.broadcast_shapes(own, new.reference.batch_shape)
    new._ranks = ranks_of(new)
    return new


def _align_array(x: Any, rank: int, event_ndim: int, batch_rank: int, keep_ones: bool) -> Any:
    """An array (*added, *own batch, *event) with its added axes in front of a batch of `batch_rank` axes."""
    added = jnp.ndim(x) - rank
    if added <= 0:
        return x
    shape = jnp.shape(x)
    if math.prod(shape[:added]) == 1 and not keep_ones:
        return jnp.reshape(x, shape[added:])
    between = batch_rank - (rank - event_ndim)
    return jnp.reshape(x, shape[:added] + (1,) * between + shape[added:])


def _align_energy(energy: UnivariateKAN, ranks: tuple[int, ...], bank_rank: int, keep_ones: bool) -> UnivariateKAN:
    fields = {}
    for (name, event_ndim), rank in zip(_EVENT_NDIMS.items(), ranks, strict=True):
        fields[name] = _align_array(getattr(energy, name), rank, event_ndim, bank_rank, keep_ones)
    split = {name: len(jnp.shape(x)) - _EVENT_NDIMS[name] for name, x in fields.items()}
    bank = lax.broadcast_shapes(*(jnp.shape(x)[: split[name]] for name, x in fields.items()))

    def fill(name: str, x: Any) -> Array:
        is_shared = split[name] == 0 and name in ("grid", "width", "domain")
        return x if is_shared else jnp.broadcast_to(x, bank + jnp.shape(x)[split[name] :])

    fields = {name: fill(name, x) for name, x in fields.items()}
    return UnivariateKAN(**fields, basis=energy.basis, activation=energy.activation)


def _align_reference(reference: Distribution, ranks: tuple[int, ...], batch_rank: int) -> Distribution:
    leaves, treedef = jax.tree.flatten(reference)
    own_rank = len(reference.batch_shape)
    event_ndims = [max(0, rank - own_rank) for rank in ranks]
    triples = list(zip(leaves, ranks, event_ndims, strict=True))
    new = jax.tree.unflatten(treedef, [_align_array(x, rank, ndim, batch_rank, False) for x, rank, ndim in triples])
    added = [jnp.shape(x)[: max(0, jnp.ndim(x) - rank)] for x, rank in zip(leaves, ranks, strict=True)]
    front = lax.broadcast_shapes((), *(shape for shape in added if math.prod(shape) != 1))
    removed = max((rank - jnp.ndim(x) for x, rank in zip(leaves, ranks, strict=True)), default=0)
    if front:
        _correct_batch_shape(new, lambda own: front + (1,) * (batch_rank - len(own)) + own)
    elif removed > 0:
        # Mapped over axes that it had from the start.
        _correct_batch_shape(new, lambda own: own[removed:])
    return new


def _correct_batch_shape(distribution: Distribution, correct: Callable[[tuple[int, ...]], tuple[int, ...]]) -> None:
    """Change the batch shape that a reference states, and those of what it is built on."""
    distribution._batch_shape = correct(distribution.batch_shape)
    for part in vars(distribution).values():
        if isinstance(part, Distribution):
            _correct_batch_shape(part, correct)


def promote(distribution: "TiltedDistribution") -> "TiltedDistribution":
    """What NumPyro's `promote_batch_shape` does: the distribution with the batch shape that its arrays have."""
    if ranks_of(distribution) == distribution._ranks:
        return distribution
    return _align_known(distribution, keep_ones=True)
