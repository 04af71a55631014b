"""Coordinates in which latents of location-scale families keep their place when location and scale move."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular

from ..coordinates import Unconstrained, is_improper

_FAMILIES = (dist.Normal, dist.StudentT, dist.Cauchy, dist.Laplace, dist.Logistic, dist.Gumbel, dist.MultivariateNormal)


@dataclass(frozen=True)
class Standardized(Unconstrained):
    """e of z = T(location + scale e), for a location-scale family and known transforms T of it; else unconstrained space.

    The non-centred coordinates of a hierarchical model, also where the family is not normal.
    """

    def value(self, fn: dist.Distribution, coordinate: jax.Array) -> jax.Array:
        """See `Coordinates`."""
        if not can_standardize(fn):
            return super().value(fn, coordinate)
        return _steps(fn, coordinate)[-1]

    def log_prior(
        self, fn: dist.Distribution, coordinate: jax.Array, value: jax.Array
    ) -> tuple[jax.Array, jax.Array | float]:
        """See `Coordinates`."""
        if not can_standardize(fn):
            return super().log_prior(fn, coordinate, value)
        base = _base(fn)
        # From e itself: z - location has lost its digits where the scale is small.
        if _is_multivariate(base):
            log_density = dist.Normal(0, 1).log_prob(coordinate).sum(-1)
            log_scale = jnp.log(jnp.diagonal(base.scale_tril, axis1=-2, axis2=-1)).sum(-1)
        else:
            log_density, log_scale = _standard(base).log_prob(coordinate), jnp.log(base.scale)
        log_jacobian = jnp.broadcast_to(log_scale, jnp.shape(log_density))
        steps = _steps(fn, coordinate)
        for transform, x, y in zip(_transforms(fn), steps[:-1], steps[1:], strict=True):
            log_jacobian += transform.log_abs_det_jacobian(x, y)
        num_summed = fn.event_dim - base.event_dim
        log_prob = log_density - log_jacobian
        summed = tuple(range(-num_summed, 0))
        return jnp.sum(log_prob, summed) if summed else jnp.asarray(log_prob), jnp.sum(log_jacobian)

    def draw(self, key: jax.Array, fn: dist.Distribution, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """See `Coordinates`."""
        if is_improper(fn) or not can_standardize(fn):
            return super().draw(key, fn, sample_shape)
        return self.coordinate(fn, jnp.asarray(fn.sample(key, sample_shape)))

    def coordinate(self, fn: dist.Distribution, value: jax.Array) -> jax.Array:
        """The coordinate of a value."""
        if not can_standardize(fn):
            return Unconstrained().coordinate(fn, value)
        for transform in reversed(_transforms(fn)):
            value = transform.inv(value)
        base = _base(fn)
        if not _is_multivariate(base):
            return (value - base.loc) / base.scale
        deviation = value - base.loc
        factor = jnp.broadcast_to(base.scale_tril, (*deviation.shape, deviation.shape[-1]))
        return solve_triangular(factor, deviation[..., None], lower=True)[..., 0]


def can_standardize(fn: dist.Distribution) -> bool:
    """Whether a distribution is of a location-scale family, or a transform of one, plates and events aside."""
    is_elementwise = all(
        transform.domain.event_dim == transform.codomain.event_dim == 0 for transform in _transforms(fn)
    )
    return type(_base(fn)) in _FAMILIES and is_elementwise


def _standard(base: Any) -> dist.Distribution:
    """The same family at location 0 and scale 1."""
    others = {name: getattr(base, name) for name in base.arg_constraints if name not in ("loc", "scale")}
    return type(base)(**others, loc=0.0, scale=1.0)


def _is_multivariate(base: Any) -> bool:
    """A function, for the type checker not to narrow what NumPyro's annotations say too little of."""
    return isinstance(base, dist.MultivariateNormal)


def _steps(fn: dist.Distribution, e: jax.Array) -> list[jax.Array]:
    """The value before the transforms, and after each of them."""
    base = _base(fn)
    if _is_multivariate(base):
        steps = [base.loc + jnp.matmul(base.scale_tril, e[..., None])[..., 0]]
    else:
        steps = [base.loc + base.scale * e]
    for transform in _transforms(fn):
        steps.append(transform(steps[-1]))
    return steps


def _base(fn: Any) -> Any:
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution | dist.TransformedDistribution):
        fn = fn.base_dist
    return fn


def _transforms(fn: Any) -> tuple[Any, ...]:
    """From the base to the value."""
    found: tuple[Any, ...] = ()
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution | dist.TransformedDistribution):
        if isinstance(fn, dist.TransformedDistribution):
            found = (*fn.transforms, *found)
        fn = fn.base_dist
    return found
