"""Adapt a ladder of temperatures: equal rejection of swaps between neighbours, and the number of temperatures.

Source: Syed, Bouchard-Cote, Deligiannidis and Doucet (2022), Non-reversible parallel tempering.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def communication_barrier(rejection: ArrayLike) -> Array:
    """Global communication barrier Lambda, the sum of the rejection rates between neighbours (Syed et al. 2022, eq. 17).

    It measures how far the posterior is from the prior for a replica that travels; it hardly depends on the ladder.

    Args:
        rejection: rates between neighbours, shape (..., R - 1).

    Returns:
        Shape (...).
    """
    return jnp.sum(jnp.asarray(rejection), axis=-1)


def recommended_num_temperatures(rejection: ArrayLike) -> Array:
    """Number of temperatures that makes most round trips for the work: about 2 Lambda intervals (Syed et al., sec. 5.3).

    Args:
        rejection: rates between neighbours, shape (..., R - 1).

    Returns:
        Whole numbers of at least 2, shape (...).
    """
    return jnp.maximum(jnp.ceil(2 * communication_barrier(rejection)).astype(jnp.int32) + 1, 2)


def equalize_rejection(temperatures: Array, rejection: Array) -> Array:
    """Move the inner temperatures to where neighbours would reject equally often (Syed et al. 2022, alg. 2).

    The barrier up to t is the sum of the rejections below t, interpolated linearly; new temperatures cut it into equal
    parts. Ends stay.

    Args:
        temperatures: increasing, shape (R,).
        rejection: rates between neighbours, shape (R - 1,).

    Returns:
        Increasing temperatures, shape (R,).
    """
    # A pair that never rejects would make the barrier flat, and its inverse jump.
    steps = jnp.clip(rejection, 1e-3, 1.0)
    barrier = jnp.concatenate([jnp.zeros_like(steps[:1]), jnp.cumsum(steps)])
    wanted = jnp.linspace(0, 1, temperatures.size, dtype=barrier.dtype) * barrier[-1]
    moved = jnp.interp(wanted, barrier, temperatures)
    return moved.at[0].set(temperatures[0]).at[-1].set(temperatures[-1])
