"""What works around XLA's compiler, or reads its flags: how programs are compiled, and sums written so that they compile.

On a CPU a program takes about 5 ms of compilation for each loop that XLA makes of it, whatever the loop does, so the
functions here make few of them.
"""

import os
import re
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

# At its third level, the default, LLVM takes 1.4 times as long as at its second, and our steps run no faster on a CPU
# (`benchmarks/posterior_steps.py`). A level that XLA_FLAGS names is kept.
_named = re.findall(r"xla_backend_optimization_level=(\d+)", os.environ.get("XLA_FLAGS", ""))

jit_outermost = partial(jax.jit, compiler_options={"xla_backend_optimization_level": int(_named[-1]) if _named else 2})
"""`jax.jit` for a function that no other traced function calls: JAX refuses options of a program within a program."""

# Entries that are summed in one go.
_BLOCK = 16


def running_sum(x: Array) -> Array:
    """Sums of the first 1, 2, ... entries along the first axis.

    `jnp.cumsum` becomes a tree of a dozen loops; this is two levels of blocks, which is two.
    """
    return _running(x, jnp.sum, jnp.zeros((), x.dtype), jnp.add)


def running_max(x: Array) -> Array:
    """Largest of the first 1, 2, ... entries along the first axis, as `running_sum`."""
    return _running(x, jnp.max, jnp.asarray(-jnp.inf, x.dtype), jnp.maximum)


def _running(x: Array, reduce: Callable[..., Array], empty: Array, combine: Callable[[Array, Array], Array]) -> Array:
    number, rest = x.shape[0], x.shape[1:]
    if number <= _BLOCK**2:
        return _running_in_block(x[None], reduce, empty)[0]
    padded = jnp.concatenate([x, jnp.broadcast_to(empty, (-number % _BLOCK, *rest))])
    blocks = _running_in_block(padded.reshape(-1, _BLOCK, *rest), reduce, empty)
    before = _running(blocks[:, -1], reduce, empty, combine)[:-1]
    before = jnp.concatenate([jnp.broadcast_to(empty, (1, *rest)), before])
    return combine(blocks, before[:, None]).reshape(-1, *rest)[:number]


def _running_in_block(x: Array, reduce: Callable[..., Array], empty: Array) -> Array:
    """Along the second axis."""
    size = x.shape[1]
    so_far = jnp.tri(size, dtype=bool).reshape(1, size, size, *(1,) * (x.ndim - 2))
    return reduce(jnp.where(so_far, x[:, None], empty), axis=2)
