"""Unconstrained and whitened coordinates of latents, in which samplers move."""

import math
import sys
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import biject_to, constraints
from numpyro.infer.reparam import CircularReparam

from kaem_ppl.compilation import flat_draws
from kaem_ppl.whitening import check_whitening, from_standard_normal

from .wrappers import unwrap, with_base

# Standard deviation of the log-radius of the point that stands for an angle.
_RADIUS_SPREAD = 0.2


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
    """The coordinates of NumPyro's own samplers: z = biject_to(support)(u), the Jacobian counted with the prior.

    But an angle is the direction of a point in the plane; see `Direction`.
    """

    def check(self, name: str, fn: dist.Distribution) -> None:
        """Accept every continuous site."""

    def value(self, fn: dist.Distribution, coordinate: jax.Array) -> jax.Array:
        """See `Coordinates`."""
        return to_support(fn.support)(coordinate)

    def log_prior(
        self, fn: dist.Distribution, coordinate: jax.Array, value: jax.Array
    ) -> tuple[jax.Array, jax.Array | float]:
        """See `Coordinates`."""
        # The body of a `scan` brings a site out as it was, whose coordinates are known by their axes.
        is_direction = jnp.ndim(coordinate) > jnp.ndim(value)
        transform = Direction() if is_direction else to_support(fn.support)
        jacobian = transform.log_abs_det_jacobian(coordinate, value)
        return jnp.asarray(fn.log_prob(value)), jnp.sum(jacobian)

    def draw(self, key: jax.Array, fn: dist.Distribution, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Coordinates`."""
        transform = to_support(fn.support)
        if isinstance(transform, Direction):
            return _draw_direction(key, fn, sample_shape)
        if is_improper(fn):
            # As NumPyro starts: uniform in unconstrained space.
            shape = sample_shape + transform.inverse_shape(fn.shape())
            return 4 * flat_draws(jax.random.uniform, key, shape) - 2
        return transform.inv(fn.sample(key, sample_shape))

    def coordinate(self, fn: dist.Distribution, value: jax.Array) -> jax.Array:
        """The coordinate of a value."""
        return to_support(fn.support).inv(value)


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


@dataclass(frozen=True)
class Direction:
    """An angle as the direction of a point in the plane, in the manner of NumPyro's transforms.

    NumPyro maps the real line to the interval from -pi to pi, whose ends no chain can cross, though they are one angle. The
    log-radius is normal, and independent of the angle, so that the density of points is normalised where that of angles is.
    """

    def __call__(self, point: jax.Array) -> jax.Array:
        """The angle."""
        return jnp.arctan2(point[..., 1], point[..., 0])

    def inv(self, angle: jax.Array) -> jax.Array:
        """The point at radius 1."""
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)

    def log_abs_det_jacobian(self, point: jax.Array, angle: jax.Array) -> jax.Array:
        """What is added to the log-density of the angle: the law of the radius r, by area r dr d(angle)."""
        log_radius = jnp.log(jnp.sum(jnp.square(point), -1)) / 2
        return dist.Normal(0, _RADIUS_SPREAD).log_prob(log_radius) - 2 * log_radius


def to_support(support: constraints.Constraint | None) -> Any:
    """The map from the coordinates of `Unconstrained` to a support."""
    return Direction() if is_circular(support) else biject_to(support)


def is_circular(support: constraints.Constraint | None) -> bool:
    """Whether the elements of a support are angles."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, type(constraints.circular))


def as_angle(name: str, fn: dist.Distribution) -> dist.Distribution:
    """The flat distribution of angles where NumPyro's `CircularReparam` samples a flat real number; any other as it is.

    The model depends on that number by its angle only, over which the posterior is proper. Over the line it is not, and
    chains get lost.
    """
    base = unwrap(fn)
    if not name.endswith("_unwrapped") or not isinstance(base, dist.ImproperUniform) or not _calls(CircularReparam):
        return fn
    return with_base(fn, dist.ImproperUniform(constraints.circular, base.batch_shape, base.event_shape))


def _calls(reparam: Any) -> bool:
    """Whether a site is made by a reparameterisation, of which its message bears no mark."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not reparam.__call__.__code__:
        frame = frame.f_back
    return frame is not None


def _draw_direction(key: jax.Array, fn: dist.Distribution, sample_shape: tuple[int, ...]) -> jax.Array:
    angle_key, radius_key = jax.random.split(key)
    if is_improper(fn):
        shape = sample_shape + fn.shape()
        angle = flat_draws(jax.random.uniform, angle_key, shape) * 2 * math.pi
    else:
        angle = jnp.asarray(fn.sample(angle_key, sample_shape))
    radius = jnp.exp(_RADIUS_SPREAD * flat_draws(jax.random.normal, radius_key, jnp.shape(angle)))
    return radius[..., None] * Direction().inv(angle)
