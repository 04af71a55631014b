"""Learning: follow a strategy's gradient through shuffled batches, whole epochs at a time on the device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kaem_ppl.compilation import is_slow_in_loops

from ..model.data import check_data
from ..model.parameters import Parameters, Params
from ..model.training_model import TrainingModel, read_for_training
from .adaptive_grid import GRID_SUFFIX, AdaptiveGrid, adaptive_priors
from .history import History
from .importance_mle import ImportanceMLE
from .non_finite import describe_non_finite, find_non_finite
from .strategy import Strategy, guide_of
from .streaming import check_streamed, is_streamed, num_batches_together, parts, read_ahead, read_rows


class FitResult(NamedTuple):
    """What `fit` returns.

    Attributes:
        params: constrained parameters by site name, as `numpyro.infer.Predictive(model, params=...)` takes them.
        history: one row per epoch.
        guide_params: those of the strategy's guide; empty where it has none.
        state: where training stands, to go on from by `fit(..., state=...)`.
    """

    params: Params
    history: History
    guide_params: Params
    state: "TrainingState"


class BestEvaluation(NamedTuple):
    """The best evaluation so far.

    Attributes:
        value: what `evaluate` returned; -inf before the first time.
        num_since: evaluations since then.
        params: unconstrained parameters.
        grids: by site name.
    """

    value: jax.Array
    num_since: jax.Array
    params: Params
    grids: Params


class TrainingState(NamedTuple):
    """All that training is between two steps: one pytree of arrays, and `fit` goes on from it bit for bit.

    The order in which data come in an epoch follows from `key` and `epoch`, so these and `step` are the place in the data.

    Attributes:
        params: unconstrained values of the sites that are learnt, the guide's among them.
        grids: values of the sites `{name}$grid`, which only `AdaptiveGrid` moves.
        optimizer_state: as Optax keeps it.
        strategy_state: what the strategy remembers of each datum, arrays (num_data, ...).
        epoch: finished epochs, shape ().
        step: finished steps of the epoch under way, shape (); 0 between epochs.
        totals: sums over these steps of the loss and of the strategy's metrics, by name.
        key: key data of the random stream, as `jax.random.key_data` gives it.
        best: the best evaluation; () where nothing stops training early.
        last_good: unconstrained parameters and grids at the last step whose loss was finite.
        is_finite: whether loss and parameters are finite, shape (). Once they are not, `params`, `step` and `totals` stay
            as they were at that step.
    """

    params: Params
    grids: Params
    optimizer_state: Any
    strategy_state: Any
    epoch: jax.Array
    step: jax.Array
    totals: dict[str, jax.Array]
    key: jax.Array
    best: BestEvaluation | tuple[()]
    last_good: tuple[Params, Params]
    is_finite: jax.Array


class NonFiniteLossError(RuntimeError):
    """The loss, or the parameters after a step, stopped being finite.

    Attributes:
        epoch: the epoch that failed, counted from 1.
        step: the step of that epoch, counted from 1.
        sites: names of sites that are not finite at `broken_params`: parameters, or if these are finite, sample sites whose
            log-density is not at draws from the prior, given the data of that step. Empty where all are finite there.
        params: constrained parameters at the last step whose loss was finite; the initial ones if there was none.
        broken_params: constrained parameters at which the loss is not finite, or which are not finite themselves.
        history: the epochs before the one that failed.
    """

    def __init__(
        self,
        message: str,
        epoch: int,
        step: int,
        sites: tuple[str, ...],
        params: Params,
        broken_params: Params,
        history: History,
    ):
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.sites = sites
        self.params = params
        self.broken_params = broken_params
        self.history = history


def fit(
    key: jax.Array,
    model: Callable,
    data: Any,
    *,
    num_epochs: int,
    strategy: Strategy = ImportanceMLE(),  # noqa: B008 - a frozen value
    optimizer: optax.GradientTransformation | Mapping[str, optax.GradientTransformation] = optax.adam(1e-3),  # noqa: B008
    batch_size: int | None = None,
    plate: str = "data",
    params: Params | None = None,
    grids: AdaptiveGrid | None = None,
    evaluate: Callable[[jax.Array, Params], Any] | None = None,
    evaluate_every: int = 1,
    patience: int | None = None,
    callback: Callable[[TrainingState, dict[str, float] | None], None] | None = None,
    callback_every: int | None = None,
    state: TrainingState | None = None,
    progress_bar: bool = True,
) -> FitResult:
    """Learn the `numpyro.param` sites of a model from data that stand along one plate.

    Each epoch shuffles the data into ceil(num_data / batch_size) batches of one size. A last batch that would be short
    is filled with the first data of the same shuffle, so every batch is a uniformly random subset of distinct data and
    its mean gradient is unbiased for the mean over all data.

    Args:
        key: PRNG key; the result depends on nothing else that is random. With `state`, the state's own key counts.
        model: NumPyro model with the plate `plate`, whose size is the number of rows it is given.
        data: pytree of arrays (num_data, ...). They are put on the device, all but memory maps: an `np.memmap`, as
            `np.load(path, mmap_mode="r")` gives it, stays in its file, and batches are read from there ahead of the device
            by Grain; shuffles are the same. Reaches the model as `model(**batch)` if it is a dict, `model(*batch)`
            if a tuple, `model(batch)` otherwise, with any number of rows: as many as the strategy wants draws, for one.
        num_epochs: passes through the data, those before `state` included.
        strategy: how the gradient of the log-evidence is estimated.
        optimizer: Optax gradient transformation; it moves in unconstrained space. Or one for each site, by the site's name
            or what stands before its `$`, such as `{"prior": optax.adam(1e-3), "generator": optax.adam(1e-4)}`.
        batch_size: data per step; all of them if None.
        plate: name of the plate that holds the data.
        params: constrained initial values, by site name, for parameters that should not start at the model's own.
        grids: when to refit the grids of priors made by `kan_prior(..., adaptive_grid=True)`; never if None.
        evaluate: function of a fresh key and the model's parameters to a number, larger being better, such as held-out
            log-evidence. The history has it as `evaluation`, NaN in epochs without.
        evaluate_every: epochs from one evaluation to the next.
        patience: evaluations without a new best one after which training stops and the best parameters are returned;
            None trains to the end and returns the last.
        callback: is called after each epoch with the complete state, a copy to keep, and the epoch's row of the history.
        callback_every: steps after which `callback` is called inside an epoch too, with None for the row, so that a state
            can be saved in a long one; what is learnt does not depend on it. None waits for the epoch's end.
        state: where to go on from: a state that `callback` saw, or that an earlier `fit` of the same model, data, strategy
            and optimiser returned. The history then has the new epochs only.
        progress_bar: whether to show steps as they pass, with tqdm.

    Returns:
        The parameters, the history, and the state after the last step.

    Raises:
        ValueError: an argument, the data or the model is not usable; the message says which and what to do.
        TypeError: `optimizer` is not made of Optax gradient transformations.
        ImportError: data are memory maps, and Grain is not installed.
        NonFiniteLossError: training left the finite numbers; names the sites, and carries the last good parameters.

    Example:
        Gradients clipped, a schedule, and a rate for each part:

        >>> import optax
        >>> clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-3, 1000)))
        >>> optimizer = {"prior": optax.adam(1e-2), "generator": clipped}
    """
    data, num_data = (check_streamed if is_streamed(data) else check_data)(data)
    batch_size = num_data if batch_size is None else batch_size
    _check_counts(num_data, batch_size, num_epochs, evaluate, evaluate_every, patience, callback_every)
    # What models are read with: three rows tell as much as all.
    head = jax.device_put(read_rows(data, np.arange(min(3, num_data)))) if is_streamed(data) else data
    parameter_key, _, strategy_key, epochs_key = jax.random.split(key, 4)
    plate_model, parameters = read_for_training(parameter_key, model, guide_of(strategy), head, plate, params or {})
    of_model = set(plate_model.first_params)
    grid_values = {name: value for name, value in parameters.values.items() if name.endswith(GRID_SUFFIX)}
    values = {name: value for name, value in parameters.values.items() if name not in grid_values}
    if not values:
        raise ValueError("The model has no `numpyro.param` site: there is nothing to learn.")
    optimizer = _combine(optimizer, tuple(values))
    if grids is not None and not adaptive_priors(plate_model, parameters.values, head):
        raise ValueError(
            "`grids` is given, but the model has no grid to refit. Make its prior by `kan_prior(..., adaptive_grid=True)`."
        )
    program = _Program(plate_model, strategy, optimizer, num_data, batch_size, grids, parameters)

    unconstrained = parameters.unconstrain(values)
    new_state = TrainingState(
        params=unconstrained,
        grids=grid_values,
        optimizer_state=optimizer.init(unconstrained),
        strategy_state=_first_memory(strategy_key, program, data),
        epoch=jnp.zeros((), jnp.int32),
        step=jnp.zeros((), jnp.int32),
        totals={},
        key=jax.random.key_data(epochs_key),
        best=() if patience is None else BestEvaluation(-jnp.inf, 0, unconstrained, grid_values),
        last_good=(unconstrained, grid_values),
        is_finite=jnp.array(True),
    )
    totals, is_slow = _trace_step(program, new_state, head)
    new_state, program = new_state._replace(totals=totals), replace(program, steps_apart=is_slow)
    state = _own(new_state if state is None else _check_state(state, new_state))

    rows = []
    first = int(state.epoch) + 1
    with _Progress(program, state, num_epochs, progress_bar) as progress:
        for epoch in range(first, num_epochs + 1):
            for state in _train_epoch(program, state, data, callback_every):  # noqa: B020 - the same one, further on
                if not state.is_finite:
                    raise _non_finite_error(program, state, data, epoch, num_epochs, _history(rows))
                progress.show(state)
                if callback is not None and state.step < program.num_batches:
                    callback(_own(state), None)
            state, report = _finish_epoch(program, state)
            row = {"epoch": epoch, **jax.device_get(report)}
            if grids is not None and grids.is_due(epoch):
                state = _refit_grids(program, state, data)
            if evaluate is not None:
                row["evaluation"] = np.nan
                if epoch % evaluate_every == 0:
                    current = program.of_model(state.params, state.grids)
                    row["evaluation"] = value = float(evaluate(_stream(state, "evaluation"), current))
                    if patience is not None:
                        state = _remember_best(state, value)
            rows.append(row)
            if callback is not None:
                callback(_own(state), row)
            if patience is not None and state.best.num_since >= patience:
                break
    chosen = (state.params, state.grids) if patience is None else (state.best.params, state.best.grids)
    everything = program.constrain(*chosen)
    guide_params = {name: value for name, value in everything.items() if name not in of_model}
    return FitResult(program.of_model(*chosen), _history(rows), guide_params, state)


@dataclass(frozen=True)
class _Program:
    """What training is compiled for. Equal programs share what was compiled: constraints follow from the model."""

    plate_model: TrainingModel
    strategy: Strategy
    optimizer: optax.GradientTransformation
    num_data: int
    batch_size: int
    grids: AdaptiveGrid | None
    parameters: Parameters = field(compare=False, repr=False)
    # Follows from the rest: each step is a call of its own, for it would be slow inside a loop.
    steps_apart: bool = field(default=False, compare=False)

    @property
    def num_batches(self) -> int:
        """Steps of an epoch."""
        return -(-self.num_data // self.batch_size)

    def constrain(self, params: Params, grids: Params) -> Params:
        """Constrained parameters, of the model and of the guide, grids among them."""
        return {**self.parameters.constrain(params), **grids}

    def of_model(self, params: Params, grids: Params) -> Params:
        """Constrained parameters of the model."""
        names = self.plate_model.first_params
        return {name: value for name, value in self.constrain(params, grids).items() if name in names}


@partial(jax.jit, static_argnums=0)
def _shuffle(program, state):
    """A key for each step of the epoch under way, and the rows of each step's batch."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.epoch + 1)
    shuffle_key, steps_key = jax.random.split(key)
    num_data, batch_size, num_batches = program.num_data, program.batch_size, program.num_batches
    order = jax.random.permutation(shuffle_key, num_data)
    index = order[jnp.arange(num_batches * batch_size) % num_data].reshape(num_batches, batch_size)
    return jax.random.split(steps_key, num_batches), index


