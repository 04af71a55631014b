"""Derivatives of quantiles by the implicit function theorem (Figurnov et al. 2018, eq. 5)."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array


class Searched(Protocol):
    """Tails with a search for the quantile; a pytree of arrays."""

    def masses_at(self, place: Array) -> tuple[Array, Array]:
        """Log masses below and above places, of which the smaller is accurate; differentiable."""
        ...

    def search(self, log_below: Array, log_above: Array) -> Array:
        """The place with given log masses: a point, or its coordinate."""
        ...


@jax.custom_jvp
def implicit_quantile(tails: Searched, log_below: Array, log_above: Array) -> Array:
    """`tails.search`, differentiable in the tails and in both log masses: dz = (du - dF(z)) / p(z)."""
    return tails.search(log_below, log_above)


@implicit_quantile.defjvp
def _implicit_quantile_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    tails, *masses = primals
    d_tails, *d_masses = tangents
    z = implicit_quantile(*primals)
    _, changes = jax.jvp(lambda tails: tails.masses_at(z), (tails,), (d_tails,))
    _, slopes = jax.jvp(tails.masses_at, (z,), (jnp.ones_like(z),))
    below, above = (
        (wanted - change) / jnp.where(slope == 0, 1.0, slope)
        for wanted, change, slope in zip(d_masses, changes, slopes, strict=True)
    )
    return z, jnp.where(masses[0] <= masses[1], below, above)
