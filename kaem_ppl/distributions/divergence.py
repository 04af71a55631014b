"""Kullback-Leibler divergences from and to tilted densities, for `numpyro.distributions.kl_divergence`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from numpyro.distributions import Delta, Distribution, ExpandedDistribution, kl_divergence

from .. import reference as ref
from ..univariate import UnivariateKAN
from .base import TiltedDistribution
from .stacking import aligned, promote
from .tails_and_moments import expectation
from .tilted import KANTilted


def from_tilted(p: TiltedDistribution, q: Distribution) -> Array:
    """KL(p || q) of a tilted density from any univariate distribution, another tilted density among them.

    E_p[log p - log q] by the panels of p's own table and its reference's tails. Differentiable in both.

    Args:
        p: a tilted distribution.
        q: any univariate continuous distribution whose batch shape broadcasts with p's.

    Returns:
        The divergence in nats, of the broadcast batch shape; +inf where p has mass outside of q's support.

    Raises:
        NotImplementedError: where q is not univariate and continuous.
    """
    if q.event_shape != () or q.support is None or q.support.is_discrete:
        raise NotImplementedError(
            f"kl_divergence of a tilted density from {type(q).__name__}: expected a univariate q."
        )
    p = aligned(p)
    if isinstance(q, TiltedDistribution):
        q = aligned(q)
    shape = lax.broadcast_shapes(p.batch_shape, q.batch_shape)
    p = _with_rank(p, len(shape))
    normalizer = _normalizer(q) if isinstance(q, TiltedDistribution) else None
    return _divergence(p, p.table, _normalizer(p), q, normalizer)


def to_tilted(p: Distribution, q: TiltedDistribution) -> Array:
    """KL(p || q) of any univariate distribution from a tilted density; see `from_tilted`.

    p is taken for a tilted density with the energy 0, on panels of q's domain.

    Raises:
        TypeError, ValueError: where p can't be the reference of a `KANTilted`.
    """
    q = aligned(q)
    flat = KANTilted(_flat_energy(q, p), p, validate_args=False)
    return from_tilted(flat, q)


def _normalizer(d: TiltedDistribution) -> tuple[Array, Array]:
    return d.log_normalizer, d.log_normalizer_error


def _with_rank(p: TiltedDistribution, rank: int) -> TiltedDistribution:
    """p with axes of size 1 in front of its batch."""
    added = rank - len(p.batch_shape)
    if added <= 0:
        return p
    return promote(jax.tree.map(lambda x: jnp.reshape(x, (1,) * added + jnp.shape(x)), p))


def _flat_energy(q: TiltedDistribution, p: Distribution) -> UnivariateKAN:
    """The energy 0 with q's basis, grid and domain: what is smooth between q's breakpoints is so between its own."""
    basis, energy = q.energy.basis, q.energy
    a, b = q._domain
    low, high = ref.support_bounds(p)
    # Where p lives beyond q's domain, its own middle is what panels can cover.
    apart = (low >= b) | (high <= a)
    own = (jnp.asarray(p.icdf(jnp.asarray(x, a.dtype)), a.dtype) for x in (0.1, 0.9))
    a, b = (jnp.where(apart, mine, its) for mine, its in zip(own, (a, b), strict=True))
    shape = jnp.shape(a)
    is_own_grid = energy.grid.ndim == 1 or isinstance(q, KANTilted)
    grid = energy.grid if is_own_grid else jnp.linspace(a, b, energy.grid.shape[-1], axis=-1)
    if grid.ndim > 1:
        shape = lax.broadcast_shapes(shape, grid.shape[:-1])
        grid = jnp.broadcast_to(grid, shape + grid.shape[-1:])
    domain = jnp.stack([a, b], axis=-1)
    width = jnp.ones((), a.dtype) if basis.width_constraint is None else jnp.max(energy.width)
    return UnivariateKAN(
        coef=jnp.zeros((*shape, basis.num_features), a.dtype),
        base_weight=jnp.zeros(shape, a.dtype),
        spline_weight=jnp.zeros(shape, a.dtype),
        grid=grid,
        width=width,
        domain=jnp.broadcast_to(domain, (*shape, 2)) if shape else domain,
        basis=basis,
        activation=energy.activation,
    )


@jax.jit
def _divergence(p: TiltedDistribution, table: Any, p_normalizer: Any, q: Any, q_normalizer: Any) -> Array:
    # q is `Any`: `from_tilted` has seen to its support, which NumPyro's annotations say may be None.
    p = p.given(table=table, log_normalizer=p_normalizer)
    if isinstance(q, TiltedDistribution):
        q = q.given(log_normalizer=q_normalizer)

    def log_q(z: Array) -> tuple[Array, Array]:
        """log q, 0 where it is not finite; and whether z is in q's support without density there."""
        inside = q.support(z)
        value = q.log_prob(jnp.where(inside, z, q.support.feasible_like(z)))
        return jnp.where(inside & jnp.isfinite(value), value, 0.0), inside & (value == -jnp.inf)

    def log_ratio(z: Array) -> Array:
        log_p = p.log_ratio(z) + p.reference.log_prob(z)
        value, _ = log_q(z)
        return jnp.where(jnp.isfinite(log_p), log_p, 0.0) - value

    divergence = expectation(p, table, p.reference_tails, log_ratio)
    low, high = (jnp.asarray(bound, divergence.dtype) for bound in ref.support_bounds(q))
    outside = p.tails(low)[0] + p.tails(high)[1]
    hole = expectation(p, table, p.reference_tails, lambda z: jnp.where(log_q(z)[1], 1.0, jnp.zeros_like(z)))
    is_infinite = (outside > 0) | (hole > 10 * jnp.finfo(divergence.dtype).eps)
    return jnp.where(lax.stop_gradient(is_infinite), jnp.inf, divergence)


def _from_expanded(p: ExpandedDistribution, q: Distribution) -> Array:
    shape = lax.broadcast_shapes(p.batch_shape, q.batch_shape)
    return jnp.broadcast_to(kl_divergence(p.base_dist, q), shape)


def _to_expanded(p: Distribution, q: ExpandedDistribution) -> Array:
    shape = lax.broadcast_shapes(p.batch_shape, q.batch_shape)
    return jnp.broadcast_to(kl_divergence(p, q.base_dist), shape)


def _from_point(p: Any, q: Distribution) -> Array:
    return p.log_density - q.log_prob(p.v)


# Pairs that NumPyro's rules for its wrappers would leave ambiguous are stated too.
for _pair, _rule in {
    (TiltedDistribution, Distribution): from_tilted,
    (TiltedDistribution, TiltedDistribution): from_tilted,
    (Distribution, TiltedDistribution): to_tilted,
    (TiltedDistribution, ExpandedDistribution): _to_expanded,
    (ExpandedDistribution, TiltedDistribution): _from_expanded,
    (Delta, TiltedDistribution): _from_point,
}.items():
    kl_divergence.add(_pair, _rule)
