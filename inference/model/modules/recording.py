"""Bring the new state of a module out of a loss: it travels with the gradient, through whatever transforms the loss has."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Whole numbers travel as words of sixteen bits, which float32 holds exactly.
_WORD = 2**16


class Slot(NamedTuple):
    """Where the state of one site comes out; zeros, whose cotangents are what is noted.

    Attributes:
        num_passes: number of passes that noted a state.
        total: the sum of these states.
    """

    num_passes: jax.Array
    total: Any


def make_slots(states: Mapping[str, Any]) -> dict[str, Slot]:
    """A slot for each state, by site."""
    return {
        name: Slot(jnp.zeros(()), jax.tree.map(lambda leaf: jnp.zeros_like(_to_floats(leaf)), state))
        for name, state in states.items()
    }


@jax.custom_vjp
def note_states(log_prob: jax.Array, slots: dict[str, Slot], states: dict[str, Any]) -> jax.Array:
    """Return the log-density as it is, and note the states that its pass left, where a gradient goes through it.

    The derivative of a loss by `slots` is then the number of such passes and the sum of their states, whatever the loss
    does with the log-density: passes may stand inside `vmap`, `scan` and `checkpoint`. Flax carries scales of FP8 out of a
    loss the same way (`flax.linen.fp8_ops`, "overwrite with gradient").

    Args:
        log_prob: the log-density, of any shape.
        slots: by site.
        states: new states of the same sites.
    """
    return log_prob


def _note_forward(log_prob: jax.Array, slots: dict[str, Slot], states: dict[str, Any]) -> tuple[jax.Array, Any]:
    return log_prob, {name: Slot(jnp.ones(()), jax.tree.map(_to_floats, states[name])) for name in slots}


def _note_backward(noted: dict[str, Slot], cotangent: jax.Array) -> tuple[jax.Array, dict[str, Slot], None]:
    return cotangent, noted, None


note_states.defvjp(_note_forward, _note_backward)


def mean_states(noted: Mapping[str, Slot], old: Mapping[str, Any]) -> dict[str, Any]:
    """The mean of the states that were noted, by site; the old one where none was.

    The update of a running mean is linear in what the pass saw, so the mean over passes is the update by all of them.
    """
    return {name: _mean_state(slot, old[name]) for name, slot in noted.items()}


def _mean_state(slot: Slot, old: Any) -> Any:
    def mean(leaf: Any, total: jax.Array) -> jax.Array:
        return jnp.where(slot.num_passes > 0, _from_floats(total / jnp.maximum(slot.num_passes, 1), leaf), leaf)

    return jax.tree.map(mean, old, slot.total)


def _to_floats(leaf: Any) -> jax.Array:
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    bits, places = leaf.astype(_unsigned(leaf)), _places(leaf)
    return ((bits[..., None] >> places) & (_WORD - 1)).astype(jnp.float32)


def _from_floats(floats: jax.Array, like: Any) -> jax.Array:
    dtype = jnp.result_type(like)
    if jnp.issubdtype(dtype, jnp.floating):
        return floats.astype(dtype)
    # The words do not overlap, so their sum is their union.
    return (jnp.round(floats).astype(_unsigned(like)) << _places(like)).sum(-1).astype(dtype)


def _unsigned(leaf: Any) -> Any:
    return jnp.uint64 if jnp.result_type(leaf).itemsize > 4 else jnp.uint32


def _places(leaf: Any) -> jax.Array:
    """Where the words of a whole number begin, in bits."""
    dtype = _unsigned(leaf)
    return jnp.arange(0, 8 * jnp.dtype(dtype).itemsize, 16, dtype=dtype)
