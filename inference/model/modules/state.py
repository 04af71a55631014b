"""The states of modules, `mutable` sites: given to a run of the model, and read before and after it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.primitives import Messenger


class ModuleState(Messenger):
    """Completes the states that `numpyro.handlers.substitute` gives, and notes them before the model changes them.

    PRNG keys are no part of a state that is kept. In training they follow from the key of the step, as does all that
    `numpyro.prng_key` gives; in evaluation they are those that the module was made with.

    Attributes:
        before: by site, the state that the run begins with, without keys.
    """

    def __init__(self, key: jax.Array | None = None) -> None:
        """Set up.

        Args:
            key: of dropout and the like, in training; None in evaluation.
        """
        super().__init__()
        self.key = key
        self.before: dict[str, Any] = {}
        self._num_keys = 0

    def process_message(self, msg: dict[str, Any]) -> None:
        """Outside `substitute`, so that what it gave is there already."""
        if msg["type"] == "prng_key" and self.key is not None:
            msg["value"] = self._next_key()
        if msg["type"] == "mutable" and msg["value"] is not None:
            first = msg["args"][0]
            # A first state is made by each run; one that was given is not the run's, which changes states in place.
            if msg["value"] is not first:
                msg["value"] = self._complete(first, msg["value"])
            self.before.setdefault(msg["name"], without_keys(msg["value"]))

    def _complete(self, first: Any, given: Any) -> Any:
        if isinstance(given, Mapping):
            first = first if isinstance(first, Mapping) else {}
            return {name: self._complete(first.get(name), given.get(name, first.get(name))) for name in first | given}
        return self._next_key() if self.key is not None and is_key(given) else given

    def _next_key(self) -> jax.Array:
        assert self.key is not None, "in training"
        self._num_keys += 1
        return jax.random.fold_in(self.key, self._num_keys)


def state_after(sites: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The states of modules as a run leaves them, from the sites of its trace; without keys."""
    return {name: without_keys(site["value"]) for name, site in sites.items() if site["type"] == "mutable"}


def without_keys(tree: Any) -> Any:
    """A state without its PRNG keys; dictionaries are copied."""
    if not isinstance(tree, Mapping):
        return tree
    return {name: without_keys(value) for name, value in tree.items() if not is_key(value)}


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed PRNG key."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_learnt_state(value: Any) -> bool:
    """Whether a state is more than counters and keys: evaluation needs it as training left it."""
    return any(
        not is_key(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in jax.tree.leaves(value)
    )