def _train_epoch(program, state, data, every):
    """Go on to the end of the epoch under way, and hand out the state after each `every` steps and at the end."""
    keys, index = _shuffle(program, state)
    num_batches = program.num_batches
    every = every or num_batches
    stops = [min(start + every, num_batches) for start in range(int(state.step), num_batches, every)]
    num_together = _num_together(program, data)
    starts = zip([int(state.step), *stops], stops, strict=False)
    runs = [(n, min(n + num_together, stop)) for start, stop in starts for n in range(start, stop, num_together)]
    for (start, stop), (source, rows, offset) in zip(runs, _sources(data, index, runs, num_together), strict=True):
        state = _run_steps(program, state, keys, index, source, rows, offset, start, stop)
        if stop in stops:
            yield state


def _num_together(program, data):
    """Steps in one call of the device: all, or as many as are read together, or one where loops are slow."""
    if program.steps_apart:
        return 1
    if not is_streamed(data):
        return program.num_batches
    return min(program.num_batches, num_batches_together(data, program.batch_size))


def _sources(data, index, runs, num_together):
    """For each run of steps arrays, their rows that make batches, and the step that the first row belongs to."""
    if not is_streamed(data):
        return ((data, index, 0) for _ in runs)
    index = np.asarray(index)
    shape = (num_together, index.shape[1])
    # A short run is filled up, so that all have one shape.
    wanted = [np.resize(index[start:stop], shape).ravel() for start, stop in runs]
    rows = jnp.arange(num_together * index.shape[1]).reshape(shape)
    return ((part, rows, start) for part, (start, _) in zip(read_ahead(data, wanted), runs, strict=True))


