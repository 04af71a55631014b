"""Nested sampling, by BlackJAX's nested slice sampler, of all chains and data at once."""

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

from kaem_ppl.compilation import jit_outermost

from ..model.coordinates import Coordinates, Unconstrained
from ..model.power_posterior import Position, PowerPosterior, Target
from ..sampling.batching import over_problems, shard_like
from ..sampling.checks import check_likelihood
from ..sampling.sampler import problem_keys

# Labels are uniform on (-1/2, 1/2) and add this many nats for a unit; the mean of exp(c u) is sinh(c / 2) / (c / 2).
_NATS_OF_LABEL = 0.1
_LABELS_LOG_EVIDENCE = float(np.log(np.sinh(_NATS_OF_LABEL / 2) / (_NATS_OF_LABEL / 2)))
# Stands for the logarithm of 0; with a label, between this and twice this.
_IMPOSSIBLE = -1e30
# Iterations of a compiled chunk, and shrinkages of the prior mass that are simulated for the standard error.
_CHUNK, _NUM_SIMULATIONS = 10, 200
_MOST_IMPOSSIBLE = 200


@dataclass(frozen=True)
class NestedSampling:
    """Live points climb the likelihood, each iteration replacing the lowest tenth (Skilling 2006).

    The points move by slice sampling along directions of the live points' covariance (Yallup, Kroupa and Handley 2026).
    It reads no gradient and no ladder, and is a second opinion: best in up to a few tens of dimensions.

    Points of equal likelihood have no order, without which the shrinkage of the prior mass is not known (Fowlie, Handley
    and Su 2020). So each point has a label, one more coordinate with a prior of its own, that adds up to a tenth of a nat
    to its log-likelihood: then no two are equal, the theory holds as it stands, and what the labels add to the evidence
    is known and taken off. Where the likelihood is 0, labels alone order the points.

    Attributes:
        num_live: live points of each chain and datum.
        num_slice_steps: slice moves that make a replacement; None takes three times the number of coordinates, at least 5.
        remaining: the run ends when live points can add this share of the evidence.

    Raises:
        ValueError: a setting is out of its range.
    """

    coordinates: ClassVar[Coordinates] = Unconstrained()
    blind_to: ClassVar[str] = "a mode that no live point was near when the others left its likelihood behind"
    num_live: int = 500
    num_slice_steps: int | None = None
    remaining: float = 1e-3

    def __post_init__(self) -> None:
        if self.num_live < 20:
            raise ValueError(f"`num_live` must be at least 20, got {self.num_live}.")
        if self.num_slice_steps is not None and self.num_slice_steps < 1:
            raise ValueError(f"`num_slice_steps` must be at least 1, got {self.num_slice_steps}.")
        if not 0 < self.remaining < 1:
            raise ValueError(f"`remaining` is a share of the evidence, between 0 and 1, got {self.remaining}.")

    @property
    def num_delete(self) -> int:
        """Points replaced in an iteration."""
        return self.num_live // 10

    def run(self, key: jax.Array, posterior: PowerPosterior, *, num_chains: int, progress_bar: bool) -> "NestedRun":
        """Run every chain of every datum until little evidence remains.

        Raises:
            ValueError: for some chain and datum the likelihood is 0 at all points met.
        """
        keys = problem_keys(key, num_chains, posterior.num_data)
        carry = _begin(self, posterior, keys)
        carry = shard_like(carry.state.particles.loglikelihood, carry)
        chunks, bar = [], _bar(progress_bar)
        while not np.all(carry.is_done):
            carry, dead = _advance(self, posterior, keys, carry, len(chunks) * _CHUNK)
            chunks.append(jax.device_get(dead))
            if bar is not None:
                bar.update(_CHUNK)
                bar.set_postfix(done=f"{np.mean(carry.is_done):.0%}")
        if bar is not None:
            bar.close()
        # (iterations, C, N, deleted) and which of them were before the end.
        dead, counts = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        live = np.asarray(carry.state.particles.loglikelihood, float)
        value, std_error, information = (np.zeros(live.shape[:2]) for _ in range(3))
        for chain, datum in np.ndindex(*live.shape[:2]):
            died = dead[counts[:, chain, datum], chain, datum].ravel().astype(float)
            rng = np.random.default_rng([chain, datum])
            numbers = integrate(rng, died, live[chain, datum], self.num_delete)
            value[chain, datum], std_error[chain, datum], information[chain, datum] = numbers
        check_likelihood(value > _IMPOSSIBLE / 2, self.num_live, posterior)
        return NestedRun(value - _LABELS_LOG_EVIDENCE, std_error, information, counts.sum(0))


