"""Generators: networks from latents to outputs that register their parameters inside a model."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from kaem_ppl import RBF, kan_generator
from kaem_ppl.arguments import check_callable, check_kind, set_counts
from kaem_ppl.basis import Basis
from kaem_ppl.network import KANetwork, check_sizes
from kaem_ppl.primitives import register_parameters
from kaem_ppl.refitting import check_domain

from .checks import check_inputs, set_image_shape
from .convolutions import upsample


class Generator(Protocol):
    """Any function of a name that registers parameters and returns a network, such as one that calls `flax_module`.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro
        >>> def linear(name):  # any function of a name is a generator
        ...     weights = numpyro.param(f"{name}$weights", jnp.ones((2, 64)))
        ...     return lambda z: jax.nn.sigmoid(z @ weights)
        >>> linear("decoder")(jnp.zeros((10, 2))).shape
        (10, 64)
    """

    def __call__(self, name: str) -> Callable[[Array], Array]:
        """Register parameters under the name and return a function from latents (..., in) to outputs."""
        ...


@dataclass(frozen=True)
class KANGenerator:
    """A Kolmogorov-Arnold network, the outer functions of the theorem.

    Attributes:
        sizes: numbers of inputs, hidden sums, and outputs.
        basis: the family of every function.
        domain: (a, b), where every function is learnt.
        output: elementwise function of the outputs.

    Example:
        >>> import jax.numpy as jnp, numpyro
        >>> from kaem_ppl.models import KANGenerator
        >>> with numpyro.handlers.seed(rng_seed=0):
        ...     decode = KANGenerator((2, 5, 4))("decoder")
        >>> decode(jnp.zeros((10, 2))).shape
        (10, 4)
    """

    sizes: tuple[int, ...]
    basis: Basis = RBF(10)  # noqa: RUF009 - a frozen value
    domain: tuple[float, float] = (-3.0, 3.0)
    output: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        _check_network(self)
        check_kind(self.basis, Basis, "basis", "a basis such as `RBF(10)`")
        object.__setattr__(self, "domain", check_domain(self.domain))

    def __call__(self, name: str) -> KANetwork:
        """Register `{name}$params`, as `kan_generator` does, and return the network."""
        return kan_generator(name, self.sizes, basis=self.basis, domain=self.domain, output=self.output)


@dataclass(frozen=True)
class MLPGenerator:
    """A multilayer perceptron.

    Attributes:
        sizes: numbers of inputs, of units in each hidden layer, and of outputs.
        activation: elementwise function of the hidden layers.
        output: elementwise function of the outputs.

    Example:
        >>> import jax.numpy as jnp, numpyro
        >>> from kaem_ppl.models import MLPGenerator
        >>> with numpyro.handlers.seed(rng_seed=0):
        ...     decode = MLPGenerator((2, 16, 4))("decoder")
        >>> decode(jnp.zeros((10, 2))).shape
        (10, 4)
    """

    sizes: tuple[int, ...]
    activation: Callable[[Array], Array] = jax.nn.gelu
    output: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        _check_network(self)
        check_callable(self.activation, "activation", "an elementwise function such as `jax.nn.gelu`")

    def __call__(self, name: str) -> Callable[[Array], Array]:
        """Register `{name}$params`, a dictionary of `layer_0`, ... with `weight` and `bias`, and return the network."""
        sizes = self.sizes

        def init(key: Array) -> dict[str, dict[str, Array]]:
            keys = jax.random.split(key, len(sizes) - 1)
            return {
                f"layer_{index}": {
                    # He et al. 2015: activations that keep about half of a unit's variance.
                    "weight": math.sqrt(2 / sizes[index]) * jax.random.normal(key, sizes[index : index + 2]),
                    "bias": jnp.zeros(sizes[index + 1]),
                }
                for index, key in enumerate(keys)
            }

        layers = register_parameters(name, init)

        def generate(x: Array) -> Array:
            check_inputs(x, sizes[0])
            for index in range(len(sizes) - 1):
                layer = layers[f"layer_{index}"]
                x = (self.activation(x) if index else x) @ layer["weight"] + layer["bias"]
            return x if self.output is None else self.output(x)

        return generate


@dataclass(frozen=True)
class ConvGenerator:
    """Deconvolutions (Flax NNX) from a small map to an image: every layer doubles height and width.

    A linear layer makes a map of `channels[0]` channels, 2^L times smaller than the image, L = len(channels); L transposed
    convolutions of kernel 4 and stride 2 follow, through the other channels to the image. Sizes that 2^L does not divide
    are cropped from the next larger map.

    Attributes:
        num_inputs: latents.
        shape: of an image, (height, width, channels).
        channels: of the maps, for example (64, 32, 16) for 32 x 32 pixels, (256, 128, 64, 32) for 64 x 64.
        activation: elementwise function of the hidden maps.
        output: elementwise function of the image.

    Example:
        >>> import jax.numpy as jnp, numpyro
        >>> from kaem_ppl.models import ConvGenerator
        >>> with numpyro.handlers.seed(rng_seed=0):
        ...     decode = ConvGenerator(2, (8, 8, 1), channels=(4, 4))("decoder")
        >>> decode(jnp.zeros((10, 2))).shape
        (10, 8, 8, 1)
    """

    num_inputs: int
    shape: tuple[int, int, int]
    channels: tuple[int, ...] = (64, 32, 16)
    activation: Callable[[Array], Array] = jax.nn.leaky_relu
    output: Callable[[Array], Array] | None = jax.nn.sigmoid

    def __post_init__(self) -> None:
        set_counts(self, num_inputs=1)
        set_image_shape(self)
        check_callable(self.activation, "activation", "an elementwise function such as `jax.nn.leaky_relu`")
        if self.output is not None:
            check_callable(self.output, "output", "an elementwise function such as `jax.nn.sigmoid`, or None")

    def __call__(self, name: str) -> Callable[[Array], Array]:
        """Register `{name}$params`, a dictionary of the layers `start`, `layer_0`, ..., and return the network."""
        from flax import nnx

        height, width, num_colours = self.shape
        shrink = 2 ** len(self.channels)
        start = (-(-height // shrink), -(-width // shrink), self.channels[0])
        widths = (*self.channels, num_colours)

        def make(key: Array) -> dict[str, Any]:
            rngs = nnx.Rngs(key)
            deconvolutions = {
                f"layer_{index}": nnx.ConvTranspose(*pair, kernel_size=(4, 4), strides=(2, 2), rngs=rngs)
                for index, pair in enumerate(itertools.pairwise(widths))
            }
            return {"start": nnx.Linear(self.num_inputs, math.prod(start), rngs=rngs), **deconvolutions}

        layers = register_layers(name, make)

        def generate(z: Array) -> Array:
            check_inputs(z, self.num_inputs)
            x = layers["start"](z.reshape(-1, self.num_inputs)).reshape(-1, *start)
            for index in range(len(self.channels)):
                layer = layers[f"layer_{index}"]
                x = upsample(self.activation(x), layer.kernel[...]) + layer.bias[...]
            x = x[:, :height, :width].reshape(*z.shape[:-1], *self.shape)
            return x if self.output is None else self.output(x)

        return generate


@dataclass(frozen=True)
class SequenceGenerator:
    """An attention decoder (Flax NNX) from a latent to the tokens of a whole sequence at once.

    Every position starts from a linear map of the latent plus an embedding of the position; blocks of self-attention and
    a perceptron, each after a layer normalisation and with a residual connection, let positions depend on each other; a
    last normalisation and a linear layer give logits. Tokens are independent given the latent: the
    decoder is not autoregressive, and attention is not masked.

    Attributes:
        num_inputs: latents.
        length: positions.
        vocabulary_size: tokens.
        width: features of a position; a multiple of `num_heads`.
        num_heads: attention heads.
        num_layers: blocks.

    Raises:
        ValueError: a number is not positive, or `width` is not a multiple of `num_heads`.

    Sources: Vaswani et al. 2017, arXiv 1706.03762, eq. 1; normalisation before each part, Xiong et al. 2020,
    arXiv 2002.04745.

    Example:
        >>> import jax.numpy as jnp, numpyro
        >>> from kaem_ppl.models import SequenceGenerator
        >>> with numpyro.handlers.seed(rng_seed=0):
        ...     decode = SequenceGenerator(2, length=6, vocabulary_size=10, width=8, num_heads=2, num_layers=1)("decoder")
        >>> decode(jnp.zeros((10, 2))).shape
        (10, 6, 10)
    """

    num_inputs: int
    length: int
    vocabulary_size: int
    width: int = 512
    num_heads: int = 8
    num_layers: int = 2

    def __post_init__(self) -> None:
        set_counts(self, **{field.name: 1 for field in dataclasses.fields(self)})
        if self.width % self.num_heads:
            raise ValueError(f"width={self.width}: expected a multiple of num_heads={self.num_heads}.")

    def __call__(self, name: str) -> Callable[[Array], Array]:
        """Register `{name}$params`, a dictionary of the layers, and return a function from latents to logits.

        The function maps (..., num_inputs) to (..., length, vocabulary_size).
        """
        from flax import nnx

        width = self.width

        def make(key: Array) -> dict[str, Any]:
            rngs = nnx.Rngs(key)
            layers = {
                "start": nnx.Linear(self.num_inputs, width, rngs=rngs),
                "positions": nnx.Embed(self.length, width, rngs=rngs),
                "normalization": nnx.LayerNorm(width, rngs=rngs),
                "logits": nnx.Linear(width, self.vocabulary_size, rngs=rngs),
            }
            for index in range(self.num_layers):
                layers |= {
                    f"attention_normalization_{index}": nnx.LayerNorm(width, rngs=rngs),
                    f"attention_{index}": nnx.MultiHeadAttention(
                        self.num_heads, width, decode=False, keep_rngs=False, rngs=rngs
                    ),
                    f"perceptron_normalization_{index}": nnx.LayerNorm(width, rngs=rngs),
                    f"expand_{index}": nnx.Linear(width, 4 * width, rngs=rngs),
                    f"contract_{index}": nnx.Linear(4 * width, width, rngs=rngs),
                }
            return layers

        layers = register_layers(name, make)

        def generate(z: Array) -> Array:
            check_inputs(z, self.num_inputs)
            x = layers["start"](z.reshape(-1, 1, self.num_inputs)) + layers["positions"].embedding[...]
            for index in range(self.num_layers):
                x += layers[f"attention_{index}"](layers[f"attention_normalization_{index}"](x))
                hidden = layers[f"expand_{index}"](layers[f"perceptron_normalization_{index}"](x))
                x += layers[f"contract_{index}"](jax.nn.gelu(hidden))
            logits = layers["logits"](layers["normalization"](x))
            return logits.reshape(*z.shape[:-1], self.length, self.vocabulary_size)

        return generate


def _check_network(settings: Any) -> None:
    object.__setattr__(settings, "sizes", check_sizes(settings.sizes))
    if settings.output is not None:
        check_callable(settings.output, "output", "an elementwise function such as `jax.nn.sigmoid`, or None")


def register_layers(name: str, make: Callable[[Array], dict[str, Any]]) -> dict[str, Any]:
    """Layers of Flax NNX whose parameters are the site `{name}$params`, a dictionary by layer.

    NumPyro's `nnx_module` registers a module that was made before; here parameters that are substituted are not
    initialised, so that running a model again is cheap.

    Args:
        name: prefix of the parameter's name.
        make: maps a key to layers by name, which hold parameters and nothing else that changes.

    Returns:
        The layers.
    """
    from flax import nnx

    definition = nnx.graphdef(nnx.eval_shape(lambda: make(jax.random.key(0))))
    values = register_parameters(name, lambda key: nnx.to_pure_dict(nnx.state(make(key))))
    return nnx.merge(definition, values)
