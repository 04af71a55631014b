"""Serialise the structure of a pytree as JSON values, so that its arrays can be saved as a list."""

import importlib
from typing import Any

import jax

# Packages whose named tuples occur in training states.
_PACKAGES = ("kaem_ppl", "optax")


def describe(tree: Any) -> Any:
    """Describe the structure of a pytree of dictionaries with string keys, tuples, named tuples, lists and arrays.

    Returns:
        The description that `rebuild` takes, with leaves in the order of `jax.tree.leaves`.

    Raises:
        TypeError: the tree has a node of another kind.
    """
    tree = jax.tree.unflatten(jax.tree.structure(tree), range(len(jax.tree.leaves(tree))))
    return _describe(tree)


def rebuild(description: Any, leaves: list[Any]) -> Any:
    """Build a pytree from its description and its leaves.

    Raises:
        ValueError: the description is not one of `describe`.
    """
    match description:
        case int():
            return leaves[description]
        case {"dict": entries}:
            return {name: rebuild(entry, leaves) for name, entry in entries.items()}
        case {"list": entries}:
            return [rebuild(entry, leaves) for entry in entries]
        case {"tuple": entries}:
            return tuple(rebuild(entry, leaves) for entry in entries)
        case {"named_tuple": [module, name], "fields": entries} if module.split(".")[0] in _PACKAGES:
            return getattr(importlib.import_module(module), name)(*(rebuild(entry, leaves) for entry in entries))
        case None:
            return None
    raise ValueError(f"unknown structure {description!r}")


def _describe(tree: Any) -> Any:
    kind = type(tree)
    if kind is int or tree is None:
        return tree
    if kind is dict and all(isinstance(name, str) for name in tree):
        return {"dict": {name: _describe(entry) for name, entry in tree.items()}}
    if kind is list:
        return {"list": [_describe(entry) for entry in tree]}
    if kind is tuple:
        return {"tuple": [_describe(entry) for entry in tree]}
    if isinstance(tree, tuple) and hasattr(kind, "_fields") and kind.__module__.split(".")[0] in _PACKAGES:
        return {"named_tuple": [kind.__module__, kind.__qualname__], "fields": [_describe(entry) for entry in tree]}
    raise TypeError(f"A training state holds a {kind.__module__}.{kind.__qualname__}, which can't be saved.")
