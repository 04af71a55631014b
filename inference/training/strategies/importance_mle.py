"""Maximum likelihood by importance sampling: prior draws shared by a batch, weighted for each datum."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from kaem_ppl.arguments import check_callable, describe, set_counts, set_number

from ...model.parameters import Params
from ...model.plate_model import PlateModel
from ...model.training_model import TrainingModel
from .class_draws import score_class_draws
from .resampling import residual_resampling
from .strategy import Strategy, guide_of

# Effective draws below which an estimate is that of a single draw.
_FEW = 2.0


@dataclass(frozen=True)
class ImportanceMLE:
    """Follow Fisher's identity with self-normalised importance weights.

    With S draws z_s from the prior and w_bs = p(x_b | z_s) / sum_s' p(x_b | z_s'),

        grad log p(x_b) = E_{p(z | x_b)}[grad log p(x_b, z)]  ~  sum_s w_bs grad (log p(x_b | z_s) + log p(z_s)),

    draws and weights held fixed. The gradient of log p(z_s) includes the prior's normaliser exactly, without
    sampling. The estimate is consistent in S, with a bias of order 1 / effective sample size.

    Where each datum has a prior of its own, S draws are made for each; where the priors are those of classes, which a
    `context` of `kan_prior` picks, S draws, equally many of each class, serve all data (see `score_class_draws`).

    Attributes:
        num_particles: S, the prior draws of each step.
        ess_threshold: resample the data whose effective sample size, 1 / sum_s w_bs^2, is less than this fraction
            of S; 0 never resamples, which has the least variance, and 1 always does.
        resampler: `residual_resampling`, `systematic_resampling`, `stratified_resampling`, or any function from
            a key and weights (B, S) to expected copies (B, S).

    Raises:
        ValueError: `num_particles` is not positive or `ess_threshold` is outside [0, 1].

    Sources: Raj, arXiv 2506.14167; with the prior as proposal this is the generator's update of reweighted wake-sleep,
    Bornschein and Bengio, arXiv 1406.2751.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, optax
        >>> from kaem_ppl.inference import fit, ImportanceMLE
        >>> def model(x=None, size=None):
        ...     loc = numpyro.param("loc", 0.0)
        ...     with numpyro.plate("data", size if x is None else len(x)):
        ...         z = numpyro.sample("z", dist.Normal(loc, 1))
        ...         numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> x = 2 + jax.random.normal(jax.random.key(0), (100,))
        >>> options = {"optimizer": optax.adam(0.1), "num_epochs": 60, "progress_bar": False}
        >>> result = fit(jax.random.key(1), model, x, strategy=ImportanceMLE(num_particles=200), **options)
        >>> abs(float(result.params["loc"]) - float(x.mean())) < 0.2  # the maximum of the likelihood
        True
    """

    num_particles: int = 1000
    ess_threshold: float = 0.5
    resampler: Callable[[jax.Array, jax.Array], jax.Array] = residual_resampling

    def __post_init__(self) -> None:
        set_counts(self, num_particles=1)
        set_number(self, "ess_threshold", least=0, most=1, what="a fraction of `num_particles`")
        check_callable(self.resampler, "resampler", "a function such as `residual_resampling`")

    def advise(self, row: dict[str, Any]) -> str | None:
        """See `Strategy`."""
        return _advise(self, row)

    def init(self, key: jax.Array, plate_model: PlateModel, params: Params, data: Any) -> tuple[()]:
        """Return no state: each step draws its particles anew."""
        return ()

    def loss(
        self, key: jax.Array, plate_model: PlateModel, params: Params, state: tuple[()], batch: Any
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], tuple[()]]]:
        """Return the weighted negative log-joint, averaged over the batch; see `Strategy.loss`."""
        particle_key, resampling_key = jax.random.split(key)
        scores = None
        if plate_model.has_classes:
            scores = score_class_draws(plate_model, particle_key, params, batch, self.num_particles)
        if scores is None:
            scores = (*plate_model.score_prior_draws(particle_key, params, batch, self.num_particles), 0.0)
        log_likelihood, log_prior, log_ratio = scores
        log_weights = lax.stop_gradient(log_likelihood) + log_ratio
        weights = jax.nn.softmax(log_weights)
        effective_sample_size = 1 / jnp.square(weights).sum(-1)
        metrics = {
            "log_evidence": (logsumexp(log_weights, axis=-1) - jnp.log(log_weights.shape[-1])).mean(),
            "effective_sample_size": effective_sample_size.mean(),
        }
        if self.ess_threshold > 0:
            resampled = self.resampler(resampling_key, weights) / weights.shape[-1]
            degenerate = effective_sample_size < self.ess_threshold * self.num_particles
            weights = jnp.where(degenerate[:, None], resampled, weights)
        # A particle of likelihood 0 has weight 0 and log-density -inf; the product counts as 0.
        log_joint = jnp.where(weights == 0, 0, log_likelihood + log_prior)
        return -(weights * log_joint).sum(-1).mean(), (metrics, state)

    def draw(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: tuple[()], batch: Any
    ) -> dict[str, jax.Array]:
        """Draw by the importance weights; see `Strategy.draw`."""
        return plate_model.draw_by_weight(key, params, batch, self.num_particles)


@dataclass(frozen=True)
class PathwiseImportanceMLE:
    """Maximise the importance-weighted bound, differentiated through exact prior draws.

    With S reparameterised draws z_s = F^-1(u_s) from the prior, the objective is

        log p(x_b)  >~  log 1/S sum_s p(x_b | z_s),

    an unbiased estimate of the evidence before the logarithm. Gradients flow through the draws, so the prior learns
    from the likelihood's gradient; `ImportanceMLE` learns from the likelihood's values alone. The bias is of order
    1 / effective sample size.

    Attributes:
        num_particles: S, the prior draws of each step.

    Raises:
        ValueError: `num_particles` is not positive.

    Sources: the bound of Burda et al., arXiv 1509.00519, eq. 8, with the prior as proposal; derivatives of draws by
    Figurnov et al., arXiv 1805.08498, eq. 5.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, optax
        >>> from kaem_ppl.inference import fit, PathwiseImportanceMLE
        >>> def model(x=None, size=None):
        ...     loc = numpyro.param("loc", 0.0)
        ...     with numpyro.plate("data", size if x is None else len(x)):
        ...         z = numpyro.sample("z", dist.Normal(loc, 1))
        ...         numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> x = 2 + jax.random.normal(jax.random.key(0), (100,))
        >>> options = {"optimizer": optax.adam(0.1), "num_epochs": 60, "progress_bar": False}
        >>> result = fit(jax.random.key(1), model, x, strategy=PathwiseImportanceMLE(num_particles=200), **options)
        >>> abs(float(result.params["loc"]) - float(x.mean())) < 0.2  # the maximum of the likelihood
        True
    """

    num_particles: int = 1000

    def __post_init__(self) -> None:
        set_counts(self, num_particles=1)

    def advise(self, row: dict[str, Any]) -> str | None:
        """See `Strategy`."""
        return _advise(self, row)

    def init(self, key: jax.Array, plate_model: TrainingModel, params: Params, data: Any) -> tuple[()]:
        """Check that prior draws can be differentiated; there is no state.

        Raises:
            ValueError: draws of a latent site have no derivative.
        """
        priors = plate_model.priors(params, data, plate_model.latent)
        fixed = [name for name, prior in priors.items() if not prior.has_rsample]
        if fixed:
            raise ValueError(
                f"Draws of the latent sites {fixed} have no derivative in the prior's parameters. Use `ImportanceMLE`."
            )
        if plate_model.discrete is not None and plate_model.discrete.entangled:
            raise ValueError(
                f"The prior of latent site {plate_model.discrete.entangled[0]!r} depends on the discrete latent sites "
                f"{list(plate_model.discrete.names)}, so its draws have no derivative. Use `ImportanceMLE`."
            )
        return ()

    def loss(
        self, key: jax.Array, plate_model: PlateModel, params: Params, state: tuple[()], batch: Any
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], tuple[()]]]:
        """Return the negative bound, averaged over the batch; see `Strategy.loss`."""
        log_likelihood, _ = _with_pathwise_draws(plate_model).score_prior_draws(key, params, batch, self.num_particles)
        bound = (logsumexp(log_likelihood, axis=-1) - jnp.log(self.num_particles)).mean()
        weights = jax.nn.softmax(lax.stop_gradient(log_likelihood))
        metrics = {
            "log_evidence": lax.stop_gradient(bound),
            "effective_sample_size": (1 / jnp.square(weights).sum(-1)).mean(),
        }
        return -bound, (metrics, state)

    def draw(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: tuple[()], batch: Any
    ) -> dict[str, jax.Array]:
        """Draw by the importance weights; see `Strategy.draw`."""
        return plate_model.draw_by_weight(key, params, batch, self.num_particles)


class _PathwisePlateModel(PlateModel):
    """A plate model whose prior draws are differentiable; the prior's density is not needed and left out."""

    def draw_prior(
        self, key: jax.Array, params: Params, rows: Any, integrals: Any = None
    ) -> tuple[dict[str, Any], jax.Array]:
        return self._run(key, params, rows), jnp.zeros(jax.tree.leaves(rows)[0].shape[0])


