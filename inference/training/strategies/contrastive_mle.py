"""Contrastive divergence for priors with unknown normaliser: chains on the posterior and on the prior."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax

from ...model.parameters import Params
from ...model.training_model import TrainingModel
from .langevin_mle import LangevinMLE


@dataclass(frozen=True)
class ContrastiveMLE:
    """Follow Fisher's identity for an unnormalised prior (Pang et al. 2020, arXiv 2006.08205, eq. 6 and 7).

        grad log p(x_b)  ~  grad (f(z_b) + log p(x_b | z_b)) - mean_s grad f(z_s)

    with z_b from the posterior and z_s from the prior p(z) proportional to exp(f(z)), both held fixed. A KAEM does not need
    it: its normaliser is a quadrature.

    Attributes:
        log_prior: f, a function of the parameters and latents (num_draws, ...), to nats (num_draws,); such as
            `LatentEBM.log_prior`.
        sample_prior: function of a key, the parameters and the number of draws, to latents (num_draws, ...).
        posterior: draws from the posterior.

    Example:
        >>> from functools import partial
        >>> import jax
        >>> from kaem_ppl.inference import MALA, ContrastiveMLE, LangevinMLE, fit
        >>> from kaem_ppl.models import LatentEBM, MLPGenerator, sample_langevin_prior
        >>> model = LatentEBM(2, MLPGenerator((2, 8, 1)), MLPGenerator((2, 8, 3)), 0.5)
        >>> def sample_prior(key, params, num_draws):
        ...     return sample_langevin_prior(key, model, params, num_draws=num_draws, num_steps=3)
        >>> strategy = ContrastiveMLE(model.log_prior, sample_prior, LangevinMLE(MALA(), num_steps=3))
        >>> x = jax.random.normal(jax.random.key(0), (50, 3))
        >>> result = fit(jax.random.key(1), model, x, strategy=strategy, num_epochs=2, progress_bar=False)
        >>> sorted(result.params)
        ['energy$params', 'generator$params']
    """

    log_prior: Callable[[Params, jax.Array], jax.Array]
    sample_prior: Callable[[jax.Array, Params, int], jax.Array]
    posterior: LangevinMLE

    def init(self, key: jax.Array, plate_model: TrainingModel, params: Params, data: Any) -> Any:
        """Start a chain on each datum's posterior."""
        return self.posterior.init(key, plate_model, params, data)

    def loss(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: Any, batch: Any
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """Return the difference of posterior and prior means; see `Strategy.loss`."""
        posterior_key, prior_key = jax.random.split(key)
        loss, (metrics, state) = self.posterior.loss(posterior_key, plate_model, params, state, batch)
        z = self.sample_prior(prior_key, lax.stop_gradient(params), jax.tree.leaves(batch)[0].shape[0])
        return loss + self.log_prior(params, lax.stop_gradient(z)).mean(), (metrics, state)

    def draw(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: Any, batch: Any
    ) -> dict[str, jax.Array]:
        """Draw by one more update of the posterior's chains; see `Strategy.draw`."""
        return self.posterior.draw(key, plate_model, params, state, batch)
