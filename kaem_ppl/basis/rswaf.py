"""Reflectional switch activation functions."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from .base import GridBasis, relative_spacing


@dataclass(frozen=True)
class RSWAF(GridBasis):
    """Reflectional switches at the grid points: 1 - tanh^2((z - g) / tau).

    On a refitted grid tau is scaled by the local spacing over its mean.

    Args:
        num_grid: number of grid points.
        width: tau, in units of z; the grid spacing by default.
        trainable_width: whether tau is learnt.
        coef_scale: standard deviation of the initial coefficients.

    Example:
        >>> import jax, kaem_ppl as kp
        >>> f = kp.UnivariateKAN.init(jax.random.key(0), (3,), basis=kp.RSWAF(16), domain=(-2, 2))
        >>> f.coef.shape  # three functions, and the number of basis functions of each
        (3, 16)
    """

    num_grid: int = 20

    def default_width(self, domain: tuple[float, float]) -> float:
        """The spacing of the uniform grid."""
        return (domain[1] - domain[0]) / (self.num_grid - 1)

    def __call__(self, z: Array, grid: Array, width: Array) -> Array:
        s = (z[..., None] - grid) / (width[..., None] * relative_spacing(grid))
        return 1 - jnp.square(jnp.tanh(s))
