"""A sequential Monte Carlo sampler that carries particles from the prior to the posterior."""

import time
from collections.abc import Sequence
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

from .coordinates import Coordinates
from .hamiltonian import HMC
from .kernel import ChainState, Kernel, Tuning
from .markov_chain import over_problems
from .parallel_tempering import check_temperatures
from .power_posterior import PowerPosterior
from .sampler import Sampler, SamplerOutput, check_prior, problem_keys

# Where half of the likelihoods are 0, or differ without bound, no step keeps the effective size: go on by this factor.
_LEAST_GROWTH, _LEAST_TEMPERATURE = 1.01, 1e-8


@dataclass(frozen=True)
class TemperedSMC(Sampler):
    """Particles reweighted, resampled and moved along a ladder of temperatures (Del Moral, Doucet and Jasra 2006).

    Each chain of each datum is a population of its own, with its own ladder: the next temperature is the one at which the
    effective sample size of the incremental weights falls to `target_ess`, unless `temperatures` are given. The step size
    of the kernel follows its acceptance, and its mass matrix the variances of the particles. Resampling is systematic.

    Draws are taken from the last population. Particles of a population share ancestors, so that the effective size ArviZ
    computes from them is an upper bound; compare populations. The summary has `log_evidence`, `num_stages` and
    `temperatures`, filled up with 1.

    Attributes:
        num_particles: of each chain and datum.
        kernel: moves the particles.
        num_mutation_steps: of the kernel at each temperature.
        target_ess: fraction of the particles.
        temperatures: a fixed ladder, from 0 to 1; adaptive if None.

    Raises:
        TypeError: `kernel` is not a kernel.
        ValueError: a setting is out of its range.
    """

    num_particles: int = 1000
    kernel: Kernel = HMC(num_integration_steps=5)  # noqa: RUF009 - a frozen value
    num_mutation_steps: int = 10
    target_ess: float = 0.5
    temperatures: Sequence[float] | None = None

    def __post_init__(self):
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"`kernel` must be a Markov kernel such as `MALA()` or `NUTS()`, got {self.kernel!r}.")
        for name in ("num_particles", "num_mutation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not 0 < self.target_ess < 1:
            raise ValueError(f"`target_ess` is a fraction of the particles, between 0 and 1, got {self.target_ess}.")
        if self.temperatures is not None:
            ladder = check_temperatures(self.temperatures)
            if ladder[0] != 0:
                raise ValueError(f"`temperatures` must start at 0, the prior, got {ladder[0]}.")
            object.__setattr__(self, "temperatures", ladder)

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
        populations = _begin(self, posterior, keys)
        ladder, acceptance = [], []
        bar = _ladder_bar(progress_bar)
        # Stages are counted on the host: how many there are is not known, and a convolution must not stand in a loop.
        while not np.all(populations.is_done):
            stage = len(ladder)
            given = 0.0 if self.temperatures is None else self.temperatures[stage + 1]
            populations = _reweight(self, posterior, keys, populations, stage, given)
            rates = []
            for step in range(self.num_mutation_steps):
                populations, rate = _mutate(self, posterior, keys, populations, stage * self.num_mutation_steps + step)
                rates.append(rate)
            populations = _finish_stage(populations)
            ladder.append(populations.temperature)
            acceptance.append(jnp.stack(rates).mean(0))
            if bar is not None:
                bar.update(float(jnp.min(populations.temperature)) - bar.n)
        if bar is not None:
            bar.close()
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
            "num_stages": populations.num_stages,
            "temperatures": jnp.stack([jnp.zeros_like(ladder[0]), *ladder], axis=-1),
            "mutation_acceptance_rate": jnp.stack(acceptance, axis=-1),
            "effective_sample_size": populations.smallest_ess,
        }
        dims = {"temperatures": ("temperature",), "mutation_acceptance_rate": ("stage",)}
        return SamplerOutput(positions, stats, summary, dims, time.perf_counter() - started)


