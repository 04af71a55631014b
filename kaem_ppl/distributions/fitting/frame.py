"""Where a density is fitted: its reference, by the moments of the observations or as given, and its domain."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import Distribution

from ... import reference as ref
from ...arguments import describe
from ...basis import Basis
from ...refitting import check_domain
from ...univariate import UnivariateKAN
from .moments import normal_moments
from .observations import Observations
from .problem import widths

# By which the domain exceeds the range of the observations at either end, relative to that range.
_PADDING = 0.02
# Standard deviations that the domain extends from the mean on a side where observations are unbounded.
_OPEN = 4.0


def choose_reference(observations: Observations, reference: Any, support: Any) -> Distribution:
    """The reference as given, or the normal of the observations' mean and variance, cut to the support.

    Raises:
        TypeError: the reference is neither a distribution nor "moments".
        ValueError: the reference can't be tilted, the support is none, or observations lie off it.
    """
    if isinstance(reference, str):
        if reference != "moments":
            raise ValueError(f"`reference` must be a distribution or 'moments', got {reference!r}.")
        chosen = _by_moments(observations, *_check_support(support))
    elif support is not None:
        raise ValueError(f"`support` goes with reference='moments', got {describe(support)} beside a distribution.")
    else:
        ref.check_reference(reference)
        chosen = reference
    try:
        np.broadcast_shapes(chosen.batch_shape, observations.batch_shape)
        is_larger = np.broadcast_shapes(chosen.batch_shape, observations.batch_shape) != observations.batch_shape
    except ValueError:
        is_larger = True
    if is_larger:
        raise ValueError(
            f"`reference` must have a batch shape that broadcasts to {observations.batch_shape}, that of `samples` "
            f"without its first axis, got {chosen.batch_shape}."
        )
    low, high = (_per_member(x, observations.batch_shape)[:, None] for x in ref.support_bounds(chosen))
    # Stated in single precision, an end may be a rounding error inside of what was observed.
    slack = 1e-6 * (np.abs(observations.values) + 1)
    above, below = observations.values, observations.values if observations.upper is None else observations.upper
    is_off = ((above < low - slack) & observations.is_exact) | (above > high + slack) | (below < low - slack)
    if np.any(is_off & (observations.weights > 0)):
        raise ValueError(
            f"`samples` must lie on the support [{low.min():g}, {high.max():g}], got {int(is_off.sum())} that do not: "
            "pass another `reference` or `support`."
        )
    return chosen


def choose_domain(observations: Observations, reference: Distribution, domain: Any) -> Array:
    """The domain of all densities, shape (2,), or of each, batch_shape + (2,).

    Raises:
        ValueError: it is not two finite increasing numbers, or does not overlap the support.
    """
    dtype = jnp.result_type(float)
    bounds = ref.support_bounds(reference)
    if domain is not None:
        a, b = check_domain(domain)
        if np.any(np.asarray(bounds[0]) >= b) or np.any(np.asarray(bounds[1]) <= a):
            raise ValueError(f"`domain` must overlap the reference's support, got ({a:g}, {b:g}).")
        return jnp.asarray((a, b), dtype)
    low, high = observations.range
    padding = _PADDING * (high - low)
    if observations.upper is not None:
        # Where observations are only known to lie beyond a point, the domain goes on to where a normal density would end.
        mean, scale = normal_moments(observations)
        used = (observations.weights > 0) & ~observations.is_exact
        open_low = np.any(used & np.isneginf(observations.values), axis=1)
        open_high = np.any(used & np.isposinf(observations.upper), axis=1)
        low = np.where(open_low, np.minimum(low, mean - _OPEN * scale), low)
        high = np.where(open_high, np.maximum(high, mean + _OPEN * scale), high)
    support_low, support_high = (_per_member(x, observations.batch_shape) for x in bounds)
    ends = np.stack([np.maximum(low - padding, support_low), np.minimum(high + padding, support_high)], axis=-1)
    return jnp.asarray(ends.reshape(*observations.batch_shape, 2), dtype)


def energy_of(basis: Basis, domain: Array, coef: np.ndarray) -> UnivariateKAN:
    """The bank of these coefficients on uniform grids, shape batch_shape + (F,), without an activation's part."""
    dtype, batch_shape = domain.dtype, coef.shape[:-1]
    return UnivariateKAN(
        coef=jnp.asarray(coef, dtype),
        base_weight=jnp.zeros(batch_shape, dtype),
        spline_weight=jnp.ones(batch_shape, dtype),
        grid=basis.init_grid(domain),
        width=jnp.asarray(widths(basis, domain), dtype),
        domain=domain,
        basis=basis,
    )


def _by_moments(observations: Observations, low: float, high: float) -> Distribution:
    mean, scale = normal_moments(observations)
    loc, scale = (jnp.asarray(x.reshape(observations.batch_shape), float) for x in (mean, scale))
    ends = [x if np.isfinite(x) else None for x in (low, high)]
    return dist.TruncatedNormal(loc, scale, low=ends[0], high=ends[1])


def _check_support(support: Any) -> tuple[float, float]:
    if support is None:
        return -np.inf, np.inf
    try:
        low, high = support
        low, high = (-np.inf if low is None else float(low)), (np.inf if high is None else float(high))
    except (TypeError, ValueError):
        low = high = np.nan
    if not low < high:
        raise ValueError(
            f"`support` must be two increasing numbers such as (0, None) or (0, 1), got {describe(support)}."
        )
    return low, high


def _per_member(bound: Any, batch_shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.asarray(bound, np.float64), batch_shape).reshape(-1)
