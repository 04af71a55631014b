"""Swap moves between neighbouring temperatures, in BlackJAX's shape: state, info, init, kernel, top-level API.

Replicas stand at temperatures t_0 < ... < t_{R-1} and follow p_k(x) proportional to prior(x) likelihood(x)^t_k. A step
moves each by an inner kernel and then proposes to swap neighbours (i, i+1), accepted with log-probability
min(0, (t_{i+1} - t_i)(l_i - l_{i+1})), l the log-likelihood. Even and odd pairs take turns deterministically: this
non-reversible scheme carries replicas along the ladder in a straight line where swaps are accepted, in order R steps, where
random turns take order R^2.

Source: Syed, Bouchard-Côté, Deligiannidis and Doucet, Non-reversible parallel tempering, JRSS B 84 (2022).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.base import SamplingAlgorithm
from blackjax.types import Array, ArrayLike, ArrayLikeTree, ArrayTree, PRNGKey

__all__ = [
    "ReplicaExchangeInfo",
    "ReplicaExchangeState",
    "as_top_level_api",
    "build_kernel",
    "count_round_trips",
    "init",
]


class ReplicaExchangeState(NamedTuple):
    """State of replica exchange with R replicas.

    replicas
        States of the inner kernel, a pytree of arrays (R, ...); entry k stands at temperature k.
    temperatures
        The exponents of the likelihood, increasing, shape (R,).
    index
        The index process: which replica stands at each temperature, a permutation of 0, ..., R - 1.
    num_steps
        Steps taken; its parity says which pairs are next.

    """

    replicas: ArrayTree
    temperatures: Array
    index: Array
    num_steps: Array


class ReplicaExchangeInfo(NamedTuple):
    """What happened in a step of replica exchange.

    log_likelihood
        Log-likelihood at each temperature before the swaps, shape (R,).
    swap_acceptance
        Acceptance probability of each pair, whether its turn had come or not, shape (R - 1,). One minus its mean over
        steps estimates the rejection rate.
    is_swapped
        Which pairs were exchanged, shape (R - 1,).
    index
        The index process after the swaps, shape (R,).
    kernel_info
        What the inner kernel reported, a pytree of arrays (R, ...).

    """

    log_likelihood: Array
    swap_acceptance: Array
    is_swapped: Array
    index: Array
    kernel_info: NamedTuple


def init(replicas: ArrayTree, temperatures: ArrayLike) -> ReplicaExchangeState:
    """Put replicas at temperatures.

    Args:
        replicas: states of the inner kernel, a pytree of arrays (R, ...).
        temperatures: increasing, shape (R,).
    """
    temperatures = jnp.asarray(temperatures)
    num_steps = jnp.zeros((), jnp.int32)
    return ReplicaExchangeState(replicas, temperatures, jnp.arange(temperatures.size, dtype=jnp.int32), num_steps)


def build_kernel(step_fn: Callable, loglikelihood_fn: Callable, reference_fn: Callable | None = None) -> Callable:
    """Build a replica-exchange kernel.

    Args:
        step_fn: the inner kernel, `(rng_key, replica, temperature, parameters) -> (replica, info)`.
        loglikelihood_fn: a replica's log-likelihood, `replica -> scalar`; reads it off the state where the state has it.
        reference_fn: draws the replica at the first temperature anew instead of moving it, `rng_key -> replica`; for a
            ladder that starts at 0 over a prior that can be sampled.

    Returns:
        A kernel `(rng_key, state, parameters) -> (state, info)`, where `parameters` is a pytree of arrays (R, ...), one
        entry for each temperature.
    """

    def kernel(
        rng_key: PRNGKey, state: ReplicaExchangeState, parameters: ArrayLikeTree
    ) -> tuple[ReplicaExchangeState, ReplicaExchangeInfo]:
        num_replicas = state.temperatures.size
        # One key for each temperature and each pair: more temperatures leave the others' draws as they are.
        all_keys = jax.vmap(lambda k: jax.random.fold_in(rng_key, k))(jnp.arange(2 * num_replicas - 1))
        keys, swap_keys = all_keys[::2], all_keys[1::2]
        batch = keys, state.replicas, state.temperatures, parameters
        if reference_fn is None:
            replicas, kernel_info = jax.vmap(step_fn)(*batch)
        else:
            replicas, kernel_info = jax.vmap(step_fn)(*jax.tree.map(lambda x: x[1:], batch))
            reference = reference_fn(keys[0])
            replicas = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), reference, replicas)
        log_likelihood = jax.vmap(loglikelihood_fn)(replicas)

        log_ratio = jnp.diff(state.temperatures) * -jnp.diff(log_likelihood)
        # Two impossible neighbours, -inf minus -inf, stay where they are.
        log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
        acceptance = jnp.exp(jnp.minimum(log_ratio, 0.0))
        pairs = jnp.arange(num_replicas - 1)
        uniform = jax.vmap(lambda key: jax.random.uniform(key, (), acceptance.dtype))(swap_keys)
        is_swapped = (uniform < acceptance) & (pairs % 2 == state.num_steps % 2)

        up, down = jnp.pad(is_swapped, (0, 1)).astype(jnp.int32), jnp.pad(is_swapped, (1, 0)).astype(jnp.int32)
        source = jnp.arange(num_replicas) + up - down
        index = state.index[source]
        new_state = ReplicaExchangeState(
            jax.tree.map(lambda x: x[source], replicas), state.temperatures, index, state.num_steps + 1
        )
        return new_state, ReplicaExchangeInfo(log_likelihood, acceptance, is_swapped, index, kernel_info)

    return kernel


def as_top_level_api(
    logprior_fn: Callable,
    loglikelihood_fn: Callable,
    mcmc_step_fn: Callable,
    mcmc_init_fn: Callable,
    mcmc_parameters: dict,
    temperatures: ArrayLike,
    num_mcmc_steps: int = 1,
) -> SamplingAlgorithm:
    """Replica exchange over any BlackJAX kernel, its arguments as those of `blackjax.tempered_smc`.

    Args:
        logprior_fn: log-density of the prior, position to scalar.
        loglikelihood_fn: log-likelihood, position to scalar.
        mcmc_step_fn: the inner kernel, `(rng_key, state, logdensity_fn, **parameters) -> (state, info)`.
        mcmc_init_fn: its state, `(position, logdensity_fn) -> state`.
        mcmc_parameters: its parameters, arrays whose leading axis is 1 where all temperatures share them, else R.
        temperatures: increasing, shape (R,); the last one is 1 for the posterior.
        num_mcmc_steps: steps of the inner kernel between swaps.

    Returns:
        A `SamplingAlgorithm`. `init` takes positions, a pytree of arrays (R, ...); draws of the posterior are the last
        entries of `state.replicas`.

    Example:
        >>> import blackjax, jax, jax.numpy as jnp
        >>> from kaem_ppl.inference.tempering import replica_exchange
        >>> algorithm = replica_exchange.as_top_level_api(
        ...     lambda x: -0.5 * x**2,
        ...     lambda x: -0.5 * ((x**2 - 4) / 0.5) ** 2,
        ...     blackjax.mala.build_kernel(),
        ...     blackjax.mala.init,
        ...     {"step_size": jnp.array([0.05])},
        ...     temperatures=jnp.linspace(0, 1, 5) ** 3,
        ... )
        >>> state = algorithm.init(jnp.zeros(5))
        >>> state, info = jax.jit(algorithm.step)(jax.random.key(0), state)
        >>> info.swap_acceptance.shape
        (4,)
    """
    temperatures = jnp.asarray(temperatures)

    def step_fn(
        rng_key: PRNGKey, position: ArrayTree, temperature: Array, parameters: dict[str, Array]
    ) -> tuple[ArrayTree, Any]:
        def logdensity_fn(position: ArrayTree) -> Array:
            return logprior_fn(position) + temperature * loglikelihood_fn(position)

        def one_step(state: Any, rng_key: PRNGKey) -> tuple[Any, Any]:
            return mcmc_step_fn(rng_key, state, logdensity_fn, **parameters)

        keys = jax.random.split(rng_key, num_mcmc_steps)
        state, info = jax.lax.scan(one_step, mcmc_init_fn(position, logdensity_fn), keys)
        return state.position, info

    parameters = {
        name: jnp.broadcast_to(value, (temperatures.size, *value.shape[1:])) for name, value in mcmc_parameters.items()
    }
    kernel = build_kernel(step_fn, loglikelihood_fn)

    def init_fn(position: ArrayLikeTree, rng_key: PRNGKey | None = None) -> ReplicaExchangeState:
        del rng_key
        return init(jax.tree.map(jnp.asarray, position), temperatures)

    return SamplingAlgorithm(init_fn, lambda rng_key, state: kernel(rng_key, state, parameters))


def count_round_trips(index: ArrayLike) -> np.ndarray:
    """Count the trips of replicas from the first temperature to the last and back.

    Args:
        index: the index process of one run, shape (steps, R): which replica stands at each temperature.

    Returns:
        Completed round trips of each replica, shape (R,).
    """
    index = np.asarray(index)
    num_replicas = index.shape[1]
    trips = np.zeros(num_replicas, int)
    for replica in range(num_replicas):
        at_first, at_last = index[:, 0] == replica, index[:, -1] == replica
        # Visits of the two ends in order; a stay, or a return to the same end, is one visit.
        ends = np.where(at_first, 0, 1)[at_first | at_last]
        ends = ends[np.concatenate([[True], np.diff(ends) != 0])] if len(ends) else ends
        first = 0 if len(ends) and ends[0] == 0 else 1
        trips[replica] = max(0, len(ends) - first - 1) // 2
    return trips
