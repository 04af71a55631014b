"""B-splines."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from .base import GridBasis


@dataclass(frozen=True)
class BSpline(GridBasis):
    """B-splines of a degree on the grid, whose knots continue beyond both ends at the end spacing.

    The Cox-de Boor recursion on G + 2 degree knots; G - 1 + degree functions (Liu et al. 2024, arXiv 2404.19756, sec. 2.2).

    Args:
        degree: polynomial degree of the pieces, at least 1; 3 gives cubic splines.
        num_grid: number of grid points.
        coef_scale: standard deviation of the initial coefficients.

    Example:
        >>> import jax, kaem_ppl as kp
        >>> f = kp.UnivariateKAN.init(jax.random.key(0), (3,), basis=kp.BSpline(3, num_grid=20), domain=(-2, 2))
        >>> f.coef.shape  # three functions, and the number of basis functions of each
        (3, 22)
    """

    degree: int = 3
    num_grid: int = 20

    width_constraint: ClassVar = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.degree < 1:
            raise ValueError(f"degree={self.degree} for BSpline: expected at least 1 (a continuous function).")

    @property
    def num_features(self) -> int:
        """Intervals plus degree."""
        return self.num_grid - 1 + self.degree

    @property
    def num_panels(self) -> int:
        """At least one panel per grid interval: the pieces meet at the knots with a kink in some derivative."""
        return max(20, self.num_grid - 1)

    def breakpoints(self, grid: Array) -> Array | None:
        """The knots inside the domain."""
        return grid

    def __call__(self, z: Array, grid: Array, width: Array) -> Array:
        knots = _extend(grid, self.degree)
        z = z[..., None]
        # Degree 0: the indicator of each knot interval. The extension makes the domain's right end an inner point.
        bases = jnp.where((z >= knots[..., :-1]) & (z < knots[..., 1:]), 1.0, 0.0).astype(jnp.result_type(z, knots))
        for degree in range(1, self.degree + 1):
            left, right = knots[..., : -degree - 1], knots[..., degree + 1 :]
            rising = (z - left) / (knots[..., degree:-1] - left) * bases[..., :-1]
            falling = (right - z) / (right - knots[..., 1:-degree]) * bases[..., 1:]
            bases = rising + falling
        return bases


def _extend(grid: Array, degree: int) -> Array:
    """Add `degree` knots at each end, continuing the first and the last spacing."""
    steps = jnp.arange(1, degree + 1, dtype=grid.dtype)
    before = grid[..., :1] - steps[::-1] * (grid[..., 1:2] - grid[..., :1])
    after = grid[..., -1:] + steps * (grid[..., -1:] - grid[..., -2:-1])
    return jnp.concatenate([before, grid, after], axis=-1)
