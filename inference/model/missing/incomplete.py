"""The law of observations some of whose entries are missing, which NaN stands for: that of the other entries."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular
from numpyro.distributions import Distribution
from numpyro.distributions.batch_util import promote_batch_shape

from ..wrappers import unwrap


class Incomplete(Distribution):
    """A distribution whose log-density leaves the entries of a value out that are NaN.

    Entries that are independent drop out one by one. Of a multivariate normal the rest has the marginal law. Of any other
    joint law of several entries all must be there, or none: `check_missing` refuses the rest.

    Args:
        complete: the law of complete observations.
    """

    arg_constraints = {}
    pytree_data_fields = ("complete",)

    def __init__(self, complete: Distribution) -> None:
        self.complete = complete
        super().__init__(complete.batch_shape, complete.event_shape)

    @property
    def support(self) -> Any:
        """That of complete observations."""
        return self.complete.support

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draw a complete observation."""
        return self.complete.sample(key, sample_shape)

    def log_prob(self, value: Any, intermediates: list[Any] | None = None) -> jax.Array:
        """Log-density of the entries that are not NaN."""
        return _log_prob(self.complete, jnp.asarray(value))

    def impute(self, key: jax.Array, value: jax.Array) -> jax.Array:
        """Draw the entries that are NaN given the others, which stay."""
        return jnp.where(jnp.isnan(value), self._draw_given_others(key, value), value)

    def _draw_given_others(self, key: jax.Array, value: jax.Array) -> jax.Array:
        shape = value.shape[: value.ndim - len(self.shape())]
        draw = jnp.asarray(self.complete.sample(key, shape)).astype(value.dtype)
        base = unwrap(self.complete)
        if not isinstance(base, dist.MultivariateNormal):
            return draw
        # x* + S_mo S_oo^-1 (x_o - x*_o) is a draw of the missing given the observed (Matheron's rule).
        observed = ~jnp.isnan(value)
        covariance, factor = _covariance_of_observed(base, observed)
        weights = cho_solve((factor, True), jnp.where(observed, value - draw, 0.0)[..., None])
        return draw + jnp.matmul(covariance, jnp.where(observed[..., None], weights, 0.0))[..., 0]


def _promote(fn: Incomplete) -> Incomplete:
    """Give a distribution that `scan` has stacked its batch shape, as NumPyro does with its own."""
    promote: Any = promote_batch_shape
    return Incomplete(promote(fn.complete))


promote_batch_shape.register(Incomplete, _promote)  # pyright: ignore[reportCallIssue, reportArgumentType]


def is_joint(fn: Distribution) -> bool:
    """Whether entries of an event depend on each other in a way that has no known marginal law."""
    base = unwrap(fn)
    return base.event_dim > 0 and not isinstance(base, dist.MultivariateNormal)


def fill(fn: Distribution, value: jax.Array, observed: jax.Array) -> jax.Array:
    """The value with possible ones in the place of those missing; whole numbers where the distribution is of such."""
    base = unwrap(fn)
    support: Any = base.support
    placeholder = base.loc if isinstance(base, dist.MultivariateNormal) else support.feasible_like(value)
    # Where nothing is missing `placeholder` has no effect; else it keeps densities and derivatives finite.
    filled = jnp.where(observed, value, placeholder)
    return filled.astype(jnp.int32) if support.is_discrete else filled


def _log_prob(fn: Distribution, value: jax.Array) -> jax.Array:
    if isinstance(fn, dist.MaskedDistribution):
        return jnp.where(fn._mask, _log_prob(fn.base_dist, value), 0.0)
    base: Any = unwrap(fn, masks=False)
    if isinstance(base, dist.MaskedDistribution):
        # A mask of the model's inside `to_event` or a plate.
        log_prob = jnp.broadcast_to(_log_prob(base, value), value.shape[: value.ndim - base.event_dim])
        return _sum_last(log_prob, fn.event_dim - base.event_dim)
    observed = ~jnp.isnan(value)
    filled = fill(base, value, observed)
    if isinstance(base, dist.MultivariateNormal):
        log_prob = _marginal_normal(base, filled, observed)
    elif base.event_dim > 0:
        axes = tuple(range(-base.event_dim, 0))
        log_prob = jnp.where(observed.all(axes), base.log_prob(filled), 0.0)
        # Some missing and some not: `check_missing` refuses it.
        log_prob = jnp.where(observed.all(axes) == observed.any(axes), log_prob, jnp.nan)
    else:
        log_prob = jnp.where(observed, base.log_prob(filled), 0.0)
    return _sum_last(log_prob, fn.event_dim - base.event_dim)


def _sum_last(x: jax.Array, number: int) -> jax.Array:
    return x.sum(tuple(range(-number, 0))) if number else x


def _covariance_of_observed(base: Any, observed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The whole covariance, and the Cholesky factor of that of the observed entries, the identity in place of others."""
    covariance = jnp.matmul(base.scale_tril, jnp.swapaxes(base.scale_tril, -1, -2))
    both = observed[..., :, None] & observed[..., None, :]
    covariance = jnp.broadcast_to(covariance, both.shape)
    return covariance, jnp.linalg.cholesky(jnp.where(both, covariance, jnp.eye(both.shape[-1], dtype=covariance.dtype)))


def _marginal_normal(base: Any, filled: jax.Array, observed: jax.Array) -> jax.Array:
    _, factor = _covariance_of_observed(base, observed)
    deviation = jnp.where(observed, filled - base.loc, 0.0)
    # Inverted for each pattern, and applied to each deviation: there may be many more of these.
    identity = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    white = jnp.matmul(solve_triangular(factor, identity, lower=True), deviation[..., None])[..., 0]
    log_det = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
    return -0.5 * jnp.square(white).sum(-1) - log_det - 0.5 * observed.sum(-1) * jnp.log(2 * jnp.pi)
