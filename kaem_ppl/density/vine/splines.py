"""Tensor splines of two normal scores: their features, and the penalty under which a Gaussian copula costs nothing."""

import numpy as np

from .grid import BOUND

# Intervals between knots on either axis; the cubic splines are three more.
NUM_KNOT_INTERVALS = 12
NUM_SPLINES = NUM_KNOT_INTERVALS + 3
_SPACING = 2 * BOUND / NUM_KNOT_INTERVALS


def features(scores: np.ndarray) -> np.ndarray:
    """Cubic splines on uniform knots at scores (N,), those beyond the grid taken to its end, shape (N, m)."""
    place = (np.clip(scores, -BOUND, BOUND) + BOUND) / _SPACING
    interval = np.minimum(place.astype(int), NUM_KNOT_INTERVALS - 1)
    t = place - interval
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    found = np.zeros((len(scores), NUM_SPLINES))
    for offset, part in enumerate(parts):
        found[np.arange(len(scores)), interval + offset] = part / 6
    return found


def penalty() -> np.ndarray:
    """Quadratic form on coefficients (m^2, m^2) of squared third mixed differences, f_xxy and f_xyy.

    It is 0 for a(x) + b(y) + k x y alone: the logarithms of Gaussian copulas, and what the margins determine.
    """
    first, second = (np.diff(np.eye(NUM_SPLINES), n, axis=0) / _SPACING**n for n in (1, 2))
    slope, curvature = first.T @ first, second.T @ second
    return (np.kron(curvature, slope) + np.kron(slope, curvature)) * _SPACING**2


def gaussian_coefficients(correlation: float) -> np.ndarray:
    """Coefficients (m, m) of the logarithm of a Gaussian copula's density, up to a constant."""
    knots = -BOUND + _SPACING * np.arange(-1, NUM_SPLINES - 1)
    # The spline with these coefficients is x^2 exactly: those of x are the middle knots.
    squares = knots**2 - _SPACING**2 / 3
    product = correlation * np.outer(knots, knots)
    return (product - 0.5 * correlation**2 * (squares[:, None] + squares)) / (1 - correlation**2)
