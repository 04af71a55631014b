"""What is refused: priors without draws, likelihoods that are 0 everywhere, and draws of another posterior."""

import jax
import numpy as np

from ..model.power_posterior import Position, PowerPosterior
from .draws import Draws, map_draws

# Of log-densities recorded with draws and found again, relative to their size: single precision of long sums.
_LARGEST_DIFFERENCE = 1e-2


def check_prior(posterior: PowerPosterior, sampler: str) -> None:
    """Refuse a posterior whose prior can't be drawn from.

    Raises:
        ValueError: it can't.
    """
    if not posterior.has_proper_prior:
        raise ValueError(
            f"{sampler} starts from draws of the prior, but the prior of this model is flat, scaled or masked in part. "
            "Give proper priors, or choose `NUTS()` or another Markov kernel."
        )


def check_likelihood(is_good: np.ndarray, num_draws: int, posterior: PowerPosterior) -> None:
    """Refuse data whose likelihood is 0 at every draw of the prior.

    Args:
        is_good: whether it is not, shape (C, N).
        num_draws: draws that were made, for the message.
        posterior: the model.

    Raises:
        ValueError: it is.
    """
    bad = np.flatnonzero(~is_good.all(0))
    if len(bad):
        which = (
            "" if posterior.plate is None else f" for data {bad[:10].tolist()}{' and others' if len(bad) > 10 else ''}"
        )
        raise ValueError(
            f"The likelihood is 0 at every one of {num_draws} prior draws{which}. Check that the arguments hold no NaN and "
            "lie in the likelihood's support; if the prior is only far too wide, narrow it."
        )


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
            f"`draws` has latents of shapes {shapes}, but the model has {wanted}. Pass the model, the arguments and the "
            "`plate` that the draws were made with."
        )
    first = jax.tree.map(lambda x: x[:, :1].reshape(-1, *x.shape[2:]), draws.positions)
    found = np.asarray(map_draws(_log_density, posterior, first), float).sum(-1)
    recorded = draws.sample_stats["lp"][:, 0]
    noted = np.asarray(recorded, float).reshape(draws.num_chains, -1).sum(-1)
    if not np.allclose(found, noted, rtol=_LARGEST_DIFFERENCE, atol=_LARGEST_DIFFERENCE * posterior.num_data):
        raise ValueError(
            f"The log-density of the first draw is {found[0]:.6g} under this model, but {noted[0]:.6g} where `draws` were "
            "made. Pass the model, the arguments and the `params` that they were made with."
        )


def _log_density(posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position) -> jax.Array:
    target = posterior.target(datum)
    return target.log_prior(position) + target.log_likelihood(position)
