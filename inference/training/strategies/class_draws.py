"""Prior draws where each datum has the prior of its class: one set for all classes, weighted for each of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from ...model.parameters import Params
from ...model.plate_model import PlateModel
from ...model.wrappers import unwrap


class ClassScores(NamedTuple):
    """Draws of all classes against each datum.

    Attributes:
        log_likelihood: log p(x_b | z_s), shape (B, S).
        log_prior: log p(z_s) under the prior of datum b, shape (B, S).
        log_ratio: that less the logarithm of the density which the draws follow, held fixed, shape (B, S).
    """

    log_likelihood: jax.Array
    log_prior: jax.Array
    log_ratio: jax.Array


def score_class_draws(
    model: PlateModel, key: jax.Array, params: Params, batch: Any, num_draws: int
) -> ClassScores | None:
    """Draw latents from the priors of all classes, equally many of each, and evaluate all of them against each datum.

    The draws follow the mixture of the classes, q(z) = 1/C sum_c p_c(z), whose density is known; datum b weights them by
    p_b(z) / q(z), the balance heuristic (Veach and Guibas 1995, sec. 3.3). The draws are held fixed.

    Args:
        model: one whose data differ by their classes only; see `PlateModel.has_classes`.
        key: PRNG key.
        params: constrained parameters.
        batch: pytree of arrays (B, ...).
        num_draws: prior draws of all classes; S is the largest multiple of the number of classes C that is not above it.

    Returns:
        The scores; None where there are more classes than draws.
    """
    [name] = model.latent
    base: Any = unwrap(model.run_at(params, batch, None)[name]["fn"])
    bank, index = base.picked_from
    num_classes = bank.batch_shape[0]
    if num_draws < num_classes:
        return None
    of_class = lax.stop_gradient(bank.held_fixed().sample(key, (num_draws // num_classes,)))
    # Barriers, for XLA would make the draws anew for each class, and the densities for each datum.
    z = lax.optimization_barrier(of_class.reshape(-1, *bank.batch_shape[1:]))
    # What the rows hold is read for the class alone, whose draws are put into their place.
    rows = jax.tree.map(lambda leaf: jnp.zeros((len(z), *leaf.shape[1:]), leaf.dtype), batch)
    by_class = bank.log_prob(jnp.expand_dims(z, 1)).reshape(len(z), num_classes, -1).sum(-1).T
    by_class = lax.optimization_barrier(by_class)
    log_mixture = logsumexp(by_class, axis=0) - jnp.log(num_classes)
    own = by_class[index]
    log_likelihood = model.score_draws(params, batch, model.run_at(params, rows, {name: z}))
    return ClassScores(log_likelihood, own, lax.stop_gradient(own - log_mixture))
