"""Pareto-smoothed importance weights: the tail shapes of many sets of weights at once, and the smoothed weights."""

import numpy as np

# A tail is fitted to at least five of the largest fifth of the weights.
_FEWEST_WEIGHTS = 25
# Nats below the largest weight at which numbers of double precision have no digits left.
_DEEPEST = 600.0
# Numbers held at once: rows, times points of the profile, times weights in the tail.
_PIECE = 2**22


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """Shape k of the generalised Pareto distribution fitted to the tail of weights over chains and draws.

    The fit is that of Zhang and Stephens (2009), with the prior and the length of the tail of Vehtari et al. (2024).

    Args:
        log_weights: shape (C, S, ...).

    Returns:
        Shape (...); infinite where fewer than 25 weights differ from 0, or where a quarter of the tail vanishes beside the
        largest weight; minus infinite where the largest are equal, so that there is no tail.
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
    if most >= _FEWEST_WEIGHTS:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            ordered = np.sort(largest, axis=-1)[:, -1 - _tail_size(most) :]
            ordered = ordered - ordered[:, -1:]
            excess = np.exp(ordered[:, 1:]) - np.exp(ordered[:, :1])
            for part in _parts(len(excess), excess.shape[-1]):
                k[part], _ = _fit(excess[part])
            vanishes = _vanishes(ordered)
            k[vanishes] = np.inf
    # Weights of 0 leave fewer to fit, and equal ones leave none: one row at a time. Of the smaller weights only
    # their number counts.
    for row in np.flatnonzero(np.isnan(k) | (number < most)):
        finite = largest[row][np.isfinite(largest[row])].astype(float)
        fill = np.full(number[row] - len(finite), finite.min(initial=np.inf) - 1.0)
        k[row] = _smooth_row(np.concatenate([fill, finite]))[1] if len(finite) else np.inf
    return k


def smooth(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pareto-smooth log-weights over their last axis, on the host.

    The largest weights are replaced by quantiles of the distribution fitted to them (Vehtari et al. 2024).

    Args:
        log_weights: shape (..., P).

    Returns:
        Log-weights that sum to one, all equal where every weight is 0; and the shape k of the fitted tail, shape (...),
        infinite where fewer than 25 weights differ from 0, minus infinite where the largest are equal: there is no tail.
    """
    number = log_weights.shape[-1]
    rows = log_weights.reshape(-1, number).astype(np.float64)
    rows[~np.isfinite(rows)] = -np.inf
    k = np.full(len(rows), np.nan)
    if number >= _FEWEST_WEIGHTS:
        for part in _parts(len(rows), _tail_size(number)):
            k[part] = _smooth_rows(rows[part])
    # Weights of 0 leave fewer to fit, and equal ones leave none: one row at a time.
    for row in np.flatnonzero(np.isnan(k)):
        rows[row], k[row] = _smooth_row(rows[row])
    rows -= log_sum_exp(rows)[:, None]
    return rows.reshape(log_weights.shape), k.reshape(log_weights.shape[:-1])


def log_sum_exp(x: np.ndarray) -> np.ndarray:
    """Logarithm of the sum of exponentials over the last axis, summed in double precision; -inf where all are."""
    largest = x.max(-1, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(x - largest).sum(-1, dtype=float)) + largest[..., 0]


