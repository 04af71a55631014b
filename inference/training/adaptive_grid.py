"""The schedule and settings of adaptive grids, `AdaptiveGrid`."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from kaem_ppl import reference as ref
from kaem_ppl.arguments import set_counts, set_number
from kaem_ppl.distributions.base import TiltedDistribution
from kaem_ppl.primitives import GRID_SUFFIX

from ..model.parameters import Params
from ..model.training_model import TrainingModel


@dataclass(frozen=True)
class AdaptiveGrid:
    """Refit the grids of tilted priors to posterior draws, at an interval that grows with training.

    Applies to every prior made by `kan_prior(..., adaptive_grid=True)`; their grids and domains are arrays of the training
    state. A refit sets the domain to the draws' range with a margin on either side, the grid to a mix of the draws'
    quantiles and an equal spacing, and the coefficients such that the function stays what it was (`UnivariateKAN.refit`).
    Shapes are kept, so nothing is compiled again, and the optimiser's state is not changed.

    Attributes:
        first: the epoch after which grids are refitted first.
        growth: factor from one such epoch to the next; with 2, after epochs 1, 2, 4, 8, ...
        num_data: data, drawn at random, that each refit takes one posterior draw of.
        margin: width added on either side, as a fraction of the range of the draws; the reference's support bounds it.

    Raises:
        ValueError: an argument is out of range.

    Source: the extension of grids during training, Liu et al., arXiv 2404.19756, sec. 2.4.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, kaem_ppl as kp
        >>> from kaem_ppl.inference import AdaptiveGrid, fit
        >>> def model(x=None, size=None):
        ...     prior = kp.kan_prior(
        ...         "prior", (1,), basis=kp.RBF(8), domain=(-3, 3), reference=dist.Normal(0, 1), adaptive_grid=True
        ...     )
        ...     with numpyro.plate("data", size if x is None else len(x)):
        ...         z = numpyro.sample("z", prior.to_event(1))
        ...         numpyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)
        >>> x = 0.3 * jax.random.normal(jax.random.key(0), (100, 1))
        >>> result = fit(jax.random.key(1), model, x, num_epochs=2, grids=AdaptiveGrid(), progress_bar=False)
        >>> grid = result.params["prior$grid"]["grid"]
        >>> bool(abs(grid).max() < 3)  # it moved to where the latents are
        True
    """

    first: int = 1
    growth: float = 2.0
    num_data: int = 1000
    margin: float = 0.2

    def __post_init__(self) -> None:
        set_counts(self, first=1, num_data=2)
        set_number(self, "growth", above=1)
        set_number(self, "margin", least=0)

    def is_due(self, epoch: int) -> bool:
        """Whether grids are refitted after this epoch, counted from 1."""
        due = self.first
        while due < epoch:
            due = max(due + 1, int(due * self.growth))
        return due == epoch

    def refit(
        self, plate_model: TrainingModel, params: Params, batch: Any, draws: dict[str, jax.Array]
    ) -> tuple[Params, Params]:
        """Refit every tilted prior that has a site for its grid; traceable.

        Args:
            plate_model: the model.
            params: constrained parameters, grids among them.
            batch: data, any rows.
            draws: by name of the latent site, values with one axis in front.

        Returns:
            The sites that change: of parameters, and of grids.
        """
        new_params, new_grids = {}, {}
        for name, (latent, prior) in adaptive_priors(plate_model, params, batch).items():
            bank = prior.energy
            samples = draws[latent].reshape(-1, *prior.batch_shape)
            # A mixture's components share its latent.
            samples = samples.reshape(samples.shape + (1,) * (len(bank.batch_shape) + 1 - samples.ndim))
            samples = jnp.broadcast_to(samples, (len(samples), *bank.batch_shape))
            refitted = bank.refit(samples, domain=self._domain(prior, samples))
            site = f"{name}$params"
            new_params[site] = {**params[site], "coef": refitted.coef}
            new_grids[name + GRID_SUFFIX] = {"grid": refitted.grid, "domain": refitted.domain}
        return new_params, new_grids

    def _domain(self, prior: TiltedDistribution, samples: jax.Array) -> jax.Array:
        low, high = samples.min(0), samples.max(0)
        margin = self.margin * (high - low)
        support_low, support_high = (
            jnp.broadcast_to(bound, prior.batch_shape).reshape(
                prior.batch_shape + (1,) * (low.ndim - len(prior.batch_shape))
            )
            for bound in ref.support_bounds(prior.reference)
        )
        domain = jnp.maximum(low - margin, support_low), jnp.minimum(high + margin, support_high)
        # Where all draws are equal, keep the domain.
        return jnp.where((domain[1] > domain[0])[..., None], jnp.stack(domain, axis=-1), prior.energy.domain)


def adaptive_priors(
    plate_model: TrainingModel, params: Params, batch: Any
) -> dict[str, tuple[str, TiltedDistribution]]:
    """By name of the prior, the latent site that has it and its distribution.

    Raises:
        ValueError: a grid belongs to no latent site's own distribution.
    """
    found: dict[str, tuple[str, TiltedDistribution]] = {}
    for latent, prior in plate_model.priors(params, batch, plate_model.latent).items():
        for site, value in params.items():
            if not site.endswith(GRID_SUFFIX) or not isinstance(prior, TiltedDistribution):
                continue
            # The bank holds the same arrays that were substituted.
            if prior.energy.domain is value["domain"]:
                found[site.removesuffix(GRID_SUFFIX)] = latent, prior
    unused = sorted(
        site for site in params if site.endswith(GRID_SUFFIX) and site.removesuffix(GRID_SUFFIX) not in found
    )
    if unused:
        raise ValueError(
            f"The grids {unused} belong to no latent site's own distribution, so there are no draws to refit them to. "
            "Sample a site from the prior itself, without a reparameterisation, or leave `adaptive_grid` out."
        )
    return found
