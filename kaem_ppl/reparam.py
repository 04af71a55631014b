"""Whitening: a site written as its quantile function of a standard normal draw."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import ndtr
from numpyro.infer.reparam import Reparam

from . import reference as ref
from .distributions.base import TiltedDistribution


class InverseTransformReparam(Reparam):
    """z = F^-1(Phi(e)) with e standard normal, F the site's distribution function and Phi the normal one.

    The density of e under the prior is the standard normal one exactly, whatever the site's prior is. The site becomes
    deterministic, and the new latent site `{name}_base` has its batch and event shape. For `KANTilted` and mixtures,
    alone or in `to_event` and `expand`; and for any other univariate continuous distribution with `icdf`.

    Far out in the upper tail Phi(e) has no digits left, so the mass above z is used there. A distribution that is
    neither tilted nor symmetric nor log-normal states no upper tail; in float32 its draws become the end of its support
    beyond e = 5.4.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, kaem_ppl as kp
        >>> def model():
        ...     numpyro.sample("z", dist.LogNormal(0, 1).expand((3,)).to_event(1))
        >>> whitened = numpyro.handlers.reparam(model, config={"z": kp.InverseTransformReparam()})
        >>> trace = numpyro.handlers.trace(numpyro.handlers.seed(whitened, jax.random.key(0))).get_trace()
        >>> trace["z_base"]["value"].shape
        (3,)
    """

    def __call__(self, name, fn, obs):
        """Sample `{name}_base` and return the site's value; see `numpyro.handlers.reparam`.

        Raises:
            ValueError: where the site is observed, or its distribution is multivariate, discrete or without `icdf`.
        """
        if obs is not None:
            raise ValueError(f"Site {name!r} is observed: only a latent site can be reparameterised.")
        fn, expand_shape, event_dim = self._unwrap(fn)
        _check_invertible(name, fn)
        e = numpyro.sample(f"{name}_base", self._wrap(dist.Normal(0, 1), expand_shape, event_dim))
        return None, _quantile_at(fn, e)


def _quantile_at(fn, e):
    """F^-1(Phi(e)), shape of e, in each half from the mass of the smaller tail."""
    if isinstance(fn, TiltedDistribution):
        return fn.quantile(ndtr(e), ndtr(-e))
    below = fn.icdf(ndtr(jnp.minimum(e, 0.0)))
    above = ref.upper_quantile(fn, ndtr(-jnp.maximum(e, 0.0)))
    return jnp.where(e < 0, below, above)


def _check_invertible(name, fn):
    kind = type(fn).__name__
    if fn.event_shape != () or fn.support is None or fn.support.is_discrete:
        raise ValueError(f"Site {name!r} has the distribution {kind}: expected a univariate continuous one.")
    try:
        jax.eval_shape(fn.icdf, jax.ShapeDtypeStruct(fn.batch_shape, jnp.result_type(float)))
    except NotImplementedError:
        raise ValueError(
            f"Site {name!r} has the distribution {kind}, which has no icdf: leave it out of the reparameterisation, or "
            "use another, such as LocScaleReparam."
        ) from None
