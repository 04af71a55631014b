"""What works around XLA: how long it compiles, and which programs it runs slowly."""

import os
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

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


def _inner(equation: Any) -> Iterator[Any]:
    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            yield inner
