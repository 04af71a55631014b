"""Censored observations of tilted densities: NumPyro's classes, with batch shapes of their flags supported.

NumPyro's constructors promote every array of the base to the batch shape of the flags, which coefficients and grids do
not fit. A tilted density broadcasts by itself, so it is taken as it is; survival is its upper tail, to full precision.
"""

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from numpyro.distributions import (
    Distribution,
    IntervalCensoredDistribution,
    LeftCensoredDistribution,
    RightCensoredDistribution,
)
from numpyro.distributions.util import validate_sample

from .base import TiltedDistribution


class LeftCensoredTilted(LeftCensoredDistribution):
    """`LeftCensoredDistribution` of a tilted density.

    Args:
        base_dist: a tilted distribution.
        censored: flags, of a shape that broadcasts with its batch shape: whether a value is an upper bound.
        validate_args: as for any distribution.
    """

    def __init__(
        self, base_dist: TiltedDistribution, censored: ArrayLike, *, validate_args: bool | None = None
    ) -> None:
        shape = lax.broadcast_shapes(base_dist.batch_shape, jnp.shape(censored))
        self.base_dist, self._support = base_dist, base_dist.support
        self.censored = _flags(censored, shape)
        Distribution.__init__(self, shape, validate_args=validate_args)

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Array:
        """log P(z <= value) where censored, else the log-density; shape of `value` broadcast with `batch_shape`."""
        return jnp.where(self.censored, self.base_dist.log_tails(value)[0], self.base_dist.log_prob(value))


class RightCensoredTilted(RightCensoredDistribution):
    """`RightCensoredDistribution` of a tilted density.

    Args:
        base_dist: a tilted distribution.
        censored: flags, of a shape that broadcasts with its batch shape: whether a value is a lower bound.
        validate_args: as for any distribution.
    """

    def __init__(
        self, base_dist: TiltedDistribution, censored: ArrayLike, *, validate_args: bool | None = None
    ) -> None:
        shape = lax.broadcast_shapes(base_dist.batch_shape, jnp.shape(censored))
        self.base_dist, self._support = base_dist, base_dist.support
        self.censored = _flags(censored, shape)
        Distribution.__init__(self, shape, validate_args=validate_args)

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Array:
        """log P(z > value) where censored, else the log-density; shape of `value` broadcast with `batch_shape`."""
        return jnp.where(self.censored, self.base_dist.log_tails(value)[1], self.base_dist.log_prob(value))


class IntervalCensoredTilted(IntervalCensoredDistribution):
    """`IntervalCensoredDistribution` of a tilted density, whose values are pairs (lower, upper).

    Args:
        base_dist: a tilted distribution.
        left_censored: flags, of a shape that broadcasts with its batch shape: whether only the upper bound is known.
        right_censored: whether only the lower bound is known; with both flags the value is outside of the pair.
        validate_args: as for any distribution.
    """

    def __init__(
        self,
        base_dist: TiltedDistribution,
        left_censored: ArrayLike,
        right_censored: ArrayLike,
        *,
        validate_args: bool | None = None,
    ) -> None:
        shape = lax.broadcast_shapes(base_dist.batch_shape, jnp.shape(left_censored), jnp.shape(right_censored))
        self.base_dist, self._support = base_dist, base_dist.support
        self.left_censored, self.right_censored = _flags(left_censored, shape), _flags(right_censored, shape)
        Distribution.__init__(self, shape, event_shape=(2,), validate_args=validate_args)


def _flags(flags: ArrayLike, shape: tuple[int, ...]) -> Array:
    return jnp.broadcast_to(jnp.asarray(flags, bool), shape)
