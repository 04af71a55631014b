"""What every tilted density shares: all that follows from an energy over a reference and one table of masses."""

import copy
import math
from abc import abstractmethod
from functools import partial
from typing import Any, Literal, Self

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
from ..quadrature import (
    FROM_LEGENDRE,
    KRONROD,
    Panels,
    contract,
    log_total,
    panel_nodes,
    relative_error,
    safe_log,
    with_ends,
)
from ..shapes import as_shape
from ..table import Table, quantile, tails
from ..univariate import UnivariateKAN, check_bank
from .stacking import aligned_first, promote, ranks_of
from .truncated import TruncatedTilted

# What is integrated: the table of masses; log-normalisers and their error estimates; or both, a pair, where the table is
# a constant to derivatives.
Quantity = Literal["table", "log_normalizer", "both"]


class TiltedDistribution(Distribution):
    """A univariate density exp(r(z)) pi_0(z), pi_0 a reference and r constant on either side of the energy's domain.

    A member states r (`log_ratio`), its integrals on given panels (`_integrate`), and panels of its own (`_own_edges`).

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
    def _frame(self) -> Any:
        """What integrals on any panels share, for the next two to take: the seeds, and what lies outside the interval."""

    @abstractmethod
    def _integrate(self, what: Quantity, tier: int, frame: Any, own_edges: Any = None) -> tuple[Any, Array]:
        """The quantity by panels of one tier (see `edges_of_tier`), and whether these resolve every density, shape ()."""

    @abstractmethod
    def _own_edges(self, frame: Any, refined: bool = True) -> Any:
        """Edges for tier 2, constants; where not `refined`, others of the same shapes that nobody will rely on."""

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
        dtype = self.table.lower.dtype
        u = jax.random.uniform(key, self.shape(sample_shape), dtype, minval=jnp.finfo(dtype).tiny)
        return self.quantile(u, 1 - u)

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
        return _tails(self, self.table, value)

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
        return _quantile(self, self.table, lower, upper)

    @property
    @aligned_first
    def mean(self) -> Array:
        """Mean, shape `batch_shape`; NaN where the reference has none and reaches beyond the domain."""
        return _mean(self, self.table)

    @property
    @aligned_first
    def variance(self) -> Array:
        """Variance, shape `batch_shape`; NaN where the reference has none and reaches beyond the domain."""
        return _variance(self, self.table)

    @aligned_first
    def entropy(self) -> Array:
        """Differential entropy in nats, shape `batch_shape`."""
        return _entropy(self, self.table)

    @aligned_first
    def truncate(self, low: ArrayLike | None = None, high: ArrayLike | None = None) -> TruncatedTilted:
        """The distribution restricted to [low, high]; see `TruncatedTilted`. None leaves a side as it is."""
        return TruncatedTilted(self, -jnp.inf if low is None else low, jnp.inf if high is None else high)

    @property
    @aligned_first
    def table(self) -> Table:
        """Masses between the edges of panels, which draws, tails and moments are read from."""
        return self._resolve("table")

    @aligned_first
    def given(self, *, table: Table | None = None, log_normalizer: tuple[Array, Array] | None = None) -> Self:
        """The same distribution with integrals that are known already.

        A distribution that enters a traced function has forgotten what it computed; this hands it over as values of the
        trace, through which no derivative reaches the parameters.

        Args:
            table: its `table`.
            log_normalizer: its `log_normalizer` and `log_normalizer_error`.
        """
        new = copy.copy(self)
        known = {"table": table, "log_normalizer": log_normalizer}
        new._memory = {what: value for what, value in known.items() if value is not None}
        return new

    @aligned_first
    def integrated(self) -> Self:
        """The same distribution with all its integrals, found together: the table as a constant to derivatives."""
        if self.is_known:
            return self.given(table=self._resolve("table"), log_normalizer=self._resolve("log_normalizer"))
        table, log_normalizer = _by_switch(self, "both")
        return self.given(table=table, log_normalizer=log_normalizer)

    @aligned_first
    def held_fixed(self) -> Self:
        """The same distribution without derivatives in its parameters, with the table it has."""
        fixed = jax.tree.map(lambda leaf: leaf if not_jax_tracer(leaf) else lax.stop_gradient(leaf), self)
        return fixed.given(table=lax.stop_gradient(self.table))

    @property
    def is_known(self) -> bool:
        """Whether no parameter is being traced."""
        return all(not_jax_tracer(leaf) for leaf in jax.tree.leaves(self))

    def _resolve(self, what: Quantity):
        """The quantity by the first tier of panels that resolves it; kept where no parameter is being traced."""
        memory = self.__dict__.setdefault("_memory", {})
        if what not in memory:
            if not self.is_known:
                return _by_switch(self, what)
            with jax.ensure_compile_time_eval():
                table, log_normalizer = _by_trial(self)
            # What was given stays.
            memory |= {"table": table, "log_normalizer": log_normalizer} | memory
        return memory[what]

    @property
    def interval(self) -> tuple[Array, Array]:
        """What is integrated, domain and support overlapping; ends of shapes that broadcast with `batch_shape`."""
        low, high = ref.support_bounds(self.reference)
        a, b = self._domain
        return jnp.maximum(a, low).astype(a.dtype), jnp.minimum(b, high).astype(b.dtype)

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


@partial(jit_outermost, static_argnums=(1, 2))
def _integrate(self, what, tier, own_edges=None):
    return self._integrate(what, tier, self._frame(), own_edges)


@jit_outermost
def _own_edges(self):
    return self._own_edges(self._frame())


def _by_trial(self):
    """Table and log-normalisers, tier after tier until one resolves all: only what is needed is compiled."""
    for tier in (0, 1):
        result, resolved = _integrate(self, "both", tier)
        if resolved:
            return result
    return _integrate(self, "both", 2, _own_edges(self))[0]


@partial(jax.jit, static_argnums=1)
def _by_switch(self, what):
    """The same where the parameters are known only to the device. Which tier it takes is a constant to derivatives."""
    frame = self._frame()
    # Tier 0 in any case: XLA runs a branch on the CPU with less parallelism than straight code.
    coarse, coarse_serves = self._integrate(what, 0, frame)

    # Recomputed in the backward pass: features at every function's own nodes are too many to keep.
    def on_tier(tier):
        return jax.checkpoint(lambda self, frame, *own_edges: self._integrate(what, tier, frame, *own_edges))

    fine, serves = lax.cond(coarse_serves, lambda *_: (coarse, coarse_serves), on_tier(1), self, frame)
    own_edges = lax.cond(
        serves,
        lambda d, frame: d._own_edges(frame, refined=False),
        lambda d, frame: d._own_edges(frame),
        *lax.stop_gradient((self, frame)),
    )
    return lax.cond(serves, lambda *_: (fine, serves), on_tier(2), self, frame, own_edges)[0]


@jax.jit
def _tails(self, table, value):
    value = jnp.asarray(value, table.lower.dtype)
    value = jnp.broadcast_to(value, lax.broadcast_shapes(value.shape, self.batch_shape))
    low, high = self.interval
    inner = self._by_function(jnp.clip(value, low, high))
    below, above = (self._by_sample(x, value.shape) for x in tails(table, inner))

    # Beyond the interval the mass is the reference's own, times a constant.
    support_low, support_high = ref.support_bounds(self.reference)
    in_left, in_right = (value < low) & (value > support_low), (value > high) & (value < support_high)
    left = jnp.exp(table.left_factor + ref.log_lower_tail(self.reference, jnp.where(in_left, value, self._middle)))
    right = jnp.exp(table.right_factor + ref.log_upper_tail(self.reference, jnp.where(in_right, value, self._middle)))
    left, right = jnp.where(in_left, left, 0.0), jnp.where(in_right, right, 0.0)
    below = jnp.where(value < low, left, jnp.where(value > high, 1 - right, below))
    above = jnp.where(value > high, right, jnp.where(value < low, 1 - left, above))
    return below, above


@jax.jit
def _quantile(self, table, lower, upper):
    dtype = table.lower.dtype
    lower, upper = jnp.asarray(lower, dtype), jnp.asarray(upper, dtype)
    shape = lax.broadcast_shapes(lower.shape, upper.shape, self.batch_shape)
    lower, upper = jnp.broadcast_to(lower, shape), jnp.broadcast_to(upper, shape)
    low, high = self.interval
    inner = self._by_sample(quantile(table, self._by_function(lower), self._by_function(upper)), shape)
    inner = jnp.clip(inner, low, high)

    in_left = (lower < table.lower[..., 0]) & (lower > 0)
    in_right = (upper < table.upper[..., -1]) & (upper > 0)

    def reference_mass(mass, applies, log_factor):
        log_mass = jnp.log(jnp.where(applies, mass, 1.0)) - log_factor
        return jnp.exp(jnp.clip(jnp.where(applies, log_mass, -1.0), jnp.log(jnp.finfo(dtype).tiny), 0.0))

    below = jnp.minimum(self.reference.icdf(reference_mass(lower, in_left, table.left_factor)), low)
    above = jnp.maximum(ref.upper_quantile(self.reference, reference_mass(upper, in_right, table.right_factor)), high)
    z = jnp.where(in_left, below, jnp.where(in_right, above, inner))
    support_low, support_high = ref.support_bounds(self.reference)
    return jnp.where(lower <= 0, support_low, jnp.where(upper <= 0, support_high, z)).astype(dtype)


@jax.jit
def _mean(self, table):
    return _where_defined(self, lambda: self.reference.mean, _expectation(self, table, lambda z: z))


@jax.jit
def _variance(self, table):
    mean = _expectation(self, table, lambda z: z)
    spread = _expectation(self, table, lambda z: jnp.square(z - mean))
    return _where_defined(self, lambda: self.reference.variance, spread)


@jax.jit
def _entropy(self, table):
    return -_expectation(self, table, lambda z: self.log_ratio(z) + self.reference.log_prob(z))


def _where_defined(self, reference_moment, value):
    """NaN where a tail of the reference is part of the density and the reference has no such moment."""
    try:
        defined = jnp.isfinite(reference_moment())
    except NotImplementedError:
        return value
    (low, high), (support_low, support_high) = self.interval, ref.support_bounds(self.reference)
    return jnp.where(defined | ((low <= support_low) & (high >= support_high)), value, jnp.nan)


def _expectation(self, table, function):
    """E[function(z)]: Kronrod sums on the table's panels, and the reference's tails through its quantiles."""
    low, high = self.interval
    nodes = jnp.clip(jnp.moveaxis(panel_nodes(table.edges), (-2, -1), (0, 1)), low, high)
    values = jnp.moveaxis(function(nodes), (0, 1), (-2, -1))
    weights = contract("...nd,jd->...nj", table.density, jnp.asarray(FROM_LEGENDRE * KRONROD[:, None], values.dtype))
    mass = jnp.maximum(jnp.diff(table.lower), -jnp.diff(table.upper))
    inner = jnp.sum(mass[..., None] * weights * jnp.where(mass[..., None] > 0, values, 0.0), axis=(-2, -1))

    left, right = table.lower[..., 0], table.upper[..., -1]
    upper_quantile = partial(ref.upper_quantile, self.reference)
    below = ref.tail_expectation(self.reference.icdf, safe_log(left) - table.left_factor, function)
    above = ref.tail_expectation(upper_quantile, safe_log(right) - table.right_factor, function)
    return inner + left * below + right * above


def add_tails(factors: tuple[Array, Array], outside: tuple[Array, Array]) -> Array:
    """Logarithm of the mass of both tails, from the density's factor over the reference and the reference's own mass."""
    left, right = (factor + mass for factor, mass in zip(factors, outside, strict=True))
    # Two empty tails are an empty one, without the NaN that logaddexp would give as its derivative.
    occupied = (left > -jnp.inf) | (right > -jnp.inf)
    total = jnp.logaddexp(jnp.where(occupied, left, 0.0), jnp.where(occupied, right, 0.0))
    return jnp.where(occupied, total, -jnp.inf)


def total_and_error(panels: Panels, log_tails: Array, energy: UnivariateKAN) -> tuple[Array, Array]:
    """log Z and its error estimate, a constant to derivatives, shape of `log_tails` each."""
    error = relative_error(panels, log_tails, energy.term_size)
    return log_total(panels, log_tails), lax.stop_gradient(error)


def log_reference(reference: Distribution, z: Array) -> Array:
    """log pi_0 at points shared by the reference's batch, shape (M,), or its own, shape batch_shape + (M,).

    Returns:
        Shape (M,) for a reference without a batch, else batch_shape + (M,).
    """
    if not reference.batch_shape:
        return reference.log_prob(z)
    z = z.reshape(-1, *((1,) * len(reference.batch_shape))) if z.ndim == 1 else jnp.moveaxis(z, -1, 0)
    return jnp.moveaxis(reference.log_prob(z), 0, -1)


def seed_panels(self: TiltedDistribution, breakpoints: Array | None) -> Array:
    """Edges of the first panels on the interval, shape (N + 1,) or the interval's batch shape + (N + 1,).

    Equal panels, or equal parts of the intervals between breakpoints; more and more narrow ones towards an end of the
    support where the reference may be singular, or flat to every order as a log-normal is at 0.
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
    for rough, end, sign in zip(ref.is_rough_at_ends(self.reference), (low, high), (1, -1), strict=True):
        if rough:
            narrowing = (high - low)[..., None] / number * np.asarray(2.0 ** -np.arange(1, 9), low.dtype)
            towards = end[..., None] + sign * narrowing
            shape = lax.broadcast_shapes(edges.shape[:-1], towards.shape[:-1])
            both = [jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in (edges, towards)]
            edges = jnp.sort(jnp.concatenate(both, axis=-1), axis=-1)
    return with_ends(edges, *(x[..., None] for x in self.interval))


def bank_shape(energy) -> tuple[int, ...]:
    """Batch shape of an energy; TypeError where it is not a `UnivariateKAN`."""
    if not isinstance(energy, UnivariateKAN):
        raise TypeError(f"energy={type(energy).__name__}: expected a UnivariateKAN, made by UnivariateKAN.init(...).")
    return energy.batch_shape


def check_arguments(energy, reference, batch_shape: tuple[int, ...], check_values: bool) -> tuple[int, ...]:
    """Refuse what no tilted density can be built on, and return its batch shape.

    Args:
        energy: a `UnivariateKAN`.
        reference: should be a univariate NumPyro distribution with `cdf` and `icdf`.
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
