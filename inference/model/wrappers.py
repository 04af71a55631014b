"""Remove the wrappers (expanded, independent, masked) from a NumPyro distribution."""

import numpyro.distributions as dist
from numpyro.distributions import Distribution


def unwrap(fn: Distribution, *, masks: bool = True) -> Distribution:
    """The distribution inside; or, without `masks`, the masked one where there is a mask."""
    wrappers = (dist.Independent, dist.ExpandedDistribution) + masks * (dist.MaskedDistribution,)
    while isinstance(fn, wrappers):
        fn = fn.base_dist
    return fn


def is_masked(fn: Distribution) -> bool:
    """Whether there is a mask around the distribution inside."""
    return isinstance(unwrap(fn, masks=False), dist.MaskedDistribution)


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
