"""The particle populations of SMC: reweight, resample, move, and the number of moves."""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc.ess import ess_solver, log_ess
from blackjax.smc.resampling import systematic
from blackjax.smc.solver import dichotomy
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp

from kaem_ppl.compilation import jit_outermost

from ..kernels.adaptation import factor_covariance
from ..kernels.kernel import ChainState, Tuning
from ..model.power_posterior import Position, PowerPosterior
from ..sampling.batching import map_particles, over_problems, shard_like
from ..sampling.run import Run
from .decorrelation import compare, has_settled
from .rare_likelihood import Start, start_where_possible

if TYPE_CHECKING:
    from .tempered_smc import TemperedSMC

# Where half of the likelihoods are 0, or differ without bound, no step keeps the effective size: go on by this factor.
_LEAST_GROWTH, _LEAST_TEMPERATURE = 1.01, 1e-8
# Moves of a stage end when no coordinate, nor the log-likelihood, is correlated more than this with itself at the start.
LARGEST_CORRELATION = 0.2
# Or when twice the moves, at least four, lower its logarithm by less than this factor, which is 2 for slow moves.
_PLATEAU, _PLATEAU_OF_FOLLOWERS, _FEWEST_MOVES_OF_PLATEAU = 1.6, 1.85, 4
# Share of particles that must have moved at all.
_LEAST_MOVED = 0.5
_POWER_ITERATIONS = 10


class Stages(NamedTuple):
    """What happened at each of K temperatures above 0, arrays (C, N, K, ...).

    Attributes:
        temperature: of the stage, 1 where a population was done before.
        acceptance_rate: mean over particles and moves.
        correlation: the largest that was left, of any coordinate or the log-likelihood with itself before the moves.
        num_moves: of each particle, the same for all populations.
        tuning: of the kernel, after the stage's moves.
    """

    temperature: jax.Array
    acceptance_rate: jax.Array
    correlation: jax.Array
    num_moves: jax.Array
    tuning: Tuning


class Population(NamedTuple):
    """P particles of one chain of one datum.

    Attributes:
        particles: states of the kernel, arrays (P, ...).
        ancestors: which draw of the prior each descends from, shape (P,).
        temperature: which they follow.
        tuning: of the kernel.
        log_evidence: estimate so far.
        start_variance: relative variance of the evidence from the start.
        smallest_ess: of the incremental weights of any stage.
        num_stages: so far.
        is_done: whether the posterior is reached. What is done stays, however long others take.
    """

    particles: ChainState
    ancestors: jax.Array
    temperature: jax.Array
    tuning: Tuning
    log_evidence: jax.Array
    start_variance: jax.Array
    smallest_ess: jax.Array
    num_stages: jax.Array
    is_done: jax.Array


def run_populations(
    sampler: "TemperedSMC",
    posterior: PowerPosterior,
    keys: jax.Array,
    run: Run,
    schedule: Stages | None = None,
    *,
    name: str = "populations",
) -> tuple[Population, Stages]:
    """Carry populations, one for each of the keys (C, N), from the prior to the posterior.

    Args:
        sampler: settings.
        posterior: in the kernel's coordinates.
        keys: of the populations.
        run: shows progress, and keeps the populations after every temperature where a state is to be kept.
        schedule: stages of another run of one chain, (1, N, K), whose temperatures, moves and tuning to use. Without one a
            population chooses its own from its particles, which biases its evidence by a term of order 1 / P; with one
            the evidence is unbiased.
        name: of these populations among what is kept.

    Returns:
        The last populations, and what happened on the way.

    Raises:
        ValueError: the likelihood of some datum is 0 at every one of many prior draws.
    """
    saved = run.load(name)
    if saved is not None:
        populations = jax.tree.map(jnp.asarray, saved["populations"])
        stages, number = list(saved["stages"]), int(saved["number"])
        run.progress.say(f"{name}: {len(stages)} temperatures were done before the stop")
    else:
        run.progress.begin(f"compiling the start of {name}")
        start = start_where_possible(sampler.kernel, sampler.num_particles, posterior, keys)
        populations, stages, number = _begin(sampler, start), [], 0
        populations = shard_like(populations.particles.log_likelihood, populations)
        if start.is_repeated:
            populations, *_, number = _move(sampler, posterior, keys, populations, number, schedule is None, None)
    run.progress.begin(f"compiling the moves of {name}", 1.0, "temperature")
    # Stages are counted on the host: how many there are is not known, and a convolution must not stand in a loop.
    while not np.all(populations.is_done):
        stage = len(stages)
        fixed = 0.0 if sampler.ladder is None else sampler.ladder.temperatures[stage + 1]
        if schedule is None:
            given, num_moves = (populations.temperature, populations.tuning), None
        else:
            given = jax.tree.map(lambda x, stage=stage: x[0, :, stage], (schedule.temperature, schedule.tuning))
            given = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(keys), *x.shape)), given)
            num_moves = int(schedule.num_moves[..., stage].max())
        # One program for both kinds of run: whether there is a schedule is a value.
        populations = _reweight(sampler, posterior, keys, populations, stage, fixed, schedule is not None, given)
        moved = _move(sampler, posterior, keys, populations, number, schedule is None, num_moves)
        populations, rate, correlation, moves, number = moved
        populations = _finish_stage(populations)
        num_moves_of_each = jnp.full(keys.shape, moves, jnp.int32)
        stages.append(Stages(populations.temperature, rate, correlation, num_moves_of_each, populations.tuning))
        run.save(name, partial(_to_save, populations, stages, number))
        if run.is_watched:
            temperature, acceptance = float(jnp.min(populations.temperature)), float(jnp.mean(rate))
            figures = {"stage": len(stages), "moves": moves, "acceptance": acceptance}
            run.report(f"moving {name}", temperature, 1.0, figures)
    # On the host: on the device every number of stages would be a program of its own.
    return populations, jax.tree.map(lambda *x: np.stack(x, axis=2), *jax.device_get(stages))


