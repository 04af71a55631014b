"""Nested sampling, by BlackJAX's nested slice sampler, of all chains and data at once."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.ns import nss
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.scipy.special import ndtr

from kaem_ppl.arguments import set_counts, set_number
from kaem_ppl.compilation import jit_outermost

from ..model.coordinates import Coordinates, Unconstrained
from ..model.power_posterior import Position, PowerPosterior, Target
from ..sampling.batching import over_problems, shard_like
from ..sampling.checks import check_likelihood, check_prior
from ..sampling.run import Run
from ..sampling.sampler import Sampler, SamplerOutput, problem_keys
from .nested_draws import NestedPoints, integrate, resample

# Labels are uniform on (-1/2, 1/2) and add this many nats for a unit; the mean of exp(c u) is sinh(c / 2) / (c / 2).
_NATS_OF_LABEL = 0.1
_LABELS_LOG_EVIDENCE = float(np.log(np.sinh(_NATS_OF_LABEL / 2) / (_NATS_OF_LABEL / 2)))
# Stands for the logarithm of 0; with a label, between this and twice this.
_IMPOSSIBLE = -1e30
# Iterations of a compiled chunk.
_CHUNK = 10
_MOST_IMPOSSIBLE = 200


@dataclass(frozen=True)
class NestedSampling(Sampler):
    """Live points climb the likelihood, each iteration replacing the lowest tenth (Skilling 2006).

    The points move by slice sampling along directions of the live points' covariance (Yallup, Kroupa and Handley 2026).
    It reads no gradient and no ladder, and is a second opinion: best in up to a few tens of dimensions.

    Points of equal likelihood have no order, without which the shrinkage of the prior mass is not known (Fowlie, Handley
    and Su 2020). So each point has a label, one more coordinate with a prior of its own, that adds up to a tenth of a nat
    to its log-likelihood: then no two are equal, the theory holds as it stands, and what the labels add to the evidence
    is known and taken off. Where the likelihood is 0, labels alone order the points.

    Draws from the posterior are the points met on the way, resampled by their weights, which are means over the simulated
    shrinkage of the prior mass. Points that descend from each other stand next to each other, copies of one first of all,
    so that what they have in common appears as autocorrelation, and ArviZ's effective sizes count it. The summary has
    `effective_sample_size` of the weights, `log_evidence` with its standard error, `information` and `num_iterations`.

    Attributes:
        num_live: live points of each chain and datum.
        num_slice_steps: slice moves that make a replacement; None takes three times the number of coordinates, at least 5.
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
            ValueError: for some chain and datum the likelihood is 0 at all points met.
        """
        keys = problem_keys(key, num_chains, posterior.num_data)
        saved = run.load("live_points")
        run.progress.begin("compiling the moves of live points", unit="iteration")
        if saved is None:
            carry, chunks = _begin(self, posterior, keys), []
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
        check_likelihood(value > _IMPOSSIBLE / 2, self.num_live, posterior)
        points = None
        if keep_points:
            live_positions = jax.device_get(carry.state.particles.position.position)
            genealogy = (dead.numbers, np.asarray(carry.numbers), dead.parents)
            points = NestedPoints(weights, dead.positions, live_positions, dead.counts, *genealogy)
        return NestedRun(value - _LABELS_LOG_EVIDENCE, std_error, information, dead.counts.sum(0), points)


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
    """State of a run; points are numbered as they are made, `numbers` being those of the live ones."""

    state: Any
    is_done: jax.Array
    numbers: jax.Array


class _Dead(NamedTuple):
    """Points deleted by an iteration, and whose copies the new ones started as; () where points are not kept."""

    log_likelihood: Any
    counts: Any
    positions: Any
    numbers: Any
    parents: Any


class _Labelled(NamedTuple):
    """A position, and a standard normal number whose normal probability is the label."""

    position: Position
    label: jax.Array


def _algorithm(method: NestedSampling, target: Target, num_coordinates: int) -> Any:
    steps = method.num_slice_steps or max(5, 3 * num_coordinates)

    def log_prior(labelled: _Labelled) -> jax.Array:
        value = target.log_prior(labelled.position) - 0.5 * jnp.square(labelled.label)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def log_likelihood(labelled: _Labelled) -> jax.Array:
        value = target.log_likelihood(labelled.position)
        label = ndtr(labelled.label) - 0.5
        return jnp.where(value > _IMPOSSIBLE, value + _NATS_OF_LABEL * label, _IMPOSSIBLE * (1.5 - label))

    return nss.as_top_level_api(
        log_prior, log_likelihood, steps, method.num_delete, proposal=_along_differences,
        inner_kernel_params=_live_points, update_strategy=_replace_deleted,
    )  # fmt: skip


def _live_points(key: jax.Array, state: Any, info: Any, params: Any = None) -> dict[str, jax.Array]:
    return {"points": jax.vmap(lambda point: ravel_pytree(point)[0])(state.particles.position)}


def _along_differences(make_state: Callable[..., Any], loglikelihood_0: jax.Array, points: jax.Array) -> Any:
    """Slices along differences of two live points, for BlackJAX (ter Braak 2006, of differential evolution).

    Of two points in one mode they have twice the covariance of that mode, whatever the distance of the modes; along the
    covariance of all points every direction is one from mode to mode, and within a mode points hardly move.
    """
    num_live, dimension = points.shape
    # The length that BlackJAX gives directions of the covariance: two standard deviations.
    scale = 2 / np.sqrt(2 * dimension)

    def propose(key: jax.Array, position: Any, _: Any) -> Callable[[jax.Array], tuple[Any, jax.Array]]:
        first_key, second_key = jax.random.split(key)
        first = jax.random.randint(first_key, (), 0, num_live)
        second = (first + jax.random.randint(second_key, (), 1, num_live)) % num_live
        direction = ravel_pytree(position)[1](scale * (points[first] - points[second]))

        def at(t: jax.Array) -> tuple[Any, jax.Array]:
            moved = make_state(jax.tree.map(lambda x, d: x + t * d, position, direction), loglikelihood_birth=loglikelihood_0)
            return moved, moved.loglikelihood > loglikelihood_0

        return at

    return propose


def _replace_deleted(step: Callable[..., Any], num_steps: int, num_delete: int) -> Callable[..., Any]:
    """BlackJAX's way to make new points, by moves of copies of random survivors; it says which ones these were."""

    def update(key: jax.Array, state: Any, threshold: jax.Array, **settings: Any) -> tuple[Any, jax.Array]:
        choose_key, move_key = jax.random.split(key)
        particles = state.particles
        survives = particles.loglikelihood > threshold
        weights = jnp.where(survives.any(), survives, True).astype(threshold.dtype)
        chosen = jax.random.choice(choose_key, len(weights), (num_delete,), p=weights / weights.sum())

        def move(key: jax.Array, particle: Any) -> Any:
            def body(particle: Any, key: jax.Array) -> tuple[Any, None]:
                return step(key, particle, loglikelihood_0=threshold, **settings)[0], None

            return lax.scan(body, particle, jax.random.split(key, num_steps))[0]

        starts = jax.tree.map(lambda x: x[chosen], particles)
        moved = jax.vmap(move)(jax.random.split(move_key, num_delete), starts)
        birth = jnp.full_like(moved.loglikelihood_birth, threshold)
        return moved._replace(loglikelihood_birth=birth), chosen

    return update


