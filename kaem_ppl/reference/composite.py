"""Tails of transformed distributions, such as the log-normal, and of mixtures, from those of their parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from numpyro.distributions import transforms

from .implicit import implicit_quantile
from .log_masses import LOG_2, complete

_INCREASING = (
    transforms.ExpTransform,
    transforms.SigmoidTransform,
    transforms.SoftplusTransform,
    transforms.IdentityTransform,
)


def sign_of(transform: transforms.Transform) -> Any:
    """1 or -1, the sign of a monotone transform's derivative, a number or an array; None for any other transform."""
    match transform:
        case transforms.AffineTransform():
            return jnp.sign(transform.scale)
        case transforms.PowerTransform():
            return jnp.sign(transform.exponent)
        case transforms.ComposeTransform():
            return sign_of_all(transform.parts)
        case transforms._InverseTransform():
            return sign_of(transform._inv)
        case _ if type(transform) in _INCREASING:
            return 1.0
    return None


def sign_of_all(parts: Sequence[transforms.Transform]) -> Any:
    """The sign of a composition's derivative; None where a part is not known to be monotone."""
    sign = 1.0
    for part in parts:
        factor = sign_of(part)
        if factor is None:
            return None
        sign = sign * factor
    return sign


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TransformedTails:
    """Tails of a monotone function of a variable whose tails are known."""

    base: Any
    transforms: list

    def log_masses(self, x: Array) -> tuple[Array, Array]:
        for transform in reversed(self.transforms):
            x = transform._inverse(x)
        below, above = self.base.log_masses(x)
        rises = sign_of_all(self.transforms) > 0
        return jnp.where(rises, below, above), jnp.where(rises, above, below)

    def quantile(self, log_below: Array, log_above: Array) -> Array:
        rises = sign_of_all(self.transforms) > 0
        z = self.base.quantile(jnp.where(rises, log_below, log_above), jnp.where(rises, log_above, log_below))
        for transform in self.transforms:
            z = transform(z)
        return z


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MixtureTails:
    """Tails of a mixture, sums of its components' tails.

    Attributes:
        log_weights: shape (..., K).
        components: tails of each component; or one for all, of batch shape (..., K).
        bounds: ends of the support of each, inside which its tails are asked for.
    """

    log_weights: Array
    components: list
    bounds: list

    def log_masses(self, x: Array) -> tuple[Array, Array]:
        """Log masses below and above points."""
        pairs = self._by_component(lambda i, x: _masses_inside(self.components[i], self.bounds[i], x), x)
        below, above = (_log_sum(self.log_weights + part) for part in pairs)
        return below, above

    def masses_at(self, place: Array) -> tuple[Array, Array]:
        """The same."""
        return self.log_masses(place)

    def _by_component(self, function: Callable[..., tuple[Array, ...]], *arguments: Array) -> list[Array]:
        """Results for every component along a last axis."""
        if len(self.components) == 1:
            return list(function(0, *(x[..., None] for x in map(jnp.asarray, arguments))))
        results = zip(*(function(i, *arguments) for i in range(len(self.components))), strict=True)
        return [jnp.stack(jnp.broadcast_arrays(*parts), axis=-1) for parts in results]

    def quantile(self, log_below: Array, log_above: Array) -> Array:
        """The point with given log masses, differentiable."""
        return implicit_quantile(self, log_below, log_above)

    def search(self, log_below: Array, log_above: Array) -> Array:
        """The same, without derivatives: between the components' quantiles, by Newton steps on the smaller log mass."""
        (points,) = self._by_component(lambda i, *masses: (self.components[i].quantile(*masses),), log_below, log_above)
        low, high = jnp.min(points, axis=-1), jnp.max(points, axis=-1)
        shape = lax.broadcast_shapes(low.shape, self.log_weights.shape[:-1])
        low, high = jnp.broadcast_to(low, shape), jnp.broadcast_to(high, shape)
        from_below = log_below <= log_above

        def excess(x: Array) -> Array:
            below, above = self.log_masses(x)
            return jnp.where(from_below, below - log_below, log_above - above)

        def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
            x, low, high, best, least, _, rounds = state
            error, slope = jax.jvp(excess, (x,), (jnp.ones_like(x),))
            low, high = jnp.where(error < 0, x, low), jnp.where(error < 0, high, x)
            is_best = jnp.abs(error) <= least
            best, least = jnp.where(is_best, x, best), jnp.where(is_best, jnp.abs(error), least)
            newton = x - error / jnp.where(slope > 0, slope, 1.0)
            # Every third step halves, so that a long flat part does not hold Newton's steps up.
            inside = (slope > 0) & (newton >= low) & (newton <= high) & (rounds % 3 != 2)
            new = jnp.where(inside, newton, _between(low, high))
            eps = jnp.finfo(x.dtype).eps
            moving = jnp.any(
                (jnp.abs(error) > 0) & (high - low > eps * jnp.abs(x)) & (jnp.abs(new - x) > eps * jnp.abs(x))
            )
            return new, low, high, best, least, moving, rounds + 1

        start = jnp.broadcast_to(points[..., 0], shape)
        state = (start, low, high, start, jnp.full_like(start, jnp.inf), True, 0)
        return lax.while_loop(lambda state: state[-2] & (state[-1] < 90), step, state)[3]


def _between(low: Array, high: Array) -> Array:
    """A point between two: their geometric mean where they have one sign and differ by magnitudes."""
    far = (low * high > 0) & (jnp.maximum(jnp.abs(low), jnp.abs(high)) > 8 * jnp.minimum(jnp.abs(low), jnp.abs(high)))
    root = jnp.sign(low) * jnp.sqrt(jnp.abs(jnp.where(far, low, 1.0))) * jnp.sqrt(jnp.abs(jnp.where(far, high, 1.0)))
    return jnp.where(far, root, 0.5 * (low + high))


def _masses_inside(tails: Any, bounds: tuple[ArrayLike, ArrayLike], x: Array) -> tuple[Array, Array]:
    """Log masses below and above any points, also outside the support."""
    low, high = bounds
    inside = (x > low) & (x < high)
    # A point of its own stands in, where nothing is infinite.
    half = jnp.full(inside.shape, -LOG_2, jnp.result_type(float))
    middle = lax.stop_gradient(tails.quantile(half, half))
    pair = complete(*tails.log_masses(jnp.where(inside, x, middle)))
    below, above = (
        jnp.where(inside, part, jnp.where(is_out, -jnp.inf, 0.0))
        for part, is_out in zip(pair, (x <= low, x >= high), strict=True)
    )
    return below, above


def _log_sum(terms: Array) -> Array:
    """Logarithm of a sum over the last axis, with a derivative of 0 where it is empty."""
    some = jnp.any(terms > -jnp.inf, axis=-1)
    return jnp.where(some, jax.nn.logsumexp(jnp.where(some[..., None], terms, 0.0), axis=-1), -jnp.inf)
