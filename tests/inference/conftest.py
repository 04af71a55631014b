"""The linear-Gaussian model, whose evidence is known in closed form."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints


def _model(x=None, size=None):
    weight = numpyro.param("weight", jnp.array([[1.0, 0.2], [-0.5, 0.7], [0.3, -0.4]]))
    offset = numpyro.param("offset", jnp.array([0.1, -0.2, 0.3]))
    noise = numpyro.param("noise", 1.2, constraint=constraints.positive)
    prior_loc = numpyro.param("prior_loc", jnp.array([0.2, -0.1]))
    prior_scale = numpyro.param("prior_scale", jnp.array([1.0, 0.8]), constraint=constraints.positive)
    with numpyro.plate("data", size if x is None else len(x)):
        z = numpyro.sample("z", dist.Normal(prior_loc, prior_scale).to_event(1))
        numpyro.sample("x", dist.Normal(z @ weight.T + offset, noise).to_event(1), obs=x)


def _log_evidence(params, x):
    loc = params["weight"] @ params["prior_loc"] + params["offset"]
    factor = params["weight"] * params["prior_scale"]
    covariance = factor @ factor.T + params["noise"] ** 2 * jnp.eye(len(loc))
    return dist.MultivariateNormal(loc, covariance).log_prob(x)


class LinearGaussian(NamedTuple):
    """z ~ Normal(prior_loc, prior_scale), x ~ Normal(weight z + offset, noise), two latents and three outputs."""

    model: Callable
    log_evidence: Callable
    params: dict[str, jax.Array]
    x: jax.Array


@pytest.fixture
def linear_gaussian():
    params = {
        "weight": jnp.array([[0.8, 0.1], [-0.3, 0.9], [0.5, -0.2]]),
        "offset": jnp.array([0.0, 0.1, -0.1]),
        "noise": jnp.array(1.0),
        "prior_loc": jnp.array([0.1, 0.3]),
        "prior_scale": jnp.array([0.9, 1.1]),
    }
    return LinearGaussian(_model, _log_evidence, params, jax.random.normal(jax.random.key(7), (6, 3)))
