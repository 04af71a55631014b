"""Compute a new grid from samples (quantiles mixed with a uniform grid), and its coefficients by least squares."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpyro.util import not_jax_tracer

from .quadrature import contract

if TYPE_CHECKING:
    from .univariate import UnivariateKAN


def refit(
    bank: "UnivariateKAN", samples: ArrayLike, domain: tuple[float, float] | Array | None, tolerance: float
) -> "UnivariateKAN":
    """What `UnivariateKAN.refit` does."""
    samples = jnp.asarray(samples, bank.coef.dtype)
    lead = samples.ndim - len(bank.batch_shape)
    if lead < 1 or samples.shape[lead:] != bank.batch_shape:
        raise ValueError(f"samples of shape {samples.shape}: expected (num_samples, ...) + {bank.batch_shape}.")
    if not_jax_tracer(samples) and not np.all(np.isfinite(samples)):
        raise ValueError("samples holds values that are not finite: expected finite numbers throughout.")
    if tolerance < 0:
        raise ValueError(f"tolerance={tolerance}: expected at least 0.")
    num_grid = bank.grid.shape[-1]
    if num_grid == 0 and domain is None:
        return bank
    new_domain = bank.domain if domain is None else _check_new_domain(bank, domain)
    a, b = (jnp.broadcast_to(new_domain[..., i], bank.batch_shape) for i in (0, 1))
    samples = jnp.moveaxis(samples.reshape(math.prod(samples.shape[:lead]), *bank.batch_shape), 0, -1)
    samples = jnp.clip(samples, a[..., None], b[..., None])

    quantiles = jnp.moveaxis(jnp.quantile(samples, jnp.linspace(0, 1, max(num_grid, 2)), axis=-1), 0, -1)
    low, high = quantiles[..., 0], quantiles[..., -1]
    if num_grid:
        # The ends stay at the domain's, so that the grid covers all of it.
        quantiles = quantiles.at[..., 0].set(a).at[..., -1].set(b)
        uniform = jnp.linspace(a, b, num_grid, axis=-1)
        candidates = [w * uniform + (1 - w) * quantiles for w in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)]
        if domain is None:
            candidates.append(jnp.broadcast_to(bank.grid, uniform.shape))
    else:
        candidates = [bank.grid]

    # The fit counts the samples' range most, and the rest of the domain enough to keep the function there too.
    num_points = 4 * bank.basis.num_features
    points = jnp.concatenate([jnp.linspace(x, y, num_points, axis=-1) for x, y in ((low, high), (a, b))], axis=-1)
    importance = jnp.repeat(jnp.array([1.0, 0.1], points.dtype), num_points)
    target = bank.outer(points) - bank.base_weight[..., None] * bank.activation(points)
    target = target / jnp.where(bank.spline_weight == 0, 1, bank.spline_weight)[..., None]
    width = bank.width if jnp.ndim(bank.width) == 0 else bank.width[..., None]
    scale = jnp.ptp(target[..., :num_points], axis=-1)

    grids, coefs, changes = [], [], []
    for grid in candidates:
        features = bank.basis(points, grid if grid.ndim == 1 else grid[..., None, :], width)
        coef = _least_squares(features * importance[:, None], target * importance)
        fitted = contract("...mf,...f->...m", features, coef)
        grids.append(grid)
        coefs.append(coef)
        changes.append(jnp.max(jnp.abs(fitted - target)[..., :num_points], axis=-1))
    change = jnp.stack(changes)
    # Half of it, for between the points the change may be larger.
    close_enough = change <= 0.5 * tolerance * scale
    # The first candidate within the tolerance, or the closest where there is none.
    choice = jnp.where(jnp.any(close_enough, axis=0), jnp.argmax(close_enough, axis=0), jnp.argmin(change, axis=0))
    pick = lambda options: jnp.take_along_axis(jnp.stack(options), choice[None, ..., None], axis=0)[0]  # noqa: E731
    return dataclasses.replace(bank, grid=pick(grids) if num_grid else bank.grid, coef=pick(coefs), domain=new_domain)


def _check_new_domain(bank: "UnivariateKAN", domain: tuple[float, float] | Array) -> Array:
    if not isinstance(domain, Array):
        return jnp.asarray(check_domain(domain), bank.coef.dtype)
    if domain.shape not in ((2,), (*bank.batch_shape, 2)):
        raise ValueError(f"domain of shape {domain.shape}: expected (2,) or {(*bank.batch_shape, 2)}.")
    if not_jax_tracer(domain) and not np.all(np.diff(domain, axis=-1) > 0):
        raise ValueError(f"domain={domain}: expected increasing pairs (a, b).")
    return domain.astype(bank.coef.dtype)


def _least_squares(features: Array, targets: Array) -> Array:
    """Coefficients of the least-squares fit, features (..., M, F) and targets (..., M) to (..., F)."""
    batch_shape = targets.shape[:-1]
    features = jnp.broadcast_to(features, batch_shape + features.shape[-2:])
    solve = jax.vmap(lambda a, y: jnp.linalg.lstsq(a, y)[0])
    flat = solve(features.reshape(-1, *features.shape[-2:]), targets.reshape(-1, targets.shape[-1]))
    return flat.reshape(*batch_shape, -1)


def check_domain(domain: Any) -> tuple[float, float]:
    """The domain as two floats; ValueError where it is not two finite increasing numbers."""
    try:
        a, b = (float(x) for x in domain)
    except (TypeError, ValueError):
        raise ValueError(f"domain={domain!r}: expected two numbers (a, b).") from None
    if not (math.isfinite(a) and math.isfinite(b) and a < b):
        raise ValueError(f"domain={domain!r}: expected finite numbers with a < b.")
    return a, b
