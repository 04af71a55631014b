"""Encoders: networks from data to a Gaussian for each datum, and the variational guide built from one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import biject_to

from .convolutions import downsample
from .data.images import to_unit_interval
from .generators import MLPGenerator, register_layers


class Encoder(Protocol):
    """Settings of an encoder, which, called with a name, become a function from data to a Gaussian for each datum."""

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

    def __post_init__(self) -> None:
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

        def make(key: Array) -> dict[str, Any]:
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


@dataclass(frozen=True, eq=False)
class AmortizedGuide:
    """q(z | x): normal by an encoder, mapped onto the support of the prior.

    Attributes:
        encoder: from grey levels to loc and scale of Q numbers.
        shape: of a datum's latent, Q numbers in all.
        support: of each of them.
    """

    encoder: Encoder
    shape: tuple[int, ...]
    support: dist.constraints.Constraint

    def __call__(self, x: Array) -> None:
        """Sample `z` for each datum."""
        loc, scale = (y.reshape(-1, *self.shape) for y in self.encoder("encoder")(to_unit_interval(x)))
        posterior = dist.TransformedDistribution(dist.Normal(loc, scale), biject_to(self.support))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", posterior.to_event(len(self.shape)))


def _loc_and_scale(outputs: Array) -> tuple[Array, Array]:
    loc, raw_scale = jnp.split(outputs, 2, axis=-1)
    return loc, jax.nn.softplus(raw_scale)
