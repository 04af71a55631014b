"""Pickle functions that pickle refuses, by their import path.

`jax.jit` and `jax.custom_jvp` make objects, such as `jax.nn.silu`, which pickle takes for functions that have been
replaced. Stored by name, they come back as the same object, so that what was compiled for them still serves.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

# The public names come first: where JAX keeps a function privately may change.
_PUBLIC_MODULES = ("jax.nn", "jax.numpy", "jax.scipy.special", "jax.lax")


@dataclass(frozen=True)
class ImportedFunction:
    """The place of a function: a module, and a name in it."""

    module: str
    name: str

    def load(self) -> Callable[..., Any]:
        """The function.

        Raises:
            ImportError: where the module does not exist here.
            AttributeError: where it has no such name.
        """
        return attrgetter(self.name)(importlib.import_module(self.module))


def to_picklable(function: Callable[..., Any]) -> Any:
    """What to store in place of a function: its name where it can be imported by one, else the function itself."""
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    if name is None:
        return function
    for module in (*_PUBLIC_MODULES, getattr(function, "__module__", None)):
        # Functions of the main script are left to pickle: another process may run another script.
        if module is None or module == "__main__":
            continue
        place = ImportedFunction(module, name)
        try:
            if place.load() is function:
                return place
        except (ImportError, AttributeError):
            continue
    return function


def from_picklable(stored: Any) -> Any:
    """The inverse of `to_picklable`."""
    return stored.load() if isinstance(stored, ImportedFunction) else stored
