"""Parallel tempering: any kernel at a ladder of temperatures, neighbours exchanged at every step."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from .adaptation import Adaptation, adapt, begin_adaptation, end_adaptation
from .coordinates import Coordinates
from .kernel import ChainState, Kernel
from .langevin import MALA
from .markov_chain import record, run_chains
from .power_posterior import PowerPosterior
from .replica_exchange import (
    ReplicaExchangeState,
    build_kernel,
    communication_barrier,
    equalize_rejection,
    init,
    recommended_num_temperatures,
)
from .sampler import Sampler, SamplerOutput, check_prior


@dataclass(frozen=True)
class ParallelTempering(Sampler):
    """Replica exchange by deterministic even-odd swaps (Syed et al. 2022); each chain and datum decides for itself.

    A ladder that starts at temperature 0 draws its first replica from the prior anew at every step, exactly, so that
    each round trip brings an independent start. The ladder is `temperatures` if given, else (k / (R - 1))^power if
    `power` is given, else adapted: warm-up moves the temperatures of each datum to where neighbours reject equally often.

    Statistics added to the kernel's at temperature 1: `swap_acceptance` and `is_swapped` by pair, `replica`, which replica
    stands at each temperature, and `tempered_log_likelihood` at each temperature. The summary has `temperatures`,
    `rejection_rate`, `communication_barrier` and `recommended_num_temperatures`.

    Attributes:
        kernel: moves each replica.
        num_temperatures: R, where `temperatures` is not given.
        temperatures: increasing, the last one 1; at least two.
        power: p.

    Raises:
        TypeError: `kernel` is not a kernel.
        ValueError: the ladder is not usable, or given in two ways.
    """

    kernel: Kernel = MALA()  # noqa: RUF009 - a frozen value
    num_temperatures: int = 8
    temperatures: Sequence[float] | None = None
    power: float | None = None

    def __post_init__(self):
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"`kernel` must be a Markov kernel such as `MALA()` or `NUTS()`, got {self.kernel!r}.")
        if self.temperatures is not None:
            if self.power is not None:
                raise ValueError("Give either `temperatures` or `power`, not both.")
            object.__setattr__(self, "temperatures", check_temperatures(self.temperatures))
            object.__setattr__(self, "num_temperatures", len(self.temperatures))
        if self.num_temperatures < 2:
            raise ValueError(f"`num_temperatures` must be at least 2, got {self.num_temperatures}.")
        if self.power is not None and not self.power > 0:
            raise ValueError(f"`power` must be positive, got {self.power}.")

    @property
    def coordinates(self) -> Coordinates:
        """The kernel's own."""
        return self.kernel.coordinates

    @property
    def adapts_ladder(self) -> bool:
        """Whether warm-up moves the temperatures."""
        return self.temperatures is None and self.power is None

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
        transition = _Tempered(self)
        if transition.draws_reference:
            check_prior(posterior, "A ladder of ParallelTempering that starts at temperature 0")
        if self.adapts_ladder and num_warmup == 0:
            raise ValueError(
                "The ladder is adapted in warm-up, but `num_warmup` is 0. Give it some, or give `power` or `temperatures`."
            )
        output = run_chains(
            key,
            posterior,
            transition,
            num_chains=num_chains,
            num_samples=num_samples,
            num_warmup=num_warmup,
            progress_bar=progress_bar,
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
        rejection = 1 - output.stats["swap_acceptance"].mean(1)
        output.summary.update(
            rejection_rate=rejection,
            communication_barrier=communication_barrier(rejection),
            recommended_num_temperatures=recommended_num_temperatures(rejection),
        )
        return output


@dataclass(frozen=True)
class _Tempered:
    """The transition of a whole ladder; carried along are the replicas and what each temperature has learnt."""

    sampler: ParallelTempering

    @property
    def kernel(self) -> Kernel:
        return self.sampler.kernel

    @property
    def draws_reference(self) -> bool:
        temperatures = self.sampler.temperatures
        return temperatures is None or temperatures[0] == 0

    def begin(self, key, state: ChainState, target) -> tuple[ReplicaExchangeState, Adaptation]:
        sampler, dtype = self.sampler, state.log_likelihood.dtype
        if sampler.temperatures is not None:
            temperatures = jnp.asarray(sampler.temperatures, dtype)
        else:
            # Cubes are where an adapted ladder starts: most of the change happens close to the prior.
            power = 3.0 if sampler.power is None else sampler.power
            temperatures = jnp.linspace(0, 1, sampler.num_temperatures, dtype=dtype) ** power

        def start(number):
            new = self.kernel.evaluate(target, target.draw(jax.random.fold_in(key, number)))
            # Replicas start apart from each other, where that is possible.
            is_good = new.is_finite()
            return jax.tree.map(lambda new, old: jnp.where(is_good, new, old), new, state)

        replicas = jax.vmap(start)(jnp.arange(sampler.num_temperatures))
        adaptation = jax.vmap(lambda replica: begin_adaptation(self.kernel, replica.position))(replicas)
        return init(replicas, temperatures), adaptation

    def advance(self, key, carry, target, stage, window_ends):
        state, adaptation = carry
        kernel = self.kernel

        def step(key, replica, temperature, adaptation):
            replica, info = kernel.step(key, replica, target, temperature, adaptation.tuning)
            acceptance_rate = info["acceptance_rate"]
            adaptation = adapt(kernel, adaptation, replica.position, acceptance_rate, stage, window_ends)
            return replica, (info, adaptation)

        def reference(key):
            return kernel.evaluate(target, target.draw(key))

        exchange = build_kernel(
            step, lambda replica: replica.log_likelihood, reference if self.draws_reference else None
        )
        state, info = exchange(key, state, adaptation)
        kernel_info, moved = info.kernel_info
        if self.draws_reference:
            moved = jax.tree.map(lambda old, new: jnp.concatenate([old[:1], new]), adaptation, moved)
        records = {
            **record(*jax.tree.map(lambda x: x[-1], (state.replicas, kernel_info))),
            "swap_acceptance": info.swap_acceptance,
            "is_swapped": info.is_swapped,
            "replica": info.index,
            "tempered_log_likelihood": info.log_likelihood,
            "tempered_acceptance_rate": _with_reference(kernel_info["acceptance_rate"], self.sampler.num_temperatures),
        }
        return (state, moved), records

    def after_warmup_chunk(self, carry, records, fraction):
        # The last fifth of warm-up tunes step sizes on the final ladder.
        if not self.sampler.adapts_ladder or fraction > 0.8:
            return carry
        state, adaptation = carry
        return state._replace(temperatures=_move_ladder(state.temperatures, records["swap_acceptance"])), adaptation

    def end_warmup(self, carry):
        state, adaptation = carry
        return state, jax.vmap(lambda adaptation: end_adaptation(self.kernel, adaptation))(adaptation)

    def summarize(self, carry):
        state, adaptation = carry
        step_size = adaptation.tuning.step_size
        if self.draws_reference:
            # Draws from the prior have no step.
            step_size = step_size.at[0].set(jnp.nan)
        return {"temperatures": state.temperatures, "step_size": step_size}


def _with_reference(acceptance_rate, num_temperatures):
    """Acceptance at all temperatures: an exact draw from the prior is accepted."""
    missing = num_temperatures - acceptance_rate.shape[0]
    return jnp.concatenate([jnp.ones(missing, acceptance_rate.dtype), acceptance_rate])


@jax.jit
def _move_ladder(temperatures, swap_acceptance):
    """One ladder for all chains of a datum: temperatures (C, N, R), acceptances (steps, C, N, R - 1)."""
    rejection = 1 - swap_acceptance.mean((0, 1))
    ladder = jax.vmap(equalize_rejection)(temperatures[0], rejection)
    return jnp.broadcast_to(ladder, temperatures.shape)


def check_temperatures(temperatures: Sequence[float]) -> tuple[float, ...]:
    """A ladder as a tuple of floats.

    Raises:
        ValueError: it does not increase from 0 or more to 1 in at least two temperatures.
    """
    ladder = tuple(float(t) for t in temperatures)
    increases = all(low < high for low, high in itertools.pairwise(ladder))
    if len(ladder) < 2 or not increases or ladder[0] < 0 or ladder[-1] != 1:
        raise ValueError(
            f"`temperatures` must increase from 0 or more to 1, in at least two steps of the ladder, got {ladder}."
        )
    return ladder
