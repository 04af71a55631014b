"""A tilted prior with fixed parameters, its log-density tabulated by cubics for fast evaluation."""

import math
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.distributions.constraints import Constraint

from .. import reference as ref
from ..quadrature.table import Table
from ..whitening import uniform_masses
from .base import TiltedDistribution

# What the interpolated log-density may be wrong by, in nats, before the table is refined.
_TOLERANCE = 1e-6
_FEWEST_CELLS, _MOST_CELLS = 256, 16_384
# Cells of all functions of a bank together; 16 bytes each in float32.
_MOST_CELLS_IN_ALL = 2**22
_POINTS_AT_ONCE = 128


class TabulatedPrior(Distribution):
    """The same distribution as a `KANTilted` or a mixture with known parameters, for use in a Markov chain.

    The log-ratio to the reference is a cubic Hermite interpolant on equal cells of the prior's domain, continuously
    differentiable, and constant outside it; the reference's own log-density is evaluated as it is. A value and its
    derivative therefore cost one look-up, whatever the number of basis functions and mixture components. Samples and
    quantiles are the prior's own. Made by `tabulate_prior`.

    Attributes:
        prior: the tilted distribution, of batch shape (...).
        table: its table of masses.
        tails: its reference's tails.
        low: start of the interval, shape () or (...).
        cell: width of a cell, shape () or (...).
        cubics: coefficients of the log-ratio in powers of the place in a cell, from 0 to 1; shape (..., cells, 4).
        error: largest difference to the log-ratio found halfway between nodes, in nats.
    """

    arg_constraints = {}
    pytree_data_fields = ("prior", "table", "tails", "low", "cell", "cubics", "error")

    def __init__(
        self,
        prior: TiltedDistribution,
        table: Table,
        tails: ref.Tails,
        low: Array,
        cell: Array,
        cubics: Array,
        error: Array,
    ) -> None:
        self.prior, self.table, self.tails = prior, table, tails
        self.low, self.cell, self.cubics, self.error = low, cell, cubics, error
        super().__init__(prior.batch_shape, (), validate_args=False)

    @property
    def support(self) -> Constraint:
        return self.prior.support

    @property
    def has_rsample(self) -> bool:
        return True

    def log_prob(self, value: ArrayLike) -> Array:
        value = jnp.asarray(value)
        low, high = ref.support_bounds(self.prior.reference)
        inside = (value >= low) & (value <= high)
        middle = self.low + 0.5 * self.cell * self.cubics.shape[-2]
        value = jnp.where(inside, value, middle)
        return jnp.where(inside, self.log_ratio(value) + self.prior.reference.log_prob(value), -jnp.inf)

    def log_ratio(self, value: Array) -> Array:
        """log density - log reference, by look-up; the shape of `value` broadcast with the batch shape."""
        num_cells = self.cubics.shape[-2]
        place = jnp.clip((value - self.low) / self.cell, 0, num_cells)
        place = jnp.broadcast_to(place, lax.broadcast_shapes(place.shape, self.batch_shape))
        index = jnp.minimum(lax.stop_gradient(place).astype(jnp.int32), num_cells - 1)
        functions = (
            lax.broadcasted_iota(jnp.int32, place.shape, place.ndim - len(self.batch_shape) + axis)
            for axis in range(len(self.batch_shape))
        )
        c = self.cubics.at[(*functions, index)].get(mode="promise_in_bounds")
        t = place - index
        return c[..., 0] + t * (c[..., 1] + t * (c[..., 2] + t * c[..., 3]))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        dtype = self.cubics.dtype
        return self.quantile(*uniform_masses(key, self.shape(sample_shape), dtype))

    def quantile(self, lower: Array, upper: Array) -> Array:
        """The point with mass `lower` below and `upper` above it, as `TiltedDistribution.quantile`."""
        return self._with_integrals().quantile(lower, upper)

    def log_quantile(self, log_below: Array, log_above: Array) -> Array:
        """The same from logarithms of masses."""
        return self._with_integrals().log_quantile(log_below, log_above)

    def log_tails(self, value: Array) -> tuple[Array, Array]:
        """Log masses below and above points."""
        return self._with_integrals().log_tails(value)

    def _with_integrals(self) -> TiltedDistribution:
        return self.prior.given(table=self.table, tails=self.tails)


