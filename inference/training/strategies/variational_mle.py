"""Maximum likelihood by amortised variational inference: a guide proposes the latents of each datum."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from kaem_ppl.arguments import check_callable, set_counts, set_number

from ...model.parameters import Params
from ...model.training_model import TrainingModel


@dataclass(frozen=True)
class VariationalMLE:
    """Maximise the importance-weighted bound on the evidence, with draws from a guide q(z | x) that is learnt too.

    With K reparameterised draws z_k from the guide,

        log p(x)  >=  E log 1/K sum_k p(x | z_k) (p(z_k) / q(z_k | x))^beta,    beta = 1;

    K = 1 is the evidence lower bound, and more draws close the gap. A weight beta < 1 of the Kullback-Leibler term early
    in training keeps the latents in use.

    Attributes:
        guide: NumPyro program of the model's arguments with the same plate and, under it, a site for each of the model's
            latent sites, of the same name and with differentiable draws. Its `numpyro.param` sites, such as an encoder
            registered by `flax_module` or `nnx_module`, are learnt with the model's.
        num_draws: K.
        kl_weight: beta; or a function from the number of finished epochs to beta, such as
            `optax.linear_schedule(0.0, 1.0, 10)`.

    Raises:
        TypeError: `guide` cannot be called.
        ValueError: `num_draws` or `kl_weight` is not positive.

    Sources: Kingma and Welling, arXiv 1312.6114; Burda et al., arXiv 1509.00519, eq. 8; the weight of Sønderby et al.,
    arXiv 1602.02282.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, optax
        >>> from kaem_ppl.inference import fit, VariationalMLE
        >>> def model(x=None, size=None):
        ...     loc = numpyro.param("loc", 0.0)
        ...     with numpyro.plate("data", size if x is None else len(x)):
        ...         z = numpyro.sample("z", dist.Normal(loc, 1))
        ...         numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> x = 2 + jax.random.normal(jax.random.key(0), (100,))
        >>> def guide(x):
        ...     shift = numpyro.param("shift", 0.0)
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("z", dist.Normal(0.5 * x + shift, 0.7))
        >>> options = {"optimizer": optax.adam(0.1), "num_epochs": 100, "progress_bar": False}
        >>> result = fit(jax.random.key(1), model, x, strategy=VariationalMLE(guide), **options)
        >>> abs(float(result.params["loc"]) - float(x.mean())) < 0.2  # the maximum of the likelihood
        True
    """

    guide: Callable
    num_draws: int = 1
    kl_weight: float | Callable[[jax.Array], jax.Array] = 1.0

    def __post_init__(self) -> None:
        check_callable(self.guide, "guide", "a NumPyro program of the model's arguments")
        set_counts(self, num_draws=1)
        if not callable(self.kl_weight):
            set_number(self, "kl_weight", above=0, what="a function of the number of epochs, or a number")

    def init(self, key: jax.Array, plate_model: TrainingModel, params: Params, data: Any) -> jax.Array:
        """Count updates from 0, for the schedule.

        Raises:
            ValueError: the guide's sites are not those of the model's latents, or have no differentiable draws.
        """
        found: dict[str, Any] = {}

        def run() -> None:
            found.update(plate_model.run_guide(self.guide, key, params, jax.tree.map(lambda leaf: leaf[:1], data)))

        jax.eval_shape(run)
        sites = {name: site for name, site in found.items() if site["type"] == "sample"}
        if set(sites) != set(plate_model.latent):
            raise ValueError(
                f"The guide has the sample sites {sorted(sites)}, but the model's latent sites are "
                f"{sorted(plate_model.latent)}. Give the guide one site for each, of the same name."
            )
        fixed = [name for name, site in sites.items() if not site["fn"].has_rsample]
        if fixed:
            raise ValueError(f"The guide's draws of {fixed} have no derivative. Choose distributions such as `Normal`.")
        return jnp.zeros(jax.tree.leaves(data)[0].shape[0], jnp.int32)

    def loss(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: jax.Array, batch: Any
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], jax.Array]]:
        """Return the negative bound, averaged over the batch; see `Strategy.loss`."""

        def score(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            latents, log_guide = self._propose(key, plate_model, params, batch)
            log_likelihood, log_prior = plate_model.log_densities(params, batch, latents)
            return log_likelihood, log_prior - log_guide

        # The encoder's pass over the data does not depend on the key, and is computed once for all draws.
        log_likelihood, log_ratio = jax.vmap(score)(jax.random.split(key, self.num_draws))
        kl_weight = self.kl_weight(state) if callable(self.kl_weight) else self.kl_weight
        bound = _log_mean(log_likelihood + kl_weight * log_ratio).mean()
        metrics = {
            "log_evidence": _log_mean(log_likelihood + log_ratio).mean(),
            "log_likelihood": log_likelihood.mean(),
            "kl_divergence": -log_ratio.mean(),
        }
        return -bound, (lax.stop_gradient(metrics), state + 1)

    def draw(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: jax.Array, batch: Any
    ) -> dict[str, jax.Array]:
        """Draw from the guide; see `Strategy.draw`."""
        sites = plate_model.run_guide(self.guide, key, params, batch)
        return {name: plate_model.data_first(sites[name]) for name in plate_model.latent}

    def _propose(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, batch: Any
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Latents of a batch from the guide, and their log-densities there."""
        sites = plate_model.run_guide(self.guide, key, params, batch)
        latents = {name: sites[name]["value"] for name in plate_model.latent}
        log_densities = [plate_model.site_log_prob(sites[name]) for name in plate_model.latent]
        return latents, plate_model.note_states(jnp.stack(log_densities).sum(0), sites)


def _log_mean(log_weights: jax.Array) -> jax.Array:
    return logsumexp(log_weights, axis=0) - jnp.log(len(log_weights))
