"""Nested sampling, by BlackJAX's nested slice sampler, of all chains and data at once."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from kaem_ppl.arguments import set_counts, set_number
from kaem_ppl.compilation import jit_outermost

from ..kernels.elliptical_slice import EllipticalSlice
from ..model.coordinates import Coordinates, Unconstrained
from ..model.power_posterior import Position, PowerPosterior, Target
from ..sampling.batching import over_problems, shard_like
from ..sampling.checks import check_prior
from ..sampling.run import Run
from ..sampling.sampler import Sampler, SamplerOutput, problem_keys
from ..tempering.rare_likelihood import Start, start_where_possible
from .nested_draws import NestedPoints, integrate, resample
from .nested_moves import IMPOSSIBLE, LABELS_LOG_EVIDENCE, Labelled, nested_sampler

# Iterations of a compiled chunk.
_CHUNK = 10


@dataclass(frozen=True)
class NestedSampling(Sampler):
    """Live points climb the likelihood, each iteration replacing the lowest tenth (Skilling 2006).

    The points move by slice sampling (Yallup, Kroupa and Handley 2026) along differences of neighbouring live points.
    It reads no gradient and no ladder, and is a second opinion: best in up to a few tens of dimensions.

    Points of equal likelihood have no order, without which the shrinkage of the prior mass is not known (Fowlie, Handley
    and Su 2020). So each point has a label, one more coordinate with a prior of its own, that adds up to a tenth of a nat
    to its log-likelihood: then no two are equal, the theory holds as it stands, and what the labels add to the evidence
    is known and taken off. Where the likelihood is 0, labels alone order the points; where it is 0 for more than half of
    them, the run starts from draws of the prior given that it is not, whose share is estimated by counting.

    Draws from the posterior are the points met on the way, resampled by their weights, which are means over the simulated
    shrinkage of the prior mass. Points that descend from each other stand next to each other, copies of one first of all,
    so that what they have in common appears as autocorrelation, and ArviZ's effective sizes count it. The summary has
    `effective_sample_size` of the weights, `log_evidence` with its standard error, `information` and `num_iterations`.

    Attributes:
        num_live: live points of each chain and datum.
        num_slice_steps: slice moves that make a replacement; None takes three times the number of coordinates, at least 10.
        remaining: the run ends when live points can add this share of the evidence.

    Raises:
        ValueError: a setting is out of its range.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import log_evidence, NestedSampling
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> method = NestedSampling(100)
        >>> evidence = log_evidence(jax.random.key(0), model, 2.0, method=method, progress_bar=False)
        >>> abs(float(evidence.value) + 2.2655) < 4 * float(evidence.std_error)
        True
    """

    coordinates: ClassVar[Coordinates] = Unconstrained()
    keeps_state: ClassVar[bool] = True
    advice: ClassVar[str] = "take more live points (`num_live`), or more `num_slice_steps`."
    blind_to: ClassVar[str] = "a mode that no live point was near when the others left its likelihood behind"
    num_live: int = 500
    num_slice_steps: int | None = None
    remaining: float = 1e-3

    def __post_init__(self) -> None:
        set_counts(self, num_live=20, num_slice_steps=1)
        set_number(self, "remaining", above=0, below=1, what="a share of the evidence")

    @property
    def num_delete(self) -> int:
        """Points replaced in an iteration."""
        return self.num_live // 10

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
        check_prior(posterior, "NestedSampling")
        started = time.perf_counter()
        found = self.run(key, posterior, num_chains=num_chains, run=run, keep_points=True)
        assert found.points is not None, "they were kept"
        positions, size = resample(found.points, num_samples)
        positions = jax.tree.map(jnp.asarray, positions)
        log_prior, log_likelihood = _evaluate(posterior, positions)
        lp = log_prior + log_likelihood
        stats = {"lp": lp, "log_prior": log_prior, "log_likelihood": log_likelihood, "energy": -lp}
        jax.block_until_ready(stats)
        summary = {
            "effective_sample_size": size,
            "log_evidence": found.log_evidence,
            "log_evidence_std_error": found.std_error,
            "information": found.information,
            "num_iterations": found.num_iterations,
        }
        return SamplerOutput(positions, stats, summary, {}, time.perf_counter() - started)

    def run(
        self,
        key: jax.Array,
        posterior: PowerPosterior,
        *,
        num_chains: int,
        run: Run,
        keep_points: bool = False,
    ) -> "NestedRun":
        """Run every chain of every datum until little evidence remains.

        Args:
            key: PRNG key.
            posterior: with a proper prior.
            num_chains: C, of each datum.
            run: shows progress, and keeps the state where one is to be kept.
            keep_points: whether all points met are wanted.

        Raises:
            ValueError: the likelihood of some datum is 0 at every one of many prior draws.
        """
        keys = problem_keys(key, num_chains, posterior.num_data)
        saved = run.load("live_points")
        run.progress.begin("compiling the moves of live points", unit="iteration")
        if saved is None:
            start = start_where_possible(EllipticalSlice(), self.num_live, posterior, keys)
            carry, chunks = _begin(self, posterior, keys, start), []
            carry = shard_like(carry.state.particles.loglikelihood, carry)
        else:
            carry = jax.tree.map(jnp.asarray, saved["carry"])
            # Of all chunks before one array, of whole chunks each.
            chunks = [saved["dead"]]
            run.progress.say(f"live points go on after {sum(len(dead.counts) for dead in chunks):,} iterations")
        number = sum(len(dead.counts) for dead in chunks)
        while not np.all(carry.is_done):
            carry, dead = _advance(self, keep_points, posterior, keys, carry, number)
            chunks.append(jax.device_get(dead))
            number += _CHUNK
            run.save("live_points", partial(_to_save, carry, chunks), now=bool(np.all(carry.is_done)))
            if run.is_watched:
                left = carry.state.integrator.logZ_live - carry.state.integrator.logZ
                share = float(np.exp(np.minimum(np.asarray(left, float), 0.0)).max())
                figures = {"remaining evidence": share, "runs done": float(np.mean(carry.is_done))}
                run.report("nested sampling", number, None, figures)
        # (iterations, C, N, deleted) and which of them were before the end.
        dead = _join(chunks)
        live = np.asarray(carry.state.particles.loglikelihood, float)
        value, std_error, information = (np.zeros(live.shape[:2]) for _ in range(3))
        weights: dict[tuple[int, int], np.ndarray] = {}
        for chain, datum in np.ndindex(*live.shape[:2]):
            died = dead.log_likelihood[dead.counts[:, chain, datum], chain, datum].ravel().astype(float)
            rng = np.random.default_rng([chain, datum])
            *numbers, of_points = integrate(rng, died, live[chain, datum], self.num_delete)
            value[chain, datum], std_error[chain, datum], information[chain, datum] = numbers
            if keep_points:
                weights[chain, datum] = of_points
        value += np.asarray(carry.log_share, float) - LABELS_LOG_EVIDENCE
        std_error = np.sqrt(np.square(std_error) + np.asarray(carry.share_variance, float))
        points = None
        if keep_points:
            live_positions = jax.device_get(carry.state.particles.position.position)
            genealogy = (dead.numbers, np.asarray(carry.numbers), dead.parents)
            points = NestedPoints(weights, dead.positions, live_positions, dead.counts, *genealogy)
        return NestedRun(value, std_error, information, dead.counts.sum(0), points)


class NestedRun(NamedTuple):
    """What runs of C chains and N data found, arrays (C, N).

    Attributes:
        log_evidence: in nats.
        std_error: of it, from the unknown shrinkage of the prior mass.
        information: Kullback-Leibler divergence of the posterior from the prior, in nats.
        num_iterations: of each run.
        points: all that were met, where they were asked for.
    """

    log_evidence: np.ndarray
    std_error: np.ndarray
    information: np.ndarray
    num_iterations: np.ndarray
    points: NestedPoints | None


class _Carry(NamedTuple):
    """State of a run; points are numbered as they are made, `numbers` being those of the live ones.

    `log_share` is that of the prior where it starts, with its relative variance; see `Start`.
    """

    state: Any
    is_done: jax.Array
    numbers: jax.Array
    log_share: jax.Array
    share_variance: jax.Array


class _Dead(NamedTuple):
    """Points deleted by an iteration, and whose copies the new ones started as; () where points are not kept."""

    log_likelihood: Any
    counts: Any
    positions: Any
    numbers: Any
    parents: Any


def _to_save(carry: _Carry, chunks: list[_Dead]) -> dict[str, Any]:
    return {"carry": carry, "dead": _join(chunks)}


def _join(chunks: list[_Dead]) -> _Dead:
    return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)


@partial(jit_outermost, static_argnums=0)
def _begin(method: NestedSampling, posterior: PowerPosterior, keys: jax.Array, start: Start) -> _Carry:
    def begin(key: jax.Array, datum: Any, position: Position, log_share: jax.Array, variance: jax.Array) -> _Carry:
        points = Labelled(position, jax.random.normal(jax.random.fold_in(key, 2), (method.num_live,)))
        state = _sampler(method, posterior.target(datum), points).init(points)
        return _Carry(state, jnp.array(False), jnp.arange(method.num_live), log_share, variance)

    given = (start.particles.position, start.log_share, start.share_variance)
    return over_problems(begin, posterior, keys, *given)


def _sampler(method: NestedSampling, target: Target, points: Labelled) -> Any:
    num_coordinates = ravel_pytree(jax.tree.map(lambda x: x[0], points.position))[0].size
    return nested_sampler(target, method.num_slice_steps, method.num_delete, num_coordinates)


@jax.jit
def _evaluate(posterior: PowerPosterior, positions: Position) -> tuple[jax.Array, jax.Array]:
    """Log-prior and log-likelihood at positions (C, S, N, ...)."""

    def evaluate(datum: tuple[jax.Array, ...], position: Position) -> tuple[jax.Array, jax.Array]:
        target = posterior.target(datum)
        return target.log_prior(position), target.log_likelihood(position)

    over_data = jax.vmap(evaluate)
    over_draws = jax.vmap(over_data, in_axes=(None, 0))
    return jax.vmap(over_draws, in_axes=(None, 0))(posterior.rows, positions)


@partial(jit_outermost, static_argnums=(0, 1))
def _advance(
    method: NestedSampling,
    keep_points: bool,
    posterior: PowerPosterior,
    keys: jax.Array,
    carry: _Carry,
    first: jax.Array,
) -> tuple[_Carry, _Dead]:
    """A chunk of iterations; also what died, arrays (chunk, C, N, deleted, ...)."""

    def advance(key: jax.Array, datum: Any, carry: _Carry, number: jax.Array) -> tuple[_Carry, _Dead]:
        target = posterior.target(datum)
        step_key = jax.random.fold_in(jax.random.fold_in(key, 1), number)
        state, info = _sampler(method, target, carry.state.particles.position).step(step_key, carry.state)
        left = state.integrator.logZ_live - state.integrator.logZ
        is_done = (left < jnp.log(method.remaining)) & (state.integrator.logZ > IMPOSSIBLE / 2)
        # As BlackJAX finds them.
        deleted = lax.top_k(-carry.state.particles.loglikelihood, method.num_delete)[1]
        made = method.num_live + number * method.num_delete + jnp.arange(method.num_delete)
        numbers = carry.numbers.at[deleted].set(made.astype(carry.numbers.dtype))
        new = carry._replace(state=state, is_done=is_done, numbers=numbers)
        kept = (info.particles.position.position, carry.numbers[deleted], carry.numbers[info.update_info])
        dead = _Dead(info.particles.loglikelihood, ~carry.is_done, *(kept if keep_points else ((), (), ())))
        return jax.tree.map(partial(jnp.where, carry.is_done), carry, new), dead

    def step(carry: _Carry, number: jax.Array) -> tuple[_Carry, _Dead]:
        return over_problems(lambda key, datum, carry: advance(key, datum, carry, number), posterior, keys, carry)

    return lax.scan(step, carry, first + jnp.arange(_CHUNK))
