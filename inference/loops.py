"""Which programs XLA runs slowly inside a loop."""

from functools import lru_cache

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from .kernel import Kernel
from .power_posterior import Position, PowerPosterior


def is_slow_kernel(kernel: Kernel, posterior: PowerPosterior, position: Position) -> bool:
    """Whether steps of a kernel are slow inside a loop, because of what the model does.

    Args:
        kernel: what evaluates the model.
        posterior: the problems.
        position: of one of them; arrays, traced ones or their shapes.
    """
    arrays, structure = jax.tree.flatten((posterior, position))
    shapes = (jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in arrays)
    return _is_slow_kernel(kernel, structure, tuple(shapes))


@lru_cache(maxsize=64)
def _is_slow_kernel(kernel, structure, shapes):
    def evaluate(posterior, position):
        return kernel.evaluate(posterior.target(tuple(row[0] for row in posterior.rows)), position)

    return is_slow_in_loops(jax.make_jaxpr(evaluate)(*jax.tree.unflatten(structure, shapes)))


def is_slow_in_loops(program: ClosedJaxpr) -> bool:
    """Whether a program should be called again and again, or loops over it unrolled, rather than put into a loop.

    Before it compiles a program, XLA's CPU backend transposes convolutions into the one layout that it has fast code for:
    channels last, kernels with their inputs before their outputs. It leaves those inside a loop as they are, and runs them
    several times slower. The gradient that JAX derives of a convolution of this layout has another one.

    Args:
        program: made by `jax.make_jaxpr`, derivatives included.
    """
    return jax.default_backend() == "cpu" and _has_slow_convolution(program.jaxpr)


def _has_slow_convolution(jaxpr):
    return any(_is_slow(equation) or any(map(_has_slow_convolution, _inner(equation))) for equation in jaxpr.eqns)


def _is_slow(equation):
    if equation.primitive.name != "conv_general_dilated":
        return False
    numbers = equation.params["dimension_numbers"]
    # Which axis is what: of maps the batch, the channels, and space; of kernels outputs, inputs, and space.
    space = tuple(range(len(numbers.rhs_spec) - 2))
    maps, kernel = (0, len(space) + 1, *(axis + 1 for axis in space)), (len(space) + 1, len(space), *space)
    return (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != (maps, kernel, maps)


def _inner(equation):
    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            yield inner
