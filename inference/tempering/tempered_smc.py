"""The tempered SMC sampler: settings, and draws and evidence from its populations."""

import time
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from blackjax.smc.resampling import systematic

from kaem_ppl.arguments import set_counts, set_number

from ..kernels.hamiltonian import HMC
from ..kernels.kernel import ChainState, Kernel, check_kernel
from ..model.coordinates import Coordinates
from ..model.power_posterior import Position, PowerPosterior
from ..sampling.batching import over_problems
from ..sampling.importance.proposals import StudentProposal
from ..sampling.run import Run
from ..sampling.sampler import Sampler, SamplerOutput, problem_keys
from .fitted_reference import FittedPosterior, check_reference, densities_of_the_model, from_reference
from .ladders import Ladder, check_ladder
from .population import Population, run_populations


@dataclass(frozen=True)
class TemperedSMC(Sampler):
    """Particles reweighted, resampled and moved along a ladder of temperatures (Del Moral, Doucet and Jasra 2006).

    Each chain of each datum is a population of its own, with its own ladder: the next temperature is the one at which the
    effective sample size of the incremental weights falls to `target_ess`, unless a `ladder` is given. The step size
    of the kernel follows its acceptance, and its metric the covariance of the particles. Resampling is systematic.

    Where the likelihood is 0 at most prior draws, a population begins with the prior given that it is not 0, down to about
    one draw in 1e5.

    `log_evidence` runs a population that adapts and then others that follow it, whose normalising constants are unbiased.
    Draws are taken from the last population. Those that descend from one draw of the prior stand next to each other, so
    that what they have in common appears as autocorrelation, and ArviZ's effective sizes count it. The summary has
    `log_evidence`, `num_stages`, `move_correlation` and `temperatures`, filled up with 1.

    Attributes:
        num_particles: of each chain and datum.
        kernel: moves the particles.
        num_mutation_steps: moves of each particle at each temperature; None moves them until no coordinate, nor the
            log-likelihood, has a correlation above 0.2 with itself before the moves, over the particles.
        max_mutation_steps: moves at each temperature after which that is given up; the summary's `move_correlation` has
            what was left.
        target_ess: fraction of the particles.
        ladder: of fixed temperatures from 0 to 1; None chooses them by `target_ess`.
        reference: what stands at temperature 0; None for the prior. See `ParallelTempering`.

    Raises:
        TypeError: `kernel` is not a kernel, `ladder` not a ladder, or `reference` not a `StudentProposal`.
        ValueError: a setting is out of its range.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import sample_posterior, TemperedSMC
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> sampler = TemperedSMC(num_particles=500)
        >>> options = {"num_samples": 500, "num_warmup": 200, "progress_bar": False}
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, sampler=sampler, **options)
        >>> round(float(draws.samples["z"].mean()), 1)  # exactly: 1
        1.0
    """

    advice: ClassVar[str] = "give more particles, or more mutation steps."
    keeps_state: ClassVar[bool] = True
    blind_to: ClassVar[str] = "a narrow mode that outweighs a wide one only as the temperature nears 1"
    num_particles: int = 1000
    kernel: Kernel = HMC(target_acceptance=0.8, shortest_step=1, max_integration_steps=32)  # noqa: RUF009 - a frozen value
    num_mutation_steps: int | None = None
    max_mutation_steps: int = 100
    target_ess: float = 0.7
    ladder: Ladder | None = None
    reference: StudentProposal | None = None

    def __post_init__(self) -> None:
        check_reference(self.reference, "TemperedSMC")
        check_kernel(self.kernel)
        set_counts(self, num_particles=1, num_mutation_steps=1, max_mutation_steps=1)
        set_number(self, "target_ess", above=0, below=1, what="a fraction of the particles")
        if self.ladder is not None:
            check_ladder(self.ladder, "TemperedSMC", fixed=True, from_prior=True)

    @property
    def coordinates(self) -> Coordinates:  # type: ignore[override]
        """The kernel's own."""
        return self.kernel.coordinates

    @property
    def is_exact(self) -> bool:
        """Whether the kernel is."""
        return self.kernel.is_exact

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
        posterior = from_reference(posterior, self.reference, self.coordinates, "TemperedSMC")
        started = time.perf_counter()
        keys = problem_keys(key, num_chains, posterior.num_data)
        populations, stages = run_populations(self, posterior, keys, run)
        state = _choose(num_samples, keys, populations.particles, populations.ancestors)
        lp = state.log_prior + state.log_likelihood
        stats = {"lp": lp, "log_prior": state.log_prior, "log_likelihood": state.log_likelihood, "energy": -lp}
        if isinstance(posterior, FittedPosterior):
            stats |= _of_the_model(posterior, keys, state.position, lp)
        stats, positions = jax.tree.map(lambda x: jnp.moveaxis(x, 2, 1), (stats, state.position))
        jax.block_until_ready(stats)
        summary = {
            "log_evidence": populations.log_evidence,
            "log_evidence_std_error": log_evidence_std_error(populations),
            "num_stages": populations.num_stages,
            "temperatures": jnp.pad(stages.temperature, ((0, 0), (0, 0), (1, 0))),
            "mutation_acceptance_rate": stages.acceptance_rate,
            "move_correlation": stages.correlation.max(-1),
            "smallest_incremental_ess": populations.smallest_ess,
        }
        dims = {"temperatures": ("temperature",), "mutation_acceptance_rate": ("stage",)}
        return SamplerOutput(positions, stats, summary, dims, time.perf_counter() - started)


