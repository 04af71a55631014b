"""Generators: settings that, called with a name inside a model, become functions from latents to outputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

from kaem_ppl import RBF, kan_generator
from kaem_ppl.basis import Basis
from kaem_ppl.network import check_sizes
from kaem_ppl.primitives import register_parameters


class Generator(Protocol):
    """What a KAEM asks of a generator. A user's own is any function of a name, such as one that calls `flax_module`."""

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

        def init(key):
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
