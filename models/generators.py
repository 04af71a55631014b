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
from numpyro.primitives import Messenger

from kaem_ppl import RBF, kan_generator
from kaem_ppl.basis import Basis
from kaem_ppl.network import check_sizes
from kaem_ppl.primitives import register_parameters

from .convolutions import upsample


class Generator(Protocol):
    """Any function of a name that registers parameters and returns a network, such as one that calls `flax_module`."""

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
    """

    sizes: tuple[int, ...]
    basis: Basis = RBF(10)  # noqa: RUF009 - a frozen value
    domain: tuple[float, float] = (-3.0, 3.0)
    output: Callable[[Array], Array] | None = None

    def __call__(self, name: str) -> Callable[[Array], Array]:
        """Register `{name}$params`, as `kan_generator` does, and return the network."""
        return kan_generator(name, self.sizes, basis=self.basis, domain=self.domain, output=self.output)


@dataclass(frozen=True)
class MLPGenerator:
    """A multilayer perceptron.

    Attributes:
        sizes: numbers of inputs, of units in each hidden layer, and of outputs.
        activation: elementwise function of the hidden layers.
        output: elementwise function of the outputs.
    """

    sizes: tuple[int, ...]
    activation: Callable[[Array], Array] = jax.nn.gelu
    output: Callable[[Array], Array] | None = None

    def __call__(self, name: str) -> Callable[[Array], Array]:
        """Register `{name}$params`, a dictionary of `layer_0`, ... with `weight` and `bias`, and return the network."""
        sizes = check_sizes(self.sizes)

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
    """

    num_inputs: int
    shape: tuple[int, int, int]
    channels: tuple[int, ...] = (64, 32, 16)
    activation: Callable[[Array], Array] = jax.nn.leaky_relu
    output: Callable[[Array], Array] | None = jax.nn.sigmoid

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"shape={self.shape}: expected (height, width, channels), positive.")
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels={self.channels}: expected at least one number of channels, all positive.")

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
    """

    num_inputs: int
    length: int
    vocabulary_size: int
    width: int = 512
    num_heads: int = 8
    num_layers: int = 2

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name}={getattr(self, field.name)}: expected at least 1.")
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
            x = layers["start"](z.reshape(-1, 1, self.num_inputs)) + layers["positions"].embedding[...]
            for index in range(self.num_layers):
                x += layers[f"attention_{index}"](layers[f"attention_normalization_{index}"](x))
                hidden = layers[f"expand_{index}"](layers[f"perceptron_normalization_{index}"](x))
                x += layers[f"contract_{index}"](jax.nn.gelu(hidden))
            logits = layers["logits"](layers["normalization"](x))
            return logits.reshape(*z.shape[:-1], self.length, self.vocabulary_size)

        return generate


@dataclass(frozen=True)
class Standardized:
    """A generator whose inputs are standardised to mean 0 and standard deviation 1.

    Attributes:
        generator: takes the standardised inputs.
        mean: of the inputs.
        std: their standard deviation.
    """

    generator: Generator
    mean: float
    std: float

    def __call__(self, name: str) -> Callable[[Array], Array]:
        """Register the generator's parameters and return a function of inputs (..., in)."""
        generate = self.generator(name)
        return lambda x: generate((x - self.mean) / self.std)


@dataclass(frozen=True)
class Bfloat16Generator:
    """Any generator, its arithmetic in bfloat16: eight bits of precision, half the memory, faster where hardware has it.

    Parameters are registered, learnt and kept as the generator makes them, float32 as a rule, and rounded where it
    computes. Outputs are cast back to the precision of the latents, so prior and likelihood are computed as before. The
    functions of a Kolmogorov-Arnold network are evaluated on a float32 grid all the same: there the gain is small.

    Attributes:
        generator: registers its parameters by `numpyro.param`, as all here do and Flax's and Equinox's modules through
            NumPyro.
    """

    generator: Generator

    def __call__(self, name: str) -> Callable[[Array], Array]:
        """Register the generator's parameters and return a function of the latents (..., in)."""
        with _RoundParameters():
            generate = self.generator(name)
        return lambda z: generate(z.astype(jnp.bfloat16)).astype(z.dtype)


class _RoundParameters(Messenger):
    """Casts parameters to bfloat16; outer handlers, a trace or a substitution, see them in their own precision."""

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "param":
            msg["value"] = jax.tree.map(_round, msg["value"])


def _round(leaf: Any) -> Array:
    leaf = jnp.asarray(leaf)
    return leaf.astype(jnp.bfloat16) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


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
