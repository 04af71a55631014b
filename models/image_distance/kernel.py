"""The kernel distance of two sets of features: an unbiased estimate of a squared maximum mean discrepancy."""

import numpy as np
from jax.typing import ArrayLike

from .estimate import DistanceEstimate, check_pair, jackknife

# Rows whose kernel is computed at once.
_ROWS = 1024


def kernel_distance(x: ArrayLike, y: ArrayLike, num_groups: int = 20, seed: int = 0) -> DistanceEstimate:
    """The squared maximum mean discrepancy by the kernel k(a, b) = (a.b / d + 1)^3, without bias.

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

    Args:
        x: features of shape (n, d).
        y: features of shape (m, d).
        num_groups: groups that the standard error is estimated from, by leaving out one after another.
        seed: of the shuffle before the division into groups.

    Raises:
        ValueError: shapes do not fit each other, numbers are not finite, or there are too few.

    Source: Binkowski et al. 2018, arXiv 1801.01401, eq. 4 and section 4.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import kernel_distance
        >>> x, y = np.random.default_rng(0).normal(size=(2, 400, 3))
        >>> kernel_distance(x, y + 1).value > 5 * kernel_distance(x, y + 1).std_error
        True
    """
    x, y, number = check_pair(x, y, num_groups)
    rng = np.random.default_rng(seed)
    x, y = (rows[rng.permutation(len(rows))] for rows in (x, y))
    sizes = [np.array([len(part) for part in np.array_split(rows, number)]) for rows in (x, y)]
    of_x, of_y, between = (
        _sums(first, second, *counts)
        for first, second, counts in ((x, x, (sizes[0],) * 2), (y, y, (sizes[1],) * 2), (x, y, sizes))
    )
    # The diagonals, which the estimate leaves out, by group.
    own = [
        np.add.reduceat((np.square(rows).sum(1) / rows.shape[1] + 1) ** 3, np.append(0, count.cumsum()[:-1]))
        for rows, count in zip((x, y), sizes, strict=True)
    ]

    def estimate(kept: np.ndarray) -> float:
        n, m = (count[kept].sum() for count in sizes)
        place = np.ix_(kept, kept)
        within = [
            (sums[place].sum() - diagonal[kept].sum()) / (size * (size - 1))
            for sums, diagonal, size in ((of_x, own[0], n), (of_y, own[1], m))
        ]
        return float(sum(within) - 2 * between[place].sum() / (n * m))

    return jackknife(estimate, number)


def _sums(x: np.ndarray, y: np.ndarray, of_x: np.ndarray, of_y: np.ndarray) -> np.ndarray:
    """Sums of the kernel over pairs of groups, whose sizes are given; shape (groups of x, groups of y)."""
    starts = np.append(0, of_y.cumsum()[:-1])
    by_row = [
        np.add.reduceat((x[row : row + _ROWS] @ y.T / x.shape[1] + 1) ** 3, starts, axis=1)
        for row in range(0, len(x), _ROWS)
    ]
    return np.add.reduceat(np.concatenate(by_row), np.append(0, of_x.cumsum()[:-1]), axis=0)
