"""Unconstrained and whitened coordinates of latents, in which samplers move."""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import biject_to

from kaem_ppl.compilation import flat_draws
from kaem_ppl.whitening import check_whitening, from_standard_normal

from .wrappers import unwrap


class Coordinates(Protocol):
    """A way to write the value of a latent site as an unconstrained array; hashable, for it is static."""

    def check(self, name: str, fn: dist.Distribution) -> None:
        """Raise ValueError where these coordinates do not exist for a site."""
        ...

    def value(self, fn: dist.Distribution, coordinate: jax.Array) -> jax.Array:
        """The value at a coordinate."""
        ...

    def log_prior(
        self, fn: dist.Distribution, coordinate: jax.Array, value: jax.Array
    ) -> tuple[jax.Array, jax.Array | float]:
        """Return the log-density at a coordinate and its value, elementwise, and log |d value / d coordinate| summed.

        The log-density is that of the site, to which `numpyro.handlers.scale` applies and to the Jacobian not.
        """
        ...

    def draw(self, key: jax.Array, fn: dist.Distribution, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draw a coordinate from the prior."""
        ...


@dataclass(frozen=True)
class Unconstrained:
    """The coordinates of NumPyro's own samplers: z = biject_to(support)(u), the Jacobian counted with the prior."""

    def check(self, name: str, fn: dist.Distribution) -> None:
        """Accept every continuous site."""

    def value(self, fn: dist.Distribution, coordinate: jax.Array) -> jax.Array:
        """See `Coordinates`."""
        return biject_to(fn.support)(coordinate)

    def log_prior(
        self, fn: dist.Distribution, coordinate: jax.Array, value: jax.Array
    ) -> tuple[jax.Array, jax.Array | float]:
        """See `Coordinates`."""
        jacobian = biject_to(fn.support).log_abs_det_jacobian(coordinate, value)
        return jnp.asarray(fn.log_prob(value)), jnp.sum(jacobian)

    def draw(self, key: jax.Array, fn: dist.Distribution, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Coordinates`."""
        transform = biject_to(fn.support)
        if is_improper(fn):
            # As NumPyro starts: uniform in unconstrained space.
            shape = sample_shape + transform.inverse_shape(fn.shape())
            return 4 * flat_draws(jax.random.uniform, key, shape) - 2
        return transform.inv(fn.sample(key, sample_shape))

    def coordinate(self, fn: dist.Distribution, value: jax.Array) -> jax.Array:
        """The coordinate of a value."""
        return biject_to(fn.support).inv(value)


@dataclass(frozen=True)
class Whitened:
    """z = F^-1(Phi(e)), site by site in the model's order, so that e is standard normal a priori, whatever the prior."""

    def check(self, name: str, fn: dist.Distribution) -> None:
        """See `Coordinates`."""
        check_whitening(name, fn)

    def value(self, fn: dist.Distribution, coordinate: jax.Array) -> jax.Array:
        """See `Coordinates`."""
        return from_standard_normal(fn, coordinate)

    def log_prior(
        self, fn: dist.Distribution, coordinate: jax.Array, value: jax.Array
    ) -> tuple[jax.Array, jax.Array | float]:
        """See `Coordinates`."""
        return dist.Normal(0, 1).log_prob(coordinate), 0.0

    def draw(self, key: jax.Array, fn: dist.Distribution, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Coordinates`."""
        return flat_draws(jax.random.normal, key, fn.shape(sample_shape))


def is_improper(fn: dist.Distribution) -> bool:
    """Whether a distribution is flat, so that nothing can be drawn from it."""
    return isinstance(unwrap(fn), dist.ImproperUniform)
