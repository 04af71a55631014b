"""The parallel tempering sampler: chains at every temperature, warm-up of kernels and ladder, and draws at 1."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..kernels.adaptation import Adaptation, adapt, begin_adaptation, end_adaptation
from ..kernels.hamiltonian import HMC
from ..kernels.kernel import ChainState, Kernel, check_kernel
from ..model.coordinates import Coordinates
from ..model.power_posterior import PowerPosterior, Target
from ..sampling.chains import run_chains
from ..sampling.importance.proposals import StudentProposal
from ..sampling.run import Run
from ..sampling.sampler import Sampler, SamplerOutput
from ..sampling.transition import record
from .fitted_reference import check_reference, densities_of_the_model, from_reference
from .ladder_adaptation import communication_barrier, equalize_rejection, recommended_num_temperatures
from .ladders import AdaptedLadder, Ladder, check_ladder
from .replica_exchange import ReplicaExchangeState, build_kernel, init

# A ladder grows where the barrier asks for this many times its temperatures.
_FEW_MORE = 1.25
_DRAWS_AT_ONCE = 2**16


@dataclass(frozen=True)
class ParallelTempering(Sampler):
    """Replica exchange by deterministic even-odd swaps (Syed et al. 2022); each chain and datum decides for itself.

    A ladder that starts at temperature 0 draws its first replica from the prior anew at every step, exactly, so that
    each round trip brings an independent start.

    Statistics added to the kernel's at temperature 1: `swap_acceptance` and `is_swapped` by pair, `replica`, which replica
    stands at each temperature, and `tempered_log_likelihood` at each temperature. The summary has `temperatures`,
    `rejection_rate`, `communication_barrier` and `recommended_num_temperatures`.

    Attributes:
        kernel: moves each replica; by default `HMC` whose trajectories are at most 64 steps, for exchanges cross what lies
            between modes, and the covariance over modes would ask for far longer ones.
        ladder: where the replicas stand.
        reference: what stands at temperature 0; None for the prior. A `StudentProposal` fitted to draws of a first run is
            nearer to the posterior than a wide prior, so that fewer temperatures do (Surjanovic et al. 2022); the prior
            may then be flat. Modes that those draws have missed are missed again.

    Raises:
        TypeError: `kernel` is not a kernel, `ladder` not a ladder, or `reference` not a `StudentProposal`.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import ParallelTempering, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> sampler = ParallelTempering()
        >>> options = {"num_samples": 500, "num_warmup": 200, "progress_bar": False}
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, sampler=sampler, **options)
        >>> round(float(draws.samples["z"].mean()), 1)  # exactly: 1
        1.0
    """

    has_chains: ClassVar[bool] = True
    keeps_state: ClassVar[bool] = True
    blind_to: ClassVar[str] = "a narrow mode that outweighs a wide one only as the temperature nears 1"
    kernel: Kernel = HMC(target_acceptance=0.8, shortest_step=1, max_integration_steps=64)  # noqa: RUF009 - a frozen value
    ladder: Ladder = AdaptedLadder()  # noqa: RUF009 - a frozen value
    reference: StudentProposal | None = None

    def __post_init__(self) -> None:
        check_reference(self.reference, "ParallelTempering")
        check_kernel(self.kernel)
        check_ladder(self.ladder, "ParallelTempering")

    @property
    def num_temperatures(self) -> int:
        """R."""
        return self.ladder.num_temperatures

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
        transition = _Tempered(self)
        if transition.draws_reference or self.reference is not None:
            sampler = "A ladder of ParallelTempering that starts at temperature 0"
            posterior = from_reference(posterior, self.reference, self.coordinates, sampler)
        if self.ladder.adapts and num_warmup == 0 and not run.goes_on:
            raise ValueError(
                "The ladder is adapted in warm-up, but `num_warmup` is 0: give it some, or give a fixed ladder such as "
                "`PowerLadder(8)`."
            )
        output = run_chains(
            key,
            posterior,
            transition,
            num_chains=num_chains,
            num_samples=num_samples,
            num_warmup=num_warmup,
            run=run,
            dims={
                "swap_acceptance": ("pair",),
                "is_swapped": ("pair",),
                "rejection_rate": ("pair",),
                "replica": ("temperature",),
                "tempered_log_likelihood": ("temperature",),
                "tempered_acceptance_rate": ("temperature",),
                "temperatures": ("temperature",),
                "step_size": ("temperature",),
            },
        )
        output.summary.update(self.summarize_stats(output.stats))
        return output

    def summarize_stats(self, stats: dict[str, Any]) -> dict[str, Any]:
        """See `Sampler.summarize_stats`."""
        acceptance = stats["swap_acceptance"]
        num_samples = acceptance.shape[1]
        starts = range(0, num_samples, _DRAWS_AT_ONCE)
        # Piece by piece: they may be in files.
        total = sum(_sum_draws(jnp.asarray(acceptance[:, start : start + _DRAWS_AT_ONCE])) for start in starts)
        return _summarize_swaps(1 - jnp.asarray(total) / num_samples)


@dataclass(frozen=True)
class _Tempered:
    """The transition of a whole ladder; carried along are the replicas and what each temperature has learnt."""

    sampler: ParallelTempering

    @property
    def kernel(self) -> Kernel:
        return self.sampler.kernel

    @property
    def draws_reference(self) -> bool:
        return self.sampler.ladder.starts_at_prior

    @property
    def num_replicas(self) -> int:
        return self.sampler.num_temperatures

    def resumed(self, num_replicas: int, fraction: float) -> "_Tempered":
        ladder = self.sampler.ladder
        if num_replicas == ladder.num_temperatures or not isinstance(ladder, AdaptedLadder):
            return self
        return replace(self, sampler=replace(self.sampler, ladder=ladder.raised_to(num_replicas)))

    def begin(self, replicas: ChainState) -> tuple[ReplicaExchangeState, Adaptation]:
        temperatures = jnp.asarray(self.sampler.ladder.temperatures, replicas.log_likelihood.dtype)
        adaptation = jax.vmap(lambda replica: begin_adaptation(self.kernel, replica.position))(replicas)
        return init(replicas, temperatures), adaptation

    def advance(
        self,
        key: jax.Array,
        carry: tuple[ReplicaExchangeState, Adaptation],
        target: Target,
        stage: jax.Array,
        window_ends: jax.Array,
    ) -> tuple[tuple[ReplicaExchangeState, Adaptation], dict[str, Any]]:
        state, adaptation = carry
        kernel = self.kernel

        def step(
            key: jax.Array, replica: ChainState, temperature: jax.Array, adaptation: Adaptation
        ) -> tuple[ChainState, Any]:
            replica, info = kernel.step(key, replica, target, temperature, adaptation.tuning)
            acceptance_rate = info["acceptance_rate"]
            adaptation = adapt(kernel, adaptation, replica.position, acceptance_rate, stage, window_ends)
            return replica, (info, adaptation)

        def reference(key: jax.Array) -> ChainState:
            return kernel.evaluate(target, target.draw(key))

        exchange = build_kernel(
            step, lambda replica: replica.log_likelihood, reference if self.draws_reference else None
        )
        state, info = exchange(key, state, adaptation)
        kernel_info, moved = info.kernel_info
        if self.draws_reference:
            moved = jax.tree.map(lambda old, new: jnp.concatenate([old[:1], new]), adaptation, moved)
        at_posterior = record(*jax.tree.map(lambda x: x[-1], (state.replicas, kernel_info)))
        records = {
            **at_posterior,
            **densities_of_the_model(target, at_posterior["position"], at_posterior["lp"]),
            "swap_acceptance": info.swap_acceptance,
            "is_swapped": info.is_swapped,
            "replica": info.index,
            "tempered_log_likelihood": info.log_likelihood,
            "tempered_acceptance_rate": _with_reference(kernel_info["acceptance_rate"], self.sampler.num_temperatures),
        }
        return (state, moved), records

    def after_warmup_chunk(
        self, carry: tuple[ReplicaExchangeState, Adaptation], records: dict[str, jax.Array], fraction: float
    ) -> tuple["_Tempered", tuple[ReplicaExchangeState, Adaptation]]:
        ladder = self.sampler.ladder
        # The last fifth of warm-up tunes step sizes on the final ladder.
        if not ladder.adapts or fraction > 0.8:
            return self, carry
        state, adaptation = carry
        swap_acceptance = records["swap_acceptance"]
        state = state._replace(temperatures=_move_ladder(state.temperatures, swap_acceptance))
        if not (isinstance(ladder, AdaptedLadder) and ladder.grows) or fraction > 0.6:
            return self, (state, adaptation)
        # The datum with the longest way from prior to posterior decides for all.
        rejection = 1 - np.asarray(swap_acceptance, float).mean((0, 1))
        wanted = int(np.max(recommended_num_temperatures(rejection)))
        if wanted <= _FEW_MORE * ladder.num_temperatures or ladder.num_temperatures >= ladder.max_temperatures:
            return self, (state, adaptation)
        # Multiples of four, so that programs for few sizes are compiled.
        raised = ladder.raised_to(-(-wanted // 4) * 4)
        transition = replace(self, sampler=replace(self.sampler, ladder=raised))
        return transition, _spread(raised.num_temperatures, state, adaptation)

    def end_warmup(self, carry: tuple[ReplicaExchangeState, Adaptation]) -> tuple[ReplicaExchangeState, Adaptation]:
        state, adaptation = carry
        return state, jax.vmap(lambda adaptation: end_adaptation(self.kernel, adaptation))(adaptation)

    def summarize(self, carry: tuple[ReplicaExchangeState, Adaptation]) -> dict[str, jax.Array]:
        state, adaptation = carry
        step_size = adaptation.tuning.step_size
        if self.draws_reference:
            # Draws from the prior have no step.
            step_size = step_size.at[0].set(jnp.nan)
        return {"temperatures": state.temperatures, "step_size": step_size}


def _with_reference(acceptance_rate: jax.Array, num_temperatures: int) -> jax.Array:
    """Acceptance at all temperatures: an exact draw from the prior is accepted."""
    missing = num_temperatures - acceptance_rate.shape[0]
    return jnp.concatenate([jnp.ones(missing, acceptance_rate.dtype), acceptance_rate])


@partial(jax.jit, static_argnums=0)
def _spread(
    num_temperatures: int, state: ReplicaExchangeState, adaptation: Adaptation
) -> tuple[ReplicaExchangeState, Adaptation]:
    """More replicas, (C, N, R, ...) to (C, N, more, ...): copies of the nearest, on a ladder interpolated between them."""
    old = state.temperatures.shape[-1]
    place = jnp.linspace(0, old - 1, num_temperatures)
    nearest = jnp.round(place).astype(jnp.int32)
    interpolate = jax.vmap(jax.vmap(lambda t: jnp.interp(place, jnp.arange(old), t)))
    replicas, adaptation = jax.tree.map(lambda x: x[:, :, nearest], (state.replicas, adaptation))
    shape = (*state.temperatures.shape[:2], num_temperatures)
    index = jnp.broadcast_to(jnp.arange(num_temperatures, dtype=jnp.int32), shape)
    temperatures = interpolate(state.temperatures).astype(state.temperatures.dtype)
    return state._replace(replicas=replicas, temperatures=temperatures, index=index), adaptation


@jax.jit
def _sum_draws(swap_acceptance: jax.Array) -> jax.Array:
    return swap_acceptance.sum(1)


@jax.jit
def _summarize_swaps(rejection: jax.Array) -> dict[str, jax.Array]:
    """What the rejection rates (C, N, R - 1) say of the ladder."""
    return {
        "rejection_rate": rejection,
        "communication_barrier": communication_barrier(rejection),
        "recommended_num_temperatures": recommended_num_temperatures(rejection),
    }


@jax.jit
def _move_ladder(temperatures: jax.Array, swap_acceptance: jax.Array) -> jax.Array:
    """One ladder for all chains of a datum: temperatures (C, N, R), acceptances (steps, C, N, R - 1)."""
    rejection = 1 - swap_acceptance.mean((0, 1))
    ladder = jax.vmap(equalize_rejection)(temperatures[0], rejection)
    return jnp.broadcast_to(ladder, temperatures.shape)