def _move(
    sampler: "TemperedSMC",
    posterior: PowerPosterior,
    keys: jax.Array,
    populations: Population,
    number: int,
    adapts: bool,
    num_moves: int | None,
) -> tuple[Population, jax.Array, jax.Array, int, int]:
    """Move all particles, `num_moves` times or until they have decorrelated; also acceptance, correlation and counts."""
    before = populations.particles
    fixed = num_moves if num_moves is not None else sampler.num_mutation_steps
    most = fixed if fixed is not None else sampler.max_mutation_steps
    rates, earlier = [], None
    left = np.ones((*keys.shape, 1))
    while len(rates) < most:
        populations, rate = _mutate(sampler, posterior, keys, populations, number + len(rates), adapts)
        rates.append(rate)
        number_of_moves = len(rates)
        if fixed is None or number_of_moves == fixed or number_of_moves.bit_count() == 1:
            distance, has_moved = (
                np.asarray(x, float) for x in compare(before, populations.particles, populations.is_done)
            )
            correlation, is_power_of_two = 1 - distance, number_of_moves.bit_count() == 1
            is_enough = correlation <= LARGEST_CORRELATION
            if number_of_moves >= 2 * _FEWEST_MOVES_OF_PLATEAU and is_power_of_two and earlier is not None:
                # A run that follows a schedule moves as often as its pilot had to: its limit is looser.
                is_enough |= has_settled(earlier, distance, _PLATEAU if fixed is None else _PLATEAU_OF_FOLLOWERS)
            if is_power_of_two:
                earlier = distance
            left = np.where(is_enough, np.minimum(correlation, LARGEST_CORRELATION), correlation)
            left = np.where(has_moved[..., None] < _LEAST_MOVED, 1.0, left)
            if fixed is None and is_enough.all():
                break
    return populations, jnp.stack(rates).mean(0), jnp.asarray(left.max(-1)), len(rates), number + len(rates)


def _to_save(populations: Population, stages: list[Stages], number: int) -> dict[str, Any]:
    return {"populations": populations, "stages": stages, "number": number}


@partial(jit_outermost, static_argnums=0)
def _begin(sampler: "TemperedSMC", start: Start) -> Population:
    def begin(particles: ChainState, ancestors: jax.Array, log_share: jax.Array, variance: jax.Array) -> Population:
        one = jax.tree.map(lambda x: x[0], particles.position)
        zero = jnp.zeros((), particles.log_likelihood.dtype)
        return Population(
            particles,
            ancestors,
            zero,
            sampler.kernel.default_tuning(one),
            log_share.astype(zero.dtype),
            variance.astype(zero.dtype),
            zero + sampler.num_particles,
            jnp.zeros((), jnp.int32),
            jnp.array(False),
        )

    return jax.vmap(jax.vmap(begin))(start.particles, start.ancestors, start.log_share, start.share_variance)


@partial(jit_outermost, static_argnums=0)
def _reweight(
    sampler: "TemperedSMC",
    posterior: PowerPosterior,
    keys: jax.Array,
    populations: Population,
    stage: jax.Array,
    fixed: jax.Array,
    is_scheduled: jax.Array,
    scheduled: tuple[jax.Array, Tuning],
) -> Population:
    """Choose the next temperature, weigh the particles for it and resample them; or take what is scheduled."""

    def reweight(key: jax.Array, datum: Any, population: Population, scheduled: tuple[jax.Array, Tuning]) -> Population:
        log_likelihood, temperature = population.particles.log_likelihood, population.temperature
        # A particle whose gradient is undefined could not be moved.
        movable = jax.vmap(lambda particle: particle.is_finite())(population.particles)
        log_likelihood = jnp.where(movable, log_likelihood, -jnp.inf)
        if sampler.ladder is None:
            new_temperature = _next_temperature(sampler.target_ess, log_likelihood, temperature)
        else:
            new_temperature = jnp.asarray(fixed, temperature.dtype)
        new_temperature = jnp.where(is_scheduled, scheduled[0], new_temperature)
        step = new_temperature - temperature
        log_weights = jnp.where(jnp.isfinite(log_likelihood), step * log_likelihood, -jnp.inf)
        total = logsumexp(log_weights)
        weights = jnp.where(jnp.isfinite(total), jnp.exp(log_weights - total), 1 / sampler.num_particles)
        chosen = systematic(jax.random.fold_in(jax.random.fold_in(key, 1), stage), weights, sampler.num_particles)
        particles = jax.tree.map(lambda x: x[chosen], population.particles)
        tuning = population.tuning
        if sampler.kernel.adapts and sampler.kernel.adapts_metric:
            tuning = _measure(tuning, particles.position)
        tuning = jax.tree.map(partial(jnp.where, is_scheduled), scheduled[1], tuning)
        new = population._replace(
            particles=particles,
            ancestors=population.ancestors[chosen],
            temperature=new_temperature,
            tuning=tuning,
            log_evidence=population.log_evidence + total - jnp.log(sampler.num_particles),
            smallest_ess=jnp.minimum(population.smallest_ess, jnp.exp(log_ess(log_weights))),
            num_stages=population.num_stages + 1,
        )
        return _keep_if_done(population, new)

    return over_problems(reweight, posterior, keys, populations, scheduled)


