"""Elliptical slice sampling in whitened space."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from blackjax.mcmc import elliptical_slice
from jax.flatten_util import ravel_pytree

from ..model.coordinates import Coordinates, Whitened
from .kernel import ChainState, Kernel, Target, Tuning, temper

# BlackJAX's annotations say float where arrays are meant.
_elliptical_slice: Any = elliptical_slice


@dataclass(frozen=True)
class EllipticalSlice(Kernel):
    """Slice sampling along ellipses through the state and a prior draw (Murray, Adams and MacKay 2010).

    It moves in whitened space, where the prior is standard normal, and has nothing to tune and no gradient to take.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import EllipticalSlice, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> sampler = EllipticalSlice()
        >>> options = {"num_samples": 500, "num_warmup": 200, "progress_bar": False}
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, sampler=sampler, **options)
        >>> round(float(draws.samples["z"].mean()), 1)  # exactly: 1
        1.0
    """

    coordinates: ClassVar[Coordinates] = Whitened()
    uses_gradient: ClassVar[bool] = False

    def step(
        self, key: jax.Array, state: ChainState, target: Target, temperature: jax.Array, tuning: Tuning
    ) -> tuple[ChainState, dict[str, jax.Array]]:
        """See `Kernel.step`; `n_steps` counts evaluations of the likelihood."""

        def log_likelihood(position: dict[str, jax.Array]) -> jax.Array:
            return temper(target.log_likelihood(position), temperature)

        flat, _ = ravel_pytree(state.position)
        level = temper(state.log_likelihood, temperature)
        # BlackJAX shrinks the ellipse until the likelihood exceeds the slice. A slice that rounds to the present
        # likelihood may never be exceeded, so it is put lower by a few units in the last place.
        level = level - 8 * jnp.finfo(level.dtype).eps * (1 + jnp.abs(level))
        kernel = _elliptical_slice.build_kernel(jnp.ones_like(flat), jnp.zeros((), flat.dtype))
        new, info = kernel(key, _elliptical_slice.EllipSliceState(state.position, level), log_likelihood)
        return self.evaluate(target, new.position), {
            "acceptance_rate": 1 / jnp.asarray(info.subiter, flat.dtype),
            "n_steps": info.subiter,
        }