def _parts(number: int, tail_size: int) -> list[slice]:
    """Rows that are fitted together."""
    at_once = max(1, _PIECE // (tail_size * _num_points(tail_size)))
    return [slice(first, first + at_once) for first in range(0, number, at_once)]


def _tail_size(number: int) -> int:
    return int(3 * number**0.5 if number > 225 else number / 5)


def _num_points(tail_size: int) -> int:
    """Points of the profile likelihood."""
    return 30 + int(tail_size**0.5)


def _fit(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean of k by the profile of b = -k / sigma, and sigma, increasing excesses (M, n) to (M,) each."""
    number = excess.shape[-1]
    points = _num_points(number)
    quartile, largest = excess[:, int(number / 4 + 0.5) - 1, None], excess[:, -1:]
    b = 1 / largest + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile)
    profile = np.log1p(-b[..., None] * excess[:, None]).mean(-1)
    likelihood = number * (np.log(-b / profile) - profile - 1)
    weight = np.exp(likelihood - likelihood.max(-1, keepdims=True))
    b = (b * weight).sum(-1) / weight.sum(-1)
    k = np.log1p(-b[:, None] * excess).mean(-1)
    sigma = -k / b
    # A normal prior around a half, worth ten draws.
    k = (number * k + 10 * 0.5) / (number + 10)
    # No Pareto distribution has a quarter of its draws at its lower end.
    return np.where(quartile[:, 0] > excess[:, 0], k, np.nan), sigma


def _smooth_rows(rows: np.ndarray) -> np.ndarray:
    """Smooth rows (M, P) in place; their k, NaN for those that were left as they are."""
    number = rows.shape[-1]
    size = _tail_size(number)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        largest = rows.max(-1, keepdims=True)
        place = np.argpartition(rows, number - size - 1, axis=-1)[:, -size - 1 :]
        values = np.take_along_axis(rows, place, axis=-1)
        order = np.argsort(values, axis=-1)
        place, values = (np.take_along_axis(x, order, axis=-1) for x in (place, values))
        vanishes = _vanishes(values)
        tail = np.exp(values - largest)
        k, sigma = _fit(tail[:, 1:] - tail[:, :1])
        probability = (np.arange(size) + 0.5) / size
        quantiles = np.expm1(-k[:, None] * np.log1p(-probability)) / k[:, None]
        smoothed = np.minimum(np.log(tail[:, :1] + sigma[:, None] * quantiles), 0) + largest
        good = ~vanishes & np.isfinite(rows).all(-1) & np.isfinite(smoothed).all(-1) & (sigma > 0)
    good = np.flatnonzero(good)
    rows[good[:, None], place[good, 1:]] = smoothed[good]
    found = np.full(len(rows), np.nan)
    found[good] = k[good]
    found[vanishes] = np.inf
    return found


def _smooth_row(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Smoothed log-weights (P,), up to a constant, and k, by ArviZ."""
    from arviz_stats.base.array import array_stats

    finite = np.isfinite(log_weights)
    if not finite.any():
        return np.zeros_like(log_weights), np.inf
    if finite.sum() < _FEWEST_WEIGHTS:
        return log_weights, np.inf
    if _has_flat_tail(log_weights[finite]):
        return log_weights, -np.inf
    if _vanishes(np.sort(log_weights[finite])[-1 - _tail_size(finite.sum()) :]):
        return log_weights, np.inf
    # ArviZ takes the log-likelihood that is left out, of which weights are the inverse.
    values, k = array_stats.psislw(-log_weights[finite])
    smoothed = np.full_like(log_weights, -np.inf)
    smoothed[finite] = values
    return smoothed, float(k) if np.isfinite(k) else np.inf


def _vanishes(tail: np.ndarray) -> np.ndarray:
    """Whether a quarter of a tail's increasing log-weights (..., n + 1) have no digits beside the largest, shape (...).

    A shape that spreads some hundred weights so far is about 90, and the fit, which divides by their excesses, fails.
    """
    return tail[..., int((tail.shape[-1] - 1) / 4 + 0.5)] < tail[..., -1] - _DEEPEST


def _has_flat_tail(log_weights: np.ndarray) -> bool:
    """Whether those that would be smoothed are all equal (Vehtari et al. 2024, sec. 6, has their number)."""
    number = len(log_weights)
    size = min(number, int(np.ceil(min(0.2 * number, 3 * np.sqrt(number)))) + 1)
    largest = np.partition(log_weights, -size)[-size:]
    return largest.max() == largest.min()