def _measure(tuning: Tuning, positions: Position) -> Tuning:
    """Scale, and variance along the longest direction, of the particles."""
    flat = jax.vmap(lambda position: ravel_pytree(position)[0])(positions)
    number = len(flat)
    if tuning.scale.ndim == 2:
        covariance = jnp.cov(flat, rowvar=False).reshape(tuning.scale.shape)
        return tuning._replace(scale=factor_covariance(covariance, number))
    # Shrunk as Stan does, so that a population of one ancestor leaves some mass.
    share = number / (number + 5)
    scale = jnp.sqrt(share * flat.var(0) + (1 - share) * 1e-3)
    standardised = (flat - flat.mean(0)) / scale

    def iterate(_: int, direction: jax.Array) -> jax.Array:
        direction = standardised.T @ (standardised @ direction)
        return direction / jnp.maximum(jnp.linalg.norm(direction), jnp.finfo(direction.dtype).tiny)

    direction = jax.lax.fori_loop(0, _POWER_ITERATIONS, iterate, jnp.ones_like(scale))
    variance = jnp.mean(jnp.square(standardised @ direction))
    return tuning._replace(scale=scale, longest=jnp.clip(variance, 1.0, scale.size))


def _next_temperature(target_ess: float, log_likelihood: jax.Array, temperature: jax.Array) -> jax.Array:
    """Where the effective size of the incremental weights falls to the target."""
    finite = jnp.nan_to_num(log_likelihood, neginf=jnp.finfo(log_likelihood.dtype).min / 4)
    most = 1 - temperature
    step = jnp.clip(ess_solver(lambda l: l, finite, target_ess, most, dichotomy), 0.0, most)
    least = jnp.maximum(_LEAST_GROWTH * temperature, _LEAST_TEMPERATURE)
    return jnp.minimum(jnp.maximum(temperature + step, least), 1.0)


@partial(jit_outermost, static_argnums=0)
def _mutate(
    sampler: "TemperedSMC",
    posterior: PowerPosterior,
    keys: jax.Array,
    populations: Population,
    number: jax.Array,
    adapts: jax.Array,
) -> tuple[Population, jax.Array]:
    """Move every particle once at its population's temperature; also returns mean acceptances, (C, N)."""
    kernel = sampler.kernel

    def mutate(key: jax.Array, datum: Any, population: Population) -> tuple[Population, jax.Array]:
        target = posterior.target(datum)
        key = jax.random.fold_in(jax.random.fold_in(key, 2), number)
        # Above 0 everywhere, so that no particle moves to where the likelihood is 0.
        temperature = jnp.maximum(population.temperature, jnp.finfo(population.temperature.dtype).tiny)

        def move(particle: jax.Array, state: ChainState) -> tuple[ChainState, dict[str, jax.Array]]:
            particle_key = jax.random.fold_in(key, particle)
            return kernel.step(particle_key, state, target, temperature, population.tuning)

        numbers = jnp.arange(sampler.num_particles)
        particles, info = map_particles(move, posterior, keys.size, numbers, population.particles)
        acceptance = jnp.mean(jnp.nan_to_num(info["acceptance_rate"]))
        tuning = population.tuning
        if kernel.adapts:
            # All particles together measure the acceptance well: follow it at once.
            target_acceptance = kernel.target_acceptance
            assert target_acceptance is not None, "a kernel that adapts has an acceptance to aim at"
            change = jnp.where(adapts, jnp.exp(acceptance - target_acceptance), 1.0)
            tuning = tuning._replace(step_size=tuning.step_size * change)
        return _keep_if_done(population, population._replace(particles=particles, tuning=tuning)), acceptance

    return over_problems(mutate, posterior, keys, populations)


def _keep_if_done(old: Population, new: Population) -> Population:
    return jax.tree.map(partial(jnp.where, old.is_done), old, new)


@jax.jit
def _finish_stage(populations: Population) -> Population:
    return populations._replace(is_done=populations.temperature >= 1)