# The bounds are arguments: one program serves all numbers of steps, and a state between two of them is the same whatever
# they are. So are the data: constants are copied into a program, and folded at compile time.
@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _run_steps(program, state, keys, index, source, rows, offset, start, stop):
    """Steps from `start` to `stop`; batch n is made of the rows `rows[n - offset]` of `source`."""

    def step(number, state):
        return _advance(program, state, keys[number], index[number], _take(source, rows[number - offset]))

    if program.steps_apart:
        return step(start, state)
    return jax.lax.fori_loop(start, stop, step, state)


def _advance(program, state, key, index, batch):
    new_state, report = _step(program, state._replace(totals={}), key, index, batch)
    totals = jax.tree.map(jnp.add, state.totals, report)
    return new_state._replace(step=state.step + state.is_finite, totals=_select(state.is_finite, totals, state.totals))


# Compiled into what calls it; its trace is kept, so that finding the metrics' names costs no second one.
@partial(jax.jit, static_argnums=0)
def _step(program, state, key, index, batch):
    rows = _take(state.strategy_state, index)

    def loss(params):
        constrained = program.constrain(params, state.grids)
        return program.strategy.loss(key, program.plate_model, constrained, rows, batch)

    (value, (metrics, rows)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, optimizer_state = program.optimizer.update(gradient, state.optimizer_state, state.params)
    loss_is_finite = state.is_finite & jnp.isfinite(value)
    new_params = _select(loss_is_finite, optax.apply_updates(state.params, updates), state.params)
    new_state = state._replace(
        params=new_params,
        optimizer_state=optimizer_state,
        strategy_state=jax.tree.map(lambda leaf, row: leaf.at[index].set(row), state.strategy_state, rows),
        last_good=_select(loss_is_finite, (state.params, state.grids), state.last_good),
        is_finite=loss_is_finite & _all_finite(new_params),
    )
    return new_state, {"loss": value, **metrics}


def _trace_step(program, state, head):
    """Zeros for the loss and each metric; and whether a step is slow inside a loop."""

    def report(state, batch):
        keys, index = _shuffle(program, state)
        return _step(program, state, keys[0], index[0], batch)[1]

    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((program.batch_size, *leaf.shape[1:]), leaf.dtype), head)
    # Not the arrays: a weak type, which Python's own numbers have, would be traced apart from what training runs with.
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), state)
    program_of_step, metrics = jax.make_jaxpr(report, return_shape=True)(state, batch)
    totals = {name: jnp.zeros((), jnp.promote_types(metric.dtype, jnp.float32)) for name, metric in metrics.items()}
    return totals, is_slow_in_loops(program_of_step)


