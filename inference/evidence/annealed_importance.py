"""Annealed importance sampling from the prior to the posterior, and back from an exact posterior draw."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kaem_ppl.arguments import set_counts
from kaem_ppl.compilation import jit_outermost

from ..kernels.hamiltonian import HMC
from ..kernels.kernel import ChainState, Kernel, Tuning, check_kernel
from ..kernels.langevin import ULA
from ..model.coordinates import Coordinates
from ..model.power_posterior import Position, PowerPosterior
from ..sampling.batching import map_particles, over_problems
from ..sampling.run import Run
from ..sampling.sampler import problem_keys
from ..tempering.ladders import Ladder, PowerLadder, check_ladder
from ..tempering.population import run_populations
from ..tempering.rare_likelihood import start_where_possible
from ..tempering.tempered_smc import TemperedSMC

# Of the population that tunes the kernel: particles at most, and moves at each temperature.
_NUM_PILOTS, _NUM_PILOT_STEPS = 64, 4


@dataclass(frozen=True)
class AnnealedImportanceSampling:
    """Independent particles moved along a fixed ladder and weighted on the way (Neal 2001).

    A particle's weight, the product of likelihood^(t_k - t_{k-1}) before each move to t_k, has the evidence as its mean.
    A kernel that adapts is tuned at each temperature, for each datum, by a small tempered population of its own; the
    particles then meet fixed kernels, which leaves the weights exact.

    Attributes:
        num_particles: P, of each chain and datum.
        kernel: moves the particles; it must leave the power posterior invariant exactly.
        ladder: of fixed temperatures from 0 to 1.
        num_steps: of the kernel at each temperature.

    Raises:
        TypeError: `kernel` is not a kernel, or `ladder` not a ladder.
        ValueError: a setting is out of its range, or the kernel is not exact.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import AnnealedImportanceSampling, log_evidence
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> method = AnnealedImportanceSampling(64)
        >>> evidence = log_evidence(jax.random.key(0), model, 2.0, method=method, progress_bar=False)
        >>> abs(float(evidence.value) + 2.2655) < 4 * float(evidence.std_error)
        True
    """

    blind_to: ClassVar[str] = "a narrow mode that outweighs a wide one only as the temperature nears 1"
    num_particles: int = 64
    kernel: Kernel = HMC(num_integration_steps=5, target_acceptance=0.8)  # noqa: RUF009 - a frozen value
    ladder: Ladder = PowerLadder(64, 3.0)  # noqa: RUF009 - a frozen value
    num_steps: int = 1

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        if isinstance(self.kernel, ULA):
            raise ValueError("`kernel` is ULA, which does not leave the power posterior invariant: take `MALA()`.")
        set_counts(self, num_particles=1, num_steps=1)
        check_ladder(self.ladder, "AnnealedImportanceSampling", fixed=True, from_prior=True)

    @property
    def coordinates(self) -> Coordinates:
        """The kernel's own."""
        return self.kernel.coordinates

    def forward(self, key: jax.Array, posterior: PowerPosterior, *, num_chains: int, run: Run) -> "AnnealedWeights":
        """Anneal draws of the prior to the posterior; where most have a likelihood of 0, draws of the prior given one.

        Raises:
            ValueError: the likelihood of some datum is 0 at every one of many prior draws.
        """
        keys = problem_keys(key, num_chains, posterior.num_data)
        run.progress.begin("compiling the start")
        start = start_where_possible(self.kernel, self.num_particles, posterior, keys)
        tunings = _tune(self, key, posterior, run)
        log_weights = self._anneal(keys, posterior, start.particles, tunings, reverse=False, run=run)
        different = start.ancestors.max(-1) + 1
        found = (log_weights + start.log_share[..., None], start.share_variance, different)
        return AnnealedWeights(*map(np.asarray, found))

    def reverse(
        self, key: jax.Array, posterior: PowerPosterior, start: Position, *, num_chains: int, run: Run
    ) -> jax.Array:
        """Anneal exact draws of the posterior back to the prior (Grosse, Ghahramani and Adams 2015).

        Args:
            key: PRNG key.
            posterior: in the kernel's coordinates.
            start: one exact draw of each datum's posterior, arrays (N, ...).
            num_chains: C.
            run: shows progress.

        Returns:
            Log-weights, shape (num_chains, N, P): the exponentials of their negatives have one over the evidence as
            their mean.
        """
        keys = problem_keys(key, num_chains, posterior.num_data)
        particles = _repeat(self, posterior, keys, start)
        return self._anneal(keys, posterior, particles, _tune(self, key, posterior, run), reverse=True, run=run)

    def _anneal(
        self,
        keys: jax.Array,
        posterior: PowerPosterior,
        particles: ChainState,
        tunings: Tuning,
        *,
        reverse: bool,
        run: Run,
    ) -> jax.Array:
        temperatures = self.ladder.temperatures
        stages = range(1, len(temperatures))
        stages = reversed(stages) if reverse else stages
        log_weights = jnp.zeros(particles.log_likelihood.shape, particles.log_likelihood.dtype)
        # Stages are counted on the host: a convolution must not stand in a loop.
        activity = "annealing back" if reverse else "annealing"
        run.progress.begin(f"compiling: {activity}", len(temperatures) - 1, "temperature")
        for number, stage in enumerate(stages, 1):
            tuning = jax.tree.map(lambda x, stage=stage: x[:, stage - 1], tunings)
            low, high = temperatures[stage - 1], temperatures[stage]
            particles, log_weights = _move(
                self, reverse, posterior, keys, particles, log_weights, tuning, stage, low, high
            )
            if run.is_watched:
                jax.block_until_ready(log_weights)
                run.report(activity, number, len(temperatures) - 1, {"temperature": low if reverse else high})
        return log_weights


