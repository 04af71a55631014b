"""Choose closed form, composition or quadrature for a reference's tails, and derive CDF, quantile and moments."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.util import not_jax_tracer

from .closed_forms import Form
from .composite import MixtureTails, TransformedTails
from .log_masses import complete, log_remainder
from .support import follows, form_of, is_mixture, is_transformed, support_bounds
from .tabulated import TabulatedTails


# A reference is `Any` below where what its class has is read, which NumPyro's `Distribution` does not have.
class Tails(Protocol):
    """Masses on either side of a point, in logarithms, and the point that has given ones; a pytree.

    Shapes broadcast with the batch shape of the distribution. All is differentiable, also in its parameters.
    """

    def log_masses(self, x: Array) -> tuple[Array, Array]:
        """log P(z < x) and log P(z > x) inside the support, of which the smaller is accurate."""
        ...

    def quantile(self, log_below: Array, log_above: Array) -> Array:
        """The point with a pair of log masses that both are accurate, as `complete` makes them."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ClosedFormTails:
    """Tails that the literature states."""

    reference: Distribution

    def log_masses(self, x: Array) -> tuple[Array, Array]:
        """Log masses below and above points."""
        return self._form.log_masses(self.reference, x)

    def quantile(self, log_below: Array, log_above: Array) -> Array:
        """The point with given log masses."""
        return self._form.quantile(self.reference, log_below, log_above)

    @property
    def _form(self) -> Form:
        form = form_of(self.reference)
        assert form is not None
        return form


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OwnTails:
    """Tails that a distribution states itself, by methods `log_tails` and `log_quantile`, as tilted ones do."""

    reference: Any

    def log_masses(self, x: Array) -> tuple[Array, Array]:
        """Log masses below and above points."""
        return self.reference.log_tails(x)

    def quantile(self, log_below: Array, log_above: Array) -> Array:
        """The point with given log masses."""
        return self.reference.log_quantile(log_below, log_above)


def tails_of(reference: Any) -> Tails:
    """The tails of a univariate continuous distribution.

    From the literature, from those of what it is built of, or by quadrature of its `log_prob`. A table is kept with a
    distribution whose parameters are known, also where this is called inside a traced function.
    """
    if form_of(reference) is not None:
        return ClosedFormTails(reference)
    if hasattr(reference, "log_quantile"):
        return OwnTails(reference)
    if isinstance(reference, dist.ExpandedDistribution):
        return tails_of(reference.base_dist)
    if is_transformed(reference):
        return TransformedTails(tails_of(reference.base_dist), list(reference.transforms))
    if is_mixture(reference):
        several = hasattr(reference, "component_distributions")
        parts = list(reference.component_distributions) if several else [reference.component_distribution]
        log_weights = jax.nn.log_softmax(reference.mixing_distribution.logits, axis=-1)
        bounds = [support_bounds(part) for part in parts]
        if several and len(parts) == 1:
            return tails_of(parts[0])
        return MixtureTails(log_weights, [tails_of(part) for part in parts], bounds)
    standard = _standardised(reference)
    if standard is not None:
        base, location, scale = standard
        return TransformedTails(_tabulated(base), [dist.transforms.AffineTransform(location, scale)])
    return _tabulated(reference)


def _standardised(reference: Any) -> tuple[Distribution, Any, Any] | None:
    """A distribution of fixed location and scale and the map from it, so that these may be traced and the table is not."""
    if follows(reference, dist.StudentT, "log_prob"):
        return _kept(reference, reference.df, lambda df: dist.StudentT(df, 0.0, 1.0)), reference.loc, reference.scale
    if follows(reference, dist.Gamma, "log_prob"):
        return _kept(reference, reference.concentration, lambda a: dist.Gamma(a, 1.0)), 0.0, 1 / reference.rate
    return None


def _kept(reference: Distribution, shape: Array, make: Callable[[Array], Distribution]) -> Distribution:
    """What `make` makes of a parameter, kept with the reference where the parameter is known."""
    if not not_jax_tracer(shape):
        return make(shape)
    memory = vars(reference).setdefault("_kaem_tails", {})
    if "standard" not in memory:
        with jax.ensure_compile_time_eval():
            memory["standard"] = make(shape)
    return memory["standard"]


