"""Validate data: pytrees of arrays with one leading axis, and how they are passed to a model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kaem_ppl.arguments import as_array


def check_data(data: Any, *, may_miss: bool = False) -> tuple[Any, int]:
    """Put data on the device after checking that every leaf is finite and has the same leading size.

    Args:
        data: a pytree of arrays of shape (num_data, ...).
        may_miss: whether NaN is accepted, for missing entries.

    Returns:
        The same pytree of JAX arrays, and num_data.

    Raises:
        ValueError: a leaf is None, is not numeric, has no leading axis, holds a value that is not finite, or
            disagrees with another leaf about num_data.
    """
    if isinstance(data, list) and data and not any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(data)):
        # A list of numbers, or of lists of them, is an array.
        data = as_array(data, "data")
    paths_and_leaves, structure = jax.tree.flatten_with_path(data, is_leaf=lambda leaf: leaf is None)
    if not paths_and_leaves:
        raise ValueError(f"`data` holds no array, got {data!r}: pass an array, a tuple or a dict of arrays.")
    leaves = []
    first_name, num_data = "", None
    for path, leaf in paths_and_leaves:
        name = f"`data{jax.tree_util.keystr(path)}`"
        if leaf is None:
            raise ValueError(f"{name} is None: leave it out, or pass an array with one row per datum.")
        if not isinstance(leaf, jax.Array):
            leaf = np.asarray(leaf)
            if leaf.dtype.kind not in "biufc":
                raise ValueError(f"{name} has dtype {leaf.dtype}: pass numbers.")
        if leaf.ndim == 0:
            raise ValueError(f"{name} is a scalar: pass an array whose leading axis runs over the data.")
        if num_data is None:
            first_name, num_data = name, leaf.shape[0]
        if leaf.shape[0] != num_data:
            raise ValueError(
                f"{name} has leading size {leaf.shape[0]}, but {first_name} has {num_data}: every leaf "
                "needs one row per datum."
            )
        leaf = jnp.asarray(leaf)
        if may_miss and jnp.isinf(leaf).any():
            raise ValueError(
                f"{name} holds infinite values: `missing='nan'` takes NaN for missing entries, nothing else."
            )
        if not may_miss and not jnp.isfinite(leaf).all():
            raise ValueError(
                f"{name} holds values that are not finite: if NaN stands for missing entries, say so by `missing='nan'`, "
                "otherwise drop those rows, or pass a finite placeholder together with a mask that the model gives to "
                "`numpyro.handlers.mask`."
            )
        leaves.append(leaf)
    if not num_data:
        raise ValueError(f"{first_name} has no rows: pass at least one datum.")
    return jax.tree.unflatten(structure, leaves), num_data


def call_model(model: Any, batch: Any) -> Any:
    """Call `model(**batch)` for a dict, `model(*batch)` for a tuple, `model(batch)` otherwise."""
    if isinstance(batch, dict):
        return model(**batch)
    if isinstance(batch, tuple):
        return model(*batch)
    return model(batch)
