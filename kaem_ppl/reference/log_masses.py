"""Arithmetic of log probabilities that stays accurate where probabilities underflow."""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import log_ndtr
from jax.typing import ArrayLike

LOG_2 = math.log(2)
LOG_ROOT_2_PI = 0.5 * math.log(2 * math.pi)


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


# log erfcx(x) - log t at t = 1 / (1 + x / 2) as a polynomial in 2 t - 1, x from 0 to infinity: a least-squares fit at
# Chebyshev points to SciPy's `erfcx`, right to 1e-8 (the form is that of Press et al. 2007, sec. 6.2.2).
_LOG_ERFCX = (
    -6.7179409168e-01, 6.7264315477e-01, 4.7343887613e-02, -4.6893640560e-02, -9.8800193241e-03, 8.8088253697e-03,
    1.7940662500e-03, -2.2887652393e-03, -2.2791096626e-04, 5.7376637273e-04, 8.0007382593e-06, -8.7283810482e-05,
)  # fmt: skip
# Algorithm AS 241, PPND7 (Wichura 1988): the quantile of mass p as ratios of polynomials, in 0.180625 - (p - 1/2)^2 times
# p - 1/2 near the middle, in sqrt(-log p) less 1.6 and 5 in the tail. Right to 1e-7.
_MIDDLE = (
    (3.3871327179e0, 5.0434271938e1, 1.5929113202e2, 5.9109374720e1),
    (1.0, 1.7895169469e1, 7.8757757664e1, 6.7187563600e1),
)
_NEAR = ((1.4234372777e0, 2.7568153900e0, 1.3067284816e0, 1.7023821103e-1), (1.0, 7.3700164250e-1, 1.2021132975e-1))
_FAR = ((6.6579051150e0, 3.0812263860e0, 4.2868294337e-1, 1.7337203997e-2), (1.0, 2.4197894225e-1, 1.2258202635e-2))


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """The sum of coefficients times powers of x, from the constant on."""
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    above, below = (_polynomial(coefficients, x) for coefficients in polynomials)
    return above / below


def _log_scaled_tail(z: Array) -> Array:
    """log Phi(-|z|) + z^2 / 2, in which no digits are lost far out."""
    if z.dtype == jnp.float64:
        return log_ndtr(-jnp.abs(z)) + 0.5 * z * z
    t = 1 / (1 + math.sqrt(0.125) * jnp.abs(z))
    return jnp.log(0.5 * t) + _polynomial(_LOG_ERFCX, 2 * t - 1)


@jax.custom_jvp
def log_normal_mass(z: Array) -> Array:
    """log Phi(z), the smaller tail accurate relative to itself."""
    small = _log_scaled_tail(z) - 0.5 * z * z
    return jnp.where(z <= 0, small, jnp.log1p(-jnp.exp(small)))


@log_normal_mass.defjvp
def _log_normal_mass_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    log_phi, far = log_normal_mass(z), -_log_scaled_tail(z)
    return log_phi, jnp.exp(jnp.where(z <= 0, far, -0.5 * z * z - log_phi) - LOG_ROOT_2_PI) * dz


@jax.custom_jvp
def normal_quantile(log_mass: Array) -> Array:
    """The standard normal quantile of exp(log_mass), for masses up to about a half, far below what floats hold.

    `ndtri` takes the mass itself, which underflows at -13 in float32.
    """
    target = jnp.clip(log_mass, -1e30, 0.0)
    shifted = jnp.exp(target) - 0.5
    root = jnp.sqrt(-target)
    middle = shifted * _ratio(_MIDDLE, 0.180625 - shifted * shifted)
    tail = jnp.where(
        root <= 5, _ratio(_NEAR, jnp.minimum(root, 5.0) - 1.6), _ratio(_FAR, jnp.clip(root, 5.0, 27.0) - 5)
    )
    # Farther out log Phi(z) = -z^2 / 2 - log(-z) - log(2 pi) / 2 - 1 / z^2 + ...
    square = jnp.maximum(-2 * target - math.log(2 * math.pi), 700.0)
    far = square - jnp.log(square - jnp.log(square))
    far = jnp.sqrt(far - 2 / far)
    z = jnp.where(shifted > -0.425, middle, -jnp.where(root <= 27, tail, far))
    if z.dtype == jnp.float64:
        for _ in range(2):
            slope = jnp.exp(-_log_scaled_tail(z) - LOG_ROOT_2_PI)
            z = z - jnp.clip((log_normal_mass(z) - target) / slope, -1.0, 1.0)
    return z


@normal_quantile.defjvp
def _normal_quantile_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (log_mass,), (d_log_mass,) = primals, tangents
    z = normal_quantile(log_mass)
    scaled = jnp.where(z <= 0, _log_scaled_tail(z), log_mass + 0.5 * z * z)
    return z, d_log_mass * jnp.exp(scaled + LOG_ROOT_2_PI)


def safe_exponential_rate(a: ArrayLike) -> Array:
    """The number, or a tiny one in place of 0, at which ratios of expm1(a y) have their limit."""
    a = jnp.asarray(a, float)
    return jnp.where(jnp.abs(a) < 1e-20, jnp.asarray(1e-20, a.dtype), a)
