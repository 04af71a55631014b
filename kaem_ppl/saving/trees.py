"""Pytrees in files: their structure as JSON values and their arrays as a list, in an .npz file without pickles."""

import hashlib
import importlib
import json
import zipfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from .files import write_atomically

# Packages whose named tuples occur in the states of training and sampling.
_PACKAGES = ("kaem_ppl", "optax", "blackjax")
# A name that no site has.
_NOTES = "kaem_ppl.trees"


def save_tree(path: str | PathLike, tree: Any, notes: Any = None, names: Sequence[str] | None = None) -> None:
    """Write a tree of arrays and numbers, and notes that JSON can hold, atomically: the file is complete or the old one.

    Args:
        path: of the file.
        tree: of arrays.
        notes: come back with it.
        names: of the arrays in the file, in the order of the tree's leaves; None numbers them.

    Raises:
        TypeError: the tree has a node of a kind that can't be saved.
        OSError: the file can't be written.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    names = [str(number) for number in range(len(leaves))] if names is None else list(names)
    content = {"structure": describe(tree), "names": names, "notes": notes, "checksum": _checksum(leaves)}
    arrays = {_NOTES: np.array(json.dumps(content)), **dict(zip(names, leaves, strict=True))}
    write_atomically(path, lambda file: _write_arrays(file, arrays))


def _write_arrays(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    # As `np.savez` does, which has no room for an array of the name `file`.
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def load_tree(path: str | PathLike) -> tuple[Any, Any]:
    """Read a tree, its arrays NumPy's, and its notes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or is another one.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            content = json.loads(str(file[_NOTES]))
            leaves = [file[name] for name in content["names"]]
        if _checksum(leaves) != content["checksum"]:
            raise ValueError("its numbers have changed")
        return rebuild(content["structure"], leaves), content["notes"]
    except FileNotFoundError:
        raise
    # A damaged archive is reported by many kinds of errors.
    except Exception as error:
        raise ValueError(f"{path} is damaged, or holds something else: {error}. Delete it, or take a copy.") from error


def _checksum(leaves: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for leaf in leaves:
        digest.update(repr((leaf.shape, leaf.dtype.str)).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def describe(tree: Any) -> Any:
    """Describe the structure of a pytree of dictionaries, by strings or numbers, tuples, named tuples, lists and arrays.

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
        case {"numbered": entries}:
            return {number: rebuild(entry, leaves) for number, entry in entries}
        case {"list": entries}:
            return [rebuild(entry, leaves) for entry in entries]
        case {"tuple": entries}:
            return tuple(rebuild(entry, leaves) for entry in entries)
        case {"named_tuple": [module, name], "fields": entries} if module.split(".")[0] in _PACKAGES:
            kind = getattr(importlib.import_module(module), name)
            if not (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")):
                raise ValueError(f"{module}.{name} is no named tuple")
            return kind(*(rebuild(entry, leaves) for entry in entries))
        case None:
            return None
    raise ValueError(f"unknown structure {description!r}")


def _describe(tree: Any) -> Any:
    kind = type(tree)
    if kind is int or tree is None:
        return tree
    if kind is dict and all(isinstance(name, str) for name in tree):
        return {"dict": {name: _describe(entry) for name, entry in tree.items()}}
    if kind is dict and all(type(number) is int for number in tree):
        # As Flax NNX names the layers of a list.
        return {"numbered": [[number, _describe(entry)] for number, entry in tree.items()]}
    if kind is list:
        return {"list": [_describe(entry) for entry in tree]}
    if kind is tuple:
        return {"tuple": [_describe(entry) for entry in tree]}
    if isinstance(tree, tuple) and hasattr(kind, "_fields") and kind.__module__.split(".")[0] in _PACKAGES:
        return {"named_tuple": [kind.__module__, kind.__qualname__], "fields": [_describe(entry) for entry in tree]}
    raise TypeError(f"The tree holds a {kind.__module__}.{kind.__qualname__}, which can't be saved.")
