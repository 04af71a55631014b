"""Members of a bank picked by an index for each datum: integrals are those of the members, not of the data."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array, lax

from .base import TiltedDistribution
from .mixture import KANTiltedMixture
from .tilted import KANTilted


def select[D: TiltedDistribution](bank: D, index: Array) -> D:
    """The densities bank[index], whose integrals are the bank's own.

    Args:
        bank: a `KANTilted` or `KANTiltedMixture` of batch shape (C, *rest), made in place: its integrals are found here,
            once, and derivatives pass through them.
        index: integers below C, any shape.

    Returns:
        The distribution of batch shape index.shape + rest, which remembers bank and index as `picked_from`.
    """
    energy = bank.energy
    own = {name: getattr(energy, name)[index] for name in ("coef", "base_weight", "spline_weight")}
    # What the bank shares is shared by what is picked.
    shared_ndims = {"grid": 1, "width": 0, "domain": 1}
    own |= {name: x[index] for name, ndim in shared_ndims.items() if jnp.ndim(x := getattr(energy, name)) > ndim}
    picked = dataclasses.replace(energy, **own)
    if isinstance(bank, KANTiltedMixture):
        new = KANTiltedMixture(bank.logits[index], picked, bank.reference, validate_args=False)
    else:
        new = KANTilted(picked, bank.reference, validate_args=False)
    table = jax.tree.map(lambda x: x[index], bank.table)
    # The error estimate has no derivative.
    log_normalizer = bank.log_normalizer[index], lax.stop_gradient(bank.log_normalizer_error)[index]
    new = new.given(table=table, log_normalizer=log_normalizer, tails=bank.reference_tails)
    new.picked_from = bank, index
    return new
