"""What works around XLA's compiler, or reads its flags: how programs are compiled, and which run slowly.

On a CPU a program takes about 5 ms of compilation for each loop that XLA makes of it, whatever the loop does, so the
functions here make few of them.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]
from jax.typing import DTypeLike

# At its third level, the default, LLVM takes 1.4 times as long as at its second, and our steps run no faster on a CPU
# (`benchmarks/posterior_steps.py`). A level that XLA_FLAGS names is kept.
_named = re.findall(r"xla_backend_optimization_level=(\d+)", os.environ.get("XLA_FLAGS", ""))

jit_outermost = partial(jax.jit, compiler_options={"xla_backend_optimization_level": int(_named[-1]) if _named else 2})
"""`jax.jit` for a function that no other traced function calls: JAX refuses options of a program within a program."""

jit_once = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""The same for what runs once or a few times: what it costs is its compilation, which takes half as long."""


# Operations of one run from which on optimised code repays its compilation, which takes a tenth longer, at once.
_CHEAP = 2e7


def jit_by_cost(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Compile for a few runs, optimised where each takes long.

    Args:
        function: to compile.
        arguments: their shapes.

    Returns:
        The program, and the number of operations of one run, a loop's body counted once; 0 where XLA does not say.
    """
    lowered = jit_once(function).lower(*arguments)
    cost = float((lowered.cost_analysis() or {}).get("flops", 0.0))
    options = {"xla_backend_optimization_level": 1} if cost > _CHEAP else None
    return lowered.compile(compiler_options=options), cost


def compile_ahead(traced: Any) -> Future[Any]:
    """Begin to compile a program in a thread of its own, for XLA's CPU compiler keeps to one; the call that needs it waits.

    A call of the function afterwards, with arguments of the same shapes, finds the program.

    Args:
        traced: what `trace` of a jitted function returns. Tracing is for one thread, as NumPyro's handlers are.

    Returns:
        Its `result()` waits for the program, and raises what the compiler does.
    """
    thread = ThreadPoolExecutor(1)
    compiled = thread.submit(traced.lower().compile)
    thread.shutdown(wait=False)
    return compiled


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


def flat_draws(draw: Callable[..., Array], key: Array, shape: tuple[int, ...], dtype: DTypeLike = float) -> Array:
    """The same numbers as `draw(key, shape, dtype)`, where `draw` is a function of `jax.random` such as `normal`.

    On a CPU, XLA unrolls the inner loops of a random array of several axes: one of shape (100, 8, 10) takes 0.6 s to
    compile, or 2.4 s of bits and their arithmetic, and up to three times the time of one row, which compiles in 0.1 s.
    """
    return draw(key, (math.prod(shape),), dtype).reshape(shape)


# Entries that are summed in one go.
_BLOCK = 16


def running_sum(x: Array) -> Array:
    """Sums of the first 1, 2, ... entries along the first axis.

    `jnp.cumsum` becomes a tree of a dozen loops; this is two levels of blocks, which is two.
    """
    number, rest = x.shape[0], x.shape[1:]
    if number <= _BLOCK**2:
        return _running_in_block(x[None])[0]
    padded = jnp.concatenate([x, jnp.zeros((-number % _BLOCK, *rest), x.dtype)])
    blocks = _running_in_block(padded.reshape(-1, _BLOCK, *rest))
    before = running_sum(blocks[:, -1])[:-1]
    before = jnp.concatenate([jnp.zeros((1, *rest), x.dtype), before])
    return (blocks + before[:, None]).reshape(-1, *rest)[:number]


def rising_sum(x: Array) -> Array:
    """The same of some hundred numbers that are at least 0: no sum is below the one before it.

    On a CPU one is added after another, which rounds no sum down; a parallel sum is raised where rounding made it fall.
    """
    return lax.platform_dependent(x, cpu=_one_after_another, default=_in_parallel)


def _one_after_another(x: Array) -> Array:
    def add(total: Array, entry: Array) -> tuple[Array, Array]:
        return total + entry, total + entry

    return lax.scan(add, jnp.zeros_like(x[0]), x)[1]


def _in_parallel(x: Array) -> Array:
    sums = jnp.cumsum(x, axis=0)
    values = lax.stop_gradient(sums)
    return sums + (lax.cummax(values) - values)


def _running_in_block(x: Array) -> Array:
    """Along the second axis."""
    size = x.shape[1]
    so_far = np.tri(size, dtype=bool).reshape(1, size, size, *(1,) * (x.ndim - 2))
    return jnp.sum(jnp.where(so_far, x[:, None], jnp.zeros((), x.dtype)), axis=2)
