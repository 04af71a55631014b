"""Importance sampling from the prior or a learnt proposal, its weights smoothed, then resampled."""

import time
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc.resampling import systematic
from jax.scipy.special import logsumexp

from kaem_ppl.compilation import jit_outermost

from ..model.coordinates import Coordinates, Unconstrained
from ..model.power_posterior import Position, PowerPosterior
from .batching import over_problems
from .checks import check_prior
from .proposals import Proposal, draw_proposals
from .sampler import Sampler, SamplerOutput, problem_keys, progress

# A tail is fitted to at least five of the largest fifth of the weights.
FEWEST_WEIGHTS = 25
# Rows that pass through the model at once.
_ROWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class ImportanceSampling(Sampler):
    """Draws of the prior, or of a proposal, weighted to the posterior and resampled.

    The largest weights are Pareto-smoothed (Vehtari et al. 2024).

    Each chain of each datum has particles of its own. The summary has `pareto_k`, which says whether the weights can be
    trusted (below 0.7), `effective_sample_size` of the smoothed weights, and `log_evidence` from the raw ones. Resampling
    repeats particles; copies of one stand next to each other, so that ArviZ's effective sizes count them once.

    Where most data of a batch are not to be trusted, be wary of those that are: they may have missed the largest weights
    by chance. Take more particles until nearly all pass.

    Attributes:
        num_particles: draws of each chain and datum.
        proposal: None draws from the prior; `StudentProposal(draws)` is fitted to posterior draws, and
            `GuideProposal(guide, params)` is any NumPyro guide.

    Raises:
        TypeError: `proposal` is not a proposal.
        ValueError: there are fewer than 20 particles, too few to fit a tail to.
    """

    blind_to: ClassVar[str] = "modes that none of its draws of the proposal has met"
    num_particles: int = 10_000
    proposal: Proposal | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.proposal, Proposal | None):
            raise TypeError(
                "`proposal` must be a `StudentProposal(draws)`, a `GuideProposal(guide, params)` or None, got "
                f"{self.proposal!r}."
            )
        if self.num_particles < 20:
            raise ValueError(f"`num_particles` must be at least 20, got {self.num_particles}.")

    @property
    def coordinates(self) -> Coordinates:  # type: ignore[override]
        """The proposal's own."""
        return Unconstrained() if self.proposal is None else self.proposal.coordinates

    def sample(
        self,
        key: jax.Array,
        posterior: PowerPosterior,
        *,
        num_chains: int,
        num_samples: int,
        num_warmup: int,
        progress_bar: bool,
    ) -> SamplerOutput:
        """See `Sampler.sample`."""
        if self.proposal is None:
            check_prior(posterior, "ImportanceSampling")
        else:
            self.proposal.check(posterior)
        started = time.perf_counter()
        keys = problem_keys(key, num_chains, posterior.num_data)
        chunk = int(np.clip(_ROWS_AT_ONCE // keys.size, 1, self.num_particles))
        starts = range(0, self.num_particles, chunk)
        if self.proposal is None:
            draw = partial(_draw, chunk, posterior, keys)
        else:
            draw = partial(draw_proposals, self.proposal, chunk, self.proposal.parameters(), posterior, keys)
        parts = [draw(start) for start in progress(starts, len(starts), "chunk", progress_bar)]
        particles = jax.tree.map(lambda *x: jnp.concatenate(x, axis=2)[:, :, : self.num_particles], *parts)
        *particles, raw = particles
        raw = jnp.where(jnp.isnan(raw), -jnp.inf, raw)
        log_weights, pareto_k = smooth(np.asarray(raw))
        resampled = _resample(num_samples, keys, jnp.asarray(log_weights), tuple(particles))
        positions, log_prior, log_likelihood = resampled
        lp = log_prior + log_likelihood
        stats = {"lp": lp, "log_prior": log_prior, "log_likelihood": log_likelihood, "energy": -lp}
        stats, positions = jax.tree.map(lambda x: jnp.moveaxis(x, 2, 1), (stats, positions))
        jax.block_until_ready(stats)
        summary = {
            "pareto_k": pareto_k,
            "effective_sample_size": 1 / np.exp(2 * log_weights).sum(-1),
            "log_evidence": logsumexp(raw, axis=-1) - np.log(self.num_particles),
        }
        return SamplerOutput(positions, stats, summary, {}, time.perf_counter() - started)


def smooth(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pareto-smooth log-weights over their last axis, on the host.

    Args:
        log_weights: shape (..., P).

    Returns:
        Log-weights that sum to one, all equal where every weight is 0; and the shape k of the fitted tail, shape (...),
        infinite where fewer than 25 weights differ from 0, minus infinite where the largest are equal: there is no tail.
    """
    from arviz_stats.base.array import array_stats

    flat = log_weights.reshape(-1, log_weights.shape[-1]).astype(np.float64)
    flat = np.where(np.isfinite(flat), flat, -np.inf)
    smoothed, pareto_k = np.empty_like(flat), np.full(len(flat), np.inf)
    for row, weights in enumerate(flat):
        alive = np.isfinite(weights)
        if alive.sum() >= FEWEST_WEIGHTS and _has_flat_tail(weights[alive]):
            pareto_k[row] = -np.inf
        elif alive.sum() >= FEWEST_WEIGHTS:
            # ArviZ takes the log-likelihood that is left out, of which weights are the inverse.
            values, k = array_stats.psislw(-weights[alive])
            weights = np.full_like(weights, -np.inf)
            weights[alive] = values
            pareto_k[row] = k if np.isfinite(k) else np.inf
        total = np.logaddexp.reduce(weights)
        smoothed[row] = weights - total if alive.any() else -np.log(len(weights))
    return smoothed.reshape(log_weights.shape), pareto_k.reshape(log_weights.shape[:-1])


def _has_flat_tail(log_weights: np.ndarray) -> bool:
    """Whether those that would be smoothed are all equal (Vehtari et al. 2024, sec. 6, has their number)."""
    number = len(log_weights)
    size = min(number, int(np.ceil(min(0.2 * number, 3 * np.sqrt(number)))) + 1)
    largest = np.partition(log_weights, -size)[-size:]
    return largest.max() == largest.min()


@partial(jit_outermost, static_argnums=0)
def _draw(
    num_particles: int, posterior: PowerPosterior, keys: jax.Array, start: jax.Array
) -> tuple[Position, jax.Array, jax.Array, jax.Array]:
    """Prior draws with their log-prior, log-likelihood and log-weight, (C, N, particles, ...)."""

    def draw(key: jax.Array, datum: tuple[jax.Array, ...]) -> tuple[Position, jax.Array, jax.Array, jax.Array]:
        target = posterior.target(datum)

        def one(particle: jax.Array) -> tuple[Position, jax.Array, jax.Array, jax.Array]:
            position = target.draw(jax.random.fold_in(key, particle))
            log_likelihood = target.log_likelihood(position)
            return position, target.log_prior(position), log_likelihood, log_likelihood

        return jax.vmap(one)(start + jnp.arange(num_particles))

    return over_problems(draw, posterior, keys)


@partial(jax.jit, static_argnums=0)
def _resample(
    num_samples: int, keys: jax.Array, log_weights: jax.Array, particles: tuple[Position, jax.Array, jax.Array]
) -> tuple[Position, jax.Array, jax.Array]:
    def resample(
        key: jax.Array, log_weights: jax.Array, particles: tuple[Position, jax.Array, jax.Array]
    ) -> tuple[Position, jax.Array, jax.Array]:
        # Beyond the numbers of particles, which fit in 31 bits.
        choose_key, order_key = jax.random.split(jax.random.fold_in(key, 2**31))
        chosen = systematic(choose_key, jnp.exp(log_weights), num_samples)
        # Particles in random order, copies of one together: what they have in common is autocorrelation.
        place = jax.random.permutation(order_key, len(log_weights))[chosen]
        return jax.tree.map(lambda x: x[chosen[jnp.argsort(place)]], particles)

    return jax.vmap(jax.vmap(resample))(keys, log_weights, particles)
