"""What moves along a Markov chain: the protocol, and the transition of a single kernel."""

from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from kaem_ppl.compilation import jit_once

from ..kernels.adaptation import Adaptation, adapt, begin_adaptation, end_adaptation, shorten
from ..kernels.kernel import ChainState, Kernel, joint_target
from ..model.power_posterior import Target

# The share of a warm-up that a kernel's explorer moves in.
_EXPLORED = 0.8


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
    """The transition of one kernel at temperature 1; compared by the kernel, so that programs are compiled once.

    A kernel that has an explorer is moved by it throughout: after four fifths of the warm-up its trajectories are single
    steps, the kernel's own, so that one program does for both.

    Attributes:
        kernel: what draws.
    """

    num_replicas = 1

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._mover: Kernel = kernel if kernel.explorer is None else kernel.explorer

    def __hash__(self) -> int:
        return hash(self.kernel)

    def __eq__(self, other: object) -> bool:
        return type(other) is SingleKernel and self.kernel == other.kernel

    @property
    def _is_joint(self) -> bool:
        return self._mover.takes_joint

    def resumed(self, num_replicas: int, fraction: float) -> "SingleKernel":
        return self

    def begin(self, replicas: ChainState) -> tuple[ChainState, Adaptation]:
        state = jax.tree.map(lambda x: x[0], replicas)
        state = state.joined() if self._is_joint else state
        return state, begin_adaptation(self._mover, state.position)

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
        step_size = self._step_size(adaptation)
        moved_on = joint_target(target) if self._is_joint else target
        state, info = self._mover.step(key, state, moved_on, temperature, adaptation.tuning)
        if self._mover is not self.kernel:
            info = {"acceptance_rate": info["acceptance_rate"]}
        adaptation = adapt(self._mover, adaptation, state.position, info["acceptance_rate"], stage, window_ends)
        recorded = state
        if self._is_joint:
            log_prior = target.log_prior(state.position)
            recorded = state._replace(log_prior=log_prior, log_likelihood=state.log_prior - log_prior)
        return (state, adaptation), {**record(recorded, info), "step_size": step_size}

    def after_warmup_chunk(self, carry: Any, records: dict[str, Any], fraction: float) -> tuple["SingleKernel", Any]:
        if self._mover is self.kernel or fraction < _EXPLORED:
            return self, carry
        return self, _shorten(self.kernel, carry)

    def end_warmup(self, carry: tuple[ChainState, Adaptation]) -> tuple[ChainState, Adaptation]:
        state, adaptation = carry
        return state, end_adaptation(self._mover, adaptation)

    def summarize(self, carry: tuple[ChainState, Adaptation]) -> dict[str, jax.Array]:
        return {"step_size": self._step_size(carry[1])}

    def _step_size(self, adaptation: Adaptation) -> jax.Array:
        """The kernel's own: a leapfrog step of length h is a Langevin step of eta = h^2 / 2."""
        step_size = adaptation.tuning.step_size
        return step_size if self._mover is self.kernel else 0.5 * jnp.square(step_size)


@partial(jit_once, static_argnums=0)
def _shorten(kernel: Kernel, carry: tuple[ChainState, Adaptation]) -> tuple[ChainState, Adaptation]:
    state, adaptation = carry
    return state, jax.vmap(jax.vmap(partial(shorten, kernel=kernel)))(adaptation)


def record(state: ChainState, info: dict[str, jax.Array]) -> dict[str, Any]:
    """What is kept of each draw, by the names that ArviZ uses."""
    lp = state.log_density(jnp.ones_like(state.log_likelihood))
    stats = {"lp": lp, "log_prior": state.log_prior, "log_likelihood": state.log_likelihood, "energy": -lp}
    return {"position": state.position, **stats, **info}
