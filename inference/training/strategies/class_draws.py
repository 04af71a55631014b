"""Prior draws where each datum has the prior of its class: one set for all classes, weighted for each of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from ...model.parameters import Params
from ...model.plate_model import PlateModel
from ...model.wrappers import is_picked, unwrap


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


def score_class_draws(model: PlateModel, key: jax.Array, params: Params, batch: Any, num_draws: int) -> ClassScores:
    """Draw latents from the priors of a batch in turn, and evaluate all of them against each datum.

    The draws follow the mixture of the batch's priors, q(z) = 1/S sum_s p_s(z), whose density is known; datum b weights
    them by p_b(z) / q(z), the balance heuristic (Veach and Guibas 1995, sec. 3.3). The draws are held fixed.

    Args:
        model: one whose data differ by their classes only; see `PlateModel.has_classes`.
        key: PRNG key.
        params: constrained parameters.
        batch: pytree of arrays (B, ...).
        num_draws: S, at least B.
    """
    num_data = jax.tree.leaves(batch)[0].shape[0]
    datum = jnp.arange(num_draws) % num_data
    sites, _ = model.draw_prior(key, params, jax.tree.map(lambda leaf: leaf[datum], batch))
    log_likelihood = model.score_draws(key, params, batch, sites)
    own, common = jnp.zeros((num_data, num_draws)), jnp.zeros(num_draws)
    for name in model.latent:
        if is_picked(sites[name]["fn"]):
            base: Any = unwrap(sites[name]["fn"])
            bank, index = base.picked_from
            # Of every draw under every class, (S, C, ...).
            by_class = bank.log_prob(jnp.expand_dims(sites[name]["value"], 1))
            own += by_class.reshape(num_draws, bank.batch_shape[0], -1).sum(-1).T[index[:num_data]]
        else:
            common += model.site_log_prob(sites[name])
    counts = jnp.bincount(datum, length=num_data)
    log_mixture = logsumexp(own + jnp.log(counts / num_draws)[:, None], axis=0)
    return ClassScores(log_likelihood, own + common, lax.stop_gradient(own - log_mixture))
