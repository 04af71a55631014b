"""Arithmetic of tail masses in logarithms, which have digits left where masses underflow."""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import log_ndtr
from jax.typing import ArrayLike

LOG_2 = math.log(2)


def complete(log_below: Array, log_above: Array) -> tuple[Array, Array]:
    """Both log masses from the smaller of the two, so that each is accurate, the larger one near 0 too."""
    below_is_small = log_below <= log_above
    # Not the minimum, whose derivative at equal masses is the mean of both.
    small = jnp.where(below_is_small, log_below, log_above)
    # Never near 0, where the logarithm has no derivative.
    large = jnp.log1p(-jnp.exp(jnp.minimum(small, -0.25)))
    return jnp.where(below_is_small, small, large), jnp.where(below_is_small, large, small)


def log_remainder(log_mass: Array) -> Array:
    """log(1 - exp(log_mass)), to full precision on either side; -inf, with a derivative of 0, where nothing remains."""
    some = log_mass < 0
    safe = jnp.where(some, log_mass, -1.0)
    small = safe < -LOG_2
    result = jnp.where(
        small, jnp.log1p(-jnp.exp(jnp.where(small, safe, -1.0))), jnp.log(-jnp.expm1(jnp.where(small, -0.5, safe)))
    )
    return jnp.where(some, result, -jnp.inf)


def log_hazard(log_below: Array, log_above: Array) -> Array:
    """log(-log_above), of a pair that `complete` returned, also where the mass below underflows."""
    small = log_below < -20
    return jnp.where(small, log_below, jnp.log(jnp.where(small, 1.0, -log_above)))


def log_normal_mass(z: Array) -> Array:
    """log Phi(z); in float32 far below 0 by the continued fraction of Mills' ratio (Laplace), more accurate than `erfc`."""
    if z.dtype == jnp.float64:
        return log_ndtr(z)
    far = z < -4
    x = jnp.where(far, -z, 4.0)
    fraction = x
    for n in range(14, 0, -1):
        fraction = x + n / fraction
    result = -0.5 * x * x - (0.5 * math.log(2 * math.pi) + jnp.log(fraction))
    return jnp.where(far, result, log_ndtr(jnp.where(far, 0.0, z)))


@jax.custom_jvp
def normal_quantile(log_mass: Array) -> Array:
    """The standard normal quantile of exp(log_mass), for masses up to about a half: Newton steps on `log_ndtr`.

    `ndtri` takes the mass itself, which underflows at -13 in float32.
    """
    # Far out log Phi(z) = -z^2 / 2 - log(-z) - log(2 pi) / 2 + ...: its root, nearly.
    target = jnp.minimum(log_mass, 0.0)
    far = jnp.sqrt(jnp.maximum(-2 * target - math.log(2 * math.pi), 0.25))
    far = jnp.sqrt(jnp.maximum(far**2 - 2 * jnp.log(far), 0.04))
    z = jnp.where(target < -2.5, -far, jnp.sqrt(2 * math.pi) * (jnp.exp(target) - 0.5))

    def step(_: int, z: Array) -> Array:
        log_phi = log_normal_mass(z)
        slope = jnp.exp(-0.5 * z * z - 0.5 * math.log(2 * math.pi) - log_phi)
        return z - jnp.clip((log_phi - target) / slope, -2.0, 2.0)

    return jax.lax.fori_loop(0, 5, step, z, unroll=True)


@normal_quantile.defjvp
def _normal_quantile_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (log_mass,), (d_log_mass,) = primals, tangents
    z = normal_quantile(log_mass)
    return z, d_log_mass * jnp.exp(log_mass + 0.5 * z * z + 0.5 * math.log(2 * math.pi))


def safe_exponential_rate(a: ArrayLike) -> Array:
    """The number, or a tiny one in place of 0, at which ratios of expm1(a y) have their limit."""
    a = jnp.asarray(a, float)
    return jnp.where(jnp.abs(a) < 1e-20, jnp.asarray(1e-20, a.dtype), a)
