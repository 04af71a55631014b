"""The bias of the logarithm of a mean of weights, which is small for one datum and adds up over many."""

from typing import NamedTuple

import numpy as np

# Where one batch carries nearly all the weight, the mean without it is unknown: it is taken to be this much smaller.
_LARGEST_SHARE = 0.9


class LogBias(NamedTuple):
    """What a logarithm of a mean is on average less than the logarithm of what is estimated, N data.

    Attributes:
        bias: by the jackknife, shape (N,).
        common_error: by how much the jackknife and the delta method disagree about it: the same way for all data,
            shape (N,).
        std_error_of_sum: of the sum of the N logarithms.
    """

    bias: np.ndarray
    common_error: np.ndarray
    std_error_of_sum: float


def bias_of_log_mean(log_shares: np.ndarray, sizes: np.ndarray, std_error: np.ndarray, *, are_shared: bool) -> LogBias:
    """The jackknife of log mean w over batches of draws, which leaves a bias of the second order (Efron 1982, ch. 2).

    To first order the bias is minus half the variance of the logarithm. That second orders are small is not taken for
    granted: what they do to the two estimates differs by about as much as they are.

    Args:
        log_shares: of each batch in the sum of weights, shape (B, N), B at least 2.
        sizes: draws of each batch, shape (B,).
        std_error: of the logarithms by the delta method, shape (N,).
        are_shared: whether all data have the same draws, so that their errors are not independent.
    """
    number = len(sizes)
    with np.errstate(invalid="ignore", over="ignore"):
        shares = np.minimum(np.exp(log_shares), _LARGEST_SHARE)
        # Logarithms without a batch, less the whole one.
        moves = np.log1p(-shares) - np.log1p(-sizes / sizes.sum())[:, None]
    bias = (number - 1) * moves.mean(0)
    moves = moves - moves.mean(0)
    squares = np.square(moves.sum(1)) if are_shared else np.square(moves)
    return LogBias(bias, bias + 0.5 * np.square(std_error), float(np.sqrt((number - 1) / number * squares.sum())))


def bias_of_log_estimate(std_error: np.ndarray) -> np.ndarray:
    """Minus half the variance: the bias to first order, where there are no batches to read it from."""
    return -0.5 * np.square(std_error)


def add_up(
    value: np.ndarray, std_error: np.ndarray, bias: np.ndarray, common_error: np.ndarray, std_error_of_sum: float | None
) -> tuple[float, float]:
    """The sum over data without the bias of logarithms, and its error: that of chance, and what data have in common.

    Args:
        value: shape (N,).
        std_error: shape (N,).
        bias: shape (N,).
        common_error: shape (N,).
        std_error_of_sum: by chance, where it is known; None adds the squares of `std_error`.
    """
    by_chance = np.sqrt(np.square(std_error).sum()) if std_error_of_sum is None else std_error_of_sum
    return float((value - bias).sum()), float(np.hypot(by_chance, common_error.sum()))
