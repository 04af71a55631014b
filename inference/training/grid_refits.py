"""Refit adaptive grids between epochs to posterior draws at the present parameters."""

from functools import partial
from typing import Any

import jax

from ..model.parameters import Parameters
from .epochs import StaticConfig, take, take_rows
from .state import TrainingState, key_for


def refit_grids(config: StaticConfig, state: TrainingState, data: Any) -> TrainingState:
    """Refit every adaptive grid to posterior draws of a random subset of the data."""
    draw_key, index = _choose_rows(config, state)
    return _refit(config, state, draw_key, index, take_rows(data, index))


@partial(jax.jit, static_argnums=0)
def _choose_rows(config: StaticConfig, state: TrainingState) -> tuple[jax.Array, jax.Array]:
    assert config.grids is not None
    choice_key, draw_key = jax.random.split(key_for(state, "grids"))
    num_data = min(config.num_data, config.grids.num_data)
    return draw_key, jax.random.choice(choice_key, config.num_data, (num_data,), replace=False)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _refit(
    config: StaticConfig, state: TrainingState, draw_key: jax.Array, index: jax.Array, batch: Any
) -> TrainingState:
    assert config.grids is not None
    rows = take(state.strategy_state, index)
    constrained = config.constrain(state.params, state.buffers)
    draws = config.strategy.draw(draw_key, config.plate_model, constrained, rows, batch)
    changed, new_grids = config.grids.refit(config.plate_model, constrained, batch, draws)
    new_params = Parameters(changed, config.parameters.transforms).unconstrain(changed)
    return state._replace(params={**state.params, **new_params}, buffers={**state.buffers, **new_grids})
