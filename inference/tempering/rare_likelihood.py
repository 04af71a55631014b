"""Prior draws with positive likelihood by rejection and splitting, and the probability of one."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kaem_ppl.compilation import jit_outermost

from ..kernels.kernel import ChainState, Kernel
from ..model.power_posterior import PowerPosterior
from ..sampling.batching import map_particles, over_problems
from ..sampling.checks import check_likelihood

# Prior draws of one population at most, and how many of them must have a likelihood. At a share of 1e-5 the search ends
# with some forty, whose number alone makes the evidence uncertain by 0.16.
_MOST_DRAWS, _FEWEST_FOUND = 4_000_000, 20
# Draws that a search takes at once, at least.
_FEWEST_AT_ONCE = 1000


class Start(NamedTuple):
    """Where populations of P particles begin, arrays (C, N, ...).

    Attributes:
        particles: states of the kernel, arrays (C, N, P, ...).
        ancestors: which prior draw each of them is, shape (C, N, P).
        log_share: logarithm of the share of prior draws that have a likelihood above 0, where others were left out; 0
            where all were taken as they came.
        share_variance: relative variance of that share.
        is_repeated: whether some draws stand for several particles.
    """

    particles: ChainState
    ancestors: jax.Array
    log_share: jax.Array
    share_variance: jax.Array
    is_repeated: bool


def start_where_possible(kernel: Kernel, num_particles: int, posterior: PowerPosterior, keys: jax.Array) -> Start:
    """Draw from the prior; where most draws have a likelihood of 0, from the prior given that it is above 0.

    The prior given a positive likelihood is an intermediate distribution whose normaliser is the share of draws that have
    one, estimated by counting (rejection). Where even many draws find fewer than P, those found are repeated, to be moved
    apart by the kernel (splitting; Cérou, Del Moral, Furon and Guyader 2012).

    Args:
        kernel: whose states are made.
        num_particles: P.
        posterior: the problems.
        keys: of the populations, shape (C, N).

    Raises:
        ValueError: nearly all of many prior draws have a likelihood of 0.
    """
    states, counts = _draw(kernel, num_particles, posterior, keys, np.uint32(0))
    shape = jax.tree.leaves(states)[0].shape[:3]
    ancestors = jnp.broadcast_to(jnp.arange(num_particles), shape)
    # Half of them are enough: the first step of a ladder, short as it may be, leaves out the others.
    if np.all(np.asarray(counts) >= num_particles // 2):
        nothing = jnp.zeros(shape[:2])
        return Start(states, ancestors, nothing, nothing, False)

    found, num_found, batch, num_draws = states, counts, 1, num_particles
    size = max(num_particles, _FEWEST_AT_ONCE)
    while np.any(np.asarray(num_found) < num_particles) and num_draws < _MOST_DRAWS:
        new, new_counts = _draw(kernel, size, posterior, keys, np.uint32(batch))
        found, num_found = _append(found, num_found, new, new_counts), num_found + new_counts
        batch, num_draws = batch + 1, num_draws + size
    number = np.asarray(num_found)
    check_likelihood(number >= min(_FEWEST_FOUND, num_particles), num_draws, posterior)
    share = num_found / num_draws
    index = jnp.arange(num_particles) % jnp.minimum(num_found, num_particles)[..., None]
    states = jax.vmap(jax.vmap(lambda state, i: jax.tree.map(lambda x: x[i], state)))(found, index)
    variance = (1 - share) / num_found
    return Start(states, index, jnp.log(share), variance, bool(np.any(number < num_particles)))


@partial(jit_outermost, static_argnums=(0, 1))
def _draw(
    kernel: Kernel, num_particles: int, posterior: PowerPosterior, keys: jax.Array, batch: jax.Array
) -> tuple[ChainState, jax.Array]:
    """States at prior draws (C, N, P, ...), those with a likelihood first, and their number (C, N)."""

    def draw(key: jax.Array, datum: Any) -> tuple[ChainState, jax.Array]:
        target = posterior.target(datum)
        key = jax.random.fold_in(jax.random.fold_in(key, 0), batch)

        def particle(number: jax.Array) -> ChainState:
            return kernel.evaluate(target, target.draw(jax.random.fold_in(key, number)))

        states = map_particles(particle, posterior, keys.size, jnp.arange(num_particles))
        is_good = jax.vmap(lambda state: state.is_finite())(states)
        order = jnp.argsort(~is_good, stable=True)
        return jax.tree.map(lambda x: x[order], states), jnp.sum(is_good)

    return over_problems(draw, posterior, keys)


@jax.jit
def _append(found: ChainState, num_found: jax.Array, new: ChainState, num_new: jax.Array) -> ChainState:
    """Put new good states behind those found, as far as there is room."""

    def append(found: ChainState, number: jax.Array, new: ChainState, num_new: jax.Array) -> ChainState:
        order = jnp.arange(len(new.log_prior))
        place = jnp.where(order < num_new, number + order, len(found.log_prior))
        return jax.tree.map(lambda x, y: x.at[place].set(y, mode="drop"), found, new)

    return jax.vmap(jax.vmap(append))(found, num_found, new, num_new)
