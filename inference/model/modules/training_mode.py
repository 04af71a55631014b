"""Training mode: how a model runs where its gradient is taken, and how the states of its modules come out of the loss."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from .recording import Slot, note_states
from .state import state_after


@dataclass(frozen=True)
class TrainingMode:
    """The passes of one step of training.

    Attributes:
        key: of dropout and the like; all passes of the step have the same.
        kwargs: arguments of the model, and of a guide that takes them, in training only.
        slots: where the states of modules come out; see `note_states`.
    """

    key: jax.Array
    kwargs: Mapping[str, Any]
    slots: Mapping[str, Slot]

    def note(self, log_prob: jax.Array, sites: Mapping[str, dict[str, Any]]) -> jax.Array:
        """The log-density, and with it the states that its pass left, from the sites of the run."""
        states = jax.lax.stop_gradient(state_after(sites))
        slots = {name: self.slots[name] for name in states}
        return note_states(log_prob, slots, states) if states else log_prob


def accepted_kwargs(model: Callable[..., Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that a model takes; all where it does not say."""
    try:
        parameters = inspect.signature(model).parameters.values()
    except (TypeError, ValueError):
        return dict(kwargs)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(kwargs)
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}
    return {name: value for name, value in kwargs.items() if name in names}
