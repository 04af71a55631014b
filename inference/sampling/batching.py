"""Vectorise functions over chains, data and particles, within a memory budget, and place arrays on devices."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]
from jax.sharding import NamedSharding, PartitionSpec

from kaem_ppl.compilation import is_slow_in_loops, largest_array

from ..model.power_posterior import Position, PowerPosterior

# Bytes that evaluations of the model take together, about, where particles or draws meet data. Results do not depend on it,
# beyond rounding.
MEMORY_BUDGET = 2**28
# Arrays of an evaluation, as large as its largest, that live together: XLA fuses most of them, gradients keep some.
_LIVE = 4


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


def evaluation_bytes(posterior: PowerPosterior, position: Position | None = None) -> tuple[int, int]:
    """Bytes that an evaluation at one particle of one problem takes, about; and those of its position and densities.

    Args:
        posterior: the model.
        position: of one particle; None takes a draw of the prior, which must be proper.
    """
    return _bytes(*_trace_evaluation(posterior, position))


def map_particles(function: Callable[..., Any], posterior: PowerPosterior, num_problems: int, *particles: Any) -> Any:
    """Map over particles, all at once or, where that takes more than the memory budget, some at a time.

    A program that is slow in loops is not put into one: it takes the memory.

    Args:
        function: of one particle of one problem, evaluating the model.
        posterior: the model.
        num_problems: how many problems are mapped over outside.
        *particles: pytrees of arrays (P, ...).
    """
    number = jax.tree.leaves(particles)[0].shape[0]
    program, shapes = _trace_evaluation(posterior)
    at_once = MEMORY_BUDGET // (num_problems * _bytes(program, shapes)[0])
    if at_once >= number or is_slow_in_loops(program):
        return jax.vmap(function)(*particles)
    return lax.map(lambda x: function(*x), particles, batch_size=max(1, at_once))


def _bytes(program: ClosedJaxpr, shapes: Any) -> tuple[int, int]:
    kept = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    return _LIVE * max(largest_array(program), kept), kept


def _trace_evaluation(posterior: PowerPosterior, position: Position | None = None) -> tuple[ClosedJaxpr, Any]:
    """The evaluation at a position, or a draw of the prior, traced, and the shapes of what it returns."""

    def evaluate(posterior: PowerPosterior, key: jax.Array, position: Position | None) -> Any:
        target = posterior.target(tuple(row[0] for row in posterior.rows))
        position = target.draw(key) if position is None else position
        return position, target.log_prior(position), target.log_likelihood(position)

    return jax.make_jaxpr(evaluate, return_shape=True)(posterior, jax.random.key(0), position)