def _finish_epoch(program, state):
    """The state between two epochs, and the epoch's means."""
    epoch, step, totals, report = _close(program, state.epoch, state.step, state.totals)
    return state._replace(epoch=epoch, step=step, totals=totals), report


@partial(jax.jit, static_argnums=0)
def _close(program, epoch, step, totals):
    report = jax.tree.map(lambda total: total / program.num_batches, totals)
    return epoch + 1, jnp.zeros_like(step), jax.tree.map(jnp.zeros_like, totals), report


def _first_memory(key, program, data):
    """What the strategy remembers at first, of a part of the data at a time."""
    plate_model, values = program.plate_model, program.parameters.values
    all_parts = parts(data)
    if len(all_parts) == 1 and not is_streamed(data):
        return program.strategy.init(key, plate_model, values, data)
    memories = []
    for number, rows in enumerate(all_parts):
        part = jax.device_put(_rows(data, rows))
        part_key = jax.random.fold_in(key, number) if len(all_parts) > 1 else key
        memories.append(program.strategy.init(part_key, plate_model, values, part))
        if not jax.tree.leaves(memories[0]):
            return memories[0]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *memories)


def _rows(data, rows):
    return read_rows(data, np.asarray(rows)) if is_streamed(data) else _take(data, rows)


@jax.jit
def _take(tree, rows):
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def _non_finite_error(program, state, data, epoch, num_epochs, history):
    step = int(state.step)
    keys, index = _shuffle(program, state)
    batch = _rows(data, index[step - 1])
    broken = program.constrain(state.params, state.grids)
    sites = find_non_finite(keys[step - 1], program.plate_model, broken, batch)
    return NonFiniteLossError(
        f"The loss stopped being finite in step {step} of epoch {epoch} of {num_epochs}. {describe_non_finite(sites)} Try "
        "a smaller learning rate, gradient clipping (`optax.clip_by_global_norm`), or a larger likelihood scale, and check "
        "that the data lie in the likelihood's support. The error's `params` are the last good ones.",
        epoch,
        step,
        sites,
        program.of_model(*state.last_good),
        program.of_model(state.params, state.grids),
        history,
    )


