"""Chebyshev polynomials of a squashed argument."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from numpyro.distributions import constraints

from .base import Basis


@dataclass(frozen=True)
class Chebyshev(Basis):
    """Chebyshev polynomials of the first kind: T_g(tanh(z) / tau), g = 0..degree, tau > 1.

    Args:
        degree: the highest degree, at least 1.
        width: tau, greater than 1; 1.1 by default.
        trainable_width: whether tau is learnt.
        coef_scale: standard deviation of the initial coefficients.

    Example:
        >>> import jax, kaem_ppl as kp
        >>> f = kp.UnivariateKAN.init(jax.random.key(0), (3,), basis=kp.Chebyshev(8), domain=(-2, 2))
        >>> f.coef.shape  # three functions, and the number of basis functions of each
        (3, 9)
    """

    degree: int = 10

    width_constraint: ClassVar = constraints.greater_than(1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.degree < 1:
            raise ValueError(f"degree={self.degree} for Chebyshev: expected at least 1.")

    @property
    def num_features(self) -> int:
        """One polynomial per degree, the constant included."""
        return self.degree + 1

    def default_width(self, domain: tuple[float, float]) -> float:
        """Just inside the interval where the polynomials stay bounded by 1."""
        return 1.1

    def __call__(self, z: Array, grid: Array, width: Array) -> Array:
        x = jnp.tanh(z) / width
        # The three-term recurrence, T_{g+1} = 2 x T_g - T_{g-1}, has finite derivatives of every order.
        polynomials = [jnp.ones_like(x), x]
        for _ in range(self.degree - 1):
            polynomials.append(2 * x * polynomials[-1] - polynomials[-2])
        return jnp.stack(polynomials, axis=-1)