@jax.jit
def log_evidence_std_error(populations: Population) -> jax.Array:
    """Standard error of the log-evidence of each population from the ancestors of its particles, (C, N).

    The relative variance of the evidence is the chance that two final particles descend from one draw of the prior, less
    the 1 / P of a population without resampling (after Chan and Lai 2013; Lee and Whiteley 2018, for resampling that
    adds no noise of its own, which systematic resampling nearly is: it errs on the large side); and that of its start.
    """
    num_particles = populations.ancestors.shape[-1]

    def variance(ancestors: jax.Array) -> jax.Array:
        shares = jnp.bincount(ancestors, length=num_particles) / num_particles
        return jnp.sum(jnp.square(shares)) - 1 / num_particles

    of_ancestors = jnp.maximum(jax.vmap(jax.vmap(variance))(populations.ancestors), 0.0)
    return jnp.sqrt(of_ancestors + populations.start_variance)


@jax.jit
def _of_the_model(
    posterior: FittedPosterior, keys: jax.Array, positions: Position, lp: jax.Array
) -> dict[str, jax.Array]:
    """The model's own log-prior and log-likelihood of draws, (C, N, S, ...)."""

    def at(key: jax.Array, datum: tuple[jax.Array, ...], positions: Position, lp: jax.Array) -> dict[str, jax.Array]:
        target = posterior.target(datum)
        return jax.lax.map(lambda draw: densities_of_the_model(target, *draw), (positions, lp), batch_size=100)

    return over_problems(at, posterior, keys, positions, lp)


@partial(jax.jit, static_argnums=0)
def _choose(num_samples: int, keys: jax.Array, particles: ChainState, ancestors: jax.Array) -> ChainState:
    def choose(key: jax.Array, particles: ChainState, ancestors: jax.Array) -> ChainState:
        choose_key, order_key = jax.random.split(jax.random.fold_in(key, 3))
        num_particles = particles.log_prior.shape[0]
        chosen = systematic(choose_key, jnp.full(num_particles, 1 / num_particles), num_samples)
        # Families in random order, each together.
        place = jax.random.permutation(order_key, num_particles)[ancestors[chosen]]
        return jax.tree.map(lambda x: x[chosen[jnp.argsort(place)]], particles)

    return jax.vmap(jax.vmap(choose))(keys, particles, ancestors)
