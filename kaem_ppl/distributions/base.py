"""What every tilted density shares: all that follows from an energy over a reference and one table of masses."""

import copy
import dataclasses
import math
from abc import abstractmethod
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.distributions.util import validate_sample
from numpyro.util import is_prng_key, not_jax_tracer

from .. import reference as ref
from ..compilation import jit_outermost
from ..quadrature import with_ends
from ..reference.coordinates import kinks
from ..shapes import as_shape
from ..table import Table
from ..univariate import UnivariateKAN, check_bank
from ..whitening import uniform_masses
from .integration import Bank, Quantity, integrate, integrate_coarsely
from .stacking import aligned_first, promote, ranks_of
from .tails_and_moments import entropy, log_tails, mean, quantile_at, variance
from .truncated import TruncatedTilted

# Between the end of a support and what is integrated, relative to the latter.
_MARGIN = {"float32": 2.0**-22, "float64": 2.0**-44}


class TiltedDistribution(Distribution):
    """A univariate density exp(r(z)) pi_0(z), pi_0 a reference and r constant on either side of the energy's domain.

    A member states r (`log_ratio`) and the rows of components that are integrated (`_bank`).

    What depends on the parameters only, the table and the normalisers, is computed once for a distribution whose
    parameters are known, also where it is used inside a traced function: a Markov chain under a fixed prior does not
    integrate at every step.
    """

    arg_constraints = {}
    pytree_data_fields = ("energy", "reference")
    pytree_aux_fields = ("_ranks",)
    energy: UnivariateKAN
    reference: Distribution

    def __init__(self, energy, reference, batch_shape, *, validate_args=None):
        self.energy, self.reference = energy, reference
        super().__init__(batch_shape, (), validate_args=validate_args)
        self._ranks = ranks_of(self)

    @abstractmethod
    def log_ratio(self, value: Array) -> Array:
        """log density - log pi_0 at points of a shape that broadcasts with `batch_shape`; constant outside `interval`."""

    @abstractmethod
    def _bank(self) -> Bank:
        """The densities, in rows of components, for `integrate`."""

    @abstractmethod
    def _of_components(self, values: Array) -> Array:
        """Values (Q, K) of the rows' components in the shape of `log_normalizer`."""

    @property
    def has_rsample(self) -> bool:
        """Draws are differentiable in every parameter."""
        return True

    def validate_args(self, strict: bool = True) -> None:
        """As NumPyro's, whose constraints on vectors fail on an empty batch: it has nothing to refuse."""
        if 0 not in self.batch_shape:
            super().validate_args(strict)

    def shape(self, sample_shape: int | tuple[int, ...] = ()) -> tuple[int, ...]:
        """Shape of draws, sample_shape + batch_shape; an int is a shape of one axis."""
        return super().shape(as_shape(sample_shape, "sample_shape"))

    @property
    @aligned_first
    def support(self):
        """The reference's own support."""
        return self.reference.support

    @aligned_first
    @validate_sample
    def log_prob(self, value: ArrayLike) -> Array:
        """Log-density, shape of `value` broadcast with `batch_shape`; -inf outside the support."""
        value = jnp.asarray(value)
        low, high = ref.support_bounds(self.reference)
        inside = (value >= low) & (value <= high)
        value = jnp.where(inside, value, self._middle)
        return jnp.where(inside, self.log_ratio(value) + self.reference.log_prob(value), -jnp.inf)

    @aligned_first
    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Exact draws by inverse transform, shape sample_shape + batch_shape; differentiable in the parameters."""
        assert is_prng_key(key), f"key={key!r}: expected a JAX random key."
        return self.quantile(*uniform_masses(key, self.shape(sample_shape), self.table.lower.dtype))

    def cdf(self, value: ArrayLike) -> Array:
        """P(z <= value), shape of `value` broadcast with `batch_shape`."""
        return self.tails(value)[0]

    def icdf(self, q: ArrayLike) -> Array:
        """The point with probability q in [0, 1] below it, shape of q broadcast with `batch_shape`; NaN for any other q."""
        q = jnp.asarray(q, self.table.lower.dtype)
        return jnp.where((q >= 0) & (q <= 1), self.quantile(q, 1 - q), jnp.nan)

    @aligned_first
    def tails(self, value: ArrayLike) -> tuple[Array, Array]:
        """P(z <= value) and P(z > value), the smaller of them accurate relative to itself, shapes as `cdf`."""
        below, above = self.log_tails(value)
        return jnp.exp(below), jnp.exp(above)

    @aligned_first
    def log_tails(self, value: ArrayLike) -> tuple[Array, Array]:
        """Logarithms of P(z <= value) and P(z > value), which have digits left where masses underflow; shapes as `cdf`."""
        return log_tails(self, self.table, self.reference_tails, value)

    @aligned_first
    def quantile(self, lower: ArrayLike, upper: ArrayLike) -> Array:
        """The point with mass `lower` below it and `upper` = 1 - lower above it.

        Giving both keeps the digits of a small upper mass, which 1 - lower has lost.

        Args:
            lower: mass below, in [0, 1], of a shape that broadcasts with `batch_shape`.
            upper: mass above.

        Returns:
            Points, of the broadcast shape; the ends of the support at 0 and 1. Differentiable by the implicit function
            theorem.
        """
        masses = tuple(jnp.asarray(x, self.table.lower.dtype) for x in (lower, upper))
        return quantile_at(self, self.table, self.reference_tails, masses)

    @aligned_first
    def log_quantile(self, log_below: ArrayLike, log_above: ArrayLike) -> Array:
        """The same from logarithms of the masses, which have digits left where these underflow."""
        logs = tuple(jnp.asarray(x, self.table.lower.dtype) for x in (log_below, log_above))
        return quantile_at(self, self.table, self.reference_tails, tuple(jnp.exp(x) for x in logs), logs)

    @property
    @aligned_first
    def mean(self) -> Array:
        """Mean, shape `batch_shape`; NaN where a tail of the reference beyond the domain has none."""
        return mean(self, self.table, self.reference_tails)

    @property
    @aligned_first
    def variance(self) -> Array:
        """Variance, shape `batch_shape`; NaN where a tail of the reference beyond the domain has none."""
        return variance(self, self.table, self.reference_tails)

    @aligned_first
    def entropy(self) -> Array:
        """Differential entropy in nats, shape `batch_shape`."""
        return entropy(self, self.table, self.reference_tails)

    @aligned_first
    def truncate(self, low: ArrayLike | None = None, high: ArrayLike | None = None) -> TruncatedTilted:
        """The distribution restricted to [low, high]; see `TruncatedTilted`. None leaves a side as it is."""
        return TruncatedTilted(self, -jnp.inf if low is None else low, jnp.inf if high is None else high)

    @property
    @aligned_first
    def table(self) -> Table:
        """Masses between the edges of panels, which draws, tails and moments are read from."""
        return self._resolve("table")

    @property
    @aligned_first
    def reference_tails(self) -> ref.Tails:
        """Tails of the reference: found once where its parameters are known, handed on by `given`."""
        memory = self.__dict__.setdefault("_memory", {})
        return memory["tails"] if "tails" in memory else ref.tails_of(self.reference)

    @aligned_first
    def given(
        self,
        *,
        table: Table | None = None,
        log_normalizer: tuple[Array, Array] | None = None,
        tails: ref.Tails | None = None,
    ) -> Self:
        """The same distribution with integrals that are known already.

        A distribution that enters a traced function has forgotten what it computed; this hands it over as values of the
        trace, through which no derivative reaches the parameters.

        Args:
            table: its `table`.
            log_normalizer: its `log_normalizer` and `log_normalizer_error`.
            tails: its `reference_tails`.
        """
        new = copy.copy(self)
        known = {"table": table, "log_normalizer": log_normalizer, "tails": tails}
        new._memory = {what: value for what, value in known.items() if value is not None}
        return new

    @aligned_first
    def integrated(self) -> Self:
        """The same distribution with all its integrals, found together: the table as a constant to derivatives."""
        if self.is_known:
            return self.given(
                table=self._resolve("table"),
                log_normalizer=self._resolve("log_normalizer"),
                tails=self.reference_tails,
            )
        table, log_normalizer = _integrate(self, self.reference_tails, "both")
        return self.given(table=table, log_normalizer=log_normalizer, tails=self.reference_tails)

    @aligned_first
    def held_fixed(self) -> Self:
        """The same distribution without derivatives in its parameters, with the table it has."""
        fixed = jax.tree.map(lambda leaf: leaf if not_jax_tracer(leaf) else lax.stop_gradient(leaf), self)
        return fixed.given(table=lax.stop_gradient(self.table), tails=lax.stop_gradient(self.reference_tails))

    @property
    def is_known(self) -> bool:
        """Whether no parameter is being traced."""
        return all(not_jax_tracer(leaf) for leaf in jax.tree.leaves(self))

    def _resolve(self, what: Quantity) -> Any:
        """The quantity, kept where no parameter is being traced."""
        memory = self.__dict__.setdefault("_memory", {})
        if what not in memory:
            if not self.is_known:
                table, log_normalizer = _integrate(self, self.reference_tails, what)
                return table if what == "table" else log_normalizer
            with jax.ensure_compile_time_eval():
                table, log_normalizer = _integrate_known(self)
            # What was given stays.
            memory |= {"table": table, "log_normalizer": log_normalizer} | memory
        return memory[what]

    @property
    def interval(self) -> tuple[Array, Array]:
        """What is integrated, domain and support overlapping; ends of shapes that broadcast with `batch_shape`.

        At an end of the support where the reference may be singular it begins a few floats further in: what lies beyond
        is the reference's own, and the energy is constant there as far as floats can tell.
        """
        low, high = ref.support_bounds(self.reference)
        a, b = self._domain
        low, high = jnp.maximum(a, low).astype(a.dtype), jnp.minimum(b, high).astype(b.dtype)
        margin = (high - low) * _MARGIN[low.dtype.name]
        rough_low, rough_high = ref.is_rough_at_ends(self.reference)
        return (low + margin if rough_low else low), (high - margin if rough_high else high)

    @property
    def _domain(self) -> tuple[Array, Array]:
        return self.energy.domain[..., 0], self.energy.domain[..., 1]

    @property
    def _middle(self) -> Array:
        """A point where everything is finite, to stand in where a branch does not apply."""
        low, high = self.interval
        return 0.5 * (low + high)

    def _by_function(self, x: Array) -> Array:
        """Shape sample_shape + batch_shape to batch_shape + (S,)."""
        number = math.prod(x.shape[: x.ndim - len(self.batch_shape)])
        return jnp.moveaxis(x.reshape(number, *self.batch_shape), 0, -1)

    def _by_sample(self, x: Array, shape: tuple[int, ...]) -> Array:
        """The inverse of `_by_function`."""
        return jnp.moveaxis(x, -1, 0).reshape(shape)


promote_batch_shape.register(TiltedDistribution, promote)


# Compiled once per kind and shape of distribution: a distribution is a pytree, its settings are part of the kind.


@partial(jax.jit, static_argnums=2)
def _integrate(self, tails, what):
    log_normalizer, error, table = integrate(self.given(tails=tails)._bank(), what)
    return _shaped(self, log_normalizer, error, table)


@jit_outermost
def _integrate_coarsely(self, tails):
    result, is_unresolved = integrate_coarsely(self.given(tails=tails)._bank())
    return _shaped(self, *result), is_unresolved


@jit_outermost
def _integrate_finely(self, tails):
    return _shaped(self, *integrate(self.given(tails=tails)._bank(), "table"))


def _integrate_known(self):
    """Table and log-normalisers; what single panels need is compiled only where they need it."""
    result, is_unresolved = _integrate_coarsely(self, self.reference_tails)
    return _integrate_finely(self, self.reference_tails) if is_unresolved else result


def _shaped(self, log_normalizer, error, table):
    """The table, of the distribution's batch shape, and log Z with its error."""
    table = jax.tree.map(lambda x: x.reshape(*self.batch_shape, *x.shape[1:]), table)
    return table, (self._of_components(log_normalizer), self._of_components(error))