def _refit_grids(program, state, data):
    draw_key, index = _choose(program, state)
    return _refit(program, state, draw_key, index, _rows(data, index))


@partial(jax.jit, static_argnums=0)
def _choose(program, state):
    choice_key, draw_key = jax.random.split(_stream(state, "grids"))
    num_data = min(program.num_data, program.grids.num_data)
    return draw_key, jax.random.choice(choice_key, program.num_data, (num_data,), replace=False)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _refit(program, state, draw_key, index, batch):
    rows = _take(state.strategy_state, index)
    constrained = program.constrain(state.params, state.grids)
    draws = program.strategy.draw(draw_key, program.plate_model, constrained, rows, batch)
    changed, new_grids = program.grids.refit(program.plate_model, constrained, batch, draws)
    new_params = Parameters(changed, program.parameters.transforms).unconstrain(changed)
    return state._replace(params={**state.params, **new_params}, grids={**state.grids, **new_grids})


@jax.jit
def _remember_best(state, value):
    is_better = value > state.best.value
    value, num_since = jnp.where(is_better, value, state.best.value), jnp.where(is_better, 0, state.best.num_since + 1)
    params, grids = _select(is_better, (state.params, state.grids), (state.best.params, state.best.grids))
    return state._replace(best=BestEvaluation(value, num_since, params, grids))


