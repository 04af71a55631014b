"""A tilted density between two bounds."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample
from numpyro.util import is_prng_key, not_jax_tracer

from .. import reference as ref
from ..arguments import as_shape
from ..quadrature import KRONROD, NODES, panel_nodes
from ..whitening import uniform_masses

if TYPE_CHECKING:
    from .base import TiltedDistribution


class TruncatedTilted(Distribution):
    """A tilted density restricted to [low, high] and normalised; made by `KANTilted.truncate`.

    Everything follows from the masses of `base_dist` below and above a point, so that bounds far out in a tail keep
    their digits, as long as the mass between them is a number that floats can hold.

    Args:
        base_dist: a tilted distribution.
        low: lower bound, of a shape that broadcasts with `base_dist`'s; -inf for none.
        high: upper bound; inf for none.
        validate_args: whether to look at the numbers, as NumPyro does.

    Raises:
        ValueError: where the bounds are known and have no mass between them.
    """

    arg_constraints = {}
    pytree_data_fields = ("base_dist", "low", "high")
    pytree_aux_fields = ("_is_bounded",)

    def __init__(
        self,
        base_dist: "TiltedDistribution",
        low: ArrayLike = -jnp.inf,
        high: ArrayLike = jnp.inf,
        *,
        validate_args: bool | None = None,
    ) -> None:
        check_values = self._validate_args if validate_args is None else validate_args
        self.base_dist = base_dist
        dtype = base_dist.energy.domain.dtype
        support_low, support_high = ref.support_bounds(base_dist.reference)
        # Known without looking at numbers, for it decides which map to the real line samplers take.
        self._is_bounded = (
            not (_is_infinite(low) and _is_infinite(support_low)),
            not (_is_infinite(high) and _is_infinite(support_high)),
        )
        shape = lax.broadcast_shapes(base_dist.batch_shape, jnp.shape(low), jnp.shape(high))
        self.low = jnp.broadcast_to(jnp.maximum(jnp.asarray(low, dtype), support_low).astype(dtype), shape)
        self.high = jnp.broadcast_to(jnp.minimum(jnp.asarray(high, dtype), support_high).astype(dtype), shape)
        super().__init__(shape, (), validate_args=validate_args)
        if check_values and self._is_known and not np.all(self._masses()[1] > 0):
            raise ValueError(f"low={low}, high={high}: expected bounds with some of the density's mass between them.")

    @property
    def _is_known(self) -> bool:
        return all(not_jax_tracer(leaf) for leaf in jax.tree.leaves(self))

    @property
    def has_rsample(self) -> bool:
        """Draws are differentiable in every parameter, the bounds included."""
        return True

    @property
    def support(self) -> constraints.Constraint:
        """[low, high], without an end that is infinite."""
        match self._is_bounded:
            case (True, True):
                return constraints.interval(self.low, self.high)
            case (True, False):
                return constraints.greater_than_eq(self.low)
            case (False, True):
                return constraints.less_than_eq(self.high)
        return constraints.real

    def _validate_sample(self, value: ArrayLike) -> ArrayLike:
        # As an array: NumPyro compares a float by NumPy, which can't take traced bounds.
        return super()._validate_sample(jnp.asarray(value))

    def _masses(self) -> tuple[Array, Array, Array]:
        """Masses of `base_dist` below, between and above the bounds."""
        below, above_low = self.base_dist.tails(self.low)
        below_high, above = self.base_dist.tails(self.high)
        # The difference of the smaller tails: that of the larger ones has lost its digits.
        between = jnp.where(below_high <= above_low, below_high - below, above_low - above)
        return below, between, above

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Array:
        """Log-density, shape of `value` broadcast with `batch_shape`; -inf outside the bounds."""
        value = jnp.asarray(value)
        inside = (value >= self.low) & (value <= self.high)
        finite = jnp.where(jnp.isfinite(self.low), self.low, jnp.where(jnp.isfinite(self.high), self.high, 0.0))
        log_density = self.base_dist.log_prob(jnp.where(inside, value, finite))
        return jnp.where(inside, log_density - jnp.log(self._masses()[1]), -jnp.inf)

    def sample(self, key: Array, sample_shape: int | tuple[int, ...] = ()) -> Array:
        """Exact draws by inverse transform, shape sample_shape + batch_shape; differentiable in the parameters."""
        assert is_prng_key(key), f"key={key!r}: expected a JAX random key."
        shape = self.shape(as_shape(sample_shape, "sample_shape"))
        return self.quantile(*uniform_masses(key, shape, self.low.dtype))

    def quantile(self, lower: ArrayLike, upper: ArrayLike) -> Array:
        """The point with mass `lower` below it and `upper` = 1 - lower above it, as `TiltedDistribution.quantile`."""
        below, between, above = self._masses()
        point = self.base_dist.quantile(below + lower * between, above + upper * between)
        return jnp.clip(point, self.low, self.high)

    def icdf(self, q: ArrayLike) -> Array:
        """The point with probability q in [0, 1] below it, shape of q broadcast with `batch_shape`; NaN for any other q."""
        q = jnp.asarray(q, self.low.dtype)
        return jnp.where((q >= 0) & (q <= 1), self.quantile(q, 1 - q), jnp.nan)

    def tails(self, value: ArrayLike) -> tuple[Array, Array]:
        """P(z <= value) and P(z > value), shape of `value` broadcast with `batch_shape`."""
        below, between, above = self._masses()
        value_below, value_above = self.base_dist.tails(
            jnp.clip(jnp.asarray(value, self.low.dtype), self.low, self.high)
        )
        lower = jnp.clip((value_below - below) / between, 0.0, 1.0)
        upper = jnp.clip((value_above - above) / between, 0.0, 1.0)
        # Of the two the one from the smaller tail is exact.
        from_left = value_below <= value_above
        return jnp.where(from_left, lower, 1 - upper), jnp.where(from_left, 1 - lower, upper)

    def cdf(self, value: ArrayLike) -> Array:
        """P(z <= value), shape of `value` broadcast with `batch_shape`."""
        return self.tails(value)[0]

    @property
    def mean(self) -> Array:
        """Mean, shape `batch_shape`."""
        return self._expectation(lambda z: z)

    @property
    def variance(self) -> Array:
        """Variance, shape `batch_shape`."""
        mean = self.mean
        return self._expectation(lambda z: jnp.square(z - mean))

    def entropy(self) -> Array:
        """Differential entropy in nats, shape `batch_shape`."""
        return -self._expectation(self.log_prob)

    def _expectation(self, function: Callable[[Array], Array]) -> Array:
        """E[function(z)]: the base's panels, cut at the bounds, and what is left of its tails through their quantiles."""
        base, dtype = self.base_dist, self.low.dtype
        low, high = base.interval
        inner_low, inner_high = (jnp.clip(x, self.low, self.high) for x in (low, high))
        edges = jnp.clip(base.table.edges, inner_low[..., None], inner_high[..., None])
        edges = jnp.moveaxis(edges, -1, 0)
        nodes = panel_nodes(edges)
        density = jnp.exp(self.log_prob(nodes))
        values = jnp.where(density > 0, density * function(nodes), 0.0)
        half = 0.5 * jnp.diff(edges, axis=0)
        kronrod = jnp.asarray(KRONROD, dtype).reshape(-1, 1, *((1,) * len(self.batch_shape)))
        inner = jnp.sum(half * kronrod * values, axis=(0, 1))

        depth = 32.0 if dtype == jnp.float64 else 16.0
        fractions, weights = decaying_nodes(depth, dtype)
        fractions, weights = (x.reshape(-1, *((1,) * len(self.batch_shape))) for x in (fractions, weights))
        left, right = self.tails(inner_low)[0], self.tails(inner_high)[1]
        for tail, swap in ((left, False), (right, True)):
            mass = tail * fractions
            points = self.quantile(1 - mass, mass) if swap else self.quantile(mass, 1 - mass)
            occupied = tail > jnp.finfo(dtype).tiny * np.exp(depth)
            points = jnp.where(occupied, points, inner_low)
            inner += jnp.where(occupied, tail * jnp.sum(weights * function(points), axis=0), 0.0)
        return inner


def _is_infinite(bound: ArrayLike) -> bool:
    return isinstance(bound, float) and math.isinf(bound)


def decaying_nodes(depth: float, dtype: Any) -> tuple[Array, Array]:
    """Nodes e^-s and weights of the integral over a mass from 0 to 1, by Kronrod panels in s from 0 to `depth`."""
    edges = depth * np.linspace(0, 1, 17) ** 2
    half = 0.5 * np.diff(edges)[:, None]
    s = ((edges[:-1, None] + half) + half * NODES).reshape(-1)
    weights = (half * KRONROD).reshape(-1) * np.exp(-s)
    return jnp.asarray(np.exp(-s), dtype), jnp.asarray(weights, dtype)
