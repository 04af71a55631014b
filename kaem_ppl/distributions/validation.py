"""Validate the arguments of tilted densities: shapes, finite numbers, supports."""

from typing import Any

import numpy as np
from jax import lax
from numpyro.distributions import Distribution
from numpyro.util import not_jax_tracer

from .. import reference as ref
from ..univariate import UnivariateKAN, check_bank


def bank_shape(energy: Any) -> tuple[int, ...]:
    """Batch shape of an energy; TypeError where it is not a `UnivariateKAN`."""
    if not isinstance(energy, UnivariateKAN):
        raise TypeError(f"energy={type(energy).__name__}: expected a UnivariateKAN, made by UnivariateKAN.init(...).")
    return energy.batch_shape


def check_arguments(
    energy: UnivariateKAN, reference: Distribution, batch_shape: tuple[int, ...], check_values: bool
) -> tuple[int, ...]:
    """Refuse what no tilted density can be built on, and return its batch shape.

    Args:
        energy: a `UnivariateKAN`.
        reference: should be a univariate continuous NumPyro distribution with a density.
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
