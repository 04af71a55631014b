"""A sequential Monte Carlo sampler that carries particles from the prior to the posterior."""

import time
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

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
from ..kernels.hamiltonian import HMC
from ..kernels.kernel import ChainState, Kernel, Tuning
from ..model.coordinates import Coordinates
from ..model.power_posterior import PowerPosterior
from ..sampling.chains import over_problems, split_as
from ..sampling.sampler import Sampler, SamplerOutput, check_prior, problem_keys
from .ladders import Ladder, check_ladder

# Where half of the likelihoods are 0, or differ without bound, no step keeps the effective size: go on by this factor.
_LEAST_GROWTH, _LEAST_TEMPERATURE = 1.01, 1e-8


@dataclass(frozen=True)
class TemperedSMC(Sampler):
    """Particles reweighted, resampled and moved along a ladder of temperatures (Del Moral, Doucet and Jasra 2006).

    Each chain of each datum is a population of its own, with its own ladder: the next temperature is the one at which the
    effective sample size of the incremental weights falls to `target_ess`, unless a `ladder` is given. The step size
    of the kernel follows its acceptance, and its mass matrix the variances of the particles. Resampling is systematic.

    `log_evidence` runs a population that adapts and then others that follow it, whose normalising constants are unbiased.
    Draws are taken from the last population. Particles of a population share ancestors, so that the effective size ArviZ
    computes from them is an upper bound; compare populations. The summary has `log_evidence`, `num_stages` and
    `temperatures`, filled up with 1.

    Attributes:
        num_particles: of each chain and datum.
        kernel: moves the particles.
        num_mutation_steps: of the kernel at each temperature.
        target_ess: fraction of the particles.
        ladder: of fixed temperatures from 0 to 1; None chooses them by `target_ess`.

    Raises:
        TypeError: `kernel` is not a kernel, or `ladder` not a ladder.
        ValueError: a setting is out of its range.
    """

    num_particles: int = 1000
    kernel: Kernel = HMC(num_integration_steps=5)  # noqa: RUF009 - a frozen value
    num_mutation_steps: int = 10
    target_ess: float = 0.5
    ladder: Ladder | None = None

    def __post_init__(self):
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"`kernel` must be a Markov kernel such as `MALA()` or `NUTS()`, got {self.kernel!r}.")
        for name in ("num_particles", "num_mutation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not 0 < self.target_ess < 1:
            raise ValueError(f"`target_ess` is a fraction of the particles, between 0 and 1, got {self.target_ess}.")
        if self.ladder is not None:
            check_ladder(self.ladder, "TemperedSMC", fixed=True, from_prior=True)

    @property
    def coordinates(self) -> Coordinates:
        """The kernel's own."""
        return self.kernel.coordinates

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
        check_prior(posterior, "TemperedSMC")
        started = time.perf_counter()
        keys = problem_keys(key, num_chains, posterior.num_data)
        populations, stages = climb(self, posterior, keys, progress_bar)
        state = _choose(num_samples, keys, populations.particles)
        stats = {
            "lp": state.log_prior + state.log_likelihood,
            "log_prior": state.log_prior,
            "log_likelihood": state.log_likelihood,
            "energy": -(state.log_prior + state.log_likelihood),
        }
        stats, positions = jax.tree.map(lambda x: jnp.moveaxis(x, 2, 1), (stats, state.position))
        jax.block_until_ready(stats)
        summary = {
            "log_evidence": populations.log_evidence,
            "log_evidence_std_error": log_evidence_std_error(populations.ancestors),
            "num_stages": populations.num_stages,
            "temperatures": jnp.pad(stages.temperature, ((0, 0), (0, 0), (1, 0))),
            "mutation_acceptance_rate": stages.acceptance_rate,
            "effective_sample_size": populations.smallest_ess,
        }
        dims = {"temperatures": ("temperature",), "mutation_acceptance_rate": ("stage",)}
        return SamplerOutput(positions, stats, summary, dims, time.perf_counter() - started)


class Stages(NamedTuple):
    """What happened at each of K temperatures above 0, arrays (C, N, K, ...).

    Attributes:
        temperature: of the stage, 1 where a population was done before.
        acceptance_rate: mean over particles and mutation steps.
        tuning: of the kernel, after the stage's mutations.
    """

    temperature: jax.Array
    acceptance_rate: jax.Array
    tuning: Tuning


class _Population(NamedTuple):
    """P particles of one chain of one datum.

    Attributes:
        particles: states of the kernel, arrays (P, ...).
        ancestors: which draw of the prior each descends from, shape (P,).
        temperature: which they follow.
        tuning: of the kernel.
        log_evidence: estimate so far.
        smallest_ess: of the incremental weights of any stage.
        num_stages: so far.
        is_done: whether the posterior is reached. What is done stays, however long others take.
    """

    particles: ChainState
    ancestors: jax.Array
    temperature: jax.Array
    tuning: Tuning
    log_evidence: jax.Array
    smallest_ess: jax.Array
    num_stages: jax.Array
    is_done: jax.Array


def climb(
    sampler: TemperedSMC, posterior: PowerPosterior, keys: jax.Array, progress_bar: bool, plan: Stages | None = None
) -> tuple[_Population, Stages]:
    """Carry populations, one for each of the keys (C, N), from the prior to the posterior.

    Args:
        sampler: settings.
        posterior: in the kernel's coordinates.
        keys: of the populations.
        progress_bar: whether to show progress.
        plan: stages of another run of one chain, (1, N, K), whose temperatures and tuning to follow. Without one a
            population chooses its own from its particles, which biases its evidence by a term of order 1 / P; with one
            the evidence is unbiased.

    Returns:
        The last populations, and what happened on the way.
    """
    populations, stages = _begin(sampler, posterior, keys), []
    populations = split_as(populations.particles.log_likelihood, populations)
    bar = _ladder_bar(progress_bar)
    # Stages are counted on the host: how many there are is not known, and a convolution must not stand in a loop.
    while not np.all(populations.is_done):
        stage = len(stages)
        rung = 0.0 if sampler.ladder is None else sampler.ladder.temperatures[stage + 1]
        if plan is None:
            given = populations.temperature, populations.tuning
        else:
            given = jax.tree.map(lambda x, stage=stage: x[0, :, stage], (plan.temperature, plan.tuning))
            given = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(keys), *x.shape)), given)
        # One program for both kinds of run: whether there is a plan is a value.
        populations = _reweight(sampler, posterior, keys, populations, stage, rung, plan is not None, given)
        rates = []
        for step in range(sampler.num_mutation_steps):
            number = stage * sampler.num_mutation_steps + step
            populations, rate = _mutate(sampler, posterior, keys, populations, number, plan is None)
            rates.append(rate)
        populations = _finish_stage(populations)
        stages.append(Stages(populations.temperature, jnp.stack(rates).mean(0), populations.tuning))
        if bar is not None:
            bar.update(float(jnp.min(populations.temperature)) - bar.n)
    if bar is not None:
        bar.close()
    # On the host: on the device every number of stages would be a program of its own.
    return populations, jax.tree.map(lambda *x: np.stack(x, axis=2), *jax.device_get(stages))


