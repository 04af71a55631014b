"""Generators made of another generator: with standardised inputs, or in lower precision."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.primitives import Messenger

from kaem_ppl.arguments import set_number

from .checks import check_generator
from .generators import Generator


@dataclass(frozen=True)
class Standardized:
    """A generator whose inputs are standardised to mean 0 and standard deviation 1.

    Attributes:
        generator: takes the standardised inputs.
        mean: of the inputs.
        std: their standard deviation.

    Example:
        >>> import jax.numpy as jnp, numpyro
        >>> from kaem_ppl.models import MLPGenerator, Standardized
        >>> with numpyro.handlers.seed(rng_seed=0):
        ...     decode = Standardized(MLPGenerator((2, 16, 4)), mean=0.5, std=0.3)("decoder")
        >>> decode(jnp.zeros((10, 2))).shape
        (10, 4)
    """

    generator: Generator
    mean: float
    std: float

    def __post_init__(self) -> None:
        check_generator(self.generator)
        set_number(self, "mean")
        set_number(self, "std", above=0)

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

    Example:
        >>> import jax.numpy as jnp, numpyro
        >>> from kaem_ppl.models import Bfloat16Generator, MLPGenerator
        >>> with numpyro.handlers.seed(rng_seed=0):
        ...     decode = Bfloat16Generator(MLPGenerator((2, 16, 4)))("decoder")
        >>> decode(jnp.zeros((10, 2))).shape
        (10, 4)
    """

    generator: Generator

    def __post_init__(self) -> None:
        check_generator(self.generator)

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
