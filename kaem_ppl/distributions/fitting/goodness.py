"""Kolmogorov and Smirnov's distance between a density and weighted observations."""

from typing import NamedTuple

import numpy as np
from jax import Array

from .observations import Observations


class GoodnessOfFit(NamedTuple):
    """Kolmogorov and Smirnov's test.

    Attributes:
        distance: largest difference between the fitted and the empirical distribution function, shape `batch_shape`.
        p_value: chance of a larger one if the density were the true one and not fitted to the same observations, shape
            `batch_shape`. Of a fitted density it is too large: a small one is evidence against the fit, a large one
            none for it.
    """

    distance: Array
    p_value: Array


def kolmogorov_smirnov(uniform: np.ndarray, observations: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Distances and p-values, shape (Q,) each, of probability transforms (Q, n)."""
    order = np.argsort(uniform, axis=1)
    sorted_values = np.take_along_axis(uniform, order, axis=1)
    above = np.cumsum(np.take_along_axis(observations.weights, order, axis=1), axis=1)
    below = np.concatenate([np.zeros_like(above[:, :1]), above[:, :-1]], axis=1)
    distance = np.max(np.maximum(above - sorted_values, sorted_values - below), axis=1)
    # Stephens (1970): the limiting law at a distance corrected for the number of observations.
    root = np.sqrt(observations.effective_number)
    scaled = (root + 0.12 + 0.11 / root) * distance
    k = np.arange(1, 101)[:, None]
    series = 2 * np.sum((-1.0) ** (k - 1) * np.exp(-2 * k**2 * np.square(scaled)), axis=0)
    return distance, np.where(scaled < 0.3, 1.0, np.clip(series, 0.0, 1.0))
