"""What a KAEM is measured against: a deep energy over the latents, and a variational autoencoder."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro import handlers

from .convolutions import downsample
from .generators import Generator, MLPGenerator, register_layers
from .kaem import observe_normal


@dataclass(frozen=True, eq=False)
class LatentEBM:
    """A deep energy that couples all latents (Pang et al. 2020, arXiv 2006.08205, eq. 2).

        p(z) proportional to exp(f(z)) Normal(z; 0, I),    x ~ Normal(generator(z), scale)

    The normaliser of p(z) is not known. f is a `numpyro.factor`, which counts as likelihood where one is told apart from
    the prior, and every density is short of the constant log-normaliser. Its gradient, the expectation of grad f over
    p(z), has to be sampled: `sample_langevin_prior`.

    Called as a NumPyro model. Sites: `z` of shape (data, Q), factor `tilt`, `mean`, `x`, plate `data`, parameters
    `energy$params` and `generator$params`.

    Attributes:
        num_latents: Q.
        energy: f, maps latents (..., Q) to (..., 1), for example `MLPGenerator((Q, 200, 200, 1))`.
        generator: maps latents (..., Q) to means.
        scale: standard deviation of the data around the generator's output.
    """

    num_latents: int
    energy: Generator
    generator: Generator
    scale: float

    def __call__(self, x: ArrayLike | None = None, size: int | None = None) -> Array:
        """Condition on data x, shape (num_data, ...). Without data latents are drawn from Normal(0, I), not from p(z)."""
        energy, generate = self.energy("energy"), self.generator("generator")
        with numpyro.plate("data", size if x is None else len(x)):
            z = numpyro.sample("z", _standard_normal(self.num_latents))
            numpyro.factor("tilt", energy(z)[..., 0])
            return observe_normal(generate(z), self.scale, x)

    def log_prior(self, params: dict[str, Any], z: Array) -> Array:
        """f(z) + log Normal(z; 0, I), without the log-normaliser.

        Args:
            params: values of the model's parameters by site name; only `energy$params` is read.
            z: latents (..., Q).

        Returns:
            Nats, shape (...).
        """
        with handlers.substitute(data=params):
            energy = self.energy("energy")
        return energy(z)[..., 0] + _standard_normal(self.num_latents).log_prob(z)


@partial(jax.jit, static_argnames=("model", "num_draws", "num_steps"))
def sample_langevin_prior(
    key: Array,
    model: LatentEBM,
    params: dict[str, Any],
    *,
    num_draws: int,
    num_steps: int = 60,
    step_size: float = 0.08,
) -> Array:
    """Short-run unadjusted Langevin chains for the prior of a `LatentEBM`, each from a draw of Normal(0, I).

        z <- z + step_size grad log p(z) + sqrt(2 step_size) noise

    Draws are biased by the step and by the shortness of the chains. The defaults are the paper's 60 steps of
    s^2 / 2 with s = 0.4 (Pang et al. 2020, arXiv 2006.08205, eq. 8).

    Args:
        key: PRNG key.
        model: whose prior.
        params: values of the model's parameters by site name.
        num_draws: number of chains.
        num_steps: steps of each.
        step_size: of each step, in squared units of the latents.

    Returns:
        Last states, shape (num_draws, num_latents).
    """
    gradient = jax.grad(lambda z: model.log_prior(params, z).sum())
    start_key, steps_key = jax.random.split(key)

    def step(z, key):
        noise = jax.random.normal(key, z.shape)
        return z + step_size * gradient(z) + jnp.sqrt(2 * step_size) * noise, None

    start = jax.random.normal(start_key, (num_draws, model.num_latents))
    return jax.lax.scan(step, start, jax.random.split(steps_key, num_steps))[0]


@dataclass(frozen=True, eq=False)
class GaussianModel:
    """The generative half of a variational autoencoder (Kingma and Welling 2014, arXiv 1312.6114).

        z ~ Normal(0, I),    x ~ Normal(generator(z), scale)

    Called as a NumPyro model. Sites: `z` of shape (data, Q), `mean`, `x`, plate `data`, parameters `generator$params`.

    Attributes:
        num_latents: Q.
        generator: maps latents (..., Q) to means.
        scale: standard deviation of the data around the generator's output.
    """

    num_latents: int
    generator: Generator
    scale: float

    def __call__(self, x: ArrayLike | None = None, size: int | None = None) -> Array:
        """Condition on data x, shape (num_data, ...), or generate `size` of them."""
        generate = self.generator("generator")
        with numpyro.plate("data", size if x is None else len(x)):
            z = numpyro.sample("z", _standard_normal(self.num_latents))
            return observe_normal(generate(z), self.scale, x)


class Encoder(Protocol):
    """The amortised half: settings that, called with a name, become a function from data to a Gaussian for each."""

    def __call__(self, name: str) -> Callable[[Array], tuple[Array, Array]]:
        """Register `{name}$params`; return a function from data (num_data, ...) to loc and scale (num_data, Q)."""
        ...


@dataclass(frozen=True)
class MLPEncoder:
    """A multilayer perceptron of the flattened datum.

    Attributes:
        sizes: numbers of inputs, of units in each hidden layer, and of latents.
        activation: elementwise function of the hidden layers.
    """

    sizes: tuple[int, ...]
    activation: Callable[[Array], Array] = jax.nn.gelu

    def __call__(self, name: str) -> Callable[[Array], tuple[Array, Array]]:
        """Register the parameters of an `MLPGenerator` with twice as many outputs as there are latents."""
        network = MLPGenerator((*self.sizes[:-1], 2 * self.sizes[-1]), self.activation)(name)

        def encode(x: Array) -> tuple[Array, Array]:
            if math.prod(x.shape[1:]) != self.sizes[0]:
                raise ValueError(
                    f"x has shape {x.shape}: expected {self.sizes[0]} numbers for each datum, as in `sizes`."
                )
            return _loc_and_scale(network(x.reshape(len(x), -1)))

        return encode


@dataclass(frozen=True)
class ConvEncoder:
    """Convolutions (Flax NNX) of kernel 4 and stride 2, each of which halves height and width, and a linear layer.

    Attributes:
        shape: of an image, (height, width, channels).
        num_latents: Q.
        channels: of the maps, for example (16, 32, 64) for 32 x 32 pixels.
        activation: elementwise function of the maps.

    Raises:
        ValueError: a size is not positive.
    """

    shape: tuple[int, int, int]
    num_latents: int
    channels: tuple[int, ...] = (16, 32, 64)
    activation: Callable[[Array], Array] = jax.nn.leaky_relu

    def __post_init__(self):
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"shape={self.shape}: expected (height, width, channels), positive.")
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels={self.channels}: expected at least one number of channels, all positive.")
        if self.num_latents < 1:
            raise ValueError(f"num_latents={self.num_latents}: expected at least 1.")

    def __call__(self, name: str) -> Callable[[Array], tuple[Array, Array]]:
        """Register `{name}$params`, a dictionary of the layers `layer_0`, ..., `end`."""
        from flax import nnx

        height, width, num_colours = self.shape
        shrink = 2 ** len(self.channels)
        num_features = -(-height // shrink) * -(-width // shrink) * self.channels[-1]

        def make(key):
            rngs = nnx.Rngs(key)
            convolutions = {
                f"layer_{index}": nnx.Conv(*pair, kernel_size=(4, 4), strides=(2, 2), rngs=rngs)
                for index, pair in enumerate(pairwise((num_colours, *self.channels)))
            }
            return {**convolutions, "end": nnx.Linear(num_features, 2 * self.num_latents, rngs=rngs)}

        layers = register_layers(name, make)

        def encode(x: Array) -> tuple[Array, Array]:
            if x.shape[1:] != self.shape:
                raise ValueError(f"x has shape {x.shape}: expected (num_data, {', '.join(map(str, self.shape))}).")
            for index in range(len(self.channels)):
                layer = layers[f"layer_{index}"]
                x = self.activation(downsample(x, layer.kernel[...]) + layer.bias[...])
            return _loc_and_scale(layers["end"](x.reshape(len(x), -1)))

        return encode


def _loc_and_scale(outputs):
    loc, raw_scale = jnp.split(outputs, 2, axis=-1)
    return loc, jax.nn.softplus(raw_scale)


def _standard_normal(num_latents):
    return dist.Normal(jnp.zeros(num_latents), 1).to_event(1)