def tabulate_prior(name: str, prior: TiltedDistribution) -> TabulatedPrior:
    """Tabulate a tilted distribution with known parameters.

    Cells are divided by four until the interpolant is right to a millionth of a nat (and to rounding) halfway between
    its nodes, where a smooth function's error is largest.

    Args:
        name: of the site, for the warning.
        prior: its parameters are arrays, none of them being traced.

    Warns:
        UserWarning: the error is above a thousandth of a nat in the finest table, as a function with kinks may have it.
    """
    num_functions = math.prod(prior.batch_shape)
    most_cells = max(_FEWEST_CELLS, min(_MOST_CELLS, _MOST_CELLS_IN_ALL // max(1, num_functions)))
    num_cells = _FEWEST_CELLS
    while True:
        low, cell, cubics, error, size = interpolate(prior, num_cells)
        largest = float(error)
        tolerance = max(_TOLERANCE, 16 * float(jnp.finfo(cubics.dtype).eps) * float(size))
        if largest <= tolerance or 4 * num_cells > most_cells:
            break
        num_cells *= 4
    if largest > max(1e-3, tolerance):
        warnings.warn(
            f"The tabulated prior of site {name!r} is wrong by up to {largest:.2g} nats between its nodes. Its "
            "energy has kinks or oscillates; a smoother basis or activation removes the error.",
            stacklevel=2,
        )
    return TabulatedPrior(prior, prior.table, prior.reference_tails, low, cell, cubics, error)


def interpolate(prior: TiltedDistribution, num_cells: int) -> tuple[Array, Array, Array, Array, Array]:
    """The log-ratio as cubics on equal cells; traceable.

    Returns:
        Start of the interval and width of a cell, shape batch_shape; coefficients, batch_shape + (num_cells, 4); the
        largest error halfway between nodes and the largest size of the log-ratio, in nats, shape ().
    """
    # Every second point is a node; those between measure the error. Chunks bound memory, and one compiles.
    fractions = np.linspace(0, 1, 2 * num_cells + 1)
    padded = np.concatenate([fractions, np.ones(-len(fractions) % _POINTS_AT_ONCE)]).reshape(-1, _POINTS_AT_ONCE)
    log_normalizer = prior.log_normalizer, prior.log_normalizer_error
    return _fit_cubics([_evaluate(prior, log_normalizer, chunk) for chunk in padded], num_cells)


@partial(jax.jit, static_argnums=1)
def _fit_cubics(
    parts: list[tuple[Array, Array, Array, Array]], num_cells: int
) -> tuple[Array, Array, Array, Array, Array]:
    values, slopes = (jnp.concatenate(x, axis=-1)[..., : 2 * num_cells + 1] for x in list(zip(*parts, strict=True))[:2])
    _, _, low, width = parts[0]
    cell = width / num_cells
    y, dy = values[..., ::2], slopes[..., ::2] * cell[..., None]
    rise = jnp.diff(y, axis=-1)
    left, right = dy[..., :-1], dy[..., 1:]
    cubics = jnp.stack([y[..., :-1], left, 3 * rise - 2 * left - right, left + right - 2 * rise], axis=-1)
    halfway = cubics @ jnp.asarray([1, 0.5, 0.25, 0.125], cubics.dtype)
    return low, cell, cubics, jnp.max(jnp.abs(halfway - values[..., 1::2])), jnp.max(jnp.abs(values))


@jax.jit
def _evaluate(
    prior: TiltedDistribution, log_normalizer: tuple[Array, Array], fractions: Array
) -> tuple[Array, Array, Array, Array]:
    prior = prior.given(log_normalizer=log_normalizer)
    low, high = (jnp.broadcast_to(x, prior.batch_shape) for x in prior.interval)
    fractions = fractions.astype(low.dtype).reshape(-1, *(1 for _ in prior.batch_shape))
    points, inner = (low + x * (high - low) for x in (fractions, jnp.clip(fractions, 1e-6, 1 - 1e-6)))
    # A derivative on the edge of the domain may be that of either side: step inside by a millionth, and back by the slope.
    values, slopes = jax.jvp(prior.log_ratio, (inner,), (jnp.ones_like(inner),))
    values += slopes * (points - inner)
    return jnp.moveaxis(values, 0, -1), jnp.moveaxis(slopes, 0, -1), low, high - low
