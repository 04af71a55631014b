"""Run a model over posterior draws, within a memory budget."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..model.power_posterior import Position, PowerPosterior
from . import batching


@partial(jax.jit, static_argnums=0)
def map_draws(
    function: Callable[..., Any], posterior: PowerPosterior, positions: Position, keys: jax.Array | None = None
) -> Any:
    """Run the model over draws, positions (D, N, ...), in chunks; results (D, N, ...)."""
    num_data = posterior.num_data

    def one(draw: tuple[Position, jax.Array | None]) -> Any:
        positions, keys = draw
        if keys is not None:
            keys = jax.vmap(partial(jax.random.fold_in, keys))(jnp.arange(num_data))
        over_data = jax.vmap(
            lambda datum, position, key: function(posterior, datum, position, *(() if key is None else (key,)))
        )
        return over_data(posterior.rows, positions, keys)

    # A draw is evaluated as a particle is, and so predicted; what is computed of each is kept, whatever its size.
    position = jax.tree.map(lambda x: x[0, 0], positions) or None
    at_once = batching.MEMORY_BUDGET // (num_data * batching.evaluation_bytes(posterior, position)[0])
    return lax.map(one, (positions, keys), batch_size=max(1, at_once))
