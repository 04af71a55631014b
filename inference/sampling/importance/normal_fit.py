"""A normal distribution fitted to draws, on the host in double precision."""

from typing import NamedTuple

import numpy as np

# Smaller standard deviations of a draw's coordinate are taken for this.
_SMALLEST_SCALE = 1e-12


class NormalFit(NamedTuple):
    """A normal distribution of d coordinates.

    Attributes:
        mean: shape (d,).
        factor: lower Cholesky factor of the covariance, shape (d, d).
    """

    mean: np.ndarray
    factor: np.ndarray

    def standardize(self, x: np.ndarray) -> np.ndarray:
        """What makes x standard normal, (..., d) to (..., d)."""
        return np.linalg.solve(self.factor, (x - self.mean).reshape(-1, len(self.mean)).T).T.reshape(x.shape)

    def place(self, standard: np.ndarray) -> np.ndarray:
        """The way back from `standardize`."""
        return self.mean + standard @ self.factor.T

    def log_determinant(self) -> float:
        """Of the factor."""
        return float(np.log(np.diagonal(self.factor)).sum())


def fit_normal(x: np.ndarray) -> NormalFit:
    """Mean and covariance of draws, (n, d); of fewer than 2 d draws the variances alone, for the rest would be noise."""
    x = np.asarray(x, float)
    number, size = x.shape
    mean, scale = x.mean(0), np.maximum(x.std(0, ddof=1), _SMALLEST_SCALE)
    if number < 2 * size:
        return NormalFit(mean, np.diag(scale))
    # The correlation matrix is factored, so that units do no harm; the ridge keeps coordinates that are equal apart.
    standard = (x - mean) / scale
    correlation = standard.T @ standard / (number - 1) + 1e-10 * np.eye(size)
    return NormalFit(mean, scale[:, None] * np.linalg.cholesky(correlation))
