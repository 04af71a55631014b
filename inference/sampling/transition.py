"""What moves along a Markov chain: the protocol, and the transition of a single kernel."""

from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp

from ..kernels.adaptation import Adaptation, adapt, begin_adaptation, end_adaptation
from ..kernels.kernel import ChainState, Kernel
from ..model.power_posterior import Target


class Transition(Protocol):
    """What moves along a chain of one problem; a hashable value, for it is static.

    Attributes:
        kernel: what it moves by.
        num_replicas: R, draws of the prior that it starts from.
    """

    @property
    def kernel(self) -> Kernel: ...

    @property
    def num_replicas(self) -> int: ...

    def resized(self, num_replicas: int) -> "Transition":
        """The same with this number of replicas, which a warm-up may have raised."""
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
    """The transition of one kernel at temperature 1; compared by its kernel, so that programs are compiled once."""

    num_replicas = 1

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __hash__(self) -> int:
        return hash(self.kernel)

    def __eq__(self, other: object) -> bool:
        return type(other) is SingleKernel and self.kernel == other.kernel

    def resized(self, num_replicas: int) -> Self:
        return self

    def begin(self, replicas: ChainState) -> tuple[ChainState, Adaptation]:
        state = jax.tree.map(lambda x: x[0], replicas)
        return state, begin_adaptation(self.kernel, state.position)

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
        state, info = self.kernel.step(key, state, target, temperature, tuning)
        adaptation = adapt(self.kernel, adaptation, state.position, info["acceptance_rate"], stage, window_ends)
        return (state, adaptation), {**record(state, info), "step_size": tuning.step_size}

    def after_warmup_chunk(self, carry: Any, records: dict[str, Any], fraction: float) -> tuple["SingleKernel", Any]:
        return self, carry

    def end_warmup(self, carry: tuple[ChainState, Adaptation]) -> tuple[ChainState, Adaptation]:
        state, adaptation = carry
        return state, end_adaptation(self.kernel, adaptation)

    def summarize(self, carry: tuple[ChainState, Adaptation]) -> dict[str, jax.Array]:
        return {"step_size": carry[1].tuning.step_size}


def record(state: ChainState, info: dict[str, jax.Array]) -> dict[str, Any]:
    """What is kept of each draw, by the names that ArviZ uses."""
    lp = state.log_density(jnp.ones_like(state.log_likelihood))
    stats = {"lp": lp, "log_prior": state.log_prior, "log_likelihood": state.log_likelihood, "energy": -lp}
    return {"position": state.position, **stats, **info}