class AnnealedWeights(NamedTuple):
    """Weights of P particles of C chains and N data.

    Attributes:
        log_weights: shape (C, N, P): their exponentials have the evidence as their mean.
        share_variance: relative variance of a factor that all weights of a chain share, the probability of a likelihood
            above 0, shape (C, N); 0 where none was estimated.
        num_different: particles that start at a draw of their own, shape (C, N).
    """

    log_weights: np.ndarray
    share_variance: np.ndarray
    num_different: np.ndarray


def _tune(method: AnnealedImportanceSampling, key: jax.Array, posterior: PowerPosterior, run: Run) -> Tuning:
    """Tuning of the kernel at each temperature above 0, arrays (N, R - 1, ...)."""
    num_stages = method.ladder.num_temperatures - 1
    if not method.kernel.adapts:
        keys = problem_keys(key, 1, posterior.num_data)
        tuning = _default_tuning(method, posterior, keys)
        return jax.tree.map(lambda x: jnp.repeat(x[0, :, None], num_stages, axis=1), tuning)
    # Beyond the numbers of chains: the pilots share no key with the particles.
    keys = problem_keys(jax.random.fold_in(key, 2**31), 1, posterior.num_data)
    pilots = TemperedSMC(
        int(np.clip(method.num_particles, 16, _NUM_PILOTS)), method.kernel, _NUM_PILOT_STEPS, ladder=method.ladder
    )
    return jax.tree.map(lambda x: x[0], run_populations(pilots, posterior, keys, run, name="the pilot")[1].tuning)


@partial(jit_outermost, static_argnums=0)
def _default_tuning(method: AnnealedImportanceSampling, posterior: PowerPosterior, keys: jax.Array) -> Tuning:
    def default(key: jax.Array, datum: tuple[jax.Array, ...]) -> Tuning:
        return method.kernel.default_tuning(posterior.target(datum).draw(key))

    return over_problems(default, posterior, keys)


@partial(jit_outermost, static_argnums=0)
def _repeat(
    method: AnnealedImportanceSampling, posterior: PowerPosterior, keys: jax.Array, positions: Position
) -> ChainState:
    def repeat(key: jax.Array, datum: tuple[jax.Array, ...], position: Position) -> ChainState:
        state = method.kernel.evaluate(posterior.target(datum), position)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (method.num_particles, *x.shape)), state)

    positions = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(keys), *x.shape)), positions)
    return over_problems(repeat, posterior, keys, positions)


@partial(jit_outermost, static_argnums=(0, 1))
def _move(
    method: AnnealedImportanceSampling,
    reverse: bool,
    posterior: PowerPosterior,
    keys: jax.Array,
    particles: ChainState,
    log_weights: jax.Array,
    tuning: Tuning,
    stage: jax.Array,
    low: jax.Array,
    high: jax.Array,
) -> tuple[ChainState, jax.Array]:
    """Weigh the particles for the step between two temperatures and move them at the upper one; tuning (N, ...).

    On the way back the move comes first: this reverses the forward run, for the kernels are reversible.
    """
    kernel = method.kernel

    def move(
        key: jax.Array, datum: tuple[jax.Array, ...], particles: ChainState, log_weights: jax.Array, tuning: Tuning
    ) -> tuple[ChainState, jax.Array]:
        target = posterior.target(datum)
        key = jax.random.fold_in(jax.random.fold_in(key, 1), stage)

        def one(number: jax.Array, particle: ChainState, log_weight: jax.Array) -> tuple[ChainState, jax.Array]:
            particle_key = jax.random.fold_in(key, number)
            temperature = jnp.asarray(high, particle.log_likelihood.dtype)
            before = particle.log_likelihood
            for step in range(method.num_steps):
                step_key = jax.random.fold_in(particle_key, step)
                particle, _ = kernel.step(step_key, particle, target, temperature, tuning)
            weighed = particle.log_likelihood if reverse else before
            return particle, log_weight + (high - low) * weighed

        numbers = jnp.arange(method.num_particles)
        return map_particles(one, posterior, keys.size, numbers, particles, log_weights)

    tuning = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(keys), *x.shape)), tuning)
    return over_problems(move, posterior, keys, particles, log_weights, tuning)
