"""What works around XLA's compiler, or reads its flags: how programs are compiled, and which run slowly.

On a CPU a program takes about 5 ms of compilation for each loop that XLA makes of it, whatever the loop does, so the
functions here make few of them.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]

# At its third level, the default, LLVM takes 1.4 times as long as at its second, and our steps run no faster on a CPU
# (`benchmarks/posterior_steps.py`). A level that XLA_FLAGS names is kept.
_named = re.findall(r"xla_backend_optimization_level=(\d+)", os.environ.get("XLA_FLAGS", ""))

jit_outermost = partial(jax.jit, compiler_options={"xla_backend_optimization_level": int(_named[-1]) if _named else 2})
"""`jax.jit` for a function that no other traced function calls: JAX refuses options of a program within a program."""


def is_slow_in_loops(program: ClosedJaxpr) -> bool:
    """Whether a program should be called again and again, or loops over it unrolled, rather than put into a loop.

    Before it compiles a program, XLA's CPU backend transposes convolutions into the one layout that it has fast code for:
    channels last, kernels with their inputs before their outputs. It leaves those inside a loop as they are, and runs them
    several times slower. The gradient that JAX derives of a convolution of this layout has another one.

    Args:
        program: made by `jax.make_jaxpr`, derivatives included.
    """
    return jax.default_backend() == "cpu" and _has_slow_convolution(program.jaxpr)


def _has_slow_convolution(jaxpr: Any) -> bool:
    return any(_is_slow(equation) or any(map(_has_slow_convolution, _inner(equation))) for equation in jaxpr.eqns)


def _is_slow(equation: Any) -> bool:
    if equation.primitive.name != "conv_general_dilated":
        return False
    numbers = equation.params["dimension_numbers"]
    # Which axis is what: of maps the batch, the channels, and space; of kernels outputs, inputs, and space.
    space = tuple(range(len(numbers.rhs_spec) - 2))
    maps, kernel = (0, len(space) + 1, *(axis + 1 for axis in space)), (len(space) + 1, len(space), *space)
    return (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != (maps, kernel, maps)


def largest_array(program: ClosedJaxpr) -> int:
    """Bytes of the largest array that a program computes.

    Args:
        program: made by `jax.make_jaxpr`.
    """
    return _largest_array(program.jaxpr)


def _largest_array(jaxpr: Any) -> int:
    sizes = [
        math.prod(x.aval.shape) * x.aval.dtype.itemsize
        for equation in jaxpr.eqns
        for x in equation.outvars
        if hasattr(x.aval, "shape")
    ]
    inner = [_largest_array(x) for equation in jaxpr.eqns for x in _inner(equation)]
    return max([0, *sizes, *inner])


def _inner(equation: Any) -> Iterator[Any]:
    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            yield inner


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
    so_far = np.tri(size, dtype=bool).reshape(1, size, size, *(1,) * (x.ndim - 2))
    return reduce(jnp.where(so_far, x[:, None], empty), axis=2)
