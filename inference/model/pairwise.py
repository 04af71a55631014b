"""Log-likelihood of every datum under every particle, by matrix products wherever the distribution allows.

A distribution for S particles and values for B data give a (B, S) array. For the Gaussian, Bernoulli and categorical
families the sum over D observed numbers is a matrix product of a (B, D) and an (S, D) array, so nothing of shape
(B, S, D) exists. Every other distribution is evaluated by its own `log_prob`, a few data at a time.
"""

import math
from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.nn import log_softmax, one_hot, softplus

from .missing.incomplete import Incomplete, fill
from .wrappers import unwrap

# Elements of the largest (data, S, D) array that the distributions without a product formula may build at once.
_CHUNK_ELEMENTS = 2**22


def pairwise_log_prob(fn: dist.Distribution, values: jax.Array, dim: int = -1) -> jax.Array:
    """Evaluate each datum under each particle, summed over everything but the two.

    Args:
        fn: distribution whose batch axis `dim` runs over S particles.
        values: observed values, of shape `fn.batch_shape + fn.event_shape` with B in place of S.
        dim: the batch axis of the particles, counted from the right as in `numpyro.plate`.

    Returns:
        Log-densities in nats, shape (B, S).

    The Gaussian product is exact algebra, but in float32 it cancels: expect an absolute error near 1e-6 times the
    squared distance between data and their centre in units of the scale.
    """
    return _pairwise(unwrap(fn, masks=False), fn, values, len(fn.batch_shape) + dim)


def sum_to_axis(log_prob: jax.Array, dim: int) -> jax.Array:
    """Sum a log-density over all axes but `dim`, counted from the right: shape (size of that axis,)."""
    kept = log_prob.ndim + dim
    return log_prob.sum([axis for axis in range(log_prob.ndim) if axis != kept])


