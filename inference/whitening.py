"""The map from a standard normal draw to a draw of any univariate distribution with a quantile function."""

import math

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import erfinv, log_ndtr, ndtr, ndtri
from numpyro.distributions import transforms

from kaem_ppl import reference as ref
from kaem_ppl.distributions.base import TiltedDistribution

from .tabulated_prior import TabulatedPrior
from .wrapped import unwrap

_INCREASING = (transforms.ExpTransform, transforms.SigmoidTransform, transforms.SoftplusTransform)


def from_standard_normal(fn: dist.Distribution, e: jax.Array) -> jax.Array:
    """z = F^-1(Phi(e)), so that z follows `fn` where e is standard normal.

    Each tail is computed from its own mass, which keeps its digits: one minus a mass has none left beyond e = 5.4 in
    float32. A distribution that states its lower tail only, such as a truncated normal, stays at the point with mass
    eps above it from there on.

    Args:
        fn: a distribution that `check_whitening` accepts.
        e: shape fn.batch_shape + fn.event_shape.

    Returns:
        Points of the shape of e.
    """
    low, high = jnp.minimum(e, 0.0), jnp.maximum(e, 0.0)
    match fn:
        case dist.Independent() | dist.ExpandedDistribution():
            return from_standard_normal(fn.base_dist, e)
        case TabulatedPrior() | TiltedDistribution():
            return fn.quantile(ndtr(e), ndtr(-e))
        case dist.Normal():
            return fn.loc + fn.scale * e
        case dist.MultivariateNormal():
            return fn.loc + jnp.matmul(fn.scale_tril, e[..., None])[..., 0]
        case dist.Uniform():
            return fn.low + (fn.high - fn.low) * ndtr(e)
        case dist.HalfNormal():
            return fn.scale * jnp.where(e < 0, math.sqrt(2) * erfinv(ndtr(low)), -ndtri(0.5 * ndtr(-high)))
        case dist.HalfCauchy():
            quarter = 0.5 * math.pi
            return fn.scale * jnp.where(e < 0, jnp.tan(quarter * ndtr(low)), 1 / jnp.tan(quarter * ndtr(-high)))
        case dist.Cauchy():
            below, above = (1 / jnp.tan(math.pi * ndtr(x)) for x in (low, -high))
            return fn.loc + fn.scale * jnp.where(e < 0, -below, above)
        case dist.Laplace():
            return fn.loc + fn.scale * jnp.where(e < 0, math.log(2) + log_ndtr(low), -math.log(2) - log_ndtr(-high))
        case dist.Exponential():
            return _minus_log_upper(e) / fn.rate
        case dist.Gumbel():
            return fn.loc - fn.scale * jnp.log(_minus_log_upper(-e))
        case dist.Logistic():
            return fn.loc + fn.scale * (_minus_log_upper(e) - _minus_log_upper(-e))
        case dist.TransformedDistribution() if _is_monotone(fn):
            sign = math.prod((_sign(transform) for transform in fn.transforms), start=1.0)
            value = from_standard_normal(fn.base_dist, sign * e)
            for transform in fn.transforms:
                value = transform(value)
            return value
    below = fn.icdf(ndtr(low))
    above = ref.upper_quantile(fn, jnp.maximum(ndtr(-high), jnp.finfo(e.dtype).eps))
    return jnp.where(e < 0, below, above)


def check_whitening(name: str, fn: dist.Distribution) -> None:
    """Refuse a site that no standard normal draw maps to.

    Raises:
        ValueError: its distribution is multivariate and not normal, or has no `icdf`.
    """
    fn = unwrap(fn, masks=False)
    if isinstance(fn, dist.MultivariateNormal):
        return
    kind = type(fn).__name__
    advice = "Choose a sampler that moves in unconstrained space, such as `NUTS()` or `MALA()`."
    if fn.event_shape != ():
        raise ValueError(f"Latent site {name!r} has the multivariate distribution {kind}: no icdf whitens it. {advice}")
    try:
        jax.eval_shape(from_standard_normal, fn, jax.ShapeDtypeStruct(fn.batch_shape, jnp.result_type(float)))
    except NotImplementedError:
        raise ValueError(f"Latent site {name!r} has the distribution {kind}, which has no icdf. {advice}") from None


def _minus_log_upper(e):
    """-log of the normal mass above e, to full precision also where that mass is almost one."""
    return jnp.where(e < 0, -jnp.log1p(-ndtr(jnp.minimum(e, 0.0))), -log_ndtr(-jnp.maximum(e, 0.0)))


def _is_monotone(fn):
    known = all(isinstance(t, (transforms.AffineTransform, *_INCREASING)) for t in fn.transforms)
    return known and fn.base_dist.event_shape == ()


def _sign(transform):
    return jnp.sign(transform.scale) if isinstance(transform, transforms.AffineTransform) else 1.0
