"""Mean and standard deviation of observations, those of intervals by maximum likelihood of a normal density."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import log_ndtr

from .observations import Observations

# Steps of EM: the share of information that is missing, say 0.8, to this power is what an error shrinks by.
_NUM_STEPS = 200


def normal_moments(observations: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation by weight, shape (Q,) each; of intervals those of the likeliest normal density."""
    numbers, weights = observations.finite, observations.weights
    mean = np.sum(weights * numbers, axis=1)
    scale = np.sqrt(np.sum(weights * np.square(numbers - mean[:, None]), axis=1))
    if observations.upper is None or np.all(observations.is_exact):
        return mean, scale
    with jax.enable_x64(True):
        rows = (jnp.asarray(x) for x in (observations.values, observations.upper, weights, mean, scale))
        found = _maximise(*rows)
        return np.asarray(found[0]), np.asarray(found[1])


@jax.jit
def _maximise(low: Array, high: Array, weights: Array, mean: Array, scale: Array) -> tuple[Array, Array]:
    """EM steps, whose expectations are those of a truncated normal variable (Johnson, Kotz and Balakrishnan 1994)."""

    def step(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        centre, spread = state[0][:, None], state[1][:, None]
        a, b = (low - centre) / spread, (high - centre) / spread
        first, second = _truncated_moments(a, b)
        first = jnp.sum(weights * first, axis=1)
        second = jnp.sum(weights * second, axis=1)
        return state[0] + state[1] * first, state[1] * jnp.sqrt(jnp.maximum(second - jnp.square(first), 1e-12))

    return lax.fori_loop(0, _NUM_STEPS, step, (mean, scale))


def _truncated_moments(a: Array, b: Array) -> tuple[Array, Array]:
    """First and second moment about 0 of a standard normal variable in [a, b]; of the point itself where a = b."""
    is_exact = a == b
    # From the nearer tail, whose logarithm has its digits.
    flip = a + b > 0
    start, stop = jnp.where(flip, -b, a), jnp.where(flip, -a, b)
    stop = jnp.where(is_exact, start + 1, stop)
    log_mass = log_ndtr(stop) + jnp.log1p(-jnp.exp(log_ndtr(start) - log_ndtr(stop)))
    at_start, at_stop = (jnp.exp(-0.5 * jnp.square(x) - 0.5 * jnp.log(2 * jnp.pi) - log_mass) for x in (start, stop))
    ends = [jnp.where(jnp.isfinite(x), x, 0.0) for x in (start, stop)]
    first = at_start - at_stop
    second = 1 + ends[0] * at_start - ends[1] * at_stop
    first = jnp.where(flip, -first, first)
    return jnp.where(is_exact, a, first), jnp.where(is_exact, jnp.square(a), second)