def _tabulated(reference: Distribution) -> TabulatedTails:
    leaves = jax.tree.leaves(reference)
    if not all(not_jax_tracer(leaf) for leaf in leaves):
        return TabulatedTails.of(reference, *support_bounds(reference), jnp.zeros((), float))
    memory = vars(reference).setdefault("_kaem_tails", {})
    dtype = jnp.result_type(float)
    if dtype not in memory:
        bounds = support_bounds(reference)
        with jax.ensure_compile_time_eval():
            memory[dtype] = _tabulate(reference, bounds)
    return memory[dtype]


def _tabulate(reference: Distribution, bounds: tuple[ArrayLike, ArrayLike]) -> TabulatedTails:
    """Compiled: once for all references of a class and shape, or for this one where its pytree does not hold all of it."""
    low, high = (x if isinstance(x, float | int) else None for x in bounds)
    numbers = tuple(None if isinstance(x, float | int) else x for x in bounds)
    zero = jnp.zeros((), float)
    leaves, structure = jax.tree.flatten(reference)
    copy = jax.tree.unflatten(structure, leaves)
    if set(vars(reference)) - {"_kaem_tails"} <= set(vars(copy)):
        try:
            hash(structure)
            return _tabulate_pytree(reference, numbers, zero, low, high)
        except TypeError:
            pass
    return jax.jit(partial(TabulatedTails.of, reference, *bounds))(zero)


@partial(jax.jit, static_argnums=(3, 4))
def _tabulate_pytree(
    reference: Distribution,
    numbers: tuple[Any, ...],
    zero: Array,
    low: float | None,
    high: float | None,
) -> TabulatedTails:
    start, stop = (number if x is None else float(x) for x, number in zip((low, high), numbers, strict=True))
    return TabulatedTails.of(reference, start, stop, zero)


def log_masses(reference: Distribution, x: ArrayLike) -> tuple[Array, Array]:
    """log P(z < x) and log P(z > x) for points inside the support, both accurate; shapes broadcast with the batch's."""
    below, above = tails_of(reference).log_masses(jnp.asarray(x, float))
    return complete(below, above)


def log_lower_tail(reference: Distribution, x: ArrayLike) -> Array:
    """log P(z < x) for points inside the support."""
    return log_masses(reference, x)[0]


def log_upper_tail(reference: Distribution, x: ArrayLike) -> Array:
    """log P(z > x) for points inside the support."""
    return log_masses(reference, x)[1]


def quantile(reference: Distribution, log_below: ArrayLike, log_above: ArrayLike) -> Array:
    """The point with given log masses below and above it; the smaller of the two is read.

    Args:
        reference: any univariate continuous distribution.
        log_below: log mass below, of a shape that broadcasts with the batch shape.
        log_above: log mass above.
    """
    return tails_of(reference).quantile(*complete(jnp.asarray(log_below, float), jnp.asarray(log_above, float)))


def lower_quantile(reference: Distribution, log_mass: ArrayLike) -> Array:
    """The point with exp(log_mass) below it."""
    log_mass = jnp.asarray(log_mass, float)
    return quantile(reference, log_mass, log_remainder(log_mass))


def upper_quantile(reference: Distribution, log_mass: ArrayLike) -> Array:
    """The point with exp(log_mass) above it."""
    log_mass = jnp.asarray(log_mass, float)
    return quantile(reference, log_remainder(log_mass), log_mass)


def log_outside(reference: Distribution, low: Array, high: Array, tails: Tails | None = None) -> tuple[Array, Array]:
    """log P(z < low) and log P(z > high) for an interval inside the support; -inf where an end is the support's.

    `tails` are the reference's, where they are known already.
    """
    support_low, support_high = support_bounds(reference)
    middle = 0.5 * (low + high)
    tails = tails_of(reference) if tails is None else tails
    left, _ = complete(*tails.log_masses(jnp.where(low > support_low, low, middle)))
    _, right = complete(*tails.log_masses(jnp.where(high < support_high, high, middle)))
    return jnp.where(low > support_low, left, -jnp.inf), jnp.where(high < support_high, right, -jnp.inf)
