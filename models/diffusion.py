"""A denoising diffusion model, as a baseline: trained by the same `fit`, sampled step by step."""

import math
from collections.abc import Callable
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

from kaem_ppl.arguments import as_shape, check_callable, describe, set_counts, set_number
from kaem_ppl.compilation import flat_draws

from .denoisers import Denoiser
from .kaem import plate_size


@dataclass(frozen=True, eq=False)
class Diffusion:
    """Data that noise is added to until nothing else is left, and a network that predicts what to take away.

        y_t = a_t y + s_t e,    y = (x - loc) / std,    e ~ Normal(0, I),    a_t = cos(pi t / 2), s_t = sin(pi t / 2)

    The network predicts v = a_t e - s_t y from y_t and t. Its objective, E -sum (v - network)^2 / 2 over t ~ Uniform(0, 1)
    and e, is the evidence lower bound of this NumPyro model under the guide that draws t and e from their priors: `fit(...,
    strategy=VariationalMLE(model.guide))`. It is a weighted bound, of which no log-evidence of x follows.

    Called as a NumPyro model. Sites: `time` of shape (data,), `noise` (data, ...), factor `denoising`, plate `data`,
    parameters `denoiser$params`. Without data `mean` is what `num_steps` steps make of the noise, without more noise.

    Attributes:
        denoiser: the network.
        shape: of a datum.
        loc: subtracted from data; 0.5 for grey levels.
        std: data are divided by it.
        num_steps: of sampling.

    Sources: Ho et al. 2020, arXiv 2006.11239; the cosine schedule, Nichol and Dhariwal 2021, arXiv 2102.09672; v, Salimans
    and Ho 2022, arXiv 2202.00512, section 2.

    Example:
        >>> import numpyro
        >>> from kaem_ppl.models import Diffusion, MLPDenoiser
        >>> model = Diffusion(MLPDenoiser((2, 16, 2)), (2,), num_steps=5)
        >>> numpyro.handlers.seed(model, 0)(size=10).shape
        (10, 2)
    """

    denoiser: Denoiser
    shape: tuple[int, ...]
    loc: float = 0.5
    std: float = 0.5
    num_steps: int = 50

    def __post_init__(self) -> None:
        if isinstance(self.denoiser, type):
            raise TypeError(
                f"`denoiser` must be a network such as `MLPDenoiser((64, 256, 64))`, got {describe(self.denoiser)}."
            )
        check_callable(self.denoiser, "denoiser", "a network such as `MLPDenoiser((64, 256, 64))`")
        object.__setattr__(self, "shape", as_shape(self.shape, "shape", least=1))
        set_number(self, "loc")
        set_number(self, "std", above=0)
        set_counts(self, num_steps=1)

    def __call__(self, x: ArrayLike | None = None, size: int | None = None) -> Array:
        """Score the denoising of data x, shape (num_data, ...), or generate `size` of them."""
        predict = self.denoiser("denoiser")
        with numpyro.plate("data", plate_size(x, size)):
            if x is None:
                return cast(Array, numpyro.deterministic("mean", self._generate(predict, self._noise(), None)))
            if jnp.shape(x)[1:] != self.shape:
                raise ValueError(f"`x` has shape {jnp.shape(x)}: expected data of shape {self.shape} each.")
            time, noise = self._time(), self._noise()
            y = (jnp.asarray(x) - self.loc) / self.std
            signal, spread = (self._per_datum(part(0.5 * math.pi * time)) for part in (jnp.cos, jnp.sin))
            error = signal * noise - spread * y - predict(signal * y + spread * noise, time)
            numpyro.factor("denoising", -0.5 * jnp.square(error).reshape(len(y), -1).sum(-1))
            return y

    def guide(self, x: ArrayLike) -> None:
        """Times and noise from their priors, whatever the data."""
        with numpyro.plate("data", plate_size(x, None)):
            self._time()
            self._noise()

    def _time(self) -> Array:
        return cast(Array, numpyro.sample("time", dist.Uniform(0.0, 1.0)))

    def _noise(self) -> Array:
        return cast(Array, numpyro.sample("noise", dist.Normal(jnp.zeros(self.shape), 1.0).to_event(len(self.shape))))

    def _per_datum(self, x: Array) -> Array:
        return x.reshape(-1, *(1,) * len(self.shape))

    def _generate(self, predict: Callable[[Array, Array], Array], y: Array, key: Array | None) -> Array:
        """From noise (n, ...) to data; with a key each step adds noise again."""
        times = jnp.linspace(1.0, 0.0, self.num_steps + 1)
        keys = jax.random.split(jax.random.key(0) if key is None else key, self.num_steps)

        def step(y: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, None]:
            time, after, step_key = inputs
            signal, spread, new_signal, new_spread = (
                part(0.5 * math.pi * t) for t in (time, after) for part in (jnp.cos, jnp.sin)
            )
            v = predict(y, jnp.full(len(y), time))
            clean, noise = signal * y - spread * v, spread * y + signal * v
            if key is None:
                return new_signal * clean + new_spread * noise, None
            # The variance of y at the next time, given the present one and the clean data.
            variance = jnp.square(new_spread / spread) * jnp.maximum(0.0, 1 - jnp.square(signal / new_signal))
            rest = jnp.sqrt(jnp.maximum(0.0, jnp.square(new_spread) - variance))
            fresh = jnp.sqrt(variance) * flat_draws(jax.random.normal, step_key, y.shape)
            return new_signal * clean + rest * noise + fresh, None

        y = jax.lax.scan(step, y, (times[:-1], times[1:], keys))[0]
        return self.loc + self.std * y


@partial(jax.jit, static_argnames=("model", "num_draws", "is_stochastic"))
def sample_diffusion(
    key: Array, model: Diffusion, params: dict[str, Any], *, num_draws: int, is_stochastic: bool = False
) -> Array:
    """Draw data from a diffusion by its `num_steps` steps.

    Args:
        key: PRNG key.
        model: the diffusion.
        params: values of its parameters by site name.
        num_draws: how many.
        is_stochastic: whether each step adds noise, as in Ho et al. 2020 (DDPM), or only the first state is random, as in
            Song et al. 2021, arXiv 2010.02502, eq. 12 with sigma 0 (DDIM), which needs fewer steps.

    Returns:
        Shape (num_draws, ...).

    Example:
        >>> import jax, numpyro
        >>> from kaem_ppl.models import Diffusion, MLPDenoiser, sample_diffusion
        >>> model = Diffusion(MLPDenoiser((2, 16, 2)), (2,), num_steps=5)
        >>> with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as sites:
        ...     _ = model(size=1)
        >>> params = {name: site["value"] for name, site in sites.items() if site["type"] == "param"}
        >>> sample_diffusion(jax.random.key(1), model, params, num_draws=10).shape
        (10, 2)
    """
    start_key, steps_key = jax.random.split(key)
    with handlers.substitute(data=params):
        predict = model.denoiser("denoiser")
    noise = flat_draws(jax.random.normal, start_key, (num_draws, *model.shape))
    return model._generate(predict, noise, steps_key if is_stochastic else None)
