"""Refuse draws that were made with another model, other data or other parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from ..model.power_posterior import Position, PowerPosterior
from .draws import Draws
from .map_draws import map_draws

# Of log-densities recorded with draws and found again, relative to their size: single precision of long sums.
_LARGEST_DIFFERENCE = 1e-2


def check_same_posterior(draws: Draws, posterior: PowerPosterior) -> None:
    """Refuse draws of another model, other data or other parameters.

    Raises:
        ValueError: they are.
    """
    shapes = {name: x.shape[2:] for name, x in draws.positions.items()}
    datum = tuple(row[0] for row in posterior.rows)
    wanted = jax.eval_shape(lambda key: posterior.target(datum).draw(key), jax.random.key(0))
    wanted = {name: (posterior.num_data, *x.shape) for name, x in wanted.items()}
    if shapes != wanted:
        raise ValueError(
            f"`draws` has latents of shapes {shapes}, but the model has {wanted}: pass the model, the arguments and the "
            "`plate` that the draws were made with."
        )
    first = {name: jnp.asarray(x[:, :1]).reshape(-1, *x.shape[2:]) for name, x in draws.positions.items()}
    found = np.asarray(map_draws(_log_density, posterior, first), float).sum(-1)
    recorded = draws.sample_stats["lp"][:, 0]
    noted = np.asarray(recorded, float).reshape(draws.num_chains, -1).sum(-1)
    if not np.allclose(found, noted, rtol=_LARGEST_DIFFERENCE, atol=_LARGEST_DIFFERENCE * posterior.num_data):
        raise ValueError(
            f"`draws` are of another posterior: the log-density of the first is {found[0]:.6g} under this model, but "
            f"{noted[0]:.6g} where they were made, so pass the model, the arguments and the `params` of that call."
        )


def _log_density(posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position) -> jax.Array:
    target = posterior.target(datum)
    return target.log_prior(position) + target.log_likelihood(position)
