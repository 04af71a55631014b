"""Many Markov chains at once: chains and data are one batch, steps run in compiled chunks."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kaem_ppl.compilation import is_slow_in_loops, jit_outermost

from ..kernels.adaptation import DRAW, IDLE, Adaptation, adapt, begin_adaptation, end_adaptation, warmup_schedule
from ..kernels.kernel import ChainState, Kernel
from ..model.power_posterior import PowerPosterior, Target
from .batching import over_problems, shard_like
from .sampler import SamplerOutput, problem_keys, progress
from .starts import find_starts, trace_start


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


def sample_chains(
    key: jax.Array,
    posterior: PowerPosterior,
    kernel: Kernel,
    *,
    num_chains: int,
    num_samples: int,
    num_warmup: int,
    progress_bar: bool,
) -> SamplerOutput:
    """Draw from the posterior by one kernel; see `Sampler.sample`."""
    return run_chains(
        key, posterior, SingleKernel(kernel), num_chains=num_chains, num_samples=num_samples, num_warmup=num_warmup,
        progress_bar=progress_bar, dims={},
    )  # fmt: skip


class SingleKernel:
    """The transition of one kernel at temperature 1; compared by its kernel, so that programs are compiled once."""

    num_replicas = 1

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __hash__(self) -> int:
        return hash(self.kernel)

    def __eq__(self, other: object) -> bool:
        return type(other) is SingleKernel and self.kernel == other.kernel

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


def run_chains(
    key: jax.Array,
    posterior: PowerPosterior,
    transition: Transition,
    *,
    num_chains: int,
    num_samples: int,
    num_warmup: int,
    progress_bar: bool,
    dims: dict[str, tuple[str, ...]],
) -> SamplerOutput:
    """Warm chains up and draw; see `Sampler.sample`.

    Raises:
        ValueError: there is no finite log-density at any of several prior draws; or the kernel's step size is to be
            adapted and there is no warm-up.
    """
    kernel = transition.kernel
    if kernel.adapts and num_warmup == 0:
        raise ValueError(
            f"{type(kernel).__name__} adapts its step size in warm-up, but `num_warmup` is 0: give it some, or give the "
            "kernel a `step_size` if it has one."
        )
    keys = problem_keys(key, num_chains, posterior.num_data)
    replicas = find_starts(transition.kernel, transition.num_replicas, posterior, keys)
    carry = shard_like(replicas.log_likelihood, _begin(transition, replicas))
    # A start evaluates the model as a step does.
    is_slow = is_slow_in_loops(trace_start(transition.kernel, transition.num_replicas, posterior, keys))
    length = 1 if is_slow else _chunk_length(num_warmup, num_samples)

    steps = _schedule(num_warmup, num_samples, length)
    num_chunks, num_warmup_chunks = len(steps) // length, -(-num_warmup // length)
    # A ladder is revised a few times in warm-up, whatever the length of a chunk.
    revise_every = max(1, num_warmup_chunks // 10)
    kept, recent, started = [], [], time.perf_counter()
    for chunk in progress(range(num_chunks), num_chunks, "chunk", progress_bar):
        if chunk == num_warmup_chunks:
            carry = _end_warmup(transition, jax.block_until_ready(carry))
            started = time.perf_counter()
        carry, records = _advance(transition, posterior, carry, keys, steps[chunk * length : (chunk + 1) * length])
        if chunk >= num_warmup_chunks:
            kept.append(records)
            continue
        recent.append(records)
        if (chunk + 1) % revise_every == 0 or chunk + 1 == num_warmup_chunks:
            fraction = (chunk + 1) / num_warmup_chunks
            transition, carry = transition.after_warmup_chunk(carry, _join(recent), fraction)
            recent = []
    records = jax.block_until_ready(_by_chain(_join(kept), num_samples))
    seconds = time.perf_counter() - started
    summary = jax.vmap(jax.vmap(transition.summarize))(carry)
    return SamplerOutput(records.pop("position"), records, summary, dims, seconds)


def _chunk_length(num_warmup: int, num_samples: int) -> int:
    if num_warmup == 0:
        return max(1, -(-num_samples // 10))
    return max(1, -(-num_warmup // 10), -(-num_samples // 200))


def _schedule(num_warmup: int, num_samples: int, length: int) -> np.ndarray:
    """Of each step its number, stage, and whether a window ends; warm-up and draws each fill whole chunks."""
    stages, ends = warmup_schedule(num_warmup)

    def fill(x: np.ndarray, value: int) -> np.ndarray:
        return np.concatenate([x, np.full(-len(x) % length, value, x.dtype)])

    stages = np.concatenate([fill(stages, IDLE), fill(np.full(num_samples, DRAW, np.int32), IDLE)])
    ends = np.concatenate([fill(ends, False), np.zeros(len(stages) - len(fill(ends, False)), bool)])
    # Idle steps do not count: numbers, and with them keys, are the same for any length of chunk.
    numbers = np.cumsum(stages != IDLE) - 1
    return np.stack([numbers.astype(np.int32), stages, ends.astype(np.int32)], axis=-1)


def _join(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    # Not under `jax.jit`, which takes seconds for hundreds of chunks.
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *chunks)


@partial(jax.jit, static_argnums=1)
def _by_chain(records: dict[str, Any], num_samples: int) -> dict[str, Any]:
    """Records (steps, C, N, ...) without what filled the last chunk, as (C, S, N, ...)."""
    return jax.tree.map(lambda x: jnp.moveaxis(x[:num_samples], 0, 1), records)


@partial(jax.jit, static_argnums=0)
def _begin(transition: Transition, replicas: ChainState) -> Any:
    return jax.vmap(jax.vmap(transition.begin))(replicas)


@partial(jax.jit, static_argnums=0)
def _end_warmup(transition: Transition, carry: Any) -> Any:
    return jax.vmap(jax.vmap(transition.end_warmup))(carry)


@partial(jit_outermost, static_argnums=0, donate_argnums=2)
def _advance(
    transition: Transition, posterior: PowerPosterior, carry: Any, keys: jax.Array, steps: jax.Array
) -> tuple[Any, dict[str, Any]]:
    """A chunk of steps, (length, 3), of every problem; records have the axes (length, C, N, ...)."""
    if len(steps) == 1:
        carry, records = _move(transition, posterior, carry, keys, steps[0])
        return carry, jax.tree.map(lambda x: x[None], records)
    records = jax.eval_shape(partial(_move, transition), posterior, carry, keys, steps[0])[1]

    def idle(carry: Any, step: jax.Array) -> tuple[Any, dict[str, Any]]:
        return carry, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), records)

    def move(carry: Any, step: jax.Array) -> tuple[Any, dict[str, Any]]:
        return _move(transition, posterior, carry, keys, step)

    return lax.scan(lambda carry, step: lax.cond(step[1] == IDLE, idle, move, carry, step), carry, steps)


# Compiled as part of `_advance`; a function of its own, so that the model runs once for shapes and steps.
@partial(jax.jit, static_argnums=0)
def _move(
    transition: Transition, posterior: PowerPosterior, carry: Any, keys: jax.Array, step: jax.Array
) -> tuple[Any, dict[str, Any]]:
    number, stage, window_ends = step[0], step[1], step[2] == 1

    def move(key: jax.Array, datum: tuple[jax.Array, ...], carry: Any) -> tuple[Any, dict[str, Any]]:
        return transition.advance(jax.random.fold_in(key, number), carry, posterior.target(datum), stage, window_ends)

    return over_problems(move, posterior, keys, carry)
