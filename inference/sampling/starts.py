"""Initial positions of chains: prior draws at which log-density and gradient are finite; and more prior draws."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kaem_ppl.compilation import jit_once, jit_outermost

from ..kernels.elliptical_slice import EllipticalSlice
from ..kernels.kernel import ChainState, Kernel
from ..model.power_posterior import Position, PowerPosterior
from . import batching
from .batching import map_particles, over_problems
from .checks import say_data, say_nan

_NUM_ATTEMPTS = 20
# Where likelihoods above 0 are rarer: draws whose likelihood alone is evaluated, in batches. One in 1e5 is found in 98 of
# 100 searches.
_BATCH, _NUM_BATCHES = 2_000, 200
# Keys of starts are numbered from here, those of steps from 0, and those of draws that are no starts from there.
_FIRST_START, _FIRST_DRAW = np.uint32(2**31), np.uint32(3 * 2**30)


def find_starts(kernel: Kernel, num_replicas: int, posterior: PowerPosterior, keys: jax.Array) -> ChainState:
    """States at prior draws where log-density and gradient are finite, (C, N, R, ...); keys (C, N).

    Replicas start apart from each other where that is possible.

    Raises:
        ValueError: none of many draws will do.
    """
    start = partial(_start_from, kernel, num_replicas, posterior, keys)
    replicas, is_good = start(_FIRST_START)
    for attempt in range(1, _NUM_ATTEMPTS):
        found = np.asarray(is_good).any(-1)
        if found.all():
            break
        new = start(_FIRST_START + np.uint32(attempt * num_replicas))
        replicas, is_good = _choose(found, (replicas, is_good), new)
    first = _FIRST_START + np.uint32(_NUM_ATTEMPTS * num_replicas)
    for batch in range(_NUM_BATCHES):
        found = np.asarray(is_good).any(-1)
        if found.all():
            break
        numbers, is_possible = _search(posterior, keys, first + np.uint32(batch * _BATCH))
        if not np.asarray(is_possible)[~found].any():
            continue
        # The first replica is at the draw that was found.
        replicas, is_good = _choose(found | ~np.asarray(is_possible), (replicas, is_good), start(numbers))
    is_good = np.asarray(is_good)
    if is_good.any(-1).all():
        return replicas if is_good.all() else _replace_invalid_starts(replicas, is_good)
    bad = np.flatnonzero(~is_good.any(-1).all(0))
    is_possible = np.isfinite(np.asarray(replicas.log_likelihood)[:, bad]).any()
    part = "log-prior or a gradient" if is_possible else "log-likelihood"
    number = _NUM_ATTEMPTS * num_replicas + _NUM_BATCHES * _BATCH
    raise ValueError(
        f"The {part} is not finite at any of {number} prior draws{say_data(bad, posterior)}: "
        + (
            say_nan(posterior)
            or "check that the arguments lie in the likelihood's support, and that `params` are finite."
        )
    )


def prior_draws(
    kernel: Kernel | None, posterior: PowerPosterior, keys: jax.Array, number: int
) -> Iterator[tuple[Position, jax.Array]]:
    """Positions and log-likelihoods of prior draws of every problem, in batches (C, N, R, ...).

    Args:
        kernel: by whose starts chains began, one for each problem: the program that evaluates these is compiled already,
            and takes the memory of a step. None takes one of its own, for as many draws at once as memory allows.
        posterior: with a proper prior.
        keys: of the problems, shape (C, N); draws are others than starts.
        number: of draws of each problem.
    """
    size = 1
    if kernel is None:
        # Of any kernel that reads no gradient.
        kernel = EllipticalSlice()
        size = batching.MEMORY_BUDGET // (keys.size * batching.evaluation_bytes(posterior)[0])
        size = int(np.clip(size, 1, number))
    for first in range(0, number, size):
        states, _ = _start_from(kernel, size, posterior, keys, _FIRST_DRAW + np.uint32(first))
        kept = slice(number - first)
        whole = states.position, states.log_likelihood
        yield whole if size == 1 else jax.tree.map(lambda x, kept=kept: x[:, :, kept], whole)


def trace_start(kernel: Kernel, num_replicas: int, posterior: PowerPosterior, keys: jax.Array) -> Any:
    """What a start computes, which is what a step does to evaluate the model: JAX's trace, with `jaxpr` and `out_info`."""
    return _start.trace(kernel, num_replicas, posterior, keys, np.zeros(keys.shape, np.uint32))


@jit_outermost
def _search(posterior: PowerPosterior, keys: jax.Array, first: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Number of the first of a batch of prior draws with a likelihood, and whether there is one, (C, N) each."""

    def search(key: jax.Array, datum: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        target = posterior.target(datum)
        numbers = first + jnp.arange(_BATCH, dtype=jnp.uint32)

        def is_possible(number: jax.Array) -> jax.Array:
            return jnp.isfinite(target.log_likelihood(target.draw(jax.random.fold_in(key, number))))

        found = map_particles(is_possible, posterior, keys.size, numbers)
        return numbers[jnp.argmax(found)], jnp.any(found)

    return over_problems(search, posterior, keys)


def _start_from(
    kernel: Kernel, num_replicas: int, posterior: PowerPosterior, keys: jax.Array, first: Any
) -> tuple[ChainState, jax.Array]:
    """As `_start`, from one number or one of each problem."""
    return _start(kernel, num_replicas, posterior, keys, np.broadcast_to(np.asarray(first, np.uint32), keys.shape))


@partial(jit_once, static_argnums=(0, 1))
def _start(
    kernel: Kernel, num_replicas: int, posterior: PowerPosterior, keys: jax.Array, first: jax.Array
) -> tuple[ChainState, jax.Array]:
    """States at draws of the prior numbered from `first`, (C, N, R, ...), and whether a chain can go on from each."""

    def start(key: jax.Array, datum: tuple[jax.Array, ...], first: jax.Array) -> tuple[ChainState, jax.Array]:
        target = posterior.target(datum)

        def replica(number: jax.Array) -> tuple[ChainState, jax.Array]:
            state = kernel.evaluate(target, target.draw(jax.random.fold_in(key, number)))
            return state, state.is_finite()

        return jax.vmap(replica)(first + np.arange(num_replicas, dtype=np.uint32))

    return over_problems(start, posterior, keys, first)


@jax.jit
def _choose[T](condition: jax.Array, when_true: T, when_false: T) -> T:
    def choose(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(condition.reshape(condition.shape + (1,) * (x.ndim - condition.ndim)), x, y)

    return jax.tree.map(choose, when_true, when_false)


@jax.jit
def _replace_invalid_starts(replicas: ChainState, is_good: jax.Array) -> ChainState:
    """Replicas start apart from each other where that is possible; the first good one stands in for bad ones."""

    def of_problem(replicas: ChainState, is_good: jax.Array) -> ChainState:
        source = jnp.where(is_good, jnp.arange(is_good.size), jnp.argmax(is_good))
        return jax.tree.map(lambda x: x[source], replicas)

    return jax.vmap(jax.vmap(of_problem))(replicas, is_good)
