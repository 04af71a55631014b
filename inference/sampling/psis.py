"""The tail shape of many sets of importance weights at once."""

import numpy as np

from .importance_sampling import FEWEST_WEIGHTS, smooth

# Numbers held at once: rows, times points of the profile, times weights in the tail.
_PIECE = 2**22


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """Shape k of the generalised Pareto distribution fitted to the tail of weights over chains and draws.

    The fit is that of Zhang and Stephens (2009), with the prior and the length of the tail of Vehtari et al. (2024).

    Args:
        log_weights: shape (C, S, ...).

    Returns:
        Shape (...); infinite where fewer than 25 weights differ from 0, minus infinite where the largest are equal, so that
        there is no tail.
    """
    rows = np.moveaxis(log_weights.reshape(-1, *log_weights.shape[2:]), 0, -1)
    shape, number = rows.shape[:-1], rows.shape[-1]
    rows = rows.reshape(-1, number)
    rows = np.where(np.isfinite(rows), rows, -np.inf)
    largest = np.partition(rows, -num_largest(number), axis=-1)[:, -num_largest(number) :]
    return pareto_k_of_largest(largest, np.isfinite(rows).sum(-1)).reshape(shape)


def num_largest(number: int) -> int:
    """How many of a number of weights must be kept to fit their tail."""
    # The weight from which the tail is measured, and one more, for ArviZ rounds up.
    return min(number, 2 + _tail_size(number))


def pareto_k_of_largest(largest: np.ndarray, number: np.ndarray) -> np.ndarray:
    """The same from the largest weights of each row, so that the others need not be kept.

    Args:
        largest: log-weights in any order, as many as `num_largest` says for all of a row, shape (M, K); minus infinity
            where a weight is 0.
        number: of weights above 0 among all of the row, shape (M,).

    Returns:
        Shape (M,).
    """
    k = np.full(len(largest), np.nan)
    most = int(number.max(initial=0))
    if most >= FEWEST_WEIGHTS:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            ordered = np.sort(largest, axis=-1)[:, -1 - _tail_size(most) :]
            ordered = ordered - ordered[:, -1:]
            excess = np.exp(ordered[:, 1:]) - np.exp(ordered[:, :1])
            points = 30 + int(excess.shape[-1] ** 0.5)
            k = [_fit(part, points) for part in np.array_split(excess, 1 + excess.size * points // _PIECE)]
            k = np.concatenate(k)
    # Weights of 0 leave fewer to fit, and equal ones leave none: one row at a time, by ArviZ, which reads of the smaller
    # weights only how many they are.
    for row in np.flatnonzero(~np.isfinite(k) | (number < most)):
        alive = largest[row][np.isfinite(largest[row])]
        fill = np.full(number[row] - len(alive), alive.min(initial=np.inf) - 1.0)
        k[row] = smooth(np.concatenate([fill, alive])[None])[1][0] if len(alive) else np.inf
    return k


def _tail_size(number: int) -> int:
    return int(3 * number**0.5 if number > 225 else number / 5)


def _fit(excess: np.ndarray, points: int) -> np.ndarray:
    """Posterior mean of k by the profile of b = -k / sigma, increasing excesses (M, n) to (M,)."""
    number = excess.shape[-1]
    quartile, largest = excess[:, int(number / 4 + 0.5) - 1, None], excess[:, -1:]
    b = 1 / largest + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile)
    profile = np.log1p(-b[..., None] * excess[:, None]).mean(-1)
    likelihood = number * (np.log(-b / profile) - profile - 1)
    weight = np.exp(likelihood - likelihood.max(-1, keepdims=True))
    b = (b * weight).sum(-1) / weight.sum(-1)
    k = np.log1p(-b[:, None] * excess).mean(-1)
    # A normal prior around a half, worth ten draws.
    k = (number * k + 10 * 0.5) / (number + 10)
    # No Pareto distribution has a quarter of its draws at its lower end.
    return np.where(quartile[:, 0] > excess[:, 0], k, np.nan)
