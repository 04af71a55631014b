"""Parameters in one file, read back as they were: arrays by name, and the versions that wrote them."""

from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..arguments import describe
from .trees import load_tree, save_tree

_PACKAGES = ("kaem-ppl", "jax", "numpyro", "numpy")


def save_params(path: str | PathLike, params: dict[str, Any]) -> None:
    """Write parameters, such as `fit(...).params`, into an .npz file, atomically and without pickles.

    Args:
        path: of the file; `.npz` is added where it ends otherwise.
        params: by site name arrays, or trees of arrays made of dictionaries, lists and tuples.

    Raises:
        TypeError: it is no dictionary of names, or a tree has a node of another kind.
        OSError: the file can't be written; one that was there before is unchanged.

    Example:
        >>> import jax.numpy as jnp, tempfile, kaem_ppl as kp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kp.save_params(f"{folder}/params.npz", {"scale": jnp.ones(3)})
        ...     print(kp.load_params(f"{folder}/params.npz"))
        {'scale': Array([1., 1., 1.], dtype=float32)}
    """
    if not isinstance(params, dict) or not all(isinstance(name, str) for name in params):
        raise TypeError(
            f"`params` must be a dictionary of arrays by name, such as `fit(...).params`, got {describe(params)}."
        )
    leaves = jax.tree.leaves_with_path(params)
    names = [jax.tree_util.keystr(keys, simple=True, separator="/") for keys, _ in leaves]
    for name, (_, leaf) in zip(names, leaves, strict=True):
        if np.asarray(leaf).dtype.kind not in "biufc":
            raise TypeError(f"`params` has {name} of type {np.asarray(leaf).dtype}, which can't be saved. Convert it.")
    versions = {package: metadata.version(package) for package in _PACKAGES}
    save_tree(_with_suffix(path), params, {"versions": versions}, names)


def load_params(path: str | PathLike) -> dict[str, Any]:
    """Read parameters that `save_params` wrote, as JAX arrays of the same types.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds something else.

    Example:
        >>> import jax.numpy as jnp, tempfile, kaem_ppl as kp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kp.save_params(f"{folder}/params.npz", {"decoder": {"weights": [jnp.ones(2), jnp.zeros(1)]}})
        ...     kp.load_params(f"{folder}/params.npz")["decoder"]["weights"][1]
        Array([0.], dtype=float32)
    """
    file = _with_suffix(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: expected a file that `save_params` wrote.")
    params, notes = load_tree(file)
    if not isinstance(notes, dict) or "versions" not in notes:
        raise ValueError(f"{file} holds something else than parameters: expected a file that `save_params` wrote.")
    return jax.tree.map(jnp.asarray, params)


def _with_suffix(path: str | PathLike) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