def _ladder_bar(show):
    if not show:
        return None
    from tqdm import tqdm

    return tqdm(total=1.0, unit="temperature", bar_format="{l_bar}{bar}| {n:.2g} of 1 [{elapsed}]")


@partial(jit_outermost, static_argnums=0)
def _begin(sampler, posterior, keys):
    def begin(key, datum):
        target = posterior.target(datum)

        def particle(number):
            draw_key = jax.random.fold_in(jax.random.fold_in(key, 0), number)
            return sampler.kernel.evaluate(target, target.draw(draw_key))

        particles = jax.vmap(particle)(jnp.arange(sampler.num_particles))
        one = jax.tree.map(lambda x: x[0], particles.position)
        zero = jnp.zeros((), particles.log_likelihood.dtype)
        return _Population(
            particles,
            jnp.arange(sampler.num_particles),
            zero,
            sampler.kernel.default_tuning(one),
            zero,
            zero + sampler.num_particles,
            jnp.zeros((), jnp.int32),
            jnp.array(False),
        )

    return over_problems(begin, posterior, keys)


@partial(jit_outermost, static_argnums=0)
def _reweight(sampler, posterior, keys, populations, stage, rung, follows, given):
    """Choose the next temperature, weigh the particles for it and resample them; where it `follows`, both are given."""

    def reweight(key, datum, population, given):
        log_likelihood, temperature = population.particles.log_likelihood, population.temperature
        # A particle whose gradient is undefined could not be moved.
        movable = jax.vmap(lambda particle: particle.is_finite())(population.particles)
        log_likelihood = jnp.where(movable, log_likelihood, -jnp.inf)
        if sampler.ladder is None:
            new_temperature = _next_temperature(sampler, log_likelihood, temperature)
        else:
            new_temperature = jnp.asarray(rung, temperature.dtype)
        new_temperature = jnp.where(follows, given[0], new_temperature)
        step = new_temperature - temperature
        log_weights = jnp.where(jnp.isfinite(log_likelihood), step * log_likelihood, -jnp.inf)
        total = logsumexp(log_weights)
        weights = jnp.where(jnp.isfinite(total), jnp.exp(log_weights - total), 1 / sampler.num_particles)
        chosen = systematic(jax.random.fold_in(jax.random.fold_in(key, 1), stage), weights, sampler.num_particles)
        particles = jax.tree.map(lambda x: x[chosen], population.particles)
        tuning = population.tuning
        if sampler.kernel.adapts and sampler.kernel.adapts_metric:
            flat = jax.vmap(lambda position: ravel_pytree(position)[0])(particles.position)
            # Shrunk as Stan does, so that a population of one ancestor leaves some mass.
            share = sampler.num_particles / (sampler.num_particles + 5)
            if tuning.scale.ndim == 2:
                scale = factor_covariance(jnp.cov(flat, rowvar=False).reshape(tuning.scale.shape), sampler.num_particles)
            else:
                scale = jnp.sqrt(share * flat.var(0) + (1 - share) * 1e-3)
            tuning = tuning._replace(scale=scale)
        tuning = jax.tree.map(partial(jnp.where, follows), given[1], tuning)
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

    return over_problems(reweight, posterior, keys, populations, given)