class _Population(NamedTuple):
    """P particles of one chain of one datum.

    Attributes:
        particles: states of the kernel, arrays (P, ...).
        temperature: which they follow.
        tuning: of the kernel.
        log_evidence: estimate so far.
        smallest_ess: of the incremental weights of any stage.
        num_stages: so far.
        is_done: whether the posterior is reached. What is done stays, however long others take.
    """

    particles: ChainState
    temperature: jax.Array
    tuning: Tuning
    log_evidence: jax.Array
    smallest_ess: jax.Array
    num_stages: jax.Array
    is_done: jax.Array


def _ladder_bar(show):
    if not show:
        return None
    from tqdm import tqdm

    return tqdm(total=1.0, unit="temperature", bar_format="{l_bar}{bar}| {n:.2g} of 1 [{elapsed}]")


@partial(jax.jit, static_argnums=0)
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
            zero,
            sampler.kernel.default_tuning(one),
            zero,
            zero + sampler.num_particles,
            jnp.zeros((), jnp.int32),
            jnp.array(False),
        )

    return over_problems(begin, posterior, keys)


@partial(jax.jit, static_argnums=0)
def _reweight(sampler, posterior, keys, populations, stage, given):
    """Choose the next temperature, weigh the particles for it and resample them."""

    def reweight(key, datum, population):
        log_likelihood, temperature = population.particles.log_likelihood, population.temperature
        # A particle whose gradient is undefined could not be moved.
        movable = jax.vmap(lambda particle: particle.is_finite())(population.particles)
        log_likelihood = jnp.where(movable, log_likelihood, -jnp.inf)
        if sampler.temperatures is None:
            finite = jnp.nan_to_num(log_likelihood, neginf=jnp.finfo(log_likelihood.dtype).min / 4)
            most = 1 - temperature
            step = jnp.clip(ess_solver(lambda l: l, finite, sampler.target_ess, most, dichotomy), 0.0, most)
            least = jnp.maximum(_LEAST_GROWTH * temperature, _LEAST_TEMPERATURE)
            new_temperature = jnp.minimum(jnp.maximum(temperature + step, least), 1.0)
        else:
            new_temperature = jnp.asarray(given, temperature.dtype)
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
            tuning = tuning._replace(inverse_mass_matrix=share * flat.var(0) + (1 - share) * 1e-3)
        new = population._replace(
            particles=particles,
            temperature=new_temperature,
            tuning=tuning,
            log_evidence=population.log_evidence + total - jnp.log(sampler.num_particles),
            smallest_ess=jnp.minimum(population.smallest_ess, jnp.exp(log_ess(log_weights))),
            num_stages=population.num_stages + 1,
        )
        return _keep_if_done(population, new)

    return over_problems(reweight, posterior, keys, populations)


@partial(jax.jit, static_argnums=0)
def _mutate(sampler, posterior, keys, populations, number):
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
            change = jnp.exp(acceptance - kernel.target_acceptance)
            tuning = tuning._replace(step_size=tuning.step_size * change)
        return _keep_if_done(population, population._replace(particles=particles, tuning=tuning)), acceptance

    return over_problems(mutate, posterior, keys, populations)


def _keep_if_done(old, new):
    return jax.tree.map(partial(jnp.where, old.is_done), old, new)


@jax.jit
def _finish_stage(populations):
    return populations._replace(is_done=populations.temperature >= 1)


@partial(jax.jit, static_argnums=0)
def _choose(num_samples, keys, particles):
    def choose(key, particles):
        choose_key, order_key = jax.random.split(jax.random.fold_in(key, 3))
        num_particles = particles.log_prior.shape[0]
        chosen = systematic(choose_key, jnp.full(num_particles, 1 / num_particles), num_samples)
        # Neighbours have common ancestors: shuffle, so that draws are exchangeable.
        return jax.tree.map(lambda x: x[jax.random.permutation(order_key, chosen)], particles)

    return jax.vmap(jax.vmap(choose))(keys, particles)
