"""Which distributions can be references, their supports, and where their densities have kinks or singular ends."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.distributions.censored import (
    IntervalCensoredDistribution,
    LeftCensoredDistribution,
    RightCensoredDistribution,
)
from numpyro.distributions.truncated import (
    LeftTruncatedDistribution,
    RightTruncatedDistribution,
    TwoSidedTruncatedDistribution,
)
from numpyro.util import not_jax_tracer

from .closed_forms import FORMS, Form
from .composite import sign_of, sign_of_all

# A reference is `Any` below where what its class has is read, of which NumPyro's annotations say less than what holds.
_WITHOUT_DENSITY = (
    dist.Delta,
    dist.Unit,
    dist.ImproperUniform,
    dist.MaskedDistribution,
    LeftCensoredDistribution,
    RightCensoredDistribution,
    IntervalCensoredDistribution,
    *(getattr(dist, name) for name in ("HurdleGamma", "HurdleLogNormal") if hasattr(dist, name)),
)
_SMOOTH_TO_THE_ENDS = (
    dist.Uniform,
    dist.LogUniform,
    dist.Exponential,
    dist.HalfNormal,
    dist.HalfCauchy,
    dist.Gompertz,
    dist.Pareto,
    dist.LowerTruncatedPowerLaw,
    dist.DoublyTruncatedPowerLaw,
    dist.VonMises,
    dist.FoldedDistribution,
    LeftTruncatedDistribution,
    RightTruncatedDistribution,
    TwoSidedTruncatedDistribution,
)


def check_reference(reference: Distribution) -> None:
    """Refuse a reference that a tilted prior cannot be built on.

    Raises:
        TypeError: where it is not a NumPyro distribution.
        ValueError: where it is multivariate or discrete, or has no density.
    """
    if not isinstance(reference, Distribution):
        raise TypeError(f"reference={reference!r}: expected a NumPyro distribution such as Normal(0, 1).")
    fault = fault_of(reference)
    if fault:
        raise ValueError(f"reference={type(reference).__name__} {fault}.")


def fault_of(fn: Distribution) -> str | None:
    """Why a distribution has no tails that could be found, as the rest of a sentence; None where it has."""
    if fn.event_shape != ():
        return f"has event shape {fn.event_shape}: expected a univariate continuous distribution"
    inner = fn
    while isinstance(inner, dist.ExpandedDistribution):
        inner = inner.base_dist
    support = None if type(inner) in FORMS else inner.support
    if type(inner) not in FORMS and (support is None or support.is_discrete):
        return "is discrete or has no support: expected a univariate continuous distribution"
    if isinstance(inner, _WITHOUT_DENSITY):
        return "has no density with respect to length: expected a univariate continuous distribution"
    try:
        point = jax.ShapeDtypeStruct(fn.batch_shape, jnp.result_type(float))
        jax.eval_shape(inner.log_prob, point)
    except NotImplementedError:
        return "has no log_prob: expected a univariate continuous distribution with a density"
    return None


def form_of(reference: Distribution) -> Form | None:
    """The closed form of its law, None where there is none.

    A subclass has the form of its parent only where it takes all methods that state the law from it.
    """
    kind = type(reference)
    for parent in kind.__mro__:
        if parent in FORMS and follows(reference, parent, "log_prob", "cdf", "icdf", "support"):
            return FORMS[parent]
    return None


def follows(reference: Distribution, parent: type, *methods: str) -> bool:
    """Whether a distribution is of a class and takes the methods named from it."""
    kind = type(reference)
    return issubclass(kind, parent) and all(
        _attribute(kind, name) is _attribute(parent, name) and name not in vars(reference) for name in methods
    )


def _attribute(kind: type, name: str) -> Any:
    """What the class or its nearest parent defines, itself and not what a descriptor makes of it."""
    return next((vars(parent)[name] for parent in kind.__mro__ if name in vars(parent)), None)


def is_transformed(reference: Any) -> bool:
    """Whether its law is that of its base through known monotone transforms."""
    if not follows(reference, dist.TransformedDistribution, "log_prob"):
        return False
    return reference.base_dist.event_shape == () and sign_of_all(reference.transforms) is not None


def is_mixture(reference: Distribution) -> bool:
    """Whether its law is that of NumPyro's mixtures."""
    return any(follows(reference, kind, "log_prob") for kind in (dist.MixtureSameFamily, dist.MixtureGeneral))


