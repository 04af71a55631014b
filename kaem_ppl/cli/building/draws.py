"""Learnt parameters of a model from a state of its training, and draws from it."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from numpyro import handlers

from ...inference import TrainingState
from ...inference.model.parameters import Params, read_parameters
from ...inference.training.averaging import learnt_params
from ...models import Dataset, LatentEBM, sample_langevin_prior


def model_params(model: Callable, dataset: Dataset, state: TrainingState) -> Params:
    """Constrained parameters of a model from a state of its training; a guide's are left out."""
    parameters = read_parameters(jax.random.key(0), model, {"x": jnp.asarray(dataset.values[:1])})
    learnt = {name: value for name, value in learnt_params(state).items() if name in parameters.values}
    buffers = {name: value for name, value in state.buffers.items() if name in parameters.values}
    return {**parameters.constrain(jax.tree.map(jnp.asarray, learnt)), **buffers}


def generate(key: Array, model: Callable, params: Params, num_samples: int) -> Array:
    """Draw data from a model: the likelihood's means, or tokens where it has none.

    Args:
        key: PRNG key.
        model: of `build_model`.
        params: constrained parameters.
        num_samples: how many.

    Returns:
        Shape (num_samples, ...), as the model has them.
    """
    prior_key, model_key = jax.random.split(key)
    latents: dict[str, Array] = {}
    inner = getattr(model, "model", model)
    if isinstance(inner, LatentEBM):
        latents["z"] = sample_langevin_prior(prior_key, inner, params, num_draws=num_samples)

    return jax.jit(partial(decode, model, size=num_samples))(model_key, {**params, **latents})


def decode(model: Callable, key: Array, values: Params, size: int) -> Array:
    """The likelihood's means, or tokens where it has none, shape (size, ...), at values of parameters and latents."""
    with handlers.trace() as sites, handlers.substitute(data=values), handlers.seed(rng_seed=key):
        model(size=size)
    return (sites["mean"] if "mean" in sites else sites["x"])["value"]
