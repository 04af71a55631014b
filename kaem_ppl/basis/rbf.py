"""Gaussian radial basis functions."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from .base import GridBasis, grid_spacing


@dataclass(frozen=True)
class RBF(GridBasis):
    """Gaussian bumps at the grid points: exp(-((z - g) / (tau h))^2 / 2), h the grid spacing.

    Args:
        num_grid: number of grid points.
        width: tau, in units of the grid spacing; 1 by default.
        trainable_width: whether tau is learnt.
        coef_scale: standard deviation of the initial coefficients.

    Example:
        >>> import jax, kaem_ppl as kp
        >>> f = kp.UnivariateKAN.init(jax.random.key(0), (3,), basis=kp.RBF(20), domain=(-2, 2))
        >>> f.coef.shape  # three functions, and the number of basis functions of each
        (3, 20)
    """

    num_grid: int = 20

    def __call__(self, z: Array, grid: Array, width: Array) -> Array:
        s = (z[..., None] - grid) / (width[..., None] * grid_spacing(grid))
        return jnp.exp(-0.5 * jnp.square(s))
