"""The map between a standard normal variable and any univariate one, and the uniform draws behind exact sampling."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax
from numpyro.distributions import Distribution

from . import reference as ref
from .compilation import flat_draws
from .reference.composite import sign_of_all
from .reference.log_masses import log_normal_mass, normal_quantile
from .reference.support import follows, is_transformed


def from_standard_normal(fn: Any, e: Array) -> Array:
    """z = F^-1(Phi(e)), so that z follows `fn` where e is standard normal.

    Each half is computed from the logarithm of its own tail's mass, which keeps its digits.

    Args:
        fn: a distribution that `check_whitening` accepts; a joint one states its own map, by a method `unwhiten`.
        e: shape fn.batch_shape + fn.event_shape, or one that broadcasts with it.

    Returns:
        Points of the shape of e. Differentiable in e and in the parameters.
    """
    # `Any`, and no `isinstance` around parameters: NumPyro's annotations say less of them than what holds.
    if isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        return from_standard_normal(fn.base_dist, e)
    if hasattr(fn, "unwhiten"):
        return fn.unwhiten(e)
    if follows(fn, dist.MultivariateNormal):
        return fn.loc + jnp.matmul(fn.scale_tril, e[..., None])[..., 0]
    if follows(fn, dist.Normal, "log_prob", "cdf", "icdf"):
        return fn.loc + fn.scale * e
    if is_transformed(fn):
        z = from_standard_normal(fn.base_dist, sign_of_all(fn.transforms) * e)
        for transform in fn.transforms:
            z = transform(z)
        return z
    return ref.quantile(fn, log_normal_mass(e), log_normal_mass(-e))


def to_standard_normal(fn: Distribution, z: Array) -> Array:
    """The inverse, e = Phi^-1(F(z)) of points inside the support of a univariate distribution, shape of z.

    From the logarithm of the smaller tail's mass, which keeps its digits.
    """
    below, above = ref.log_masses(fn, z)
    is_left = below <= above
    e = normal_quantile(jnp.where(is_left, below, above))
    return jnp.where(is_left, e, -e)


def check_whitening(name: str, fn: Distribution) -> None:
    """Refuse a site that no standard normal variable maps to.

    Raises:
        ValueError: its distribution is multivariate and not normal, discrete, or without a density.
    """
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    if isinstance(fn, dist.MultivariateNormal) or hasattr(fn, "unwhiten"):
        return
    kind = type(fn).__name__
    advice = "Choose a sampler that moves in unconstrained space, such as `NUTS()` or `MALA()`."
    if fn.event_shape != ():
        raise ValueError(
            f"Latent site {name!r} has the multivariate distribution {kind}, which no quantile function whitens. {advice}"
        )
    fault = ref.fault_of(fn)
    if fault:
        raise ValueError(f"Latent site {name!r} has the distribution {kind}, which {fault}. {advice}")


@partial(jax.jit, static_argnums=(1, 2))
def uniform_masses(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> tuple[Array, Array]:
    """A uniform number and one minus it, the smaller of them with the resolution of floats down to 2^-65; never 0.

    `jax.random.uniform` has steps of 2^-23 in float32, one of which is 0 itself.

    Returns:
        Mass below and mass above, each of the given shape and dtype.
    """
    high, low = flat_draws(jax.random.bits, key, (2, math.prod(shape)), jnp.uint32)
    # 63 random bits are the smaller mass, the last one says on which side it lies.
    fine = ((low >> 1).astype(dtype) + 0.5) * 2.0**-64
    small = high.astype(dtype) * 2.0**-33 + fine
    is_below = (low & 1) == 0
    # A barrier, for XLA's CPU compiler would draw the bits anew for each use of the masses.
    below, above = lax.optimization_barrier(
        (jnp.where(is_below, small, 1 - small), jnp.where(is_below, 1 - small, small))
    )
    return below.reshape(shape), above.reshape(shape)
