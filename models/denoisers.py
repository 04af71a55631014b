"""Networks of a diffusion model: from noisy data and the time of the noise to what has to be predicted."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from kaem_ppl.arguments import check_callable
from kaem_ppl.network import check_sizes

from .checks import set_image_shape
from .convolutions import downsample, upsample
from .generators import register_layers

# Waves along the time from 0 to 1 that a network is given.
_NUM_WAVES = 16


class Denoiser(Protocol):
    """Any function of a name that registers parameters and returns a network of noisy data and times.

    Example:
        >>> from kaem_ppl.models import Denoiser, MLPDenoiser
        >>> denoiser: Denoiser = MLPDenoiser((2, 16, 2))
    """

    def __call__(self, name: str) -> Callable[[Array, Array], Array]:
        """Return a function from data (n, ...) and times (n,) in [0, 1] to outputs of the data's shape."""
        ...


@dataclass(frozen=True)
class MLPDenoiser:
    """A multilayer perceptron of vectors, which adds a linear map of the time's waves to every hidden layer.

    Its inputs times a function of the time are added to its outputs: noise has as many dimensions as the data, and would
    not pass through narrower layers.

    Attributes:
        sizes: numbers of inputs, of units in each hidden layer, and of outputs, which are as many as inputs.
        activation: elementwise function of the hidden layers.

    Example:
        >>> import jax.numpy as jnp, numpyro
        >>> from kaem_ppl.models import MLPDenoiser
        >>> with numpyro.handlers.seed(rng_seed=0):
        ...     predict = MLPDenoiser((2, 16, 2))("denoiser")
        >>> predict(jnp.zeros((5, 2)), jnp.linspace(0, 1, 5)).shape
        (5, 2)
    """

    sizes: tuple[int, ...]
    activation: Callable[[Array], Array] = jax.nn.gelu

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", check_sizes(self.sizes))
        if self.sizes[0] != self.sizes[-1] or len(self.sizes) < 3:
            raise ValueError(f"`sizes` must begin and end alike, with a layer between, got {self.sizes}.")
        check_callable(self.activation, "activation", "an elementwise function such as `jax.nn.gelu`")

    def __call__(self, name: str) -> Callable[[Array, Array], Array]:
        """Register `{name}$params`, a dictionary of `layer_0`, ..., `time_0`, ..., `skip`, and return the network."""
        from flax import nnx

        sizes = self.sizes

        def make(key: Array) -> dict[str, Any]:
            rngs = nnx.Rngs(key)
            layers = {f"layer_{i}": nnx.Linear(*pair, rngs=rngs) for i, pair in enumerate(itertools.pairwise(sizes))}
            times = {f"time_{i}": nnx.Linear(_NUM_WAVES, size, rngs=rngs) for i, size in enumerate(sizes[1:-1])}
            return {**layers, **times, "skip": nnx.Linear(_NUM_WAVES, 1, rngs=rngs)}

        layers, last = register_layers(name, make), len(sizes) - 2

        def predict(x: Array, time: Array) -> Array:
            waves, inputs = time_waves(time), x
            for index in range(last):
                x = self.activation(layers[f"layer_{index}"](x) + layers[f"time_{index}"](waves))
            return layers[f"layer_{last}"](x) + layers["skip"](waves) * inputs

        return predict


@dataclass(frozen=True)
class ConvDenoiser:
    """A small U-Net (Flax NNX): convolutions of kernel 4 and stride 2 down and up again, joined at every size.

    Sources: Ronneberger et al. 2015, arXiv 1505.04597; as a denoiser, Ho et al. 2020, arXiv 2006.11239.

    Attributes:
        shape: of an image, (height, width, channels).
        channels: of the maps at full size and at each half of it, for example (32, 64, 64) for 28 x 28 pixels.
        activation: elementwise function of the maps.

    Example:
        >>> from kaem_ppl.models import ConvDenoiser, Diffusion
        >>> model = Diffusion(ConvDenoiser((8, 8, 1), channels=(8, 16)), (8, 8, 1))
    """

    shape: tuple[int, int, int]
    channels: tuple[int, ...] = (32, 64, 64)
    activation: Callable[[Array], Array] = jax.nn.silu

    def __post_init__(self) -> None:
        set_image_shape(self)
        check_callable(self.activation, "activation", "an elementwise function such as `jax.nn.silu`")

    def __call__(self, name: str) -> Callable[[Array, Array], Array]:
        """Register `{name}$params`, a dictionary of the layers, and return the network."""
        from flax import nnx

        channels, colours = self.channels, self.shape[2]
        levels = range(len(channels) - 1)

        def make(key: Array) -> dict[str, Any]:
            rngs = nnx.Rngs(key)

            def three(num_in: int, num_out: int) -> nnx.Conv:
                return nnx.Conv(num_in, num_out, (3, 3), rngs=rngs)

            layers: dict[str, Any] = {"first": three(colours, channels[0]), "last": three(channels[0], colours)}
            for i in levels:
                narrow, wide = channels[i], channels[i + 1]
                layers |= {
                    f"down_{i}": nnx.Conv(narrow, wide, (4, 4), strides=(2, 2), rngs=rngs),
                    f"inside_{i}": three(wide, wide),
                    f"up_{i}": nnx.ConvTranspose(wide, narrow, (4, 4), strides=(2, 2), rngs=rngs),
                    f"join_{i}": three(2 * narrow, narrow),
                }
            layers |= {f"time_{i}": nnx.Linear(_NUM_WAVES, size, rngs=rngs) for i, size in enumerate(channels)}
            return layers

        layers = register_layers(name, make)

        def predict(x: Array, time: Array) -> Array:
            waves, act = time_waves(time), self.activation
            h = layers["first"](x) + layers["time_0"](waves)[:, None, None]
            maps = [h]
            for i in levels:
                down = layers[f"down_{i}"]
                h = downsample(act(h), down.kernel[...]) + down.bias[...]
                h = h + layers[f"time_{i + 1}"](waves)[:, None, None]
                h = h + layers[f"inside_{i}"](act(h))
                maps.append(h)
            for i in reversed(levels):
                up, skip = layers[f"up_{i}"], maps[i]
                h = upsample(act(h), up.kernel[...])[:, : skip.shape[1], : skip.shape[2]] + up.bias[...]
                h = h + layers[f"join_{i}"](act(jnp.concatenate([h, skip], -1)))
            return layers["last"](act(h))

        return predict


def time_waves(time: Array) -> Array:
    """Cosines and sines of times (n,) in [0, 1], of wavelengths from 2 to 1/4; shape (n, 16)."""
    angle = math.pi * time[:, None] * jnp.arange(1, _NUM_WAVES // 2 + 1)
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)