@singledispatch
def _pairwise(base: dist.Distribution, fn: dist.Distribution, values: jax.Array, axis: int) -> jax.Array:
    # `base` is what dispatch sees, `fn` the same distribution inside its Independent and Expanded wrappers.
    dim = axis - len(fn.batch_shape)

    # Recomputed on the way back: what the chain rule needs would otherwise be kept for all data at once.
    @jax.checkpoint
    def under_every_particle(value: jax.Array) -> jax.Array:
        return sum_to_axis(jnp.asarray(fn.log_prob(jnp.expand_dims(value, axis))), dim)

    chunk = max(1, _CHUNK_ELEMENTS // max(1, math.prod(fn.shape())))
    return lax.map(under_every_particle, jnp.moveaxis(values, axis, 0), batch_size=min(chunk, values.shape[axis]))


@_pairwise.register(Incomplete)
def _incomplete(base: Any, fn: dist.Distribution, values: jax.Array, axis: int) -> jax.Array:
    complete = base.complete
    inner = unwrap(complete, masks=False)
    product = _incomplete_product.dispatch(type(inner))
    if product is _incomplete_product.dispatch(object):
        return _pairwise.dispatch(object)(base, fn, values, axis)
    observed = ~jnp.isnan(values)
    filled = fill(complete, values, observed)
    return product(inner, complete, _data_rows(filled, axis), _data_rows(observed, axis), axis)


@singledispatch
def _incomplete_product(base: Any, fn: dist.Distribution, x: jax.Array, observed: jax.Array, axis: int) -> jax.Array:
    """Products of the data x, shape (B, D), where only those entries count that are observed."""
    raise NotImplementedError


@_incomplete_product.register(dist.Normal)
def _incomplete_normal(base: Any, fn: dist.Distribution, x: jax.Array, observed: jax.Array, axis: int) -> jax.Array:
    loc = _particle_rows(base.loc, fn.shape(), axis)
    scale = _particle_rows(base.scale, fn.shape(), axis)
    mask = observed.astype(loc.dtype)
    centre = (mask * x).sum(0) / jnp.maximum(mask.sum(0), 1)
    x, loc = mask * (x - centre), loc - centre
    precision = 1 / jnp.square(scale)
    # sum m (x - g)^2 / s^2 = sum m x^2 / s^2 - 2 (m x) . (g / s^2) + m . (g^2 / s^2)
    squares = _product(jnp.square(x), precision) - 2 * _product(x, loc * precision)
    squares += _product(mask, jnp.square(loc) * precision)
    constant = _product(mask, jnp.log(scale) + 0.5 * jnp.log(2 * jnp.pi))
    return _all_particles(-0.5 * squares - constant, fn, axis)


@_incomplete_product.register(dist.BernoulliProbs)
@_incomplete_product.register(dist.BernoulliLogits)
def _incomplete_bernoulli(base: Any, fn: dist.Distribution, x: jax.Array, observed: jax.Array, axis: int) -> jax.Array:
    logits = _particle_rows(base.logits, fn.shape(), axis)
    mask = observed.astype(logits.dtype)
    return _all_particles(_product(mask * x, logits) - _product(mask, softplus(logits)), fn, axis)


@_pairwise.register(dist.Normal)
def _normal(base: Any, fn: dist.Distribution, values: jax.Array, axis: int) -> jax.Array:
    x = _data_rows(values, axis)
    loc = _particle_rows(base.loc, fn.shape(), axis)
    scale = _particle_rows(base.scale, fn.shape(), axis)
    # |x - g|^2 = |x|^2 - 2 x.g + |g|^2 loses digits when x and g are far from the origin, not from each other.
    centre = x.mean(0)
    x, loc = x - centre, loc - centre
    constant = jnp.log(scale).sum(-1) + 0.5 * x.shape[-1] * jnp.log(2 * jnp.pi)
    if scale.shape[0] == 1:
        x, loc = x / scale, loc / scale
        squares = jnp.square(x).sum(-1)[:, None] - 2 * _product(x, loc) + jnp.square(loc).sum(-1)
    else:
        precision = 1 / jnp.square(scale)
        squares = (
            _product(jnp.square(x), precision)
            - 2 * _product(x, loc * precision)
            + (jnp.square(loc) * precision).sum(-1)
        )
    return _all_particles(-0.5 * squares - constant, fn, axis)


@_pairwise.register(dist.BernoulliProbs)
@_pairwise.register(dist.BernoulliLogits)
def _bernoulli(base: Any, fn: dist.Distribution, values: jax.Array, axis: int) -> jax.Array:
    # NumPyro's `logits` of given probabilities keeps 0 and 1 a rounding error away, so no infinity meets a zero.
    logits = _particle_rows(base.logits, fn.shape(), axis)
    x = _data_rows(values, axis).astype(logits.dtype)
    return _all_particles(_product(x, logits) - softplus(logits).sum(-1), fn, axis)


@_pairwise.register(dist.CategoricalProbs)
@_pairwise.register(dist.CategoricalLogits)
def _categorical(base: Any, fn: dist.Distribution, values: jax.Array, axis: int) -> jax.Array:
    logits = base.logits
    num_classes = logits.shape[-1]
    log_probs = logits if isinstance(base, dist.CategoricalProbs) else log_softmax(logits)
    # An impossible class is -inf, and the product would turn its absence from the data into 0 * -inf.
    impossible = jnp.finfo(log_probs.dtype).min / 1e6
    log_probs = _particle_rows(jnp.maximum(log_probs, impossible), (*fn.shape(), num_classes), axis)
    x = _data_rows(values, axis)
    indicators = one_hot(x, num_classes, dtype=log_probs.dtype).reshape(len(x), -1)
    product = _product(indicators, log_probs)
    product = jnp.where(product < impossible / 2, -jnp.inf, product)
    # `one_hot` is silent about a class that does not exist; `log_prob` is not, and neither is this.
    known = ((x >= 0) & (x < num_classes)).all(-1)
    return _all_particles(jnp.where(known[:, None], product, jnp.nan), fn, axis)


def _data_rows(values: jax.Array, axis: int) -> jax.Array:
    """Flatten each datum: (B, D)."""
    return jnp.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _particle_rows(parameter: jax.Array, shape: tuple[int, ...], axis: int) -> jax.Array:
    """Flatten each particle's parameters: (S, D), or (1, D) where all particles share them."""
    parameter = jnp.asarray(parameter)
    parameter = parameter.reshape((1,) * (len(shape) - parameter.ndim) + parameter.shape)
    size = parameter.shape[axis]
    parameter = jnp.broadcast_to(parameter, (*shape[:axis], size, *shape[axis + 1 :]))
    return _data_rows(parameter, axis)


def _product(data_rows: jax.Array, particle_rows: jax.Array) -> jax.Array:
    """Contract (B, D) with (S, D) to (B, S), without the shorter floats accelerators would choose."""
    return jnp.matmul(data_rows, particle_rows.T, precision=lax.Precision.HIGHEST)


def _all_particles(log_prob: jax.Array, fn: dist.Distribution, axis: int) -> jax.Array:
    """Repeat (B, 1), from parameters that all particles share, to (B, S)."""
    return jnp.broadcast_to(log_prob, (log_prob.shape[0], fn.batch_shape[axis]))
