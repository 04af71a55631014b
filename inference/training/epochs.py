"""The compiled steps of training: shuffle an epoch into batches, and run several steps in one call."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kaem_ppl.compilation import is_slow_in_loops

from ..model.modules.recording import Slot, make_slots, mean_states
from ..model.parameters import Parameters, Params
from ..model.training_model import TrainingModel
from .adaptive_grid import AdaptiveGrid
from .state import TrainingState, all_finite, copy_for_donation, select
from .strategies.strategy import Strategy
from .streaming import is_streamed, num_batches_together, parts, read_ahead, read_rows


@dataclass(frozen=True)
class StaticConfig:
    """What the steps are compiled for; equal values share compiled programs.

    Attributes:
        plate_model: the model.
        strategy: the loss.
        optimizer: the update.
        num_data: rows of the data.
        batch_size: data per step.
        grids: when adaptive grids are refitted.
        parameters: initial values and constraints; they follow from the model.
        one_dispatch_per_step: whether each step is a call of its own, because it would be slow inside a compiled loop; this
            too follows from the model.
    """

    plate_model: TrainingModel
    strategy: Strategy
    optimizer: optax.GradientTransformation
    num_data: int
    batch_size: int
    grids: AdaptiveGrid | None
    parameters: Parameters = field(compare=False, repr=False)
    one_dispatch_per_step: bool = field(default=False, compare=False)

    @property
    def num_batches(self) -> int:
        """Steps of an epoch."""
        return -(-self.num_data // self.batch_size)

    def constrain(self, params: Params, buffers: Params) -> Params:
        """Constrained parameters, of the model and of the guide, buffers among them."""
        return {**self.parameters.constrain(params), **buffers}

    def model_params(self, params: Params, buffers: Params) -> Params:
        """Constrained parameters of the model, buffers among them."""
        names = self.plate_model.first_params
        return {name: value for name, value in self.constrain(params, buffers).items() if name in names}

    def module_states(self, buffers: Params) -> Params:
        """Those of the buffers that are states of modules."""
        return {name: value for name, value in buffers.items() if name not in self.parameters.transforms}


@partial(jax.jit, static_argnums=0)
def shuffle(config: StaticConfig, state: TrainingState) -> tuple[jax.Array, jax.Array]:
    """A key for each step of the current epoch, and the rows (num_batches, batch_size) of each step's batch."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.epoch + 1)
    shuffle_key, steps_key = jax.random.split(key)
    num_data, batch_size, num_batches = config.num_data, config.batch_size, config.num_batches
    order = jax.random.permutation(shuffle_key, num_data)
    index = order[jnp.arange(num_batches * batch_size) % num_data].reshape(num_batches, batch_size)
    return jax.random.split(steps_key, num_batches), index


def train_epoch(config: StaticConfig, state: TrainingState, data: Any, every: int | None) -> Iterator[TrainingState]:
    """Run the current epoch to its end, and yield the state after each `every` steps and at the end."""
    keys, index = shuffle(config, state)
    num_batches = config.num_batches
    every = every or num_batches
    stops = [min(start + every, num_batches) for start in range(int(state.step), num_batches, every)]
    num_together = _steps_per_call(config, data)
    starts = zip([int(state.step), *stops], stops, strict=False)
    runs = [(n, min(n + num_together, stop)) for start, stop in starts for n in range(start, stop, num_together)]
    for (start, stop), (source, rows, offset) in zip(
        runs, _batch_sources(data, index, runs, num_together), strict=True
    ):
        state = _run_steps(config, state, keys, index, source, rows, offset, start, stop)
        if stop in stops:
            yield state


def try_step(config: StaticConfig, state: TrainingState, data: Any) -> TrainingState:
    """The state after one more step from a state between two epochs, by the program that trained; `state` is kept."""
    keys, index = shuffle(config, state)
    source, rows, offset = next(iter(_batch_sources(data, index, [(0, 1)], _steps_per_call(config, data))))
    return _run_steps(config, copy_for_donation(state), keys, index, source, rows, offset, 0, 1)


def _steps_per_call(config: StaticConfig, data: Any) -> int:
    """Steps in one call: all, or as many as are read together, or one where compiled loops are slow."""
    if config.one_dispatch_per_step:
        return 1
    if not is_streamed(data):
        return config.num_batches
    return min(config.num_batches, num_batches_together(data, config.batch_size))


def _batch_sources(
    data: Any, index: jax.Array, runs: list[tuple[int, int]], num_together: int
) -> Iterator[tuple[Any, jax.Array, int]]:
    """For each run of steps arrays, their rows that make batches, and the step that the first row belongs to."""
    if not is_streamed(data):
        return ((data, index, 0) for _ in runs)
    order = np.asarray(index)
    shape = (num_together, order.shape[1])
    # A short run is filled up, so that all have one shape.
    wanted = [np.resize(order[start:stop], shape).ravel() for start, stop in runs]
    rows = jnp.arange(num_together * order.shape[1]).reshape(shape)
    return ((part, rows, start) for part, (start, _) in zip(read_ahead(data, wanted), runs, strict=True))


# The bounds are arguments, so that one program runs any number of steps, and states between them do not depend on it. So
# are the data: constants are copied into a program, and folded at compile time.
@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _run_steps(
    config: StaticConfig,
    state: TrainingState,
    keys: jax.Array,
    index: jax.Array,
    source: Any,
    rows: jax.Array,
    offset: jax.Array | int,
    start: jax.Array | int,
    stop: jax.Array | int,
) -> TrainingState:
    """Steps from `start` to `stop`; batch n consists of the rows `rows[n - offset]` of `source`."""

    def step(number: jax.Array | int, state: TrainingState) -> TrainingState:
        return _step_and_count(config, state, keys[number], index[number], take(source, rows[number - offset]))

    if config.one_dispatch_per_step:
        return step(start, state)
    return jax.lax.fori_loop(start, stop, step, state)


