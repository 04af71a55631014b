"""Kolmogorov-Arnold Energy Models in both layouts of the latent, as NumPyro models of continuous data, and of sequences.

Sites are those named in each model; with `adaptive_grid` also the parameter `prior$grid`, as `kan_prior` registers it.
"""

from dataclasses import dataclass
from typing import cast

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from kaem_ppl import kan_prior
from kaem_ppl.basis import Basis

from .generators import Generator
from .padded_categorical import PaddedCategorical


@dataclass(frozen=True, eq=False)
class ProductKAEM:
    """The product layout: Q sums of P independent latents each (arXiv 2506.14167, eq. 6).

        z_qp ~ exp(f_qp) pi_0 / Z_qp,    s_q = sum_p z_qp,    x ~ Normal(generator(s), scale)

    Called as a NumPyro model. Sites: `z` of shape (data, Q, P), `x`, plate `data`, parameters `prior$params` and
    `generator$params`.

    Attributes:
        shape: (Q, P). P = 1 is a latent of Q independent coordinates.
        generator: maps sums (..., Q) to means.
        basis: the family of the energies.
        domain: (a, b), where the energies are learnt.
        reference: pi_0.
        scale: standard deviation of the data around the generator's output.
        adaptive_grid: whether training may refit the energies' grids, by `fit(..., grids=AdaptiveGrid())`.
    """

    shape: tuple[int, int]
    generator: Generator
    basis: Basis
    domain: tuple[float, float]
    reference: dist.Distribution
    scale: float
    adaptive_grid: bool = False

    def __call__(self, x: ArrayLike | None = None, size: int | None = None) -> Array:
        """Condition on data x, shape (num_data, ...), or generate `size` of them."""
        prior = _prior(self, self.shape)
        generate = self.generator("generator")
        with numpyro.plate("data", plate_size(x, size)):
            z = cast(Array, numpyro.sample("z", prior.to_event(2)))
            return observe_normal(generate(z.sum(-1)), self.scale, x)


@dataclass(frozen=True, eq=False)
class MixtureKAEM:
    """The mixture layout: Q independent latents, each a mixture of P tilted densities.

        z_q ~ sum_p w_qp exp(f_qp) pi_0 / Z_qp,    x ~ Normal(generator(z), scale)

    Called as a NumPyro model. Sites: `z` of shape (data, Q), `x`, plate `data`, parameters `prior$params` and
    `generator$params`.

    Attributes:
        shape: (Q, P).
        generator: maps latents (..., Q) to means.
        basis: the family of the energies.
        domain: (a, b), where the energies are learnt.
        reference: pi_0.
        scale: standard deviation of the data around the generator's output.
        adaptive_grid: whether training may refit the energies' grids, by `fit(..., grids=AdaptiveGrid())`.
    """

    shape: tuple[int, int]
    generator: Generator
    basis: Basis
    domain: tuple[float, float]
    reference: dist.Distribution
    scale: float
    adaptive_grid: bool = False

    def __call__(self, x: ArrayLike | None = None, size: int | None = None) -> Array:
        """Condition on data x, shape (num_data, ...), or generate `size` of them."""
        num_latents, num_components = self.shape
        prior = _prior(self, (num_latents,), num_components)
        generate = self.generator("generator")
        with numpyro.plate("data", plate_size(x, size)):
            z = cast(Array, numpyro.sample("z", prior.to_event(1)))
            return observe_normal(generate(z), self.scale, x)


@dataclass(frozen=True, eq=False)
class SequenceKAEM:
    """The product layout for sequences of tokens, padded to one length.

        z_qp ~ exp(f_qp) pi_0 / Z_qp,    s_q = sum_p z_qp,    x_i ~ Categorical(logits = generator(s)_i)

    Padding is masked: it carries no information about the latent, and is never generated. The mask is computed from the
    tokens, inside the likelihood, so that all data can share prior draws; a mask among the arguments would prevent that.

    Called as a NumPyro model. Sites: `z` of shape (data, Q, P), `x` of shape (data, length), plate `data`, parameters
    `prior$params` and `generator$params`.

    Attributes:
        shape: (Q, P).
        generator: maps sums (..., Q) to logits (..., length, vocabulary), as `SequenceGenerator` does.
        basis: the family of the energies.
        domain: (a, b), where the energies are learnt.
        reference: pi_0.
        padding: the token that pads.
        adaptive_grid: whether training may refit the energies' grids, by `fit(..., grids=AdaptiveGrid())`.
    """

    shape: tuple[int, int]
    generator: Generator
    basis: Basis
    domain: tuple[float, float]
    reference: dist.Distribution
    padding: int = 0
    adaptive_grid: bool = False

    def __call__(self, x: ArrayLike | None = None, size: int | None = None) -> Array:
        """Condition on tokens x, integers of shape (num_data, length), or generate `size` sequences."""
        prior = _prior(self, self.shape)
        generate = self.generator("generator")
        with numpyro.plate("data", plate_size(x, size)):
            z = cast(Array, numpyro.sample("z", prior.to_event(2)))
            tokens = PaddedCategorical(generate(z.sum(-1)), self.padding).to_event(1)
            return cast(Array, numpyro.sample("x", tokens, obs=x))


def _prior(
    model: "ProductKAEM | MixtureKAEM | SequenceKAEM", shape: tuple[int, ...], num_components: int | None = None
) -> dist.Distribution:
    settings = {name: getattr(model, name) for name in ("basis", "domain", "reference", "adaptive_grid")}
    return kan_prior("prior", shape, num_components=num_components, **settings)


def observe_normal(mean: Array, scale: float, x: ArrayLike | None) -> Array:
    """The sites `mean` and `x` ~ Normal(mean, scale) of data along the present plate, everything else their event."""
    numpyro.deterministic("mean", mean)
    return cast(Array, numpyro.sample("x", dist.Normal(mean, scale).to_event(mean.ndim - 1), obs=x))


def plate_size(x: ArrayLike | None, size: int | None) -> int:
    """Number of data: the rows of `x`, or `size` without data.

    Raises:
        ValueError: neither is given.
    """
    if x is not None:
        return jnp.shape(x)[0]
    if size is None:
        raise ValueError(
            "Neither `x` nor `size` is given: call the model with data, or with a number of them to generate."
        )
    return size
