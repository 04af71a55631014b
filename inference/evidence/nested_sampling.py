"""Nested sampling, by BlackJAX's nested slice sampler, of all chains and data at once."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.ns import nss
from jax import lax
from jax.flatten_util import ravel_pytree

from kaem_ppl.compilation import jit_outermost

from ..model.coordinates import Coordinates, Unconstrained
from ..model.power_posterior import PowerPosterior
from ..sampling.chains import over_problems, split_as
from ..sampling.sampler import problem_keys

# Iterations of a compiled chunk, and shrinkages of the prior mass that are simulated for the standard error.
_CHUNK, _NUM_SIMULATIONS = 10, 200


@dataclass(frozen=True)
class NestedSampling:
    """Live points climb the likelihood, each iteration replacing the lowest tenth (Skilling 2006).

    The points move by slice sampling along directions of the live points' covariance (Yallup, Kroupa and Handley 2026).
    It reads no gradient and no ladder, and is a second opinion: best in up to a few tens of dimensions.

    Attributes:
        num_live: live points of each chain and datum.
        num_slice_steps: slice moves that make a replacement; None takes three times the number of coordinates, at least 5.
        remaining: the run ends when live points can add this share of the evidence.

    Raises:
        ValueError: a setting is out of its range.
    """

    coordinates: ClassVar[Coordinates] = Unconstrained()
    num_live: int = 500
    num_slice_steps: int | None = None
    remaining: float = 1e-3

    def __post_init__(self):
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
            ValueError: for some chain and datum the likelihood is 0 at all live points.
        """
        keys = problem_keys(key, num_chains, posterior.num_data)
        carry = _begin(self, posterior, keys)
        carry = split_as(carry.state.particles.loglikelihood, carry)
        plateau = np.isneginf(np.asarray(carry.state.particles.loglikelihood)).mean(-1)
        check_likelihood(plateau < 1, self.num_live, posterior)
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
        value, std_error, information = np.zeros((3, *live.shape[:2]))
        for chain, datum in np.ndindex(*live.shape[:2]):
            died = dead[counts[:, chain, datum], chain, datum].ravel().astype(float)
            rng = np.random.default_rng([chain, datum])
            numbers = integrate(rng, died, live[chain, datum], self.num_delete)
            value[chain, datum], std_error[chain, datum], information[chain, datum] = numbers
        return NestedRun(value, std_error, information, counts.sum(0), plateau)


class NestedRun(NamedTuple):
    """What runs of C chains and N data found, arrays (C, N).

    Attributes:
        log_evidence: in nats.
        std_error: of it, from the unknown shrinkage of the prior mass.
        information: Kullback-Leibler divergence of the posterior from the prior, in nats.
        num_iterations: of each run.
        plateau: share of the first live points whose likelihood is 0; their order is arbitrary, which the theory of the
            shrinkage does not cover.
    """

    log_evidence: np.ndarray
    std_error: np.ndarray
    information: np.ndarray
    num_iterations: np.ndarray
    plateau: np.ndarray


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


def check_likelihood(is_good: np.ndarray, num_draws: int, posterior: PowerPosterior) -> None:
    """Refuse data whose likelihood is 0 at every draw of the prior.

    Args:
        is_good: whether it is not, shape (C, N).
        num_draws: draws that were made, for the message.
        posterior: the model.

    Raises:
        ValueError: it is.
    """
    bad = np.flatnonzero(~is_good.all(0))
    if len(bad):
        which = (
            "" if posterior.plate is None else f" for data {bad[:10].tolist()}{' and others' if len(bad) > 10 else ''}"
        )
        raise ValueError(
            f"The likelihood is 0 at every one of {num_draws} prior draws{which}. Check that the arguments hold no NaN and "
            "lie in the likelihood's support; if the prior is only far too wide, narrow it."
        )


class _Carry(NamedTuple):
    state: nss.NSState
    is_done: jax.Array


def _algorithm(method, target, num_coordinates):
    steps = method.num_slice_steps or max(5, 3 * num_coordinates)

    def log_prior(position):
        value = target.log_prior(position)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    return nss.as_top_level_api(log_prior, target.log_likelihood, steps, method.num_delete)


def _bar(show):
    if not show:
        return None
    from tqdm import tqdm

    return tqdm(unit="iteration")


@partial(jit_outermost, static_argnums=0)
def _begin(method, posterior, keys):
    def begin(key, datum):
        target = posterior.target(datum)
        numbers = jnp.arange(method.num_live)
        positions = jax.vmap(lambda i: target.draw(jax.random.fold_in(jax.random.fold_in(key, 0), i)))(numbers)
        size = ravel_pytree(jax.tree.map(lambda x: x[0], positions))[0].size
        return _Carry(_algorithm(method, target, size).init(positions), jnp.array(False))

    return over_problems(begin, posterior, keys)


@partial(jit_outermost, static_argnums=0)
def _advance(method, posterior, keys, carry, first):
    """A chunk of iterations; also the log-likelihoods of the dead, (chunk, C, N, deleted), and whether they count."""

    def advance(key, datum, carry, number):
        target = posterior.target(datum)
        size = ravel_pytree(jax.tree.map(lambda x: x[0], carry.state.particles.position))[0].size
        step_key = jax.random.fold_in(jax.random.fold_in(key, 1), number)
        state, info = _algorithm(method, target, size).step(step_key, carry.state)
        new = _Carry(state, state.integrator.logZ_live - state.integrator.logZ < jnp.log(method.remaining))
        counts = ~carry.is_done
        carry = jax.tree.map(partial(jnp.where, carry.is_done), carry, new)
        return carry, (info.particles.loglikelihood, counts)

    def step(carry, number):
        return over_problems(lambda key, datum, carry: advance(key, datum, carry, number), posterior, keys, carry)

    return lax.scan(step, carry, first + jnp.arange(_CHUNK))
