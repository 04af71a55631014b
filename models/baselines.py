"""Baseline models: a deep energy over the latents, and the generative half of a variational autoencoder."""

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro import handlers

from kaem_ppl.arguments import set_counts
from kaem_ppl.compilation import flat_draws

from .checks import check_generator, check_scale
from .generators import Generator
from .kaem import observe_normal, plate_size
from .noise import LearntScale


@dataclass(frozen=True, eq=False)
class LatentEBM:
    """A deep energy that couples all latents (Pang et al. 2020, arXiv 2006.08205, eq. 2).

        p(z) proportional to exp(f(z)) Normal(z; 0, I),    x ~ Normal(generator(z), scale)

    The normaliser of p(z) is not known. f is a `numpyro.factor`, which counts as likelihood where likelihood and prior are
    separated, and every density lacks the constant log-normaliser. Its gradient, the expectation of grad f over
    p(z), has to be sampled: `sample_langevin_prior`.

    Called as a NumPyro model. Sites: `z` of shape (data, Q), factor `tilt`, `mean`, `x`, plate `data`, parameters
    `energy$params` and `generator$params`.

    Attributes:
        num_latents: Q.
        energy: f, maps latents (..., Q) to (..., 1), for example `MLPGenerator((Q, 200, 200, 1))`.
        generator: maps latents (..., Q) to means.
        scale: standard deviation of the data around the generator's output; `LearntScale()` learns it.

    Example:
        >>> import jax.numpy as jnp, numpyro
        >>> from kaem_ppl.models import LatentEBM, MLPGenerator
        >>> model = LatentEBM(2, MLPGenerator((2, 16, 1)), MLPGenerator((2, 16, 64)), 0.1)
        >>> with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as sites:
        ...     means = model(size=3)
        >>> params = {"energy$params": sites["energy$params"]["value"]}
        >>> model.log_prior(params, jnp.zeros((5, 2))).shape
        (5,)
    """

    num_latents: int
    energy: Generator
    generator: Generator
    scale: float | LearntScale

    def __post_init__(self) -> None:
        set_counts(self, num_latents=1)
        check_generator(self.energy, "energy")
        check_generator(self.generator)
        check_scale(self.scale)

    def __call__(self, x: ArrayLike | None = None, size: int | None = None) -> Array:
        """Condition on data x, shape (num_data, ...). Without data latents are drawn from Normal(0, I), not from p(z)."""
        energy, generate = self.energy("energy"), self.generator("generator")
        with numpyro.plate("data", plate_size(x, size)):
            z = cast(Array, numpyro.sample("z", _standard_normal(self.num_latents)))
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

    Example:
        >>> import jax, numpyro
        >>> from kaem_ppl.models import LatentEBM, MLPGenerator, sample_langevin_prior
        >>> model = LatentEBM(2, MLPGenerator((2, 16, 1)), MLPGenerator((2, 16, 64)), 0.1)
        >>> with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as sites:
        ...     means = model(size=3)
        >>> params = {"energy$params": sites["energy$params"]["value"]}
        >>> sample_langevin_prior(jax.random.key(0), model, params, num_draws=7, num_steps=5).shape
        (7, 2)
    """
    gradient = jax.grad(lambda z: model.log_prior(params, z).sum())
    start_key, steps_key = jax.random.split(key)

    def step(z: Array, key: Array) -> tuple[Array, None]:
        noise = flat_draws(jax.random.normal, key, z.shape)
        return z + step_size * gradient(z) + jnp.sqrt(2 * step_size) * noise, None

    start = flat_draws(jax.random.normal, start_key, (num_draws, model.num_latents))
    return jax.lax.scan(step, start, jax.random.split(steps_key, num_steps))[0]


@dataclass(frozen=True, eq=False)
class GaussianModel:
    """The generative half of a variational autoencoder (Kingma and Welling 2014, arXiv 1312.6114).

        z ~ Normal(0, I),    x ~ Normal(generator(z), scale)

    Called as a NumPyro model. Sites: `z` of shape (data, Q), `mean`, `x`, plate `data`, parameters `generator$params`.

    Attributes:
        num_latents: Q.
        generator: maps latents (..., Q) to means.
        scale: standard deviation of the data around the generator's output; `LearntScale()` learns it.

    Example:
        >>> import jax
        >>> from numpyro.infer import Predictive
        >>> from kaem_ppl.models import GaussianModel, MLPGenerator
        >>> model = GaussianModel(2, MLPGenerator((2, 16, 64)), 0.1)
        >>> Predictive(model, num_samples=1)(jax.random.key(0), size=10)["x"].shape
        (1, 10, 64)
    """

    num_latents: int
    generator: Generator
    scale: float | LearntScale

    def __post_init__(self) -> None:
        set_counts(self, num_latents=1)
        check_generator(self.generator)
        check_scale(self.scale)

    def __call__(self, x: ArrayLike | None = None, size: int | None = None) -> Array:
        """Condition on data x, shape (num_data, ...), or generate `size` of them."""
        generate = self.generator("generator")
        with numpyro.plate("data", plate_size(x, size)):
            z = cast(Array, numpyro.sample("z", _standard_normal(self.num_latents)))
            return observe_normal(generate(z), self.scale, x)


def _standard_normal(num_latents: int) -> dist.Distribution:
    return dist.Normal(jnp.zeros(num_latents), 1).to_event(1)
