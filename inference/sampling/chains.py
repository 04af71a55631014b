"""Many Markov chains at once: chains and data are one batch, steps run in compiled chunks, and the state goes on."""

import time
import warnings
from concurrent.futures import Future
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kaem_ppl.compilation import compile_ahead, is_slow_in_loops, jit_outermost

from ..kernels.adaptation import IDLE, drawing_steps, warmup_steps
from ..kernels.kernel import ChainState, Kernel
from ..model.power_posterior import PowerPosterior
from .batching import over_problems, shard_like
from .chains_state import ChainsState
from .run import Run
from .sampler import SamplerOutput, problem_keys
from .starts import find_starts, trace_start
from .storage.records import OnDisk, in_memory_or_on_disk, join_chunks
from .transition import SingleKernel, Transition

# Steps of a compiled chunk: a tenth of the warm-up and at most so many, whatever the number of draws, so that a longer run
# and one that goes on share the program.
_LONGEST_CHUNK, _CHUNK_WITHOUT_WARMUP = 100, 50
# A ladder is revised a few times in warm-up, whatever the length of a chunk.
_NUM_REVISIONS = 10
_OTHER_CHAINS = (
    "`state` is not a state of these chains: its arrays differ. Give the model, data, sampler and `num_chains` that it "
    "came from."
)


def sample_chains(
    key: jax.Array,
    posterior: PowerPosterior,
    kernel: Kernel,
    *,
    num_chains: int,
    num_samples: int,
    num_warmup: int,
    run: Run,
) -> SamplerOutput:
    """Draw from the posterior by one kernel; see `Sampler.sample`."""
    return run_chains(
        key, posterior, SingleKernel(kernel), num_chains=num_chains, num_samples=num_samples,
        num_warmup=num_warmup, run=run, dims={},
    )  # fmt: skip


def run_chains(
    key: jax.Array,
    posterior: PowerPosterior,
    transition: Transition,
    *,
    num_chains: int,
    num_samples: int,
    num_warmup: int,
    run: Run,
    dims: dict[str, tuple[str, ...]],
) -> SamplerOutput:
    """Warm chains up and draw, or go on from `run.state` or from what its checkpoint kept; see `Sampler.sample`.

    Raises:
        ValueError: there is no finite log-density at any of several prior draws; the kernel's step size is to be adapted
            and there is no warm-up; or a state does not belong to these chains.
    """
    chains = _Chains(posterior, transition, run, dims)
    chains.start(key, num_chains, num_warmup)
    chains.warm_up()
    chains.draw(num_samples)
    return chains.output()


