"""Learning: follow a strategy's gradient through shuffled batches, whole epochs at a time on the device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from numpyro import handlers

from .adaptive_grid import GRID_SUFFIX, AdaptiveGrid, adaptive_priors
from .data import check_data
from .history import History
from .importance_mle import ImportanceMLE
from .parameters import Parameters, Params, read_parameters
from .strategy import Strategy, guide_of
from .training_model import TrainingModel, read_training_model


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
    """All that training is between two epochs: one pytree of arrays, and `fit` goes on from it bit for bit.

    The order in which data come in an epoch follows from `key` and `epoch`, so these two are the place in the data.

    Attributes:
        params: unconstrained values of the sites that are learnt, the guide's among them.
        grids: values of the sites `{name}$grid`, which only `AdaptiveGrid` moves.
        optimizer_state: as Optax keeps it.
        strategy_state: what the strategy remembers of each datum, arrays (num_data, ...).
        epoch: finished epochs, shape ().
        key: key data of the random stream, as `jax.random.key_data` gives it.
        best: the best evaluation; () where nothing stops training early.
        last_good: unconstrained parameters and grids at the last step whose loss was finite.
        is_finite: whether loss and parameters are finite, shape ().
    """

    params: Params
    grids: Params
    optimizer_state: Any
    strategy_state: Any
    epoch: jax.Array
    key: jax.Array
    best: BestEvaluation | tuple[()]
    last_good: tuple[Params, Params]
    is_finite: jax.Array


class NonFiniteLossError(RuntimeError):
    """The loss, or the parameters after a step, stopped being finite.

    Attributes:
        epoch: the epoch that failed, counted from 1.
        params: constrained parameters at the last step whose loss was finite; the initial ones if there was none.
        history: the epochs before the one that failed.
    """

    def __init__(self, message: str, epoch: int, params: Params, history: History):
        super().__init__(message)
        self.epoch = epoch
        self.params = params
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
    callback: Callable[[TrainingState, dict[str, float]], None] | None = None,
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
        data: pytree of arrays (num_data, ...). Reaches the model as `model(**batch)` if it is a dict, `model(*batch)`
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
        state: where to go on from: a state that `callback` saw, or that an earlier `fit` of the same model, data, strategy
            and optimiser returned. The history then has the new epochs only.
        progress_bar: whether to show epochs as they pass, with tqdm.

    Returns:
        The parameters, the history, and the state after the last step.

    Raises:
        ValueError: an argument, the data or the model is not usable; the message says which and what to do.
        TypeError: `optimizer` is not made of Optax gradient transformations.
        NonFiniteLossError: training left the finite numbers; carries the last good parameters.

    Example:
        Gradients clipped, a schedule, and a rate for each part:

        >>> import optax
        >>> clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-3, 1000)))
        >>> optimizer = {"prior": optax.adam(1e-2), "generator": clipped}
    """
    data, num_data = check_data(data)
    batch_size = num_data if batch_size is None else batch_size
    _check_counts(num_data, batch_size, num_epochs, evaluate, evaluate_every, patience)
    parameter_key, read_key, strategy_key, epochs_key = jax.random.split(key, 4)
    parameters, of_model = _read_all(parameter_key, model, guide_of(strategy), data, params)
    grid_values = {name: value for name, value in parameters.values.items() if name.endswith(GRID_SUFFIX)}
    values = {name: value for name, value in parameters.values.items() if name not in grid_values}
    if not values:
        raise ValueError("The model has no `numpyro.param` site: there is nothing to learn.")
    _check_floating(values)
    optimizer = _combine(optimizer, tuple(values))
    model_values = {name: value for name, value in parameters.values.items() if name in of_model}
    plate_model = read_training_model(read_key, model, data, plate, model_values)
    if grids is not None and not adaptive_priors(plate_model, parameters.values, data):
        raise ValueError(
            "`grids` is given, but the model has no grid to refit. Make its prior by `kan_prior(..., adaptive_grid=True)`."
        )
    program = _Program(plate_model, strategy, optimizer, num_data, batch_size, grids, parameters)

    unconstrained = parameters.unconstrain(values)
    new_state = TrainingState(
        params=unconstrained,
        grids=grid_values,
        optimizer_state=optimizer.init(unconstrained),
        strategy_state=strategy.init(strategy_key, plate_model, parameters.values, data),
        epoch=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(epochs_key),
        best=() if patience is None else BestEvaluation(-jnp.inf, 0, unconstrained, grid_values),
        last_good=(unconstrained, grid_values),
        is_finite=jnp.array(True),
    )
    state = _own(new_state if state is None else _check_state(state, new_state))

    rows = []
    first = int(state.epoch) + 1
    epochs = _epochs(first, num_epochs, progress_bar)
    for epoch in epochs:
        state, report = _train_epoch(program, state, data)
        report = jax.device_get(report)
        if not state.is_finite:
            raise NonFiniteLossError(
                f"The loss stopped being finite in epoch {epoch} of {num_epochs}. Try a smaller learning rate, "
                "gradient clipping (`optax.clip_by_global_norm`), or a larger likelihood scale, and check that the "
                "data lie in the likelihood's support. The error's `params` are the last good ones.",
                epoch,
                program.of_model(*state.last_good),
                _history(rows),
            )
        row = {"epoch": epoch, **report}
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
        if progress_bar:
            epochs.set_postfix(loss=f"{report['loss']:.4g}")
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

    def constrain(self, params: Params, grids: Params) -> Params:
        """Constrained parameters, of the model and of the guide, grids among them."""
        return {**self.parameters.constrain(params), **grids}

    def of_model(self, params: Params, grids: Params) -> Params:
        """Constrained parameters of the model."""
        names = self.plate_model.first_params
        return {name: value for name, value in self.constrain(params, grids).items() if name in names}