def seed_panels(self: TiltedDistribution, breakpoints: Array | None) -> Array:
    """Edges of the first panels on the interval, shape (N + 1,) or the interval's batch shape + (N + 1,).

    Equal panels, or equal parts of the intervals between breakpoints; an edge where the reference has a kink; more and
    more narrow panels towards an end of the support where it may be singular, or flat to every order as a log-normal is
    at 0.
    """
    low, high = jnp.broadcast_arrays(*jax.lax.stop_gradient(self.interval))
    number = self.energy.basis.num_panels * (2 if low.dtype == jnp.float64 else 1)
    if breakpoints is None:
        edges = jnp.linspace(low, high, number + 1, axis=-1)
    else:
        breakpoints = jax.lax.stop_gradient(breakpoints)
        intervals = breakpoints.shape[-1] - 1
        parts = -(-number // intervals)
        fractions = jnp.arange(parts, dtype=low.dtype) / parts
        inside = breakpoints[..., :-1, None] + jnp.diff(breakpoints)[..., None] * fractions
        edges = jnp.concatenate([inside.reshape(*breakpoints.shape[:-1], -1), breakpoints[..., -1:]], axis=-1)
        edges = jnp.clip(edges, low[..., None], high[..., None])
    marks = [jax.lax.stop_gradient(jnp.asarray(x, low.dtype))[..., None] for x in kinks(self.reference)]
    smallest, ratio = _MARGIN[low.dtype.name], 4.0 if low.dtype == jnp.float32 else 2.0
    narrowing = ratio ** -np.arange(1, np.ceil(np.log(1 / (number * smallest)) / np.log(ratio)))
    for rough, end, sign in zip(ref.is_rough_at_ends(self.reference), (low, high), (1, -1), strict=True):
        if rough:
            marks.append(end[..., None] + sign * (high - low)[..., None] / number * np.asarray(narrowing, low.dtype))
    if marks:
        marks = [jnp.clip(x, low[..., None], high[..., None]) for x in marks]
        shape = lax.broadcast_shapes(edges.shape[:-1], *(x.shape[:-1] for x in marks))
        edges = jnp.concatenate([jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in (edges, *marks)], axis=-1)
        edges = jnp.sort(edges, axis=-1)
    return with_ends(edges, *(x[..., None] for x in self.interval))


def make_bank(
    self: TiltedDistribution,
    seeds: Array,
    end_energies: tuple[Array, Array],
    log_weights: Array | None = None,
) -> Bank:
    """The densities as rows of components, from energies and weights whose last axis is that of the components.

    Args:
        self: the distribution.
        seeds: edges of the first panels, shape (N + 1,) or a shape that broadcasts with batch_shape + (N + 1,).
        end_energies: energies at both ends of the interval, shape batch_shape or batch_shape + (K,) each.
        log_weights: of the components, shape that broadcasts with batch_shape + (K,); None for a single one.
    """
    energy, batch_shape = self.energy, self.batch_shape
    single = log_weights is None
    num_rows = math.prod(batch_shape)
    bank = batch_shape if single else (*batch_shape, energy.batch_shape[-1])
    num_components = 1 if single else bank[-1]

    def rows(x: Array, ndim: int = 0) -> Array:
        own = x.shape[x.ndim - ndim :]
        return jnp.broadcast_to(x, (*bank, *own)).reshape(num_rows, num_components, *own)

    shared_ndim = {"grid": 1, "width": 0, "domain": 1}
    constants = {
        name: getattr(energy, name) if jnp.ndim(getattr(energy, name)) == ndim else rows(getattr(energy, name), ndim)
        for name, ndim in shared_ndim.items()
    }
    energy = dataclasses.replace(
        energy,
        coef=rows(energy.coef, 1),
        base_weight=rows(energy.base_weight),
        spline_weight=rows(energy.spline_weight),
        **constants,
    )
    if seeds.ndim > 1:
        seeds = jnp.broadcast_to(seeds, (*batch_shape, seeds.shape[-1])).reshape(num_rows, 1, seeds.shape[-1])
    outside = ref.log_outside(self.reference, *self.interval, self.reference_tails)
    outside = tuple(jnp.broadcast_to(x, batch_shape).reshape(num_rows, 1) for x in outside)
    log_weights = jnp.zeros((num_rows, 1), seeds.dtype) if single else rows(log_weights)
    return Bank(energy, self.reference, log_weights, seeds, tuple(map(rows, end_energies)), outside, batch_shape)


def bank_shape(energy) -> tuple[int, ...]:
    """Batch shape of an energy; TypeError where it is not a `UnivariateKAN`."""
    if not isinstance(energy, UnivariateKAN):
        raise TypeError(f"energy={type(energy).__name__}: expected a UnivariateKAN, made by UnivariateKAN.init(...).")
    return energy.batch_shape


def check_arguments(energy, reference, batch_shape: tuple[int, ...], check_values: bool) -> tuple[int, ...]:
    """Refuse what no tilted density can be built on, and return its batch shape.

    Args:
        energy: a `UnivariateKAN`.
        reference: should be a univariate continuous NumPyro distribution with a density.
        batch_shape: shape of the densities that the energy describes.
        check_values: whether to look at the numbers too, where they are known.

    Raises:
        TypeError: where the reference is no distribution.
        ValueError: where shapes disagree, values can't be used, or domain and support do not overlap.
    """
    ref.check_reference(reference)
    check_bank(energy, check_values)
    try:
        shape = lax.broadcast_shapes(batch_shape, reference.batch_shape)
    except ValueError:
        raise ValueError(
            f"reference has batch shape {reference.batch_shape}: expected one that broadcasts with {batch_shape}, the "
            "shape of the densities."
        ) from None
    low, high = ref.support_bounds(reference)
    if check_values and all(not_jax_tracer(x) for x in (low, high, energy.domain)):
        # By NumPy, which compiles nothing.
        low, high, domain = (np.asarray(x) for x in (low, high, energy.domain))
        a, b = domain[..., 0].min(), domain[..., 1].max()
        if not np.all((low < b) & (high > a)):
            raise ValueError(
                f"domain=({a:g}, {b:g}) does not overlap the reference's support [{low.max()}, {high.min()}]: "
                "move one of them."
            )
    return shape