class _Chains:
    """The loop over chunks: what stands where, what was recorded, and what is to be shown and kept."""

    def __init__(
        self, posterior: PowerPosterior, transition: Transition, run: Run, dims: dict[str, tuple[str, ...]]
    ) -> None:
        self.posterior, self.transition, self.run, self.dims = posterior, transition, run, dims
        self.recent: list[dict[str, Any]] = []
        self.was_resumed = False
        # That of the steps, while it is being compiled.
        self.program: Future[Any] | None = None
        self.records = in_memory_or_on_disk(run, posterior, dims)

    def start(self, key: jax.Array, num_chains: int, num_warmup: int) -> None:
        """Begin at draws of the prior, or where a state says."""
        saved = self.run.load("chains")
        state: ChainsState | None = self.run.state if saved is None else saved["state"]
        if state is None:
            self._begin(key, num_chains, num_warmup)
            return
        self.was_resumed = True
        self._resume(state, num_chains)
        done, warmup = self.state.num_steps, self.state.num_warmed_up
        self.run.progress.say(
            f"chains go on after step {done:,} of drawing" if done or warmup >= self.state.num_warmup
            else f"chains go on after step {warmup:,} of {self.state.num_warmup:,} of warm-up"
        )  # fmt: skip
        if saved is not None:
            self.recent = [] if not saved["recent"] else [jax.tree.map(jnp.asarray, saved["recent"])]
            self.records.resume(saved["records"])

    def _begin(self, key: jax.Array, num_chains: int, num_warmup: int) -> None:
        transition, posterior = self.transition, self.posterior
        kernel = transition.kernel
        if kernel.adapts and num_warmup == 0:
            raise ValueError(
                f"{type(kernel).__name__} adapts its step size in warm-up, but `num_warmup` is 0: give it some, or give "
                "the kernel a `step_size` if it has one."
            )
        self.run.progress.begin("compiling the starts of chains")
        self.keys = problem_keys(key, num_chains, posterior.num_data)
        start = trace_start(kernel, transition.num_replicas, posterior, self.keys)
        length = _CHUNK_WITHOUT_WARMUP if num_warmup == 0 else min(-(-num_warmup // 10), _LONGEST_CHUNK)
        # A start evaluates the model as a step does.
        length = 1 if is_slow_in_loops(start.jaxpr) else length
        self._compile_ahead(start, length)
        replicas = find_starts(kernel, transition.num_replicas, posterior, self.keys)
        carry = shard_like(replicas.log_likelihood, _begin(transition, replicas))
        self.state = ChainsState(
            carry, jax.random.key_data(key), num_warmup, 0, 0, transition.num_replicas, length, 0.0
        )

    def _compile_ahead(self, start: Any, length: int) -> None:
        """Compile the start and the steps side by side; return when the start is there.

        Not where data were put on devices: a program is compiled for where its arguments are, and shapes do not say.
        """
        if any(x.committed for x in jax.tree.leaves((self.posterior, self.keys)) if isinstance(x, jax.Array)):
            return
        compiled = compile_ahead(start)
        steps = jax.ShapeDtypeStruct((length, 3), np.int32)
        carry = jax.eval_shape(partial(_begin, self.transition), start.out_info[0])
        self.program = compile_ahead(_advance.trace(self.transition, self.posterior, carry, self.keys, steps))
        compiled.result()

    def _resume(self, state: ChainsState, num_chains: int) -> None:
        numbers = {
            name: int(getattr(state, name))
            for name in ("num_warmup", "num_warmed_up", "num_steps", "num_replicas", "chunk_length")
        }
        revised = self._revised(numbers["num_warmup"], numbers["num_warmed_up"], numbers["chunk_length"])
        try:
            self.transition = self.transition.resumed(numbers["num_replicas"], revised)
        except ValueError as error:
            raise ValueError(_OTHER_CHAINS) from error
        key = jax.random.wrap_key_data(jnp.asarray(state.key))
        self.keys = problem_keys(key, num_chains, self.posterior.num_data)
        self._check(state.carry)
        # A copy: the buffers of the caller's state are not to be donated.
        carry = jax.tree.map(lambda x: jnp.array(x, copy=True), state.carry)
        self.state = ChainsState(carry, state.key, seconds=float(state.seconds), **numbers)

    def _revised(self, num_warmup: int, num_warmed_up: int, length: int) -> float:
        """The fraction of the warm-up after which the transition was last revised."""
        num_chunks = -(-num_warmup // length)
        if num_warmed_up >= num_warmup:
            return 1.0
        every = _revise_every(num_chunks)
        return num_warmed_up // length // every * every / num_chunks

    def _check(self, carry: Any) -> None:
        number = self.transition.num_replicas
        replicas = trace_start(self.transition.kernel, number, self.posterior, self.keys).out_info[0]
        expected = jax.eval_shape(partial(_begin, self.transition), replicas)
        shapes = [tuple(jnp.shape(x)) for x in jax.tree.leaves(carry)]
        if jax.tree.structure(carry) != jax.tree.structure(expected) or shapes != [
            x.shape for x in jax.tree.leaves(expected)
        ]:
            raise ValueError(_OTHER_CHAINS)

    def warm_up(self) -> None:
        """Run what is left of the warm-up."""
        total, length = self.state.num_warmup, self.state.chunk_length
        if self.state.num_warmed_up >= total:
            return
        schedule, num_chunks = warmup_steps(total, length), -(-total // length)
        revise_every = _revise_every(num_chunks)
        self.run.progress.begin("compiling the steps of the warm-up", total, "step", self.state.num_warmed_up)
        for chunk in range(self.state.num_warmed_up // length, num_chunks):
            records = self._advance(schedule[chunk * length : (chunk + 1) * length])
            self.recent.append(records)
            done = min((chunk + 1) * length, total)
            self.state = self.state._replace(num_warmed_up=done)
            if (chunk + 1) % revise_every == 0 or chunk + 1 == num_chunks:
                carry = self.state.carry
                joined = join_chunks(self.recent)
                self.transition, carry = self.transition.after_warmup_chunk(carry, joined, (chunk + 1) / num_chunks)
                self.recent = []
                self.state = self.state._replace(carry=carry, num_replicas=self.transition.num_replicas)
            if done == total:
                self.state = self.state._replace(carry=_end_warmup(self.transition, self.state.carry))
            self._report("warm-up", done, total, records)
            self._save(now=False)

    def draw(self, num_samples: int) -> None:
        """Draw until there are so many draws, or the rule that stops is content."""
        stop = self.run.stop
        checks = [num_samples] if stop is None else stop.checks(num_samples)
        most = num_samples if stop is None else stop.max_samples
        if self.records.num_draws > most:
            name = "num_samples" if stop is None else "max_samples"
            raise ValueError(
                f"`{name}` is {most}, but `checkpoint` holds {self.records.num_draws} draws of each chain. Give as many or "
                "more, or another folder."
            )
        self.run.progress.begin(
            "compiling the steps" if self.state.num_warmup == 0 or self.was_resumed else "drawing",
            most * self.run.thinning,
            "step",
            self.records.num_draws * self.run.thinning,
        )
        figures: dict[str, float] = {}
        for number in checks:
            if self.records.num_draws > number:
                continue
            self._draw_until(number, most, figures)
            if stop is None:
                break
            figures = stop.measure(self.records.values())
            if stop.is_reached(figures):
                break
        else:
            assert stop is not None, "without a rule there is one check"
            warnings.warn(
                f"`stop` was not reached in {stop.max_samples} draws of each chain: R-hat is {figures['r_hat']:.3f} of "
                f"{stop.r_hat}, and the effective sample size {figures['ess']:.0f} of {stop.ess:g}. Give a larger "
                "`max_samples`, or another sampler.",
                stacklevel=5,
            )
        self._save(now=True)

    def _draw_until(self, number: int, total: int, figures: dict[str, float]) -> None:
        thinning, length = self.run.thinning, self.state.chunk_length
        while self.records.num_draws < number:
            started = time.perf_counter()
            first, left = self.state.num_steps, (number - self.records.num_draws) * thinning
            # Draws are kept after every `thinning` steps, counted from the first draw of this call.
            behind = self.records.num_steps_behind
            active = min(length, left - behind)
            records = self._advance(drawing_steps(self.state.num_warmup + first, active, length))
            self.records.append(records, active)
            seconds = self.state.seconds + time.perf_counter() - started
            self.state = self.state._replace(num_steps=first + active, seconds=seconds)
            done = self.records.num_draws * thinning + self.records.num_steps_behind
            self._report("drawing", done, total * thinning, records, **figures)
            self._save(now=False)

    def _advance(self, steps: np.ndarray) -> dict[str, Any]:
        if self.program is not None:
            self.program.result()
            self.program = None
        carry, records = _advance(self.transition, self.posterior, self.state.carry, self.keys, steps)
        self.state = self.state._replace(carry=jax.block_until_ready(carry))
        return records

    def _report(self, activity: str, done: int, total: int, records: dict[str, Any], **figures: float) -> None:
        if not self.run.is_watched:
            return
        if "acceptance_rate" in records:
            # What fills a chunk up is 0.
            rate = np.asarray(records["acceptance_rate"], float)
            figures = {"acceptance": float(rate.sum() / max(1, np.count_nonzero(rate))), **figures}
        self.run.report(activity, done, total, figures, self._copy_state)

    def _copy_state(self) -> ChainsState:
        return self.state._replace(carry=jax.tree.map(lambda x: jnp.array(x, copy=True), self.state.carry))

    def _save(self, *, now: bool) -> None:
        def make() -> Any:
            recent = [] if not self.recent else jax.device_get(join_chunks(self.recent))
            return {"state": self.state, "recent": recent, "records": self.records.state()}

        self.run.save("chains", make, now=now)

    def output(self) -> SamplerOutput:
        """What was drawn, and what describes the whole."""
        summary = jax.vmap(jax.vmap(self.transition.summarize))(self.state.carry)
        positions, values, stats = self.records.close()
        if isinstance(self.records, OnDisk):
            self._save(now=True)
        return SamplerOutput(positions, stats, summary, self.dims, self.state.seconds, self.state, values)


def _revise_every(num_chunks: int) -> int:
    return max(1, num_chunks // _NUM_REVISIONS)


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
