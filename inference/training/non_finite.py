"""Find parameters and sites with non-finite values, and report them as an error of training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from ..model.arguments import batch_arguments
from ..model.handlers import run_model
from ..model.parameters import Params
from ..model.plate_model import PlateModel
from .epochs import StaticConfig, shuffle, take_rows, try_step
from .history import History
from .state import NonFiniteLossError, TrainingState


def find_non_finite(key: jax.Array, plate_model: PlateModel, params: Params, batch: Any) -> tuple[str, ...]:
    """Names of parameters that are not finite; or if all are, of sample sites whose log-density is not.

    Args:
        key: PRNG key of the draws from the prior at which log-densities are evaluated.
        plate_model: the model.
        params: constrained parameters, those of a guide too.
        batch: pytree of arrays (B, ...).
    """
    broken = tuple(name for name, value in params.items() if not _is_finite(value))
    if broken:
        return broken
    # Distributions with non-finite parameters are what is searched for: validation would raise at the first.
    with numpyro.validation_enabled(False):
        sites = run_model(plate_model.model.function, *batch_arguments(batch), params, (), key)
        samples = {name: sites[name] for name in (*plate_model.latent, *plate_model.observed)}
        return tuple(name for name, site in samples.items() if not _is_finite(site["fn"].log_prob(site["value"])))


def describe_non_finite(sites: tuple[str, ...]) -> str:
    """A sentence that names the sites of `find_non_finite`."""
    if sites:
        return f"What is not finite there: {', '.join(map(repr, sites))}."
    return (
        "All parameters are finite there, and so is every site at draws from the prior: it is draws from the posterior, or "
        "a gradient, that are not."
    )


def non_finite_error(
    config: StaticConfig, state: TrainingState, data: Any, num_epochs: int, history: History
) -> NonFiniteLossError:
    """The error of training that stopped at a state whose `is_finite` is false."""
    epoch, step = int(state.epoch) + 1, int(state.step)
    where = f"The loss stopped being finite in step {step} of epoch {epoch} of {num_epochs}."
    return _error(config, state, data, epoch, step, where, history)


def check_last_loss(config: StaticConfig, state: TrainingState, data: Any, num_epochs: int, history: History) -> None:
    """Evaluate the loss of one more batch at the parameters after the last step, by the compiled step.

    A last step that is far too long leaves finite parameters, at which no loss was computed.

    Raises:
        NonFiniteLossError: that loss is not finite.
    """
    tried = try_step(config, state, data)
    if not np.isfinite(tried.totals["loss"]):
        where = f"The loss is not finite at the parameters after the last step, of epoch {num_epochs} of {num_epochs}."
        raise _error(config, tried, data, num_epochs, config.num_batches, where, history)


def _error(
    config: StaticConfig, state: TrainingState, data: Any, epoch: int, step: int, where: str, history: History
) -> NonFiniteLossError:
    """The error about the last step of a state; `where` says which one that was."""
    number = int(state.step) - 1
    keys, index = shuffle(config, state)
    batch = take_rows(data, index[number])
    broken = config.constrain(state.params, state.buffers)
    sites = find_non_finite(keys[number], config.plate_model, broken, batch)
    return NonFiniteLossError(
        f"{where} {describe_non_finite(sites)} Try a smaller learning rate, gradient clipping "
        "(`optax.clip_by_global_norm`), or a larger likelihood scale, and check that the data lie in the likelihood's "
        "support. The error's `params` are the last good ones.",
        epoch,
        step,
        sites,
        config.model_params(*state.last_good),
        config.model_params(state.params, state.buffers),
        history,
    )


def _is_finite(tree: Any) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))
