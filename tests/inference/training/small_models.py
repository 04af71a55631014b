"""Models and strategies that train in a moment: probabilistic PCA, a convolution, and strategies of known results."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from kaem_ppl.inference import ImportanceMLE

# Without resampling, which takes long to compile.
QUICK = {"strategy": ImportanceMLE(50, ess_threshold=0), "num_epochs": 2, "progress_bar": False}


def ppca(x=None, size=None):
    weight = numpyro.param("weight", jnp.array([0.5, 0.1, -0.2, 0.3]))
    offset = numpyro.param("offset", jnp.zeros(4))
    noise = numpyro.param("noise", 0.6, constraint=constraints.positive)
    with numpyro.plate("data", size if x is None else len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z[..., None] * weight + offset, noise).to_event(1), obs=x)


def convolved(x):
    kernel = numpyro.param("kernel", jnp.array([0.5, 0.1, -0.2]))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([4]).to_event(1))
        mean = jax.lax.conv_general_dilated(z[:, None, :], kernel[None, None, :], (1,), "SAME")[:, 0]
        numpyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)


def ppca_data(num_data):
    z_key, noise_key = jax.random.split(jax.random.key(0))
    z = jax.random.normal(z_key, (num_data, 1))
    return z * jnp.array([1.0, -0.5, 0.7, 0.2]) + 1 + 0.8 * jax.random.normal(noise_key, (num_data, 4))


@dataclass(frozen=True)
class CountVisits:
    """Remember how often each datum came by, and learn nothing."""

    def init(self, key, plate_model, params, data):
        return jnp.zeros(len(data))

    def loss(self, key, plate_model, params, state, batch):
        state = state + 1
        return jnp.square(params["noise"]), ({"most_visits": state.max(), "datum": batch[:, 0].sum()}, state)


@dataclass(frozen=True)
class Pull:
    """Pull every parameter to 3, on a path that depends on the keys, and remember the last key of each datum."""

    def init(self, key, plate_model, params, data):
        return jnp.zeros(len(data))

    def loss(self, key, plate_model, params, state, batch):
        noise = jax.random.normal(key, (len(batch),))
        distance = sum(jnp.square(leaf - 3).sum() for leaf in jax.tree.leaves(params))
        return distance + (state * batch[:, 0]).mean() * next(iter(params.values())).sum(), ({}, noise)
