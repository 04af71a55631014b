"""What moves along a Markov chain: the protocol, and the transition of a single kernel."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from ..kernels.adaptation import Adaptation, adapt, begin_adaptation, end_adaptation, hand_over
from ..kernels.kernel import ChainState, Kernel, joint_target
from ..model.power_posterior import Target

# The share of a warm-up that a kernel's explorer moves in.
_EXPLORED = 0.8


class Transition(Protocol):
    """What moves along a chain of one problem; a hashable value, for it is static.

    Attributes:
        kernel: what it moves by.
        num_replicas: R, draws of the prior that it starts from.
        successor: what takes over in the warm-up, where that is known beforehand, and what makes its carry of this one's.
    """

    @property
    def kernel(self) -> Kernel: ...

    @property
    def num_replicas(self) -> int: ...

    @property
    def successor(self) -> tuple["Transition", Callable[[Any], Any]] | None: ...

    def resumed(self, num_replicas: int, fraction: float) -> "Transition":
        """What `after_warmup_chunk` has made of it: the number of replicas, and the fraction of the warm-up it last saw."""
        ...

    def begin(self, replicas: ChainState) -> Any:
        """Return what is carried along the chain, from the kernel's states (R, ...) at draws of the prior."""
        ...

    def advance(
        self, key: jax.Array, carry: Any, target: Target, stage: jax.Array, window_ends: jax.Array
    ) -> tuple[Any, dict[str, Any]]:
        """Move once; return the new carry and what is recorded, `position` among it."""
        ...

    def after_warmup_chunk(self, carry: Any, records: dict[str, Any], fraction: float) -> tuple["Transition", Any]:
        """Change the carry of all chains and data, (C, N, ...), by what a chunk of warm-up recorded, (steps, C, N, ...).

        Returns:
            The transition to go on with, whose replicas may be more, and its carry.
        """
        ...

    def end_warmup(self, carry: Any) -> Any:
        """Fix what was learnt for one chain of one problem."""
        ...

    def summarize(self, carry: Any) -> dict[str, Any]:
        """What describes the whole of one chain of one problem, by name."""
        ...


class SingleKernel:
    """The transition of one kernel at temperature 1; compared by what moves, so that programs are compiled once.

    Attributes:
        kernel: what draws.
        mover: what moves now: the kernel, or in a warm-up its explorer.
    """

    num_replicas = 1

    def __init__(self, kernel: Kernel, mover: Kernel | None = None) -> None:
        self.kernel = kernel
        self.mover = kernel if mover is None else mover

    def __hash__(self) -> int:
        return hash((self.kernel, self.mover))

    def __eq__(self, other: object) -> bool:
        return type(other) is SingleKernel and (self.kernel, self.mover) == (other.kernel, other.mover)

    @property
    def _is_joint(self) -> bool:
        return self.kernel.takes_joint and self.mover.takes_joint

    def resumed(self, num_replicas: int, fraction: float) -> "SingleKernel":
        return SingleKernel(self.kernel) if fraction >= _EXPLORED else self

    def begin(self, replicas: ChainState) -> tuple[ChainState, Adaptation]:
        state = jax.tree.map(lambda x: x[0], replicas)
        state = state.joined() if self._is_joint else state
        return state, begin_adaptation(self.mover, state.position)

    def advance(
        self,
        key: jax.Array,
        carry: tuple[ChainState, Adaptation],
        target: Target,
        stage: jax.Array,
        window_ends: jax.Array,
    ) -> tuple[tuple[ChainState, Adaptation], dict[str, Any]]:
        state, adaptation = carry
        temperature = jnp.ones((), state.log_likelihood.dtype)
        tuning = adaptation.tuning
        moved_on = joint_target(target) if self._is_joint else target
        state, info = self.mover.step(key, state, moved_on, temperature, tuning)
        adaptation = adapt(self.mover, adaptation, state.position, info["acceptance_rate"], stage, window_ends)
        recorded = state
        if self._is_joint:
            log_prior = target.log_prior(state.position)
            recorded = state._replace(log_prior=log_prior, log_likelihood=state.log_prior - log_prior)
        return (state, adaptation), {**record(recorded, info), "step_size": tuning.step_size}

    @property
    def successor(self) -> tuple["SingleKernel", Callable[[Any], Any]] | None:
        return None if self.mover == self.kernel else (SingleKernel(self.kernel), partial(_hand_over, self.kernel))

    def after_warmup_chunk(self, carry: Any, records: dict[str, Any], fraction: float) -> tuple["SingleKernel", Any]:
        if self.successor is None or fraction < _EXPLORED:
            return self, carry
        later, hand_over = self.successor
        return later, hand_over(carry)

    def end_warmup(self, carry: tuple[ChainState, Adaptation]) -> tuple[ChainState, Adaptation]:
        state, adaptation = carry
        return state, end_adaptation(self.kernel, adaptation)

    def summarize(self, carry: tuple[ChainState, Adaptation]) -> dict[str, jax.Array]:
        return {"step_size": carry[1].tuning.step_size}


@partial(jax.jit, static_argnums=0)
def _hand_over(kernel: Kernel, carry: tuple[ChainState, Adaptation]) -> tuple[ChainState, Adaptation]:
    state, adaptation = carry
    return state, jax.vmap(jax.vmap(partial(hand_over, kernel)))(adaptation)


def record(state: ChainState, info: dict[str, jax.Array]) -> dict[str, Any]:
    """What is kept of each draw, by the names that ArviZ uses."""
    lp = state.log_density(jnp.ones_like(state.log_likelihood))
    stats = {"lp": lp, "log_prior": state.log_prior, "log_likelihood": state.log_likelihood, "energy": -lp}
    return {"position": state.position, **stats, **info}