@partial(jax.jit, static_argnums=0)
def _shuffle(program, key, epoch):
    """A key for each step of an epoch, and the data of each step's batch."""
    shuffle_key, steps_key = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(key), epoch))
    num_data, batch_size = program.num_data, program.batch_size
    num_batches = -(-num_data // batch_size)
    order = jax.random.permutation(shuffle_key, num_data)
    index = order[jnp.arange(num_batches * batch_size) % num_data].reshape(num_batches, batch_size)
    return jax.random.split(steps_key, num_batches), index


# Data are an argument, not a constant of the program: constants are copied into it, and folded at compile time.
@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _run_steps(program, state, keys, index, data):
    """Steps in one program; their reports, averaged."""
    state, reports = jax.lax.scan(partial(_step, program, data=data), state, (keys, index))
    return state, jax.tree.map(jnp.mean, reports)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _run_step(program, state, keys, index, number, data):
    return _step(program, state, (keys[number], index[number]), data)


@jax.jit
def _mean(reports):
    return jax.tree.map(lambda *x: jnp.stack(x).mean(), *reports)


def _train_epoch(program, state, data):
    epoch = state.epoch + 1
    keys, index = _shuffle(program, state.key, epoch)
    if program.plate_model.unrolls:
        reports = []
        for number in range(len(index)):
            state, report = _run_step(program, state, keys, index, number, data)
            reports.append(report)
        report = _mean(reports)
    else:
        state, report = _run_steps(program, state, keys, index, data)
    return state._replace(epoch=epoch), report


def _step(program, state, key_and_index, data):
    key, index = key_and_index
    batch, rows = jax.tree.map(lambda leaf: leaf[index], (data, state.strategy_state))

    def loss(params):
        constrained = program.constrain(params, state.grids)
        return program.strategy.loss(key, program.plate_model, constrained, rows, batch)

    (value, (metrics, rows)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, optimizer_state = program.optimizer.update(gradient, state.optimizer_state, state.params)
    new_params = optax.apply_updates(state.params, updates)
    loss_is_finite = state.is_finite & jnp.isfinite(value)
    new_state = state._replace(
        params=new_params,
        optimizer_state=optimizer_state,
        strategy_state=jax.tree.map(lambda leaf, row: leaf.at[index].set(row), state.strategy_state, rows),
        last_good=_select(loss_is_finite, (state.params, state.grids), state.last_good),
        is_finite=loss_is_finite & _all_finite(new_params),
    )
    return new_state, {"loss": value, **metrics}


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _refit_grids(program, state, data):
    choice_key, draw_key = jax.random.split(_stream(state, "grids"))
    num_data = min(program.num_data, program.grids.num_data)
    index = jax.random.choice(choice_key, program.num_data, (num_data,), replace=False)
    batch, rows = jax.tree.map(lambda leaf: leaf[index], (data, state.strategy_state))
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


def _check_counts(num_data, batch_size, num_epochs, evaluate, evaluate_every, patience):
    if not 1 <= batch_size <= num_data:
        raise ValueError(f"`batch_size` must be between 1 and the {num_data} data, got {batch_size}.")
    if num_epochs < 1:
        raise ValueError(f"`num_epochs` must be at least 1, got {num_epochs}.")
    if evaluate_every < 1:
        raise ValueError(f"`evaluate_every` must be at least 1, got {evaluate_every}.")
    if patience is None:
        return
    if patience < 1:
        raise ValueError(f"`patience` must be at least 1, got {patience}.")
    if evaluate is None:
        raise ValueError("`patience` waits for better evaluations, but `evaluate` is missing.")


def _check_floating(values):
    for name, value in values.items():
        for leaf in jax.tree.leaves(value):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise ValueError(
                    f"Parameter {name!r} has dtype {jnp.result_type(leaf)}. Start it from floating-point numbers."
                )


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


def _read_all(key, model, guide, data, given):
    """Parameters of model and guide, and the names of the model's own."""
    if guide is None:
        parameters = read_parameters(key, model, data, given)
        return parameters, set(parameters.values)
    names = set()

    def both(*args, **kwargs):
        # The guide's draws are nobody's here, so that the model's sites of the same names do not meet them.
        with handlers.block(hide_fn=lambda site: site["type"] == "sample"):
            guide_key = numpyro.prng_key()
            with handlers.seed(rng_seed=guide_key):
                guide(*args, **kwargs)
        with handlers.trace() as sites:
            model(*args, **kwargs)
        names.update(name for name, site in sites.items() if site["type"] == "param")

    parameters = read_parameters(key, both, data, given)
    return parameters, names


def _epochs(first, num_epochs, progress_bar):
    epochs = range(first, num_epochs + 1)
    if not progress_bar:
        return epochs
    from tqdm import tqdm

    return tqdm(epochs, unit="epoch", initial=first - 1, total=num_epochs)


def _history(rows):
    return History({name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {})


def _all_finite(tree):
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _select(condition, when_true, when_false):
    return jax.tree.map(partial(jnp.where, condition), when_true, when_false)
