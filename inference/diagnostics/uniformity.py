"""Tests that numbers in (0, 1) are uniform: chi-squared, and the empirical distribution function in simultaneous bands."""

import numpy as np

# Expected in a bin of the chi-squared test, at least; bins, at most.
_FEWEST_IN_BIN, _MOST_BINS = 10, 20
# Simulated laws of the least probability: at least, for each test so that a p-value can stand a correction for their
# number, and at most.
_NUM_SIMULATIONS, _SIMULATIONS_PER_TEST, _MOST_SIMULATIONS = 2000, 400, 40_000
# Points at which the function is compared.
_MOST_POINTS = 100


def chi_squared_p(u: np.ndarray) -> np.ndarray:
    """P-values of Pearson's test of counts in equal bins, numbers (tests, M) to (tests,)."""
    from scipy.special import chdtrc

    number = u.shape[1]
    bins = int(np.clip(number // _FEWEST_IN_BIN, 2, _MOST_BINS))
    expected = number / bins
    return chdtrc(bins - 1, np.square(_count(u, bins) - expected).sum(1) / expected)


def _count(u: np.ndarray, bins: int) -> np.ndarray:
    """Numbers in each of equal bins, (tests, bins)."""
    return np.stack([np.bincount((row * bins).astype(int).clip(0, bins - 1), minlength=bins) for row in u])


def ecdf_p(rng: np.random.Generator, u: np.ndarray) -> np.ndarray:
    """P-values of the least probable point of the empirical distribution function, numbers (tests, M) to (tests,).

    At each of K points the count of numbers below it is binomial; the statistic is the smallest of their two-sided
    probabilities (Säilynoja, Bürkner and Vehtari 2022, eq. 13), whose law is simulated.
    """
    number = u.shape[1]
    num_simulations = int(np.clip(_SIMULATIONS_PER_TEST * len(u), _NUM_SIMULATIONS, _MOST_SIMULATIONS))
    law = np.concatenate([_least_probability(rng.uniform(size=(100, number))) for _ in range(num_simulations // 100)])
    at_least = np.searchsorted(np.sort(law), _least_probability(u), side="right")
    return (1 + at_least) / (1 + len(law))


def _least_probability(u: np.ndarray) -> np.ndarray:
    from scipy.special import bdtr

    number = u.shape[1]
    num_points = min(_MOST_POINTS, number)
    points = np.arange(1, num_points) / num_points
    below = np.cumsum(_count(u, num_points), axis=1)[:, :-1]
    lower = bdtr(below, number, points)
    upper = np.where(below > 0, 1 - bdtr(np.maximum(below - 1, 0), number, points), 1.0)
    return np.minimum(lower, upper).min(1)