def _with_pathwise_draws(plate_model: PlateModel) -> "_PathwisePlateModel":
    return _PathwisePlateModel(
        **{field.name: getattr(plate_model, field.name) for field in dataclasses.fields(PlateModel)}
    )


def exact_likelihood(strategy: Strategy) -> ImportanceMLE:
    """What trains a model without latents in place of a strategy: one draw of nothing, so the weight of a datum is 1.

    Raises:
        ValueError: the strategy has a guide, which would have nothing to draw.
    """
    if guide_of(strategy) is not None:
        raise ValueError(
            f"`strategy` is {describe(strategy)}, but `model` has no latent site, so its guide would have nothing to draw: "
            "leave `strategy` out, and the exact log-likelihood is maximised."
        )
    return ImportanceMLE(1, ess_threshold=0)


def _advise(strategy: ImportanceMLE | PathwiseImportanceMLE, row: dict[str, Any]) -> str | None:
    size = float(row["effective_sample_size"])
    if strategy.num_particles < 10 or not size < _FEW:
        return None
    return (
        f"{type(strategy).__name__} ended with an effective sample size of {size:.2f} of its {strategy.num_particles} "
        "prior draws: the gradient of a datum is that of hardly more than one draw, and its log-evidence is too low on "
        "average. "
        "`LangevinMLE`, the mode langevin of `kaem train`, follows each datum's own posterior."
    )
