"""Correlation of particles with their positions before the moves, which decides when SMC stops moving."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..kernels.kernel import ChainState


@jax.jit
def compare(before: ChainState, after: ChainState, is_done: jax.Array) -> tuple[jax.Array, jax.Array]:
    """1 - c, c the correlation of coordinates and log-likelihood with themselves before moves; and the share moved.

    Returns:
        Shapes (C, N, d + 1) and (C, N).
    """

    def of_population(before: ChainState, after: ChainState) -> tuple[jax.Array, jax.Array]:
        def columns(state: ChainState) -> jax.Array:
            flat = jax.vmap(lambda position: ravel_pytree(position)[0])(state.position)
            return jnp.concatenate([flat, state.log_likelihood[:, None]], axis=1)

        old, new = columns(before), columns(after)
        has_moved = jnp.mean(jnp.any(old != new, axis=1))
        old, new = old - old.mean(0), new - new.mean(0)
        # In units of the largest, for squares of small numbers underflow.
        unit = jnp.maximum(jnp.max(jnp.abs(old), axis=0), jnp.max(jnp.abs(new), axis=0))
        unit = jnp.where(unit > 0, unit, 1.0)
        old, new = old / unit, new / unit
        # From the squares of differences, which are exact where c is close to 1.
        size = jnp.mean(jnp.square(old) + jnp.square(new), axis=0)
        distance = jnp.mean(jnp.square(new - old), axis=0) / jnp.where(size > 0, size, 1.0)
        return jnp.where(size > 0, distance, 1.0), has_moved

    distance, has_moved = jax.vmap(jax.vmap(of_population))(before, after)
    return jnp.where(is_done[..., None], 1.0, distance), jnp.where(is_done, 1.0, has_moved)


def has_settled(earlier: np.ndarray, distance: np.ndarray, most: float) -> np.ndarray:
    """Whether correlations no longer fall when moves are doubled, as where particles stay in modes of their own.

    Particles that move slowly have a correlation of c(2 n) = c(n)^2; where a part of the variance lies between modes that
    moves do not cross, c tends to that part. Given are 1 - c before and after doubling.
    """
    before, after = (-np.log1p(-np.clip(x, 1e-12, 1 - 1e-6)) for x in (earlier, distance))
    return (after < most * before) & (distance > 0)
