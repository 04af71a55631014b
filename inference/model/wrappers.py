"""Remove the wrappers (expanded, independent, masked) from a NumPyro distribution."""

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution

from kaem_ppl.distributions import KANTiltedMixture
from kaem_ppl.distributions.base import TiltedDistribution


def unwrap(fn: Distribution, *, masks: bool = True) -> Distribution:
    """The distribution inside; or, without `masks`, the masked one where there is a mask."""
    wrappers = (dist.Independent, dist.ExpandedDistribution) + masks * (dist.MaskedDistribution,)
    while isinstance(fn, wrappers):
        fn = fn.base_dist
    return fn


def is_discrete(fn: Distribution) -> bool:
    """Whether the values of a distribution are discrete."""
    return fn.support is not None and fn.support.is_discrete


def is_masked(fn: Distribution) -> bool:
    """Whether there is a mask around the distribution inside."""
    return isinstance(unwrap(fn, masks=False), dist.MaskedDistribution)


def is_picked(fn: Distribution) -> bool:
    """Whether a distribution is members of a bank that an index picks, the first axis of the batch being the index's."""
    base = unwrap(fn)
    if not isinstance(base, TiltedDistribution) or base.picked_from is None:
        return False
    return jnp.ndim(base.picked_from[1]) == 1 and base.batch_shape == fn.shape()


def with_base(fn: Distribution, base: Distribution) -> Distribution:
    """The same wrappers around another distribution."""
    match fn:
        case dist.Independent():
            return dist.Independent(with_base(fn.base_dist, base), fn.reinterpreted_batch_ndims)
        case dist.ExpandedDistribution():
            return dist.ExpandedDistribution(with_base(fn.base_dist, base), fn.batch_shape)
        case dist.MaskedDistribution():
            return dist.MaskedDistribution(with_base(fn.base_dist, base), fn._mask)
        case _:
            return base


def omit_normalizer(fn: dist.Distribution) -> dist.Distribution:
    """A tilted distribution up to a constant, without an integral; any other as it is."""
    base = unwrap(fn)
    if not isinstance(base, TiltedDistribution):
        return fn
    shape = base.batch_shape + (base.energy.batch_shape[-1:] if isinstance(base, KANTiltedMixture) else ())
    zeros = jnp.zeros(shape)
    return with_base(fn, base.given(log_normalizer=(zeros, zeros)))
