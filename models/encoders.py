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

from kaem_ppl.arguments import as_shape, check_callable, check_kind, describe, set_counts
from kaem_ppl.network import check_sizes

from .checks import set_image_shape
from .convolutions import downsample
from .data.images import to_unit_interval
from .generators import MLPGenerator, register_layers


class Encoder(Protocol):
    """Settings of an encoder, which, called with a name, become a function from data to a Gaussian for each datum.

    Example:
        >>> import jax.numpy as jnp, numpyro
        >>> def linear(name):  # any function of a name is an encoder
        ...     weights = numpyro.param(f"{name}$weights", jnp.ones((64, 2)))
        ...     return lambda x: (x @ weights, jnp.ones((len(x), 2)))
        >>> linear("encoder")(jnp.zeros((10, 64)))[0].shape
        (10, 2)
    """

    def __call__(self, name: str) -> Callable[[Array], tuple[Array, Array]]:
        """Register `{name}$params`; return a function from data (num_data, ...) to loc and scale (num_data, Q)."""
        ...


@dataclass(frozen=True)
class MLPEncoder:
    """A multilayer perceptron of the flattened datum.

    Attributes:
        sizes: numbers of inputs, of units in each hidden layer, and of latents.
        activation: elementwise function of the hidden layers.

    Example:
        >>> import jax.numpy as jnp, numpyro
        >>> from kaem_ppl.models import MLPEncoder
        >>> with numpyro.handlers.seed(rng_seed=0):
        ...     encode = MLPEncoder((64, 16, 2))("encoder")
        >>> loc, scale = encode(jnp.zeros((10, 64)))
        >>> loc.shape, scale.shape
        ((10, 2), (10, 2))
    """

    sizes: tuple[int, ...]
    activation: Callable[[Array], Array] = jax.nn.gelu

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", check_sizes(self.sizes))
        check_callable(self.activation, "activation", "an elementwise function such as `jax.nn.gelu`")

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

    Example:
        >>> import jax.numpy as jnp, numpyro
        >>> from kaem_ppl.models import ConvEncoder
        >>> with numpyro.handlers.seed(rng_seed=0):
        ...     encode = ConvEncoder((8, 8, 1), 2, channels=(4, 4))("encoder")
        >>> loc, scale = encode(jnp.zeros((10, 8, 8, 1)))
        >>> loc.shape, scale.shape
        ((10, 2), (10, 2))
    """

    shape: tuple[int, int, int]
    num_latents: int
    channels: tuple[int, ...] = (16, 32, 64)
    activation: Callable[[Array], Array] = jax.nn.leaky_relu

    def __post_init__(self) -> None:
        set_image_shape(self)
        set_counts(self, num_latents=1)
        check_callable(self.activation, "activation", "an elementwise function such as `jax.nn.leaky_relu`")

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

    Example:
        >>> import jax.numpy as jnp, numpyro
        >>> from numpyro.distributions import constraints
        >>> from kaem_ppl.models import AmortizedGuide, MLPEncoder
        >>> guide = AmortizedGuide(MLPEncoder((64, 16, 2)), (2, 1), constraints.interval(-3, 3))
        >>> with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as sites:
        ...     guide(jnp.zeros((10, 64)))
        >>> sites["z"]["value"].shape
        (10, 2, 1)
    """

    encoder: Encoder
    shape: tuple[int, ...]
    support: dist.constraints.Constraint

    def __post_init__(self) -> None:
        if isinstance(self.encoder, type):
            raise TypeError(
                f"`encoder` must be an encoder such as `MLPEncoder((64, 8))`, got {describe(self.encoder)}."
            )
        check_callable(self.encoder, "encoder", "an encoder such as `MLPEncoder((64, 8))`")
        object.__setattr__(self, "shape", as_shape(self.shape, "shape", least=1))
        check_kind(self.support, dist.constraints.Constraint, "support", "a constraint such as `constraints.real`")

    def __call__(self, x: Array) -> None:
        """Sample `z` for each datum."""
        loc, scale = (y.reshape(-1, *self.shape) for y in self.encoder("encoder")(to_unit_interval(x)))
        posterior = dist.TransformedDistribution(dist.Normal(loc, scale), biject_to(self.support))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", posterior.to_event(len(self.shape)))


def _loc_and_scale(outputs: Array) -> tuple[Array, Array]:
    loc, raw_scale = jnp.split(outputs, 2, axis=-1)
    return loc, jax.nn.softplus(raw_scale)
