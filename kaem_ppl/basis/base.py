"""The base class of bases of univariate functions."""

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, fields
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import constraints

from ..arguments import as_count, as_number, set_number
from ..compilation import flat_draws


@dataclass(frozen=True)
class Basis(ABC):
    """A family of univariate functions B_1(z), ..., B_F(z) on a domain [a, b].

    A basis holds settings only; its arrays (grid and width) live in the `UnivariateKAN` that uses it. A new basis states
    its settings and implements `num_features` and `__call__`.

    Args:
        width: the initial value of tau; None takes the basis's own default for the domain.
        trainable_width: whether `kan_prior` and `kan_generator` learn tau.
        coef_scale: standard deviation of the initial coefficients.
    """

    _: KW_ONLY
    width: float | None = None
    trainable_width: bool = False
    coef_scale: float = 0.1

    # The values tau may take; None where the basis has no tau.
    width_constraint: ClassVar = constraints.positive

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type is int:
                # NumPy's integers become Python's: settings are static arguments, and part of what is stored.
                object.__setattr__(self, field.name, as_count(getattr(self, field.name), field.name))
        set_number(self, "coef_scale", least=0)
        if self.width is None:
            if self.trainable_width and self.width_constraint is None:
                raise ValueError(f"trainable_width=True: {type(self).__name__} has no width to train.")
            return
        if self.width_constraint is None:
            raise ValueError(f"width={self.width}: {type(self).__name__} has no width.")
        object.__setattr__(self, "width", as_number(self.width, "width"))
        if not bool(self.width_constraint(self.width)):
            raise ValueError(f"width={self.width} for {type(self).__name__}: expected {self.width_constraint}.")

    @property
    @abstractmethod
    def num_features(self) -> int:
        """The number F of basis functions."""

    @property
    def num_panels(self) -> int:
        """How many equal quadrature panels resolve a moderate energy written in this basis to float32 accuracy."""
        return max(20, self.num_features)

    @abstractmethod
    def __call__(self, z: Array, grid: Array, width: Array) -> Array:
        """Evaluate every basis function.

        Args:
            z: points, of any shape that broadcasts with `grid.shape[:-1]` and `width.shape`.
            grid: grid points, shape (..., G); G = 0 for a basis without a grid.
            width: tau, shape (...).

        Returns:
            Features, shape (..., F).
        """

    def init_grid(self, domain: Array) -> Array:
        """Grid on the domain (a, b): shape (0,) unless the basis has one."""
        return jnp.zeros((0,), domain.dtype)

    def default_width(self, domain: tuple[float, float]) -> float:
        """The width used when the user gives none."""
        return 1.0

    def init_coef(self, key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
        """Initial coefficients, shape `shape + (F,)`: independent normal draws."""
        return self.coef_scale * flat_draws(jax.random.normal, key, (*shape, self.num_features), dtype)

    def breakpoints(self, grid: Array) -> Array | None:
        """Points where the basis functions are not smooth, shape (..., M), increasing; None where they are analytic."""
        return None


class GridBasis(Basis):
    """A basis whose functions are located at the `num_grid` points of a grid; a member declares `num_grid` as its field."""

    num_grid: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_grid < 2:
            raise ValueError(f"num_grid={self.num_grid} for {type(self).__name__}: expected at least 2 grid points.")

    @property
    def num_features(self) -> int:
        """One function per grid point."""
        return self.num_grid

    def init_grid(self, domain: Array) -> Array:
        """Equally spaced points from a to b, shape (G,)."""
        return jnp.linspace(domain[..., 0], domain[..., 1], self.num_grid, axis=-1)


def grid_spacing(grid: Array) -> Array:
    """Distance from each grid point to its neighbours (mean of the two sides), shape (..., G)."""
    gaps = jnp.diff(grid, axis=-1)
    inner = 0.5 * (gaps[..., 1:] + gaps[..., :-1])
    return jnp.concatenate([gaps[..., :1], inner, gaps[..., -1:]], axis=-1)


def relative_spacing(grid: Array) -> Array:
    """Spacing over its mean, shape (..., G): 1 on a uniform grid.

    A refitted grid is denser in places; functions there are narrower in proportion, so that neighbours keep overlapping
    as they do on the uniform grid.
    """
    mean = (grid[..., -1:] - grid[..., :1]) / (grid.shape[-1] - 1)
    return grid_spacing(grid) / mean
