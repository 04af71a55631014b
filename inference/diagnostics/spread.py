"""How well draws know their own standard deviation, on which the standard error of a mean rests."""

import numpy as np

_BLOCK = 1_000_000


def error_of_deviation(x: np.ndarray, ess: np.ndarray) -> np.ndarray:
    """Standard error of the standard deviation of each element, relative to it.

    By the delta method, sqrt((kurtosis - 1) / ess) / 2: of normal draws 1 / sqrt(2 ess). Of a heavy tail it is larger, and
    where the fourth moment does not exist it falls more slowly than the root of the number of draws.

    Args:
        x: draws of D elements, shape (..., D).
        ess: effective sample size of each, shape (D,).

    Returns:
        Shape (D,); 0 for an element that never moves.
    """
    rows, blocks = x.reshape(-1, x.shape[-1]), []
    step = max(1, _BLOCK // max(len(rows), 1))
    for start in range(0, rows.shape[1], step):
        centred = rows[:, start : start + step].astype(float)
        centred -= centred.mean(0)
        # Of the largest one, so that fourth powers neither overflow nor vanish.
        size = np.abs(centred).max(0)
        squares = np.square(centred / np.where(size > 0, size, 1.0))
        variance = squares.mean(0)
        blocks.append(np.square(squares).mean(0) / np.where(variance > 0, variance, 1.0) ** 2)
    kurtosis = np.concatenate(blocks)
    return 0.5 * np.sqrt(np.maximum(kurtosis - 1, 0.0) / ess)
