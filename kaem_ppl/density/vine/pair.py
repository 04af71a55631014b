"""The copula of a pair of variables, fitted to their normal scores: Gaussian, or a table where that predicts better."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .grid import ABOVE, BELOW, MIDDLE, NODE_WEIGHTS, NODES, WIDTHS
from .splines import NUM_SPLINES, features, gaussian_coefficients, penalty
from .table import with_uniform_margins

# Penalties that are tried, from the smoothest down, until the held-out likelihood has fallen this many times.
_PENALTIES = 10.0 ** np.arange(1.0, -6.1, -0.5)
_MOST_FALLS = 2
# Nats of all draws together by which a table must be better.
_LEAST_GAIN = 4.0
_RIDGE = 1e-8
_MOST_STEPS = 50
# Of normal scores: from about here on one variable determines the other in single precision.
DETERMINED = 0.99999


@dataclass(frozen=True)
class PairFit:
    """A fitted pair.

    Attributes:
        correlation: of the normal scores.
        values: density at the nodes of the grid, (K, K), margins uniform; None for the Gaussian copula of the correlation.
        gain: nats of a draw by which the table predicts better than the Gaussian copula, by approximate leave-one-out
            likelihood; at its best penalty, whether it was taken or not.
    """

    correlation: float
    values: np.ndarray | None
    gain: float


class _Problem(NamedTuple):
    """What does not change along the path: splines at the nodes and their products, what the data say, the penalty."""

    splines: np.ndarray
    products: np.ndarray
    moments: np.ndarray
    penalty: np.ndarray


def fit_pair(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> PairFit:
    """The copula of two variables.

    The logarithm of the density is a tensor spline of both scores plus a function of either; maximum likelihood with a
    penalty on third mixed derivatives, which are 0 for Gaussian copulas, and uniform margins by iterative proportional
    fitting. The penalty is the one of the largest likelihood less the effective number of parameters, which is the
    leave-one-out likelihood to first order.

    Args:
        first: normal scores, shape (N,).
        second: of the other variable, shape (N,).
        weights: of the draws, sum 1, shape (N,).
    """
    mean = weights @ first, weights @ second
    x, y = first - mean[0], second - mean[1]
    correlation = float(weights @ (x * y) / math.sqrt((weights @ (x * x)) * (weights @ (y * y))))
    if abs(correlation) > DETERMINED:
        return PairFit(correlation, None, 0.0)
    number = 1 / np.sum(weights**2)
    gaussian = weights @ gaussian_log_density(correlation, first, second) - 1 / number
    problem = _make_problem(first, second, weights)
    places = _positions(first), _positions(second)
    coef = gaussian_coefficients(correlation).reshape(-1)
    best, chosen, falls = -np.inf, None, 0
    for smoothing in _PENALTIES:
        coef, freedom = _maximise(problem, coef, smoothing)
        values = with_uniform_margins(problem.splines @ coef.reshape(NUM_SPLINES, -1) @ problem.splines.T)
        predicted = weights @ np.log(_interpolate(values, *places)) - freedom / number
        if predicted > best:
            best, chosen, falls = predicted, values, 0
        else:
            falls += 1
            if falls == _MOST_FALLS:
                break
    gain = float(best - gaussian)
    return PairFit(correlation, chosen if number * gain > _LEAST_GAIN else None, gain)


def gaussian_log_density(correlation: float, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of the Gaussian copula at normal scores."""
    rest = 1 - correlation**2
    squares = correlation**2 * (first**2 + second**2) - 2 * correlation * first * second
    return -0.5 * math.log(rest) - 0.5 * squares / rest


def _make_problem(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> _Problem:
    splines = features(NODES)
    uniform = NODE_WEIGHTS @ splines
    of_first, of_second = features(first), features(second)
    moments = (of_first * weights[:, None]).T @ of_second
    # The margins are known: what the draws' own margins differ by is taken off.
    excess = weights @ of_first - uniform, weights @ of_second - uniform
    moments = moments - np.outer(excess[0], uniform) - np.outer(uniform, excess[1])
    products = (splines[:, :, None] * splines[:, None]).reshape(len(splines), -1)
    return _Problem(splines, products, moments.reshape(-1), penalty())


def _maximise(problem: _Problem, coef: np.ndarray, smoothing: float) -> tuple[np.ndarray, float]:
    """Coefficients (m^2,) at the maximum, and the effective number of parameters besides those of the margins."""
    form = smoothing * problem.penalty + _RIDGE * np.eye(len(coef))
    value, masses = _value(problem, coef, form)
    for _ in range(_MOST_STEPS):
        mean, covariance = _moments(problem, masses)
        gradient = problem.moments - mean - form @ coef
        step = np.linalg.solve(covariance + form, gradient)
        gained = step @ gradient
        if gained < 1e-10:
            break
        length = 1.0
        new, new_masses = _value(problem, coef + step, form)
        while not new >= value + 1e-4 * length * gained and length > 1e-6:
            length *= 0.5
            new, new_masses = _value(problem, coef + length * step, form)
        if not new > value:
            break
        coef, value, masses = coef + length * step, new, new_masses
    mean, covariance = _moments(problem, masses)
    freedom = np.trace(np.linalg.solve(covariance + form, covariance))
    return coef, float(freedom) - 2 * (NUM_SPLINES - 1)


def _value(problem: _Problem, coef: np.ndarray, form: np.ndarray) -> tuple[float, np.ndarray]:
    """Penalised likelihood, and the masses at the nodes (K, K)."""
    logs = problem.splines @ coef.reshape(NUM_SPLINES, -1) @ problem.splines.T
    peak = logs.max()
    masses = NODE_WEIGHTS[:, None] * NODE_WEIGHTS * np.exp(logs - peak)
    total = masses.sum()
    return float(coef @ problem.moments - peak - math.log(total) - 0.5 * coef @ form @ coef), masses / total


def _moments(problem: _Problem, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (m^2,) and covariance (m^2, m^2) of the tensor splines."""
    mean = (problem.splines.T @ masses @ problem.splines).reshape(-1)
    second = (problem.products.T @ masses @ problem.products).reshape((NUM_SPLINES,) * 4)
    return mean, second.transpose(0, 2, 1, 3).reshape(len(mean), -1) - np.outer(mean, mean)


class _Positions(NamedTuple):
    """Cells of scores, and the share of the cell's mass below each, as `locate` has them."""

    cell: np.ndarray
    below: np.ndarray


def _positions(scores: np.ndarray) -> _Positions:
    cell = np.searchsorted(NODES, scores, side="right")
    is_left = cell < MIDDLE
    mass = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in np.where(is_left, scores, -scores)])
    near = np.clip((mass - np.where(is_left, BELOW[cell], ABOVE[cell + 1])) / WIDTHS[cell], 0.0, 1.0)
    return _Positions(cell, np.where(is_left, near, 1 - near))


def _interpolate(values: np.ndarray, first: _Positions, second: _Positions) -> np.ndarray:
    """The bilinear density at positions."""
    ends = np.pad(values, 1, mode="edge")
    (i, s), (j, t) = first, second
    low = (1 - s) * ends[i, j] + s * ends[i + 1, j]
    high = (1 - s) * ends[i, j + 1] + s * ends[i + 1, j + 1]
    return (1 - t) * low + t * high