def _step_and_count(
    config: StaticConfig, state: TrainingState, key: jax.Array, index: jax.Array, batch: Any
) -> TrainingState:
    new_state, report = _step(config, state._replace(totals={}), key, index, batch)
    totals = jax.tree.map(jnp.add, state.totals, report)
    return new_state._replace(step=state.step + state.is_finite, totals=select(state.is_finite, totals, state.totals))


# Inlined into its caller; its trace is cached, so that finding the metrics' names does not trace it a second time.
@partial(jax.jit, static_argnums=0)
def _step(
    config: StaticConfig, state: TrainingState, key: jax.Array, index: jax.Array, batch: Any
) -> tuple[TrainingState, dict[str, jax.Array]]:
    """One update, and the loss and metrics before it."""
    rows = take(state.strategy_state, index)

    # Dropout has a key of its own, whatever the strategy does with the step's.
    modules_key = jax.random.fold_in(key, 1)

    def loss(params: Params, slots: dict[str, Slot]) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        constrained = config.constrain(params, state.buffers)
        plate_model = config.plate_model.in_training(modules_key, slots)
        value, aux = config.strategy.loss(key, plate_model, constrained, rows, batch)
        # The loss is a mean over data; what stands outside the plate counts once for all of them.
        return value - config.plate_model.log_density_outside(constrained, batch) / config.num_data, aux

    old_states = config.module_states(state.buffers)
    (value, (metrics, rows)), (gradient, noted) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        state.params, make_slots(old_states)
    )
    new_states = select(jnp.isfinite(value), mean_states(noted, old_states), old_states)
    updates, optimizer_state = config.optimizer.update(gradient, state.optimizer_state, state.params)
    loss_is_finite = state.is_finite & jnp.isfinite(value)
    new_params = select(loss_is_finite, optax.apply_updates(state.params, updates), state.params)
    new_state = state._replace(
        params=new_params,
        buffers={**state.buffers, **new_states},
        optimizer_state=optimizer_state,
        strategy_state=jax.tree.map(lambda leaf, row: leaf.at[index].set(row), state.strategy_state, rows),
        last_good=select(loss_is_finite, (state.params, state.buffers), state.last_good),
        is_finite=loss_is_finite & all_finite((new_params, new_states)),
    )
    return new_state, {"loss": value, **metrics}


def trace_step(config: StaticConfig, state: TrainingState, head: Any) -> tuple[dict[str, jax.Array], bool]:
    """Trace a step without running it: zeros for the loss and each metric; and whether it is slow inside a loop.

    Args:
        config: for which; `one_dispatch_per_step` is not read.
        state: before the first step, without totals.
        head: a few rows of the data.
    """

    def report(state: TrainingState, batch: Any) -> dict[str, jax.Array]:
        keys, index = shuffle(config, state)
        return _step(config, state, keys[0], index[0], batch)[1]

    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((config.batch_size, *leaf.shape[1:]), leaf.dtype), head)
    # Shapes, not the arrays: a weak type, which Python's own numbers have, would be traced apart from what training uses.
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), state)
    jaxpr, metrics = jax.make_jaxpr(report, return_shape=True)(shapes, batch)
    totals = {name: jnp.zeros((), jnp.promote_types(metric.dtype, jnp.float32)) for name, metric in metrics.items()}
    return totals, is_slow_in_loops(jaxpr)


def finish_epoch(config: StaticConfig, state: TrainingState) -> tuple[TrainingState, dict[str, jax.Array]]:
    """The state between two epochs, and the epoch's means of the loss and each metric."""
    epoch, step, totals, means = _epoch_means(config, state.epoch, state.step, state.totals)
    return state._replace(epoch=epoch, step=step, totals=totals), means


@partial(jax.jit, static_argnums=0)
def _epoch_means(
    config: StaticConfig, epoch: jax.Array, step: jax.Array, totals: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
    means = jax.tree.map(lambda total: total / config.num_batches, totals)
    return epoch + 1, jnp.zeros_like(step), jax.tree.map(jnp.zeros_like, totals), means


def init_strategy_state(key: jax.Array, config: StaticConfig, data: Any) -> Any:
    """The strategy's initial state of every datum, computed for a part of the data at a time."""
    plate_model, values = config.plate_model, config.parameters.values
    all_parts = parts(data)
    if len(all_parts) == 1 and not is_streamed(data):
        return config.strategy.init(key, plate_model, values, data)
    states = []
    for number, rows in enumerate(all_parts):
        part = jax.device_put(take_rows(data, rows))
        part_key = jax.random.fold_in(key, number) if len(all_parts) > 1 else key
        states.append(config.strategy.init(part_key, plate_model, values, part))
        if not jax.tree.leaves(states[0]):
            return states[0]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *states)


def take_rows(data: Any, rows: jax.Array | np.ndarray) -> Any:
    """Rows (n,) of data on the device or in files."""
    return read_rows(data, np.asarray(rows)) if is_streamed(data) else take(data, rows)


@jax.jit
def take(tree: Any, rows: jax.Array | np.ndarray) -> Any:
    """Rows (n,) of every leaf."""
    return jax.tree.map(lambda leaf: leaf[rows], tree)
