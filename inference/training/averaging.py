"""An exponential moving average of the parameters, which is what training returns where it is wanted."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..model.parameters import Params
from .state import TrainingState


class AveragedState(NamedTuple):
    """The state of an optimiser with an average.

    Attributes:
        inner: of the optimiser.
        average: of the unconstrained parameters after each step.
        count: steps so far.
    """

    inner: Any
    average: Params
    count: jax.Array


# Cached, so that equal arguments give the same object: compiled steps are looked up by it.
@lru_cache(maxsize=32)
def average_params(optimizer: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """An optimiser that also averages the parameters which it leads to.

    The n-th step is averaged with the smaller of `decay` and n / (n + 9), so that the first ones do not stay for long.

    Args:
        optimizer: whose steps are taken as they are.
        decay: of the average.
    """

    def init(params: Any) -> AveragedState:
        return AveragedState(optimizer.init(params), params, jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AveragedState]:
        updates, inner = optimizer.update(updates, state.inner, params)
        count = state.count + 1
        kept = jnp.minimum(decay, count / (count + 9.0))

        def average(old: jax.Array, new: jax.Array) -> jax.Array:
            return (kept * old + (1 - kept) * new).astype(old.dtype)

        return updates, AveragedState(
            inner, jax.tree.map(average, state.average, optax.apply_updates(params, updates)), count
        )

    return optax.GradientTransformation(init, update)


def learnt_params(state: TrainingState) -> Params:
    """Unconstrained parameters to use: the average where there is one, else those of the last step."""
    optimizer_state = state.optimizer_state
    return optimizer_state.average if isinstance(optimizer_state, AveragedState) else state.params
