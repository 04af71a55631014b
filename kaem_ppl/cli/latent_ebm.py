"""Maximum likelihood of the deep latent energy, whose normaliser has to be sampled."""

from dataclasses import dataclass
from typing import Any

import jax
from jax import lax

from ..inference import LangevinMLE
from ..inference.model.parameters import Params
from ..inference.model.training_model import TrainingModel
from ..models import LatentEBM, sample_langevin_prior


@dataclass(frozen=True)
class LatentEBMMLE:
    """Chains on the posterior and short ones on the prior (Pang et al. 2020, arXiv 2006.08205, eq. 6 and 7).

        grad log p(x_b)  ~  grad (f(z_b) + log p(x_b | z_b)) - mean_s grad f(z_s)

    with z_b from the posterior and z_s from the prior by Langevin steps, both held fixed.

    Attributes:
        ebm: the model whose prior is sampled.
        posterior: how the posterior is.
    """

    ebm: LatentEBM
    posterior: LangevinMLE

    def init(self, key: jax.Array, plate_model: TrainingModel, params: Params, data: Any) -> Any:
        """Put a chain on each datum's posterior."""
        return self.posterior.init(key, plate_model, params, data)

    def loss(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: Any, batch: Any
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """Return the contrast of posterior and prior; see `Strategy.loss`."""
        posterior_key, prior_key = jax.random.split(key)
        loss, (metrics, state) = self.posterior.loss(posterior_key, plate_model, params, state, batch)
        num_draws = jax.tree.leaves(batch)[0].shape[0]
        z = sample_langevin_prior(prior_key, self.ebm, lax.stop_gradient(params), num_draws=num_draws)
        energy = self.ebm.log_prior(params, lax.stop_gradient(z)).mean()
        return loss + energy, (metrics, state)

    def draw(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: Any, batch: Any
    ) -> dict[str, jax.Array]:
        """Draw by one more visit; see `Strategy.draw`."""
        return self.posterior.draw(key, plate_model, params, state, batch)
