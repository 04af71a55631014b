"""Whitening as a NumPyro reparameterisation: a site written as its quantile function of a standard normal draw."""

from typing import cast

import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import Distribution
from numpyro.infer.reparam import Reparam

from . import reference as ref
from .whitening import from_standard_normal


class InverseTransformReparam(Reparam):
    """z = F^-1(Phi(e)) with e standard normal, F the site's distribution function and Phi the normal one.

    The density of e under the prior is the standard normal one exactly, whatever the site's prior is. The site becomes
    deterministic, and the new latent site `{name}_base` has its batch and event shape. For any univariate continuous
    distribution with a density, alone or in `to_event` and `expand`; its own `icdf` is not needed. Both tails are
    accurate relative to themselves. A joint distribution that states its own map, as `KANCopula` does, is whitened too.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, kaem_ppl as kp
        >>> def model():
        ...     numpyro.sample("z", dist.LogNormal(0, 1).expand((3,)).to_event(1))
        >>> whitened = numpyro.handlers.reparam(model, config={"z": kp.InverseTransformReparam()})
        >>> trace = numpyro.handlers.trace(numpyro.handlers.seed(whitened, jax.random.key(0))).get_trace()
        >>> trace["z_base"]["value"].shape
        (3,)
    """

    def __call__(self, name: str, fn: Distribution, obs: Array | None) -> tuple[None, Array]:
        """Sample `{name}_base` and return the site's value; see `numpyro.handlers.reparam`.

        Raises:
            ValueError: where the site is observed, or its distribution is multivariate, discrete or without a density.
        """
        if obs is not None:
            raise ValueError(f"Site {name!r} is observed: only a latent site can be reparameterised.")
        fn, expand_shape, event_dim = self._unwrap(fn)
        fault = None if hasattr(fn, "unwhiten") else ref.fault_of(fn)
        if fault:
            raise ValueError(f"Site {name!r} has the distribution {type(fn).__name__}, which {fault}.")
        normal = dist.Normal(0, 1).expand(fn.event_shape).to_event(len(fn.event_shape))
        e = numpyro.sample(f"{name}_base", self._wrap(normal, expand_shape, event_dim))
        return None, from_standard_normal(fn, cast(Array, e))
