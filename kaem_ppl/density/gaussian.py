"""The Gaussian dependence of normal scores: density, and the way to independent ones and back."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array


@partial(jax.tree_util.register_dataclass, data_fields=["cholesky"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class GaussianDependence:
    """Jointly normal scores.

    Attributes:
        cholesky: lower factor of their correlation matrix, shape (d, d).
    """

    cholesky: Array

    def __repr__(self) -> str:
        return "Gaussian copula"

    @property
    def num_variables(self) -> int:
        """d."""
        return self.cholesky.shape[-1]

    @property
    def dtype(self) -> jnp.dtype:
        """Of the numbers it computes with."""
        return self.cholesky.dtype

    @property
    def correlation(self) -> Array:
        """R, of the normal scores, shape (d, d)."""
        return self.cholesky @ self.cholesky.T

    def log_density(self, scores: Array) -> Array:
        """Logarithm of the copula's density at normal scores (..., d), shape (...)."""
        w = self.whiten(scores)
        log_determinant = jnp.sum(jnp.log(jnp.diagonal(self.cholesky)))
        return 0.5 * jnp.sum(jnp.square(scores) - jnp.square(w), axis=-1) - log_determinant

    def whiten(self, scores: Array) -> Array:
        """Independent standard normal coordinates of normal scores, both (..., d)."""
        flat = scores.reshape(-1, scores.shape[-1]).T
        solved = jax.scipy.linalg.solve_triangular(self.cholesky, flat, lower=True)
        return solved.T.reshape(scores.shape)

    def unwhiten(self, coordinates: Array) -> Array:
        """The normal scores of independent coordinates, both (..., d)."""
        return jnp.einsum("...j,ij->...i", coordinates, self.cholesky)
