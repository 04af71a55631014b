"""The base class of tilted densities, exp(energy) times a reference: sampling, CDF, quantiles, moments."""

import copy
import math
from abc import abstractmethod
from typing import Any, Literal, Self, cast

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import get_opaque_trace_state
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.util import validate_sample
from numpyro.util import not_jax_tracer

from .. import reference as ref
from ..arguments import as_key, as_shape
from ..compilation import jit_outermost
from ..printing import to_html
from ..quadrature.table import Table
from ..univariate import UnivariateKAN
from ..whitening import uniform_masses
from .bank import Bank, integration_interval, make_bank, seed_panels
from .integration import integrate, integrate_coarsely
from .stacking import aligned_first, promote, ranks_of
from .tails_and_moments import entropy, log_tails, mean, quantile_at, variance
from .truncated import TruncatedTilted


class TiltedDistribution(Distribution):
    """A univariate density exp(r(z)) pi_0(z), pi_0 a reference and r constant on either side of the energy's domain.

    A member states r (`log_ratio`) and the rows of components that are integrated (`_bank`).

    What depends on the parameters only, the table and the normalisers, is computed once for a distribution whose
    parameters are known, also where it is used inside a traced function: a Markov chain under a fixed prior does not
    integrate at every step.
    """

    # Which energy will do depends on the reference, which has constraints of its own: `check_arguments` sees to it.
    arg_constraints = {"energy": constraints.dependent}
    reparametrized_params = ["energy"]
    pytree_data_fields = ("energy", "reference")
    pytree_aux_fields = ("_ranks",)
    energy: UnivariateKAN
    reference: Distribution
    # The bank and the index by which its members were picked, where they were; see `select`.
    picked_from: tuple[Self, Array] | None = None
    _memory: dict[str, Any]

    def __init__(
        self,
        energy: UnivariateKAN,
        reference: Distribution,
        batch_shape: tuple[int, ...],
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.energy, self.reference = energy, reference
        super().__init__(batch_shape, (), validate_args=validate_args)
        self._ranks = ranks_of(self)

    def __repr__(self) -> str:
        name, tilted = type(self).__name__, type(self.reference).__name__
        return f"{name}(batch_shape={self.batch_shape}, reference={tilted}, energy={self.energy!r})"

    def _repr_html_(self) -> str:
        return to_html(repr(self))

    @property
    @abstractmethod
    def log_normalizer(self) -> Array:
        """log Z of each component; differentiable."""

    @property
    @abstractmethod
    def log_normalizer_error(self) -> Array:
        """Error estimate of each log Z."""

    @abstractmethod
    def log_ratio(self, value: Array) -> Array:
        """log density - log pi_0 at points of a shape that broadcasts with `batch_shape`; constant outside `interval`."""

    @abstractmethod
    def _bank(self) -> Bank:
        """The densities, in rows of components, for `integrate`."""

    def _make_bank(
        self, breakpoints: Array | None, end_energies: tuple[Array, Array], log_weights: Array | None = None
    ) -> Bank:
        """The bank of the energy, of its knots and its values at both ends of the interval."""
        seeds = seed_panels(self.energy.basis, breakpoints, self.interval, self.reference)
        outside = ref.log_outside(self.reference, *self.interval, self.reference_tails)
        return make_bank(self.energy, self.reference, self.batch_shape, seeds, end_energies, outside, log_weights)

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
    def support(self) -> Constraint:
        """The reference's own support."""
        # NumPyro's annotations allow for none, `check_arguments` does not.
        return cast(Constraint, self.reference.support)

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
        return self.quantile(*uniform_masses(as_key(key), self.shape(sample_shape), self.table.lower.dtype))

    def cdf(self, value: ArrayLike) -> Array:
        """P(z <= value), shape of `value` broadcast with `batch_shape`."""
        return self.tails(value)[0]

    def icdf(self, q: ArrayLike) -> Array:
        """The point with probability q in [0, 1] below it, shape of q broadcast with `batch_shape`; NaN for any other q.

        It grows with q, but for what `cdf` does not resolve (1e-6 in float32, where an energy changes by tens within one
        panel): there the point of a larger q can lie lower.
        """
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
        memory = vars(self).setdefault("_memory", {})
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
        # Integrals that were given, such as those of a bank that this was picked from, are not found again.
        if self.is_known or {"table", "log_normalizer"} <= vars(self).get("_memory", {}).keys():
            return self.given(
                table=lax.stop_gradient(self._resolve("table")),
                log_normalizer=self._resolve("log_normalizer"),
                tails=self.reference_tails,
            )
        table, log_normalizer = _integrate(self, self.reference_tails)
        return self.given(table=lax.stop_gradient(table), log_normalizer=log_normalizer, tails=self.reference_tails)

    @aligned_first
    def held_fixed(self) -> Self:
        """The same distribution without derivatives in its parameters, with the table it has."""
        fixed = jax.tree.map(lambda leaf: leaf if not_jax_tracer(leaf) else lax.stop_gradient(leaf), self)
        return fixed.given(table=lax.stop_gradient(self.table), tails=lax.stop_gradient(self.reference_tails))

    @property
    def is_known(self) -> bool:
        """Whether no parameter is being traced."""
        return all(not_jax_tracer(leaf) for leaf in jax.tree.leaves(self))

    def _resolve(self, what: Literal["table", "log_normalizer"]) -> Any:
        """The quantity, kept with the distribution."""
        memory = vars(self).setdefault("_memory", {})
        if what in memory:
            return memory[what]
        if self.is_known:
            with jax.ensure_compile_time_eval():
                table, log_normalizer = _integrate_known(self)
            # What was given stays.
            memory |= {"table": table, "log_normalizer": log_normalizer} | memory
            return memory[what]
        # Within one trace too, so that a program of draws and densities integrates once.
        trace = get_opaque_trace_state()
        if memory.get("trace") != trace:
            table, log_normalizer = _integrate(self, self.reference_tails)
            memory |= {"trace": trace, "traced": {"table": table, "log_normalizer": log_normalizer}}
        return memory["traced"][what]

    @property
    def interval(self) -> tuple[Array, Array]:
        """What is integrated, domain and support overlapping; ends of shapes that broadcast with `batch_shape`."""
        return integration_interval(self._domain, self.reference)

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


# NumPyro's generic function has no annotation, and what it falls back on never returns.
promote_batch_shape.register(TiltedDistribution, promote)  # pyright: ignore[reportCallIssue, reportArgumentType]


# Compiled once per kind and shape of distribution: a distribution is a pytree, its settings are part of the kind.


@jax.jit
def _integrate(self: TiltedDistribution, tails: ref.Tails) -> tuple[Table, tuple[Array, Array]]:
    return _shaped(self, *integrate(self.given(tails=tails)._bank()))


@jit_outermost
def _integrate_coarsely(self: TiltedDistribution, tails: ref.Tails) -> tuple[tuple[Table, tuple[Array, Array]], Array]:
    result, is_unresolved = integrate_coarsely(self.given(tails=tails)._bank())
    return _shaped(self, *result), is_unresolved


@jit_outermost
def _integrate_finely(self: TiltedDistribution, tails: ref.Tails) -> tuple[Table, tuple[Array, Array]]:
    return _shaped(self, *integrate(self.given(tails=tails)._bank()))


def _integrate_known(self: TiltedDistribution) -> tuple[Table, tuple[Array, Array]]:
    """Table and log-normalisers; what single panels need is compiled only where they need it."""
    result, is_unresolved = _integrate_coarsely(self, self.reference_tails)
    return _integrate_finely(self, self.reference_tails) if is_unresolved else result


def _shaped(
    self: TiltedDistribution, log_normalizer: Array, error: Array, table: Table
) -> tuple[Table, tuple[Array, Array]]:
    """The table, of the distribution's batch shape, and log Z with its error."""
    table = jax.tree.map(lambda x: x.reshape(*self.batch_shape, *x.shape[1:]), table)
    return table, (self._of_components(log_normalizer.T), self._of_components(error.T))
