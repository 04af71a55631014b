"""Vectorise functions over chains and data, and place arrays on devices."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from ..model.power_posterior import PowerPosterior


def over_problems(function: Callable[..., Any], posterior: PowerPosterior, keys: jax.Array, *batched: Any) -> Any:
    """Map over chains and data, which are the axes of `keys` and of `batched`.

    Args:
        function: of a key, a datum's rows, and what belongs to the problem.
        posterior: whose rows are the data.
        keys: shape (C, N).
        *batched: pytrees of arrays (C, N, ...).
    """
    over_data = jax.vmap(function, in_axes=(0, 0, *(0 for _ in batched)))
    return jax.vmap(over_data, in_axes=(0, None, *(0 for _ in batched)))(keys, posterior.rows, *batched)


def shard_like(array: jax.Array, tree: Any) -> Any:
    """What chains begin with, pytree of arrays (C, N, ...), on the devices among which `array`, (C, N, ...), is split.

    Constants among it would be on every device. A step returns them split, and a program is compiled for where its
    arguments are: once more.
    """
    if not isinstance(array.sharding, NamedSharding):
        return tree
    return jax.device_put(tree, NamedSharding(array.sharding.mesh, PartitionSpec(*array.sharding.spec[:2])))
