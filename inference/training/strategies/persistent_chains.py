"""The state that a strategy with Markov chains keeps of each datum between updates: positions and step sizes."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kaem_ppl.compilation import is_slow_in_loops

from ...kernels.kernel import ChainState, Kernel
from ...model.power_posterior import Position, PowerPosterior
from ...model.training_model import TrainingModel


class PersistentChains(NamedTuple):
    """One row for each datum.

    Attributes:
        position: the chain's last state, arrays (num_data, ...) by site name, in the kernel's coordinates; () for chains
            that start from the prior at each update.
        log_step_size: logarithm of the kernel's step size, shape (num_data, ...).
        num_updates: how many batches have held the datum, shape (num_data,).
    """

    position: Position | tuple[()]
    log_step_size: jax.Array
    num_updates: jax.Array


def draw_starts(
    kernel: Kernel, plate_model: TrainingModel, shape: tuple[int, ...], key: jax.Array, data: Any
) -> Position:
    """Draws for each datum from the prior at the first parameters, arrays (num_data, *shape, ...) by site name."""
    posterior = plate_model.initial_posterior(data, kernel.coordinates)
    return _draw(posterior, jax.random.split(key, (posterior.num_data, *shape)))


@jax.jit
def _draw(posterior: PowerPosterior, keys: jax.Array) -> Position:
    def draw(key: jax.Array, datum: tuple[jax.Array, ...]) -> Position:
        return posterior.target(datum).draw(key)

    for _ in keys.shape[1:]:
        draw = jax.vmap(draw, in_axes=(0, None))
    return jax.vmap(draw)(keys, posterior.rows)


def init_persistent_chains(
    kernel: Kernel,
    position: Position | tuple[()],
    num_data: int,
    shape: tuple[int, ...] = (),
    initial_step_size: float | None = None,
) -> PersistentChains:
    """The state before the first update.

    Args:
        kernel: the kernel.
        position: of the chains, or () where they start from the prior at each update.
        num_data: rows of the data.
        shape: of one datum's step sizes.
        initial_step_size: where adaptation starts; None takes the kernel's.
    """
    start = kernel.initial_step_size if initial_step_size is None else initial_step_size
    log_step_size = jnp.full((num_data, *shape), jnp.log(start))
    return PersistentChains(position, log_step_size, jnp.zeros(num_data, jnp.int32))


def adapt_step_size(
    kernel: Kernel, log_step_size: jax.Array, acceptance_rate: jax.Array, num_updates: jax.Array
) -> jax.Array:
    """Move the step size towards the kernel's target acceptance, less with each update (Robbins and Monro 1951).

    Args:
        kernel: where it adapts nothing, the step size is returned as it is.
        log_step_size: any shape.
        acceptance_rate: of the step just taken, same shape.
        num_updates: of the datum before this one.
    """
    if not kernel.adapts or kernel.target_acceptance is None:
        return log_step_size
    gain = jax.lax.rsqrt(1.0 + num_updates)
    # Treat a NaN acceptance rate as 0, so that the step size shrinks.
    return log_step_size + gain * (jnp.nan_to_num(acceptance_rate, nan=0.0) - kernel.target_acceptance)


def is_slow_kernel(kernel: Kernel, posterior: PowerPosterior, position: Position) -> bool:
    """Whether steps of a kernel are slow inside a loop, because of what the model does.

    Args:
        kernel: the kernel.
        posterior: of a batch.
        position: of one datum; arrays, traced ones or their shapes.
    """
    arrays, structure = jax.tree.flatten((posterior, position))
    shapes = (jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in arrays)
    return _is_slow_kernel(kernel, structure, tuple(shapes))


@lru_cache(maxsize=64)
def _is_slow_kernel(kernel: Kernel, structure: Any, shapes: tuple[jax.ShapeDtypeStruct, ...]) -> bool:
    def evaluate(posterior: PowerPosterior, position: Position) -> ChainState:
        return kernel.evaluate(posterior.target(tuple(row[0] for row in posterior.rows)), position)

    return is_slow_in_loops(jax.make_jaxpr(evaluate)(*jax.tree.unflatten(structure, shapes)))
