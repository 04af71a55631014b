"""Importance sampling from the prior or a learnt proposal, its weights smoothed, then resampled."""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc.resampling import systematic

from kaem_ppl.arguments import check_kind, set_counts
from kaem_ppl.compilation import jit_outermost

from ...model.coordinates import Coordinates, Unconstrained
from ...model.power_posterior import Position, PowerPosterior
from .. import batching
from ..batching import evaluation_bytes, over_problems
from ..checks import check_likelihood, check_prior
from ..run import Run
from ..sampler import Sampler, SamplerOutput, problem_keys
from .proposals import Proposal, draw_proposals
from .psis import log_sum_exp, smooth

# Draws of a proposal, over all chains and data, that are evaluated together.
_PROPOSALS_AT_ONCE = 20_000
# Copies of what is drawn that live together until it is resampled.
_COPIES = 4

# Positions, log-priors and log-likelihoods.
type _Particles = tuple[Position, jax.Array, jax.Array]


@dataclass(frozen=True)
class ImportanceSampling(Sampler):
    """Draws of the prior, or of a proposal, weighted to the posterior and resampled.

    The largest weights are Pareto-smoothed (Vehtari et al. 2024).

    Each chain of each datum has particles of its own. The summary has `pareto_k`, which says whether the weights can be
    trusted (below 0.7), `effective_sample_size` of the smoothed weights, and `log_evidence` from the raw ones. Resampling
    repeats particles; copies of one stand next to each other, so that ArviZ's effective sizes count them once. The
    statistic `log_weight` of a draw is the logarithm of the smoothed weight, of a sum of one, of its particle.

    Data, and particles of each, are drawn in pieces of about `MEMORY_BUDGET` bytes (`sampling/batching.py`), whatever their
    number; results do not depend on the pieces, beyond rounding.

    Where most data of a batch are not to be trusted, be wary of those that are: they may have missed the largest weights
    by chance. Take more particles until nearly all pass.

    Attributes:
        num_particles: draws of each chain and datum.
        proposal: None draws from the prior; `StudentProposal(draws)` is fitted to posterior draws, and
            `GuideProposal(guide, params)` is any NumPyro guide.

    Raises:
        TypeError: `proposal` is not a proposal.
        ValueError: there are fewer than 20 particles, too few to fit a tail to.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import ImportanceSampling, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> sampler = ImportanceSampling(10_000)
        >>> options = {"num_samples": 500, "num_warmup": 200, "progress_bar": False}
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, sampler=sampler, **options)
        >>> round(float(draws.samples["z"].mean()), 1)  # exactly: 1
        1.0
    """

    blind_to: ClassVar[str] = "modes that none of its draws of the proposal has met"
    num_particles: int = 10_000
    proposal: Proposal | None = None

    def __post_init__(self) -> None:
        set_counts(self, num_particles=20)
        if self.proposal is not None:
            what = "a `StudentProposal(draws)`, a `GuideProposal(guide, params)` or None"
            check_kind(self.proposal, Proposal, "proposal", what)

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
        run: Run,
    ) -> SamplerOutput:
        """See `Sampler.sample`."""
        if self.proposal is None:
            check_prior(posterior, "ImportanceSampling")
        else:
            self.proposal.check(posterior)
        started = time.perf_counter()
        keys = problem_keys(key, num_chains, posterior.num_data)
        if self.proposal is None:
            num_data, num_particles = _pieces(self.num_particles, posterior, num_chains)
        else:
            # A proposal knows each datum's place, so that data stay together.
            num_data = posterior.num_data
            num_particles = int(np.clip(_PROPOSALS_AT_ONCE // keys.size, 1, self.num_particles))
        starts = range(0, posterior.num_data, num_data)
        parts = []
        run.progress.begin("compiling the draws from the prior", posterior.num_data, "datum")
        for first in starts:
            # The last piece has the size of the others, so that one program serves all.
            low = min(first, posterior.num_data - num_data)
            rows = tuple(row[low : low + num_data] for row in posterior.rows) if len(starts) > 1 else posterior.rows
            these = keys[:, low : low + num_data]
            piece = self._sample(num_samples, replace(posterior, rows=rows), these, num_particles)
            # Off the device, which holds one piece at a time.
            piece = jax.device_get(piece) if len(starts) > 1 else piece
            # What pieces share with the one before was drawn there.
            parts.append(jax.tree.map(lambda x, skip=first - low: x[:, skip:], piece))
            run.report("drawing from the prior", low + num_data, posterior.num_data, {})
        everything = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts) if len(parts) > 1 else parts[0]
        (positions, log_prior, log_likelihood, log_weight), summary = everything
        check_likelihood(np.isfinite(summary["log_evidence"]), self.num_particles, posterior)
        lp = log_prior + log_likelihood
        stats = {
            "lp": lp, "log_prior": log_prior, "log_likelihood": log_likelihood, "energy": -lp, "log_weight": log_weight,
        }  # fmt: skip
        stats, positions = jax.tree.map(lambda x: jnp.moveaxis(jnp.asarray(x), 2, 1), (stats, positions))
        jax.block_until_ready(stats)
        return SamplerOutput(positions, stats, summary, {}, time.perf_counter() - started)

    def _sample(
        self, num_samples: int, posterior: PowerPosterior, keys: jax.Array, at_once: int
    ) -> tuple[tuple[Position, jax.Array, jax.Array, jax.Array], dict[str, np.ndarray]]:
        """Draws (C, N, S, ...) of a piece of the data, and what is said of them, (C, N)."""
        if self.proposal is None:
            draw = partial(_draw, at_once, posterior, keys)
        else:
            draw = partial(draw_proposals, self.proposal, at_once, self.proposal.parameters(), posterior, keys)
        drawn = [draw(first) for first in range(0, self.num_particles, at_once)]
        particles = drawn[0]
        if len(drawn) > 1 or at_once > self.num_particles:
            particles = jax.tree.map(lambda *x: jnp.concatenate(x, axis=2)[:, :, : self.num_particles], *drawn)
        *particles, raw = particles
        raw = np.where(np.isnan(raw), -np.inf, raw)
        log_weights, k = smooth(raw)
        smoothed = jnp.asarray(log_weights, raw.dtype)
        (positions, log_prior, log_likelihood), log_weight = _resample(
            num_samples, keys, smoothed, (tuple(particles), smoothed)
        )
        summary = {
            "pareto_k": k,
            "effective_sample_size": 1 / np.exp(2 * log_weights).sum(-1),
            "log_evidence": log_sum_exp(raw) - np.log(self.num_particles),
        }
        return (positions, log_prior, log_likelihood, log_weight), summary


def _pieces(num_particles: int, posterior: PowerPosterior, num_chains: int) -> tuple[int, int]:
    """Data, and particles of each, that are drawn together within the memory budget."""
    evaluation, position = evaluation_bytes(posterior)
    # What is drawn is kept until it is resampled, in a few copies.
    kept = _COPIES * num_particles * position
    num_data = int(np.clip(batching.MEMORY_BUDGET // (num_chains * max(kept, evaluation)), 1, posterior.num_data))
    at_once = int(np.clip(batching.MEMORY_BUDGET // (num_chains * num_data * evaluation), 1, num_particles))
    return num_data, at_once


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
    num_samples: int, keys: jax.Array, log_weights: jax.Array, particles: tuple[_Particles, jax.Array]
) -> tuple[_Particles, jax.Array]:
    def resample(
        key: jax.Array, log_weights: jax.Array, particles: tuple[_Particles, jax.Array]
    ) -> tuple[_Particles, jax.Array]:
        # Beyond the numbers of particles, which fit in 31 bits.
        choose_key, order_key = jax.random.split(jax.random.fold_in(key, 2**31))
        chosen = systematic(choose_key, jnp.exp(log_weights), num_samples)
        # Particles in random order, copies of one together: what they have in common is autocorrelation.
        place = jax.random.bits(order_key, (len(log_weights),))[chosen]
        return jax.tree.map(lambda x: x[chosen[jnp.argsort(place)]], particles)

    return jax.vmap(jax.vmap(resample))(keys, log_weights, particles)