def _to_save(carry: _Carry, chunks: list[_Dead]) -> dict[str, Any]:
    return {"carry": carry, "dead": _join(chunks)}


def _join(chunks: list[_Dead]) -> _Dead:
    return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)


@partial(jit_outermost, static_argnums=0)
def _begin(method: NestedSampling, posterior: PowerPosterior, keys: jax.Array) -> _Carry:
    def begin(key: jax.Array, datum: Any) -> _Carry:
        target = posterior.target(datum)

        def draw(number: jax.Array) -> _Labelled:
            draw_key, label_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 0), number))
            return _Labelled(target.draw(draw_key), jax.random.normal(label_key))

        points = jax.vmap(draw)(jnp.arange(method.num_live))
        state = _algorithm(method, target, _num_coordinates(points)).init(points)
        return _Carry(state, jnp.array(False), jnp.arange(method.num_live))

    return over_problems(begin, posterior, keys)


def _num_coordinates(points: _Labelled) -> int:
    return ravel_pytree(jax.tree.map(lambda x: x[0], points.position))[0].size


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
        size = _num_coordinates(carry.state.particles.position)
        step_key = jax.random.fold_in(jax.random.fold_in(key, 1), number)
        state, info = _algorithm(method, target, size).step(step_key, carry.state)
        left = state.integrator.logZ_live - state.integrator.logZ
        is_done = (left < jnp.log(method.remaining)) & (state.integrator.logZ > _IMPOSSIBLE / 2)
        # Where all points met are impossible, this many iterations leave a share of 1e-9 of the prior.
        is_done |= (number > _MOST_IMPOSSIBLE) & (state.integrator.logZ_live < _IMPOSSIBLE / 2)
        # As BlackJAX finds them.
        deleted = lax.top_k(-carry.state.particles.loglikelihood, method.num_delete)[1]
        made = method.num_live + number * method.num_delete + jnp.arange(method.num_delete)
        new = _Carry(state, is_done, carry.numbers.at[deleted].set(made.astype(carry.numbers.dtype)))
        kept = (info.particles.position.position, carry.numbers[deleted], carry.numbers[info.update_info])
        dead = _Dead(info.particles.loglikelihood, ~carry.is_done, *(kept if keep_points else ((), (), ())))
        return jax.tree.map(partial(jnp.where, carry.is_done), carry, new), dead

    def step(carry: _Carry, number: jax.Array) -> tuple[_Carry, _Dead]:
        return over_problems(lambda key, datum, carry: advance(key, datum, carry, number), posterior, keys, carry)

    return lax.scan(step, carry, first + jnp.arange(_CHUNK))