class NestedRun(NamedTuple):
    """What runs of C chains and N data found, arrays (C, N).

    Attributes:
        log_evidence: in nats.
        std_error: of it, from the unknown shrinkage of the prior mass.
        information: Kullback-Leibler divergence of the posterior from the prior, in nats.
        num_iterations: of each run.
    """

    log_evidence: np.ndarray
    std_error: np.ndarray
    information: np.ndarray
    num_iterations: np.ndarray


def integrate(
    rng: np.random.Generator, dead: np.ndarray, live: np.ndarray, num_delete: int
) -> tuple[float, float, float]:
    """Log-evidence, its standard error and the information from the likelihoods met on the way.

    The prior mass above the i-th likelihood is a product of beta variates, X_i = X_{i-1} u^(1/n_i), n_i the points that
    were alive (Skilling 2006, sec. 5). Points that are deleted together are taken one by one, from n points down. The
    evidence is the trapezoidal sum of L over X, its law simulated.

    Args:
        rng: of the simulated shrinkages.
        dead: log-likelihoods of the points deleted, shape (iterations * num_delete,).
        live: of those alive at the end, shape (n,).
        num_delete: points deleted together.
    """
    num_live = len(live)
    alive = np.concatenate(
        [np.tile(num_live - np.arange(num_delete), len(dead) // num_delete), np.arange(num_live, 0, -1)]
    )
    l = np.concatenate([np.sort(dead), np.sort(live)])[:, None]
    log_x = np.cumsum(np.log(rng.uniform(size=(len(l), _NUM_SIMULATIONS))) / alive[:, None], axis=0)
    before = np.vstack([np.zeros_like(log_x[:1]), log_x[:-1]])
    after = np.vstack([log_x[1:], np.full_like(log_x[:1], -np.inf)])
    log_weights = before + np.log(-np.expm1(after - before)) - np.log(2) + l
    log_z = np.logaddexp.reduce(log_weights, axis=0)
    posterior = np.exp(log_weights - log_z)
    finite = np.where(np.isfinite(l), l, 0.0)
    return log_z.mean(), log_z.std(ddof=1), float(((posterior * finite).sum(0) - log_z).mean())


class _Carry(NamedTuple):
    state: Any
    is_done: jax.Array


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

    return nss.as_top_level_api(log_prior, log_likelihood, steps, method.num_delete)


def _bar(show: bool) -> Any:
    if not show:
        return None
    from tqdm import tqdm

    return tqdm(unit="iteration")


@partial(jit_outermost, static_argnums=0)
def _begin(method: NestedSampling, posterior: PowerPosterior, keys: jax.Array) -> _Carry:
    def begin(key: jax.Array, datum: Any) -> _Carry:
        target = posterior.target(datum)

        def draw(number: jax.Array) -> _Labelled:
            draw_key, label_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 0), number))
            return _Labelled(target.draw(draw_key), jax.random.normal(label_key))

        points = jax.vmap(draw)(jnp.arange(method.num_live))
        return _Carry(_algorithm(method, target, _num_coordinates(points)).init(points), jnp.array(False))

    return over_problems(begin, posterior, keys)


def _num_coordinates(points: _Labelled) -> int:
    return ravel_pytree(jax.tree.map(lambda x: x[0], points.position))[0].size


@partial(jit_outermost, static_argnums=0)
def _advance(
    method: NestedSampling, posterior: PowerPosterior, keys: jax.Array, carry: _Carry, first: jax.Array
) -> tuple[_Carry, tuple[jax.Array, jax.Array]]:
    """A chunk of iterations; also the log-likelihoods of the dead, (chunk, C, N, deleted), and whether they count."""

    def advance(
        key: jax.Array, datum: Any, carry: _Carry, number: jax.Array
    ) -> tuple[_Carry, tuple[jax.Array, jax.Array]]:
        target = posterior.target(datum)
        size = _num_coordinates(carry.state.particles.position)
        step_key = jax.random.fold_in(jax.random.fold_in(key, 1), number)
        state, info = _algorithm(method, target, size).step(step_key, carry.state)
        left = state.integrator.logZ_live - state.integrator.logZ
        is_done = (left < jnp.log(method.remaining)) & (state.integrator.logZ > _IMPOSSIBLE / 2)
        # Where all points met are impossible, this many iterations leave a share of 1e-9 of the prior.
        is_done |= (number > _MOST_IMPOSSIBLE) & (state.integrator.logZ_live < _IMPOSSIBLE / 2)
        counts = ~carry.is_done
        new = jax.tree.map(partial(jnp.where, carry.is_done), carry, _Carry(state, is_done))
        return new, (info.particles.loglikelihood, counts)

    def step(carry: _Carry, number: jax.Array) -> tuple[_Carry, tuple[jax.Array, jax.Array]]:
        return over_problems(lambda key, datum, carry: advance(key, datum, carry, number), posterior, keys, carry)

    return lax.scan(step, carry, first + jnp.arange(_CHUNK))
