"""Resampling: replace weights by whole numbers of copies with the same expectation.

Each function counts how many of S ordered points in (0, S) fall between consecutive cumulative weights. Counting needs
no search and no sort, so a batch of weights costs two cumulative passes. (BlackJAX returns indices instead, found by
search, and its residual scheme breaks whenever `jax.random.uniform` returns exactly 0, once in 2^23 draws.)

Weights that are negative, NaN, or do not sum to one are refused; inside a compiled function, where values are unknown,
their copies are NaN.

Source: Douc, Cappé and Moulines, Comparison of resampling schemes for particle filtering, 2005.
"""

import jax
import jax.numpy as jnp
from jax import lax
from numpyro.util import not_jax_tracer


def systematic_resampling(key: jax.Array, weights: jax.Array) -> jax.Array:
    """Resample at the points u, u + 1, ..., u + S - 1, with one uniform u for each set of weights.

    Args:
        key: PRNG key.
        weights: non-negative, summing to one over the last axis, shape (..., S).

    Returns:
        Copies of each particle, whole numbers in the dtype of `weights` that sum to S, shape (..., S). Their
        expectation is S * weights, and each is S * weights rounded down or up.

    Raises:
        ValueError: weights are negative, NaN, or do not sum to one.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from kaem_ppl.inference import systematic_resampling
        >>> copies = systematic_resampling(jax.random.key(0), jnp.array([[0.5, 0.25, 0.25, 0.0]]))
        >>> copies.tolist()
        [[2.0, 1.0, 1.0, 0.0]]
    """
    weights, num_particles = _check(weights), weights.shape[-1]
    offset = jax.random.uniform(key, (*weights.shape[:-1], 1), weights.dtype)
    cumulative = _cumulative(num_particles * weights, num_particles)
    return _differences(jnp.ceil(cumulative - offset), num_particles)


def stratified_resampling(key: jax.Array, weights: jax.Array) -> jax.Array:
    """Resample at one uniform point in each of the intervals (0, 1), (1, 2), ..., (S - 1, S).

    Args:
        key: PRNG key.
        weights: non-negative, summing to one over the last axis, shape (..., S).

    Returns:
        Copies of each particle, whole numbers in the dtype of `weights` that sum to S, shape (..., S). Their
        expectation is S * weights.

    Raises:
        ValueError: weights are negative, NaN, or do not sum to one.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from kaem_ppl.inference import stratified_resampling
        >>> copies = stratified_resampling(jax.random.key(0), jnp.array([[0.5, 0.25, 0.25, 0.0]]))
        >>> copies.tolist()
        [[2.0, 1.0, 1.0, 0.0]]
    """
    weights, num_particles = _check(weights), weights.shape[-1]
    return _stratified(key, num_particles * weights, num_particles)


def residual_resampling(key: jax.Array, weights: jax.Array) -> jax.Array:
    """Keep floor(S * weights) copies deterministically, and resample the remainder by strata.

    Args:
        key: PRNG key.
        weights: non-negative, summing to one over the last axis, shape (..., S).

    Returns:
        Copies of each particle, whole numbers in the dtype of `weights` that sum to S, shape (..., S). Their
        expectation is S * weights, and none is less than S * weights rounded down.

    Raises:
        ValueError: weights are negative, NaN, or do not sum to one.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from kaem_ppl.inference import residual_resampling
        >>> copies = residual_resampling(jax.random.key(0), jnp.array([[0.5, 0.25, 0.25, 0.0]]))
        >>> copies.tolist()
        [[2.0, 1.0, 1.0, 0.0]]
    """
    weights, num_particles = _check(weights), weights.shape[-1]
    expected = num_particles * weights
    certain = jnp.floor(expected)
    return certain + _stratified(key, expected - certain, num_particles - certain.sum(-1, keepdims=True))


def _check(weights: jax.Array) -> jax.Array:
    """The weights; NaN in sets that are not weights, or an error where values are known."""
    weights = jnp.asarray(weights)
    # A float32 sum of a million weights is right to about 1e-3 where it is added one by one.
    is_valid = (weights >= 0).all(-1, keepdims=True) & (jnp.abs(weights.sum(-1, keepdims=True) - 1) < 1e-2)
    if not_jax_tracer(weights) and not is_valid.all():
        raise ValueError(
            "`weights` must be non-negative and sum to one over the last axis, got values from "
            f"{weights.min()} to {weights.max()} with sums from {weights.sum(-1).min()} to {weights.sum(-1).max()}."
        )
    return jnp.where(is_valid, weights, jnp.nan)


def _stratified(key: jax.Array, expected: jax.Array, total: jax.Array | int) -> jax.Array:
    # One point in each unit interval: those below y are the floor(y) whole intervals, and perhaps the one that contains y.
    points = jax.random.uniform(key, expected.shape, expected.dtype)
    cumulative = _cumulative(expected, total)
    whole = jnp.floor(cumulative)
    interval = jnp.minimum(whole, expected.shape[-1] - 1).astype(jnp.int32)
    own_point = jnp.take_along_axis(points, interval, axis=-1)
    return _differences(whole + (own_point < cumulative - whole), total)


def _cumulative(expected: jax.Array, total: jax.Array | int) -> jax.Array:
    # Rounding may make a parallel sum decrease, or miss the total; a count must do neither.
    return jnp.minimum(lax.cummax(jnp.cumsum(expected, axis=-1), axis=expected.ndim - 1), total)


def _differences(points_below: jax.Array, total: jax.Array | int) -> jax.Array:
    total = jnp.broadcast_to(total, points_below[..., -1:].shape).astype(points_below.dtype)
    return jnp.diff(points_below[..., :-1], axis=-1, prepend=0, append=total)
