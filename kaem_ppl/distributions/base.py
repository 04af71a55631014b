"""What every tilted density shares: all that follows from an energy over a reference and one table of masses."""

import copy
from abc import abstractmethod
from functools import partial
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.distributions.util import validate_sample
from numpyro.util import is_prng_key, not_jax_tracer

from .. import reference as ref
from ..compilation import jit_outermost
from ..quadrature import Panels, log_total, relative_error, safe_log, with_ends
from ..table import Table
from ..univariate import UnivariateKAN, check_bank
from ..whitening import uniform_masses
from .tails_and_moments import entropy, log_tails, mean, quantile_at, variance

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
    energy: UnivariateKAN
    reference: Distribution

    def __init__(self, energy, reference, batch_shape, *, validate_args=None):
        self.energy, self.reference = energy, reference
        super().__init__(batch_shape, (), validate_args=validate_args)

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

    @property
    def support(self):
        """The reference's own support."""
        return self.reference.support

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Array:
        """Log-density, shape of `value` broadcast with `batch_shape`; -inf outside the support."""
        value = jnp.asarray(value)
        low, high = ref.support_bounds(self.reference)
        inside = (value >= low) & (value <= high)
        value = jnp.where(inside, value, self._middle)
        return jnp.where(inside, self.log_ratio(value) + self.reference.log_prob(value), -jnp.inf)

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

    def tails(self, value: ArrayLike) -> tuple[Array, Array]:
        """P(z <= value) and P(z > value), the smaller of them accurate relative to itself, shapes as `cdf`."""
        below, above = self.log_tails(value)
        return jnp.exp(below), jnp.exp(above)

    def log_tails(self, value: ArrayLike) -> tuple[Array, Array]:
        """Logarithms of P(z <= value) and P(z > value), which have digits left where masses underflow; shapes as `cdf`."""
        return log_tails(self, self.table, self.reference_tails, value)

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
        lower, upper = (jnp.asarray(x, self.table.lower.dtype) for x in (lower, upper))
        return quantile_at(self, self.table, self.reference_tails, (lower, upper), (safe_log(lower), safe_log(upper)))

    def log_quantile(self, log_below: ArrayLike, log_above: ArrayLike) -> Array:
        """The same from logarithms of the masses, which have digits left where these underflow."""
        logs = tuple(jnp.asarray(x, self.table.lower.dtype) for x in (log_below, log_above))
        return quantile_at(self, self.table, self.reference_tails, tuple(jnp.exp(x) for x in logs), logs)

    @property
    def mean(self) -> Array:
        """Mean, shape `batch_shape`; NaN where a tail of the reference beyond the domain has none."""
        return mean(self, self.table, self.reference_tails)

    @property
    def variance(self) -> Array:
        """Variance, shape `batch_shape`; NaN where a tail of the reference beyond the domain has none."""
        return variance(self, self.table, self.reference_tails)

    def entropy(self) -> Array:
        """Differential entropy in nats, shape `batch_shape`."""
        return entropy(self, self.table, self.reference_tails)

    @property
    def table(self) -> Table:
        """Masses between the edges of panels, which draws, tails and moments are read from."""
        return self._resolve("table")

    @property
    def reference_tails(self) -> ref.Tails:
        """Tails of the reference: found once where its parameters are known, handed on by `given`."""
        memory = self.__dict__.setdefault("_memory", {})
        return memory["tails"] if "tails" in memory else ref.tails_of(self.reference)

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

    def integrated(self) -> Self:
        """The same distribution with all its integrals, found together: the table as a constant to derivatives."""
        if self.is_known:
            return self.given(
                table=self._resolve("table"),
                log_normalizer=self._resolve("log_normalizer"),
                tails=self.reference_tails,
            )
        table, log_normalizer = _by_switch(self, self.reference_tails, "both")
        return self.given(table=table, log_normalizer=log_normalizer, tails=self.reference_tails)

    def held_fixed(self) -> Self:
        """The same distribution without derivatives in its parameters, with the table it has."""
        fixed = jax.tree.map(lambda leaf: leaf if not_jax_tracer(leaf) else lax.stop_gradient(leaf), self)
        return fixed.given(table=lax.stop_gradient(self.table), tails=lax.stop_gradient(self.reference_tails))

    @property
    def is_known(self) -> bool:
        """Whether no parameter is being traced."""
        return all(not_jax_tracer(leaf) for leaf in jax.tree.leaves(self))

    def _resolve(self, what: Quantity):
        """The quantity by the first tier of panels that resolves it; kept where no parameter is being traced."""
        memory = self.__dict__.setdefault("_memory", {})
        if what not in memory:
            if not self.is_known:
                return _by_switch(self, self.reference_tails, what)
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
        return jnp.moveaxis(x.reshape(-1, *self.batch_shape), 0, -1)

    def _by_sample(self, x: Array, shape: tuple[int, ...]) -> Array:
        """The inverse of `_by_function`."""
        return jnp.moveaxis(x, -1, 0).reshape(shape)


# Compiled once per kind and shape of distribution: a distribution is a pytree, its settings are part of the kind.


@partial(jit_outermost, static_argnums=(2, 3))
def _integrate(self, tails, what, tier, own_edges=None):
    return self._integrate(what, tier, self.given(tails=tails)._frame(), own_edges)


@jit_outermost
def _own_edges(self, tails):
    return self._own_edges(self.given(tails=tails)._frame())


def _by_trial(self):
    """Table and log-normalisers, tier after tier until one resolves all: only what is needed is compiled."""
    tails = self.reference_tails
    for tier in (0, 1):
        result, resolved = _integrate(self, tails, "both", tier)
        if resolved:
            return result
    return _integrate(self, tails, "both", 2, _own_edges(self, tails))[0]


@partial(jax.jit, static_argnums=2)
def _by_switch(self, tails, what):
    """The same where the parameters are known only to the device. Which tier it takes is a constant to derivatives."""
    frame = self.given(tails=tails)._frame()
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
