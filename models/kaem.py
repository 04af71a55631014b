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
from kaem_ppl.arguments import as_array, as_count, as_shape, check_kind, set_counts
from kaem_ppl.basis import Basis
from kaem_ppl.reference import check_reference
from kaem_ppl.refitting import check_domain

from .checks import check_generator, check_scale
from .generators import Generator
from .noise import LearntScale
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
        scale: standard deviation of the data around the generator's output; `LearntScale()` learns it.
        adaptive_grid: whether training may refit the energies' grids, by `fit(..., grids=AdaptiveGrid())`.

    Example:
        >>> import jax, numpyro.distributions as dist, kaem_ppl as kp
        >>> from numpyro.infer import Predictive
        >>> from kaem_ppl.models import MLPGenerator, ProductKAEM
        >>> generator = MLPGenerator((4, 16, 64))
        >>> model = ProductKAEM((4, 2), generator, kp.RBF(8), (-3.0, 3.0), dist.Normal(0, 1), 0.1)
        >>> drawn = Predictive(model, num_samples=1)(jax.random.key(0), size=10)
        >>> drawn["z"].shape, drawn["x"].shape  # four sums of two latents each
        ((1, 10, 4, 2), (1, 10, 64))
    """

    shape: tuple[int, int]
    generator: Generator
    basis: Basis
    domain: tuple[float, float]
    reference: dist.Distribution
    scale: float | LearntScale
    adaptive_grid: bool = False

    def __post_init__(self) -> None:
        _check_settings(self)

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
        scale: standard deviation of the data around the generator's output; `LearntScale()` learns it.
        adaptive_grid: whether training may refit the energies' grids, by `fit(..., grids=AdaptiveGrid())`.

    Example:
        >>> import jax, numpyro.distributions as dist, kaem_ppl as kp
        >>> from numpyro.infer import Predictive
        >>> from kaem_ppl.models import MLPGenerator, MixtureKAEM
        >>> generator = MLPGenerator((4, 16, 64))
        >>> model = MixtureKAEM((4, 2), generator, kp.RBF(8), (-3.0, 3.0), dist.Normal(0, 1), 0.1)
        >>> drawn = Predictive(model, num_samples=1)(jax.random.key(0), size=10)
        >>> drawn["z"].shape, drawn["x"].shape  # four latents, mixtures of two components
        ((1, 10, 4), (1, 10, 64))
    """

    shape: tuple[int, int]
    generator: Generator
    basis: Basis
    domain: tuple[float, float]
    reference: dist.Distribution
    scale: float | LearntScale
    adaptive_grid: bool = False

    def __post_init__(self) -> None:
        _check_settings(self)

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

    Example:
        >>> import jax, numpyro.distributions as dist, kaem_ppl as kp
        >>> from numpyro.infer import Predictive
        >>> from kaem_ppl.models import SequenceGenerator, SequenceKAEM
        >>> generator = SequenceGenerator(4, length=6, vocabulary_size=10, width=8, num_heads=2, num_layers=1)
        >>> model = SequenceKAEM((4, 2), generator, kp.RBF(8), (-3.0, 3.0), dist.Normal(0, 1))
        >>> Predictive(model, num_samples=1)(jax.random.key(0), size=5)["x"].shape  # five sequences of six tokens
        (1, 5, 6)
    """

    shape: tuple[int, int]
    generator: Generator
    basis: Basis
    domain: tuple[float, float]
    reference: dist.Distribution
    padding: int = 0
    adaptive_grid: bool = False

    def __post_init__(self) -> None:
        _check_settings(self)

    def __call__(self, x: ArrayLike | None = None, size: int | None = None) -> Array:
        """Condition on tokens x, integers of shape (num_data, length), or generate `size` sequences."""
        prior = _prior(self, self.shape)
        generate = self.generator("generator")
        with numpyro.plate("data", plate_size(x, size)):
            z = cast(Array, numpyro.sample("z", prior.to_event(2)))
            tokens = PaddedCategorical(generate(z.sum(-1)), self.padding).to_event(1)
            return cast(Array, numpyro.sample("x", tokens, obs=x))


def _check_settings(model: "ProductKAEM | MixtureKAEM | SequenceKAEM") -> None:
    shape = as_shape(model.shape, "shape", least=1)
    if len(shape) != 2:
        raise ValueError(f"`shape` must be (Q, P), two positive integers, got {shape}.")
    check_generator(model.generator)
    check_kind(model.basis, Basis, "basis", "a basis such as `RBF(20)`")
    check_reference(model.reference)
    object.__setattr__(model, "shape", shape)
    object.__setattr__(model, "domain", check_domain(model.domain))
    if isinstance(model, SequenceKAEM):
        set_counts(model, padding=0)
    else:
        check_scale(model.scale)


def _prior(
    model: "ProductKAEM | MixtureKAEM | SequenceKAEM", shape: tuple[int, ...], num_components: int | None = None
) -> dist.Distribution:
    settings = {name: getattr(model, name) for name in ("basis", "domain", "reference", "adaptive_grid")}
    return kan_prior("prior", shape, num_components=num_components, **settings)


def observe_normal(mean: Array, scale: float | LearntScale, x: ArrayLike | None) -> Array:
    """The sites `mean` and `x` ~ Normal(mean, scale) of data along the present plate, everything else their event."""
    if x is not None and jnp.shape(x)[1:] != mean.shape[mean.ndim - jnp.ndim(x) + 1 :]:
        raise ValueError(
            f"`x` has shape {jnp.shape(x)}: expected data of shape {mean.shape[1:]} each, as the generator's outputs."
        )
    numpyro.deterministic("mean", mean)
    spread = scale.register() if isinstance(scale, LearntScale) else scale
    return cast(Array, numpyro.sample("x", dist.Normal(mean, spread).to_event(mean.ndim - 1), obs=x))


def plate_size(x: ArrayLike | None, size: int | None) -> int:
    """Number of data: the rows of `x`, or `size` without data.

    Raises:
        TypeError: `x` is no array.
        ValueError: neither is given, `x` has no rows, or `size` is no positive integer.
    """
    if x is not None:
        shape = as_array(x, "x").shape
        if not shape or not shape[0]:
            raise ValueError(f"`x` must have a row for each datum, and at least one, got shape {shape}.")
        return shape[0]
    if size is None:
        raise ValueError(
            "Neither `x` nor `size` is given: call the model with data, or with a number of them to generate."
        )
    return as_count(size, "size", 1)