def _stream(state, purpose):
    """A key for something done after an epoch, apart from the keys of its steps."""
    number = {"evaluation": 1, "grids": 2}[purpose]
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.epoch)
    return jax.random.fold_in(jax.random.fold_in(key, 0), number)


def _own(state):
    """A copy whose buffers can be donated: neither the caller's arrays nor one array in two places.

    A weak type, which Python's own numbers have, would become a strong one after an epoch and compile everything again.
    """
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True), state)


def _check_state(state, expected):
    if jax.tree.structure(state) != jax.tree.structure(expected):
        raise ValueError(
            "`state` is not a state of this training: its structure differs. Give the model, data, strategy, optimiser and "
            "`patience` that it came from."
        )
    for (path, leaf), wanted in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(expected), strict=True):
        if jnp.shape(leaf) != jnp.shape(wanted):
            name = jax.tree_util.keystr(path)
            raise ValueError(f"`state{name}` has shape {jnp.shape(leaf)}, but this training has {jnp.shape(wanted)}.")
    return state


def _check_counts(num_data, batch_size, num_epochs, evaluate, evaluate_every, patience, callback_every):
    if not 1 <= batch_size <= num_data:
        raise ValueError(f"`batch_size` must be between 1 and the {num_data} data, got {batch_size}.")
    if num_epochs < 1:
        raise ValueError(f"`num_epochs` must be at least 1, got {num_epochs}.")
    for name, every in (("evaluate_every", evaluate_every), ("callback_every", callback_every)):
        if every is not None and every < 1:
            raise ValueError(f"`{name}` must be at least 1, got {every}.")
    if patience is None:
        return
    if patience < 1:
        raise ValueError(f"`patience` must be at least 1, got {patience}.")
    if evaluate is None:
        raise ValueError("`patience` waits for better evaluations, but `evaluate` is missing.")


def _combine(optimizer, sites):
    """One optimiser; where one is given for each site, they are put together."""
    if isinstance(optimizer, optax.GradientTransformation):
        return optimizer
    if not isinstance(optimizer, Mapping) or not all(
        isinstance(part, optax.GradientTransformation) for part in optimizer.values()
    ):
        raise TypeError(
            "`optimizer` must be an Optax gradient transformation such as `optax.adam(1e-3)`, or a dictionary of them by "
            f"site, got {optimizer!r}."
        )
    labels = {site: site if site in optimizer else site.split("$")[0] for site in sites}
    missing, unknown = sorted(set(labels.values()) - set(optimizer)), sorted(set(optimizer) - set(labels.values()))
    if missing or unknown:
        raise ValueError(
            f"`optimizer` must name every learnt site once: it lacks {missing}, and has {unknown}, where the sites are "
            f"{sorted(sites)}."
        )
    return _multi_transform(tuple(sorted(optimizer.items())), tuple(sorted(labels.items())))


# Equal settings give the same object, by which compiled programs are found again.
@lru_cache(maxsize=32)
def _multi_transform(optimizers, labels):
    return optax.multi_transform(dict(optimizers), dict(labels))


class _Progress:
    """A bar that counts steps, where one is wanted."""

    def __init__(self, program, state, num_epochs, is_shown):
        self._num_batches, self._bar = program.num_batches, None
        if is_shown:
            from tqdm import tqdm

            self._bar = tqdm(unit="step", initial=self._count(state), total=num_epochs * program.num_batches)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def _count(self, state):
        return int(state.epoch) * self._num_batches + int(state.step)

    def show(self, state):
        if self._bar is not None:
            loss = float(state.totals["loss"]) / int(state.step)
            self._bar.set_postfix(epoch=int(state.epoch) + 1, loss=f"{loss:.4g}", refresh=False)
            self._bar.update(self._count(state) - self._bar.n)


def _history(rows):
    return History({name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {})


def _all_finite(tree):
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _select(condition, when_true, when_false):
    return jax.tree.map(partial(jnp.where, condition), when_true, when_false)
