"""The joint posterior of latents outside and inside a plate, moved in turns: the globals, and all data side by side."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from ..kernels.adaptation import Adaptation, adapt, begin_adaptation, end_adaptation
from ..kernels.hamiltonian import HMC
from ..kernels.kernel import ChainState, Kernel, joint_target
from ..model.coordinates import Coordinates, Unconstrained
from ..model.hierarchy.posterior import BlockLayout, HierarchicalPosterior, JointTarget
from ..model.hierarchy.standardize import Standardized
from ..model.power_posterior import Position, PowerPosterior, Target
from .chains import run_chains
from .run import Run
from .sampler import Sampler, SamplerOutput

# Largest error of a standardised coordinate, by rounding of the local, at which the globals move given the locals.
_COARSEST = 1e-3
# Share of the warm-up in which the globals wait. At draws of the prior, locals tell nothing of the data, and a scale that
# moves given such locals collapses.
_WAITING = 0.075


@dataclass(frozen=True)
class Blocks(Sampler):
    """Moves the latents outside a plate given those inside, then each datum's own given those outside.

    A step of a chain has three parts. The globals move given the locals standardised, e = (z - location) / scale, so that
    locals move with them; they move given the locals themselves; and the locals of all data move side by side, each datum
    by a kernel with a step size and a metric of its own. The first part is fast where data tell little of each local, the
    second where they tell much, and to alternate them is as fast as the better of the two, often faster (Yu and Meng 2011).
    There is one part for the two where no local is of a location-scale family, and for kernels of whitened space.

    Statistics of draws are those of the first part; `locals_acceptance_rate` is the mean over the data. The summary has
    `step_size`, `step_size_given_values` (of the second part) and `locals_step_size`, the last of each datum.

    Attributes:
        globals_: moves the globals.
        locals_: moves each datum's locals.

    Raises:
        TypeError: one is not a Markov kernel.
        ValueError: the two move in different coordinates.

    Source: ancillarity-sufficiency interweaving, Yu and Meng 2011, sec. 2.3.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import HMC, Blocks, sample_posterior
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0, 1))  # shared by all data
        ...     with numpyro.plate("data", len(y)):
        ...         z = numpyro.sample("z", dist.Normal(mean, 1))  # of each datum
        ...         numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> blocks = Blocks(globals_=HMC(num_integration_steps=3), locals_=HMC(num_integration_steps=3))
        >>> draws = sample_posterior(
        ...     jax.random.key(0), model, jnp.ones(5), sampler=blocks, plate="data", num_samples=50, progress_bar=False
        ... )
        >>> draws.samples["mean"].shape, draws.samples["z"].shape
        ((4, 50), (4, 50, 5))
    """

    has_chains: ClassVar[bool] = True
    keeps_state: ClassVar[bool] = True

    globals_: Kernel = HMC()  # noqa: RUF009 - a frozen value
    locals_: Kernel = HMC()  # noqa: RUF009 - a frozen value

    def __post_init__(self) -> None:
        for name in ("globals_", "locals_"):
            if not isinstance(getattr(self, name), Kernel):
                raise TypeError(f"`{name}` must be a Markov kernel such as `HMC()`, got {getattr(self, name)!r}.")
        if self.globals_.coordinates != self.locals_.coordinates:
            raise ValueError(
                f"{self.globals_!r} and {self.locals_!r} move in different coordinates: give two kernels of unconstrained "
                "space, such as `HMC()` and `MALA()`, or two of whitened space, such as `EllipticalSlice()` and `PCNL()`."
            )

    @property
    def coordinates(self) -> Coordinates:  # type: ignore[override]
        """Standardised ones for kernels of unconstrained space."""
        own = self.globals_.coordinates
        return Standardized() if own == Unconstrained() else own

    @property
    def is_exact(self) -> bool:
        """Whether both kernels are."""
        return self.globals_.is_exact and self.locals_.is_exact

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
        if not isinstance(posterior, HierarchicalPosterior):
            raise ValueError(
                "`Blocks` moves latents outside a plate and those inside it apart, but there are not both: name the plate "
                "by `plate=` if the model has such latents; otherwise give a Markov kernel, such as `NUTS()`."
            )
        if self.locals_.adapts and num_warmup == 0:
            raise ValueError(
                f"{type(self.locals_).__name__} adapts its step size in warm-up, but `num_warmup` is 0: give it some, or "
                "give the kernel a `step_size` if it has one."
            )
        transition = AlternateBlocks(
            self.globals_,
            self.locals_,
            posterior.blocks,
            posterior.blocks.has_standardized and self.coordinates == Standardized(),
            round(_WAITING * num_warmup),
        )
        return run_chains(
            key, posterior, transition, num_chains=num_chains, num_samples=num_samples, num_warmup=num_warmup,
            run=run, dims={"locals_step_size": (posterior.blocks.plate,)},
        )  # fmt: skip


class BlockState(NamedTuple):
    """What is carried along a chain.

    Attributes:
        position: of all latents.
        number: of the step.
        globals_: adaptation of the step of the globals given the locals' coordinates.
        given_values: of that given the locals themselves; () where there is none.
        locals_: of each datum, arrays (num_data, ...).
    """

    position: Position
    number: jax.Array
    globals_: Adaptation
    given_values: Adaptation | tuple[()]
    locals_: Adaptation


@dataclass(frozen=True)
class AlternateBlocks:
    """The transition of `Blocks`; see `Transition`."""

    kernel: Kernel
    locals_kernel: Kernel
    blocks: BlockLayout
    moves_given_values: bool
    num_waiting: int

    @property
    def num_replicas(self) -> int:
        """One: there is no exchange."""
        return 1

    def resumed(self, num_replicas: int, fraction: float) -> Self:
        return self

    def begin(self, replicas: ChainState) -> BlockState:
        position = jax.tree.map(lambda x: x[0], replicas.position)
        globals_, locals_ = self.blocks.split(position)
        adaptation = begin_adaptation(self.kernel, globals_)
        begin_locals = jax.vmap(lambda position: begin_adaptation(self.locals_kernel, position))
        given_values = adaptation if self.moves_given_values else ()
        return BlockState(
            position, jnp.zeros((), jnp.int32), adaptation, given_values, begin_locals(self.blocks.data_first(locals_))
        )

    def advance(
        self, key: jax.Array, carry: BlockState, target: Target, stage: jax.Array, window_ends: jax.Array
    ) -> tuple[BlockState, dict[str, Any]]:
        assert isinstance(target, JointTarget)
        posterior, blocks = target.posterior, self.blocks
        globals_, locals_ = blocks.split(carry.position)
        globals_key, values_key, locals_key = jax.random.split(key, 3)

        def move(
            kernel: Kernel, key: jax.Array, problem: Target, position: Position, adaptation: Adaptation
        ) -> tuple[Position, Adaptation, dict[str, jax.Array]]:
            problem = joint_target(problem) if kernel.takes_joint else problem
            state = kernel.evaluate(problem, position)
            temperature = jnp.ones((), state.log_likelihood.dtype)
            state, info = kernel.step(key, state, problem, temperature, adaptation.tuning)
            adaptation = adapt(kernel, adaptation, state.position, info["acceptance_rate"], stage, window_ends)
            return state.position, adaptation, info

        is_moving = carry.number >= self.num_waiting

        def move_globals(
            key: jax.Array, problem: Target, position: Position, adaptation: Adaptation, is_moving: jax.Array
        ) -> tuple[Position, Adaptation, dict[str, jax.Array]]:
            moved = move(self.kernel, key, problem, position, adaptation)
            return *_choose(is_moving, moved[:2], (position, adaptation)), moved[2]

        step_size = carry.globals_.tuning.step_size
        problem = posterior.of_globals(locals_)
        globals_, globals_adaptation, info = move_globals(globals_key, problem, globals_, carry.globals_, is_moving)
        diverging = [info.get("diverging")]

        values_adaptation = carry.given_values
        if isinstance(values_adaptation, Adaptation):
            values = posterior.unstandardize(globals_, locals_)
            problem = posterior.of_globals_given_values(values)
            is_resolved = posterior.resolution(globals_, values) < _COARSEST
            new, values_adaptation, values_info = move_globals(
                values_key, problem, globals_, values_adaptation, is_moving & is_resolved
            )
            # Refused on the way there as on the way back, so that the posterior stays invariant.
            is_kept = is_moving & is_resolved & (posterior.resolution(new, values) < _COARSEST)
            globals_, locals_ = _choose(is_kept, (new, posterior.standardize(new, values)), (globals_, locals_))
            if "diverging" in values_info:
                diverging.append(values_info["diverging"] & is_resolved)

        of_locals = posterior.of_locals(globals_, locals_)

        def move_datum(
            key: jax.Array, datum: tuple[jax.Array, ...], position: Position, adaptation: Adaptation
        ) -> tuple[Position, Adaptation, dict[str, jax.Array]]:
            return move(self.locals_kernel, key, of_locals.target(datum), position, adaptation)

        keys = jax.random.split(locals_key, of_locals.num_data)
        positions, locals_adaptation, locals_info = jax.vmap(move_datum)(
            keys, of_locals.rows, blocks.data_first(locals_), carry.locals_
        )
        diverging.append(locals_info.get("diverging"))
        position = globals_ | blocks.data_in_place(positions)
        log_prior, log_likelihood = target.densities(position)
        lp = log_prior + log_likelihood
        records = {
            "position": position,
            "lp": lp,
            "log_prior": log_prior,
            "log_likelihood": log_likelihood,
            "energy": -lp,
            "acceptance_rate": info["acceptance_rate"],
            "locals_acceptance_rate": locals_info["acceptance_rate"].mean(),
            "step_size": step_size,
        }
        found = [jnp.any(x) for x in diverging if x is not None]
        if found:
            records["diverging"] = jnp.any(jnp.stack(found))
        number = carry.number + 1
        return BlockState(position, number, globals_adaptation, values_adaptation, locals_adaptation), records

    def after_warmup_chunk(
        self, carry: BlockState, records: dict[str, Any], fraction: float
    ) -> tuple["AlternateBlocks", BlockState]:
        return self, carry

    def end_warmup(self, carry: BlockState) -> BlockState:
        given_values = carry.given_values
        return BlockState(
            carry.position,
            carry.number,
            end_adaptation(self.kernel, carry.globals_),
            end_adaptation(self.kernel, given_values) if isinstance(given_values, Adaptation) else (),
            jax.vmap(lambda adaptation: end_adaptation(self.locals_kernel, adaptation))(carry.locals_),
        )

    def summarize(self, carry: BlockState) -> dict[str, jax.Array]:
        summary = {"step_size": carry.globals_.tuning.step_size, "locals_step_size": carry.locals_.tuning.step_size}
        if isinstance(carry.given_values, Adaptation):
            summary["step_size_given_values"] = carry.given_values.tuning.step_size
        return summary


def _choose[T](condition: jax.Array, when_true: T, when_false: T) -> T:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), when_true, when_false)
