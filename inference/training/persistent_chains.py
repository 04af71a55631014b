"""What a strategy with Markov chains remembers of each datum between its visits."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kaem_ppl.compilation import is_slow_in_loops

from ..kernels.kernel import Kernel
from ..model.power_posterior import Position, PowerPosterior
from ..model.training_model import TrainingModel


class ChainMemory(NamedTuple):
    """One row for each datum.

    Attributes:
        position: where its chain stands, arrays (num_data, ...) by site name, in the kernel's coordinates; () for chains
            that start from the prior at each visit.
        log_step_size: logarithm of the kernel's step size, shape (num_data, ...).
        num_visits: how often the datum has been in a batch, shape (num_data,).
    """

    position: Position | tuple[()]
    log_step_size: jax.Array
    num_visits: jax.Array


def draw_starts(
    kernel: Kernel, plate_model: TrainingModel, shape: tuple[int, ...], key: jax.Array, data: Any
) -> Position:
    """Draws for each datum from the prior at the first parameters, arrays (num_data, *shape, ...) by site name."""
    posterior = plate_model.initial_posterior(data, kernel.coordinates)
    return _draw(posterior, jax.random.split(key, (posterior.num_data, *shape)))


@jax.jit
def _draw(posterior, keys):
    def draw(key, datum):
        return posterior.target(datum).draw(key)

    for _ in keys.shape[1:]:
        draw = jax.vmap(draw, in_axes=(0, None))
    return jax.vmap(draw)(keys, posterior.rows)


def remember(kernel: Kernel, position: Position | tuple[()], num_data: int, shape: tuple[int, ...] = ()) -> ChainMemory:
    """The memory before the first visit; `shape` is that of one datum's step sizes."""
    log_step_size = jnp.full((num_data, *shape), jnp.log(kernel.initial_step_size))
    return ChainMemory(position, log_step_size, jnp.zeros(num_data, jnp.int32))


def adapt_step_size(
    kernel: Kernel, log_step_size: jax.Array, acceptance_rate: jax.Array, num_visits: jax.Array
) -> jax.Array:
    """Move the step size towards the kernel's target acceptance, less with each visit (Robbins and Monro 1951).

    Args:
        kernel: where it adapts nothing, nothing moves.
        log_step_size: any shape.
        acceptance_rate: of the step just taken, same shape.
        num_visits: of the datum before this visit.
    """
    if not kernel.adapts:
        return log_step_size
    gain = jax.lax.rsqrt(1.0 + num_visits)
    # A step that met NaN says that it was too long.
    return log_step_size + gain * (jnp.nan_to_num(acceptance_rate, nan=0.0) - kernel.target_acceptance)


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