def support_bounds(reference: Any) -> tuple[ArrayLike, ArrayLike]:
    """Ends of the support, each of a shape that broadcasts with the reference's batch shape; +-inf where unbounded."""
    form = form_of(reference)
    if form is not None:
        return form.bounds(reference)
    if isinstance(reference, dist.ExpandedDistribution):
        return support_bounds(reference.base_dist)
    if follows(reference, dist.LogUniform):
        return reference.low, reference.high
    if follows(reference, dist.Pareto):
        return reference.scale, math.inf
    kind = type(reference)
    if kind is dist.TransformedDistribution and is_transformed(reference):
        # Its class states less: the codomain of the last transform.
        low, high = support_bounds(reference.base_dist)
        for transform in reference.transforms:
            low, high = _image(transform, low, high)
        return low, high
    if is_mixture(reference):
        if hasattr(reference, "component_distributions"):
            pairs = [support_bounds(component) for component in reference.component_distributions]
            lows, highs = zip(*pairs, strict=True)
            return _extreme(lows, jnp.minimum), _extreme(highs, jnp.maximum)
        low, high = support_bounds(reference.component_distribution)
        low, high = (x if jnp.ndim(x) == 0 else of(x, axis=-1) for x, of in ((low, jnp.min), (high, jnp.max)))
        return low, high
    support = reference.support
    return getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)


def _extreme(bounds: tuple[Any, ...], of_two: Any) -> ArrayLike:
    if all(isinstance(x, float | int) for x in bounds):
        return float(min(bounds) if of_two is jnp.minimum else max(bounds))
    result = bounds[0]
    for bound in bounds[1:]:
        result = of_two(result, bound)
    return result


def _image(transform: Any, low: ArrayLike, high: ArrayLike) -> tuple[ArrayLike, ArrayLike]:
    """Ends of the image of an interval under a monotone transform."""
    if all(isinstance(x, float) and math.isinf(x) for x in (low, high)):
        return _ends_of_image(transform)
    images = [_at(transform, x) for x in (low, high)]
    sign = sign_of(transform)
    rises = sign > 0
    if not_jax_tracer(sign):
        if np.all(rises):
            return images[0], images[1]
        if not np.any(rises):
            return images[1], images[0]
    return jnp.where(rises, images[0], images[1]), jnp.where(rises, images[1], images[0])


def _ends_of_image(transform: Any) -> tuple[ArrayLike, ArrayLike]:
    match transform:
        case dist.transforms.ExpTransform() | dist.transforms.SoftplusTransform():
            return 0.0, math.inf
        case dist.transforms.SigmoidTransform():
            return 0.0, 1.0
        case dist.transforms.ComposeTransform():
            low, high = -math.inf, math.inf
            for part in transform.parts:
                low, high = _image(part, low, high)
            return low, high
    return -math.inf, math.inf


def _at(transform: Any, x: ArrayLike) -> ArrayLike:
    """The transform of a bound; an infinite one, or the power of 0, stays a number of Python's where signs are known."""
    if not (isinstance(x, float) and (math.isinf(x) or x == 0)):
        return transform(x)
    limits = {
        dist.transforms.ExpTransform: (0.0, math.inf),
        dist.transforms.SoftplusTransform: (0.0, math.inf),
        dist.transforms.SigmoidTransform: (0.0, 1.0),
        dist.transforms.IdentityTransform: (-math.inf, math.inf),
    }
    match transform:
        case dist.transforms.AffineTransform():
            if x == 0:
                return transform.loc
            return _choose(transform.scale, x, -x)
        case dist.transforms.PowerTransform():
            return _choose(transform.exponent, x, math.inf if x == 0 else 0.0)
        case dist.transforms.ComposeTransform():
            for part in transform.parts:
                x = _at(part, x)
            return x
        case _ if math.isinf(x) and type(transform) in limits:
            return limits[type(transform)][int(x > 0)]
    return transform(x)


def _choose(number: ArrayLike, if_positive: float, if_negative: float) -> ArrayLike:
    """A number of Python's where the sign is known and one, else an array."""
    if not_jax_tracer(number):
        signs = np.asarray(number) > 0
        if np.all(signs) or not np.any(signs):
            return if_positive if np.all(signs) else if_negative
    return jnp.where(jnp.asarray(number) > 0, if_positive, if_negative)


def is_rough_at_ends(reference: Distribution) -> tuple[bool, bool]:
    """Whether the density may be singular or essentially flat at its lower and upper end, so that panels shrink there."""
    while isinstance(reference, dist.ExpandedDistribution):
        reference = reference.base_dist
    if any(follows(reference, kind, "log_prob") for kind in _SMOOTH_TO_THE_ENDS):
        return False, False
    low, high = support_bounds(reference)
    return not _is_infinite(low), not _is_infinite(high)


def _is_infinite(bound: ArrayLike) -> bool:
    return isinstance(bound, float) and math.isinf(bound)
