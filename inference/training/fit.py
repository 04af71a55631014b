"""Maximum-likelihood training: the loop over epochs, evaluations, refits of grids, and callbacks."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kaem_ppl.arguments import as_count, as_key, as_number, check_callable, check_kind
from kaem_ppl.primitives import GRID_SUFFIX
from kaem_ppl.progress import shows_progress

from ..model.arguments import batch_arguments, check_call
from ..model.data import check_data
from ..model.missing.masking import Missing, check_missing, incomplete_model
from ..model.parameters import Params, as_params
from ..model.training_model import read_for_training
from .adaptive_grid import AdaptiveGrid, adaptive_priors
from .averaging import average_params, learnt_params
from .data_parallel import split_like
from .epochs import StaticConfig, finish_epoch, init_strategy_state, trace_step, train_epoch
from .grid_refits import refit_grids
from .history import History
from .non_finite import check_last_loss, non_finite_error
from .optimizers import combine_optimizers
from .progress import MOST_STEPS_BETWEEN, TrainingProgress
from .state import (
    BestEvaluation,
    FitResult,
    TrainingState,
    check_state,
    copy_for_donation,
    key_for,
    update_best,
)
from .strategies.importance_mle import ImportanceMLE, exact_likelihood
from .strategies.strategy import Strategy, advise, check_strategy, guide_of
from .streaming import check_streamed, is_streamed, read_rows


@shows_progress("reading the model")
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
    missing: Missing = None,
    training_kwargs: Mapping[str, Any] | None = None,
    average: float | None = None,
) -> FitResult:
    """Learn the `numpyro.param` sites of a model from independent data along one plate.

    Each epoch shuffles the data into ceil(num_data / batch_size) batches of one size. A last batch that would be short
    is filled with the first data of the same shuffle, so every batch is a uniformly random subset of distinct data and
    its mean gradient is unbiased for the mean over all data.

    Latents outside the plate, which all data share, are learnt with the parameters, by the mode of their posterior: the
    objective has their log-prior once for all data, in the sites' own space. `params` has them by the sites' names, and
    hands them to `sample_posterior` and `log_evidence`, with the same plate, as held values.

    A model of the data alone, without latents in the plate, is trained by its exact log-likelihood, whatever the strategy;
    the history has it as `log_evidence`. Its observed site may be a learnt density itself: `obs=x` of a `kan_prior`.

    Modules with state, as `flax_module(..., mutable=["batch_stats"])` and `nnx_module` register them, are in training mode
    in the passes that a step's gradient goes through, and in evaluation mode elsewhere: chains move by running means and
    without dropout. Each step has one key for dropout. Their new states are the mean over these passes, all of which start
    from the old ones; under `ImportanceMLE` a pass has all prior draws where data share them, else one draw of each datum.

    Args:
        key: PRNG key or an integer seed, the only source of randomness. With `state`, the state's own key counts.
        model: NumPyro model with the plate `plate`, whose size is the number of rows it is given.
        data: pytree of arrays (num_data, ...). They are put on the device, all but memory maps: an `np.memmap`, as
            `np.load(path, mmap_mode="r")` gives it, stays in its file, and batches are read from there ahead of the device
            by Grain; shuffles are the same. Arrays that `jax.device_put(x, sharding)` placed on several devices have their
            batches split over these, with the same result up to rounding. The model is called as `model(**batch)` if they
            are a dict, `model(*batch)` if a tuple, `model(batch)` otherwise, with any number of rows: for example as many
            as the strategy takes draws.
        num_epochs: passes through the data, those before `state` included.
        strategy: how the gradient of the log-evidence is estimated.
        optimizer: Optax gradient transformation of the unconstrained parameters, or an optimiser of NumPyro; or one for
            each site, by the site's name or the part of it before `$`, such as
            `{"prior": optax.adam(1e-3), "generator": optax.adam(1e-4)}`.
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
            can be saved in a long one; the result does not depend on it. None calls it at the ends of epochs only.
        state: the state to resume from: one that `callback` received, or that an earlier `fit` of the same model, data,
            strategy and optimiser returned. The history then has the new epochs only.
        progress_bar: whether to show steps and loss: a bar on a terminal, elsewhere a line every ten seconds.
        missing: "nan" where NaN among the observations stands for missing entries, which are no part of the likelihood;
            None where there are none. Entries that are independent given the latents drop out one by one, those of a
            `MultivariateNormal` by its marginal law; of another joint law all or none must be missing.
            A guide gets the data as they are, NaN among them, and should replace it, as by `jnp.nan_to_num`.
        training_kwargs: keyword arguments that the model, and a guide that takes them, get in training only, such as
            `{"is_training": True}` for batch normalisation and dropout of Flax Linen or Equinox. Their defaults are for
            evaluation. Modules of Flax NNX are switched without.
        average: decay, in [0, 1), of an exponential moving average of the unconstrained parameters over steps, such as
            0.999, which is evaluated and returned in place of the last ones; chains and guides of the strategy follow the
            last ones. None has no average.

    Returns:
        The parameters, the history, and the state after the last step.

    Raises:
        ValueError: an argument, the data or the model is not usable; the message says which and what to do.
        TypeError: an argument is of the wrong kind, such as an `optimizer` that is neither Optax's nor NumPyro's.
        ImportError: data are memory maps, and Grain is not installed.
        NonFiniteLossError: the loss or the parameters became non-finite, or the loss is so at the parameters after the last
            step; names the sites, and carries the last good parameters.

    Example:
        Gradients clipped, a schedule, and a rate for each part:

        >>> import optax
        >>> clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-3, 1000)))
        >>> optimizer = {"prior": optax.adam(1e-2), "generator": clipped}
    """
    key = as_key(key)
    check_strategy(strategy)
    whole_model, model = model, incomplete_model(model, missing)
    check = check_streamed if is_streamed(data) else check_data
    data, num_data = check(data, may_miss=missing is not None)
    batch_size = num_data if batch_size is None else as_count(batch_size, "batch_size")
    num_epochs, evaluate_every = as_count(num_epochs, "num_epochs", 1), as_count(evaluate_every, "evaluate_every", 1)
    patience = None if patience is None else as_count(patience, "patience", 1)
    callback_every = None if callback_every is None else as_count(callback_every, "callback_every", 1)
    if not 1 <= batch_size <= num_data:
        raise ValueError(f"`batch_size` must be between 1 and the {num_data} data, got {batch_size}.")
    for name, function in (("evaluate", evaluate), ("callback", callback)):
        if function is not None:
            check_callable(function, name, "a function, or None")
    if patience is not None and evaluate is None:
        raise ValueError("`patience` waits for better evaluations, but `evaluate` is missing.")
    if grids is not None:
        check_kind(grids, AdaptiveGrid, "grids", "an `AdaptiveGrid()`, or None")
    check_kind(plate, str, "plate", "the name of the plate that holds the data")
    check_call(whole_model, *batch_arguments(data), plate)
    # Three rows are enough to read a model.
    head = jax.device_put(read_rows(data, np.arange(min(3, num_data)))) if is_streamed(data) else data
    parameter_key, _, strategy_key, epochs_key = jax.random.split(key, 4)
    params = as_params(params)
    check_missing(whole_model, missing, *batch_arguments(head), params)
    plate_model, parameters = read_for_training(
        parameter_key, model, guide_of(strategy), head, plate, params, training_kwargs
    )
    if not plate_model.has_latents:
        strategy = exact_likelihood(strategy)
    split_strategy = split_like(data, strategy, batch_size)
    model_sites = set(plate_model.first_params)
    learnt = [name for name in parameters.transforms if not name.endswith(GRID_SUFFIX)]
    values = {name: parameters.values[name] for name in learnt}
    buffers = {name: value for name, value in parameters.values.items() if name not in values}
    if not values:
        raise ValueError("`model` has no `numpyro.param` site, so there is no parameter to learn.")
    optimizer = combine_optimizers(optimizer, tuple(values))
    if average is not None:
        optimizer = average_params(optimizer, as_number(average, "average", least=0, below=1))
    if grids is not None and not adaptive_priors(plate_model, parameters.values, head):
        raise ValueError(
            "`grids` is given, but the model has no grid to refit: make its prior by `kan_prior(..., adaptive_grid=True)`."
        )
    config = StaticConfig(plate_model, split_strategy, optimizer, num_data, batch_size, grids, parameters)

    unconstrained = parameters.unconstrain(values)
    new_state = TrainingState(
        params=unconstrained,
        buffers=buffers,
        optimizer_state=optimizer.init(unconstrained),
        strategy_state=init_strategy_state(strategy_key, config, data),
        epoch=jnp.zeros((), jnp.int32),
        step=jnp.zeros((), jnp.int32),
        totals={},
        key=jax.random.key_data(epochs_key),
        best=() if patience is None else BestEvaluation(jnp.array(-jnp.inf), jnp.array(0), unconstrained, buffers),
        last_good=(unconstrained, buffers),
        is_finite=jnp.array(True),
    )
    totals, is_slow = trace_step(config, new_state, head)
    new_state, config = new_state._replace(totals=totals), replace(config, one_dispatch_per_step=is_slow)
    current = copy_for_donation(new_state if state is None else check_state(state, new_state))

    # Whole epochs in one call, unless a bar is to move inside them; the result does not depend on it.
    every = callback_every
    if progress_bar and callback_every is None:
        every = min(max(1, config.num_batches // 10), MOST_STEPS_BETWEEN)
    rows: list[dict[str, Any]] = []
    first = int(current.epoch) + 1
    with TrainingProgress(config, current, num_epochs, progress_bar) as progress:
        if state is not None:
            progress.say_where_it_goes_on(current)
        for epoch in range(first, num_epochs + 1):
            for current in train_epoch(config, current, data, every):  # noqa: B020 - the same one, later
                if not current.is_finite:
                    raise non_finite_error(config, current, data, num_epochs, _history(rows))
                progress.show(current)
                if callback is not None and callback_every is not None and current.step < config.num_batches:
                    callback(copy_for_donation(current), None)
            current, means = finish_epoch(config, current)
            if epoch == num_epochs and patience is None:
                check_last_loss(config, current, data, num_epochs, _history(rows))
            row: dict[str, Any] = {"epoch": epoch, **jax.device_get(means)}
            if grids is not None and grids.is_due(epoch):
                current = refit_grids(config, current, data)
            if evaluate is not None:
                row["evaluation"] = np.nan
                if epoch % evaluate_every == 0:
                    learnt = config.model_params(learnt_params(current), current.buffers)
                    row["evaluation"] = value = float(evaluate(key_for(current, "evaluation"), learnt))
                    if patience is not None:
                        current = update_best(current, learnt_params(current), value)
            rows.append(row)
            if callback is not None:
                callback(copy_for_donation(current), row)
            if patience is not None and isinstance(current.best, BestEvaluation) and current.best.num_since >= patience:
                break
    if rows and (advice := advise(strategy, rows[-1])) is not None:
        # Past `shows_progress`, to the line that called.
        warnings.warn(advice, stacklevel=3)
    if isinstance(current.best, BestEvaluation):
        chosen, buffers = current.best.params, current.best.buffers
    else:
        chosen, buffers = learnt_params(current), current.buffers
    everything = config.constrain(chosen, buffers)
    guide_params = {name: value for name, value in everything.items() if name not in model_sites}
    return FitResult(config.model_params(chosen, buffers), _history(rows), guide_params, current)


def _history(rows: list[dict[str, Any]]) -> History:
    return History({name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {})
