"""Learning: follow a strategy's gradient through shuffled batches, whole epochs at a time on the device."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .data import check_data
from .history import History
from .importance_mle import ImportanceMLE
from .parameters import Params, read_parameters
from .plate_model import read_plate_model
from .strategy import Strategy


class FitResult(NamedTuple):
    """What `fit` returns.

    Attributes:
        params: constrained parameters by site name, as `numpyro.infer.Predictive(model, params=...)` takes them.
        history: one row per epoch.
    """

    params: Params
    history: History


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


class _Training(NamedTuple):
    """What one step hands to the next; parameters are unconstrained."""

    params: Params
    optimizer_state: Any
    strategy_state: Any
    last_good_params: Params
    is_finite: jax.Array


def fit(
    key: jax.Array,
    model: Callable,
    data: Any,
    *,
    num_epochs: int,
    strategy: Strategy = ImportanceMLE(),  # noqa: B008 - a frozen value
    optimizer: optax.GradientTransformation = optax.adam(1e-3),  # noqa: B008 - a pair of functions
    batch_size: int | None = None,
    plate: str = "data",
    params: Params | None = None,
    progress_bar: bool = True,
) -> FitResult:
    """Learn the `numpyro.param` sites of a model from data that stand along one plate.

    Each epoch shuffles the data into ceil(num_data / batch_size) batches of one size. A last batch that would be short
    is filled with the first data of the same shuffle, so every batch is a uniformly random subset of distinct data and
    its mean gradient is unbiased for the mean over all data.

    Args:
        key: PRNG key; the result depends on nothing else that is random.
        model: NumPyro model with the plate `plate`, whose size is the number of rows it is given.
        data: pytree of arrays (num_data, ...). Reaches the model as `model(**batch)` if it is a dict, `model(*batch)`
            if a tuple, `model(batch)` otherwise, with any number of rows: as many as the strategy wants draws, for one.
        num_epochs: passes through the data.
        strategy: how the gradient of the log-evidence is estimated.
        optimizer: Optax gradient transformation; it moves in unconstrained space.
        batch_size: data per step; all of them if None.
        plate: name of the plate that holds the data.
        params: constrained initial values, by site name, for parameters that should not start at the model's own.
        progress_bar: whether to show epochs as they pass, with tqdm.

    Returns:
        The parameters after the last step, and the history.

    Raises:
        ValueError: an argument, the data or the model is not usable; the message says which and what to do.
        TypeError: `optimizer` is not an Optax gradient transformation.
        NonFiniteLossError: training left the finite numbers; carries the last good parameters.
    """
    data, num_data = check_data(data)
    batch_size = num_data if batch_size is None else batch_size
    if not 1 <= batch_size <= num_data:
        raise ValueError(f"`batch_size` must be between 1 and the {num_data} data, got {batch_size}.")
    if num_epochs < 1:
        raise ValueError(f"`num_epochs` must be at least 1, got {num_epochs}.")
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"`optimizer` must be an Optax gradient transformation such as `optax.adam(1e-3)`, got {optimizer!r}."
        )
    parameter_key, read_key, strategy_key, epochs_key = jax.random.split(key, 4)
    parameters = read_parameters(parameter_key, model, data, params)
    if not parameters.values:
        raise ValueError("The model has no `numpyro.param` site: there is nothing to learn.")
    plate_model = read_plate_model(read_key, model, data, plate, parameters.values)

    def loss(unconstrained, key, strategy_state, batch):
        return strategy.loss(key, plate_model, parameters.constrain(unconstrained), strategy_state, batch)

    def step(training, key_and_index, data):
        key, index = key_and_index
        batch, rows = jax.tree.map(lambda leaf: leaf[index], (data, training.strategy_state))
        (value, (metrics, rows)), gradient = jax.value_and_grad(loss, has_aux=True)(training.params, key, rows, batch)
        updates, optimizer_state = optimizer.update(gradient, training.optimizer_state, training.params)
        new_params = optax.apply_updates(training.params, updates)
        loss_is_finite = training.is_finite & jnp.isfinite(value)
        new_training = _Training(
            new_params,
            optimizer_state,
            jax.tree.map(lambda leaf, row: leaf.at[index].set(row), training.strategy_state, rows),
            _select(loss_is_finite, training.params, training.last_good_params),
            loss_is_finite & _all_finite(new_params),
        )
        return new_training, {"loss": value, **metrics}

    # Data are an argument, not a constant of the program: constants are copied into it, and folded at compile time.
    @partial(jax.jit, donate_argnums=0)
    def run_epoch(training, key, data):
        shuffle_key, steps_key = jax.random.split(key)
        num_batches = -(-num_data // batch_size)
        order = jax.random.permutation(shuffle_key, num_data)
        index = order[jnp.arange(num_batches * batch_size) % num_data].reshape(num_batches, batch_size)
        keys = jax.random.split(steps_key, num_batches)
        training, reports = jax.lax.scan(partial(step, data=data), training, (keys, index))
        return training, jax.tree.map(jnp.mean, reports)

    unconstrained = parameters.unconstrain(parameters.values)
    for name, value in unconstrained.items():
        for leaf in jax.tree.leaves(value):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise ValueError(
                    f"Parameter {name!r} has dtype {jnp.result_type(leaf)}. Start it from floating-point numbers."
                )
    training = _Training(
        unconstrained,
        optimizer.init(unconstrained),
        strategy.init(strategy_key, plate_model, parameters.values, data),
        unconstrained,
        jnp.array(True),
    )
    # Donated buffers must be the loop's own: neither the caller's arrays nor one array in two places. And a weak type,
    # which Python's own numbers have, would become a strong one after an epoch and compile everything again.
    training = jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True), training)
    rows = []
    epochs = _epochs(num_epochs, progress_bar)
    for epoch in epochs:
        training, report = run_epoch(training, jax.random.fold_in(epochs_key, epoch), data)
        report = jax.device_get(report)
        if not training.is_finite:
            raise NonFiniteLossError(
                f"The loss stopped being finite in epoch {epoch} of {num_epochs}. Try a smaller learning rate, "
                "gradient clipping (`optax.clip_by_global_norm`), or a larger likelihood scale, and check that the "
                "data lie in the likelihood's support. The error's `params` are the last good ones.",
                epoch,
                parameters.constrain(training.last_good_params),
                _history(rows),
            )
        rows.append({"epoch": epoch, **report})
        if progress_bar:
            epochs.set_postfix(loss=f"{report['loss']:.4g}")
    return FitResult(parameters.constrain(training.params), _history(rows))


def _epochs(num_epochs, progress_bar):
    epochs = range(1, num_epochs + 1)
    if not progress_bar:
        return epochs
    from tqdm import tqdm

    return tqdm(epochs, unit="epoch")


def _history(rows):
    return History({name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {})


def _all_finite(tree):
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _select(condition, when_true, when_false):
    return jax.tree.map(partial(jnp.where, condition), when_true, when_false)