def _next_temperature(sampler, log_likelihood, temperature):
    """Where the effective size of the incremental weights falls to the target."""
    finite = jnp.nan_to_num(log_likelihood, neginf=jnp.finfo(log_likelihood.dtype).min / 4)
    most = 1 - temperature
    step = jnp.clip(ess_solver(lambda l: l, finite, sampler.target_ess, most, dichotomy), 0.0, most)
    least = jnp.maximum(_LEAST_GROWTH * temperature, _LEAST_TEMPERATURE)
    return jnp.minimum(jnp.maximum(temperature + step, least), 1.0)


@partial(jit_outermost, static_argnums=0)
def _mutate(sampler, posterior, keys, populations, number, adapts):
    """Move every particle once at its population's temperature; also returns mean acceptances, (C, N)."""
    kernel = sampler.kernel

    def mutate(key, datum, population):
        target = posterior.target(datum)
        key = jax.random.fold_in(jax.random.fold_in(key, 2), number)

        def move(particle, state):
            particle_key = jax.random.fold_in(key, particle)
            return kernel.step(particle_key, state, target, population.temperature, population.tuning)

        particles, info = jax.vmap(move)(jnp.arange(sampler.num_particles), population.particles)
        acceptance = jnp.mean(jnp.nan_to_num(info["acceptance_rate"]))
        tuning = population.tuning
        if kernel.adapts:
            # All particles together measure the acceptance well: follow it at once.
            change = jnp.where(adapts, jnp.exp(acceptance - kernel.target_acceptance), 1.0)
            tuning = tuning._replace(step_size=tuning.step_size * change)
        return _keep_if_done(population, population._replace(particles=particles, tuning=tuning)), acceptance

    return over_problems(mutate, posterior, keys, populations)


def _keep_if_done(old, new):
    return jax.tree.map(partial(jnp.where, old.is_done), old, new)


@jax.jit
def _finish_stage(populations):
    return populations._replace(is_done=populations.temperature >= 1)


@jax.jit
def log_evidence_std_error(ancestors: jax.Array) -> jax.Array:
    """Standard error of the log-evidence of each population from the ancestors of its particles, (C, N, P) to (C, N).

    The relative variance of the evidence is the chance that two final particles descend from one draw of the prior, less
    the 1 / P of a population without resampling (after Chan and Lai 2013; Lee and Whiteley 2018, for resampling that
    adds no noise of its own, which systematic resampling nearly is: it errs on the large side).
    """
    num_particles = ancestors.shape[-1]

    def variance(ancestors):
        shares = jnp.bincount(ancestors, length=num_particles) / num_particles
        return jnp.sum(jnp.square(shares)) - 1 / num_particles

    return jnp.sqrt(jnp.maximum(jax.vmap(jax.vmap(variance))(ancestors), 0.0))


@partial(jax.jit, static_argnums=0)
def _choose(num_samples, keys, particles):
    def choose(key, particles):
        choose_key, order_key = jax.random.split(jax.random.fold_in(key, 3))
        num_particles = particles.log_prior.shape[0]
        chosen = systematic(choose_key, jnp.full(num_particles, 1 / num_particles), num_samples)
        # Neighbours have common ancestors: shuffle, so that draws are exchangeable.
        return jax.tree.map(lambda x: x[jax.random.permutation(order_key, chosen)], particles)

    return jax.vmap(jax.vmap(choose))(keys, particles)
