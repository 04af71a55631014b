"""The Frechet distance of Gaussians fitted to features, and its extrapolation to infinitely many images."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from .estimate import DistanceEstimate, as_features, check_pair, jackknife

# Shares of the images that the distance is extrapolated from.
_SHARES = (0.25, 0.5, 1.0)


class Moments(NamedTuple):
    """Number, sums, and sums of products of features.

    Attributes:
        count: n.
        total: shape (d,).
        products: shape (d, d).
    """

    count: int
    total: np.ndarray
    products: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Shape (d,)."""
        return self.total / self.count

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, shape (d, d)."""
        mean = self.mean
        return (self.products - self.count * np.outer(mean, mean)) / (self.count - 1)


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """The squared Frechet (2-Wasserstein) distance of Gaussians fitted to two sets of features.

        sum (m_x - m_y)^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))

    Of finitely many images it is too large on average, by about a constant over their number, also between two samples of
    one law: see `extrapolated_frechet_distance`.

    Args:
        x: features of shape (n, d), n at least 2.
        y: features of shape (m, d).

    Raises:
        ValueError: shapes do not fit each other, or numbers are not finite.

    Sources: Dowson and Landau 1982, eq. 4; Heusel et al. 2017, arXiv 1706.08500.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import frechet_distance
        >>> x, y = np.random.default_rng(0).normal(size=(2, 400, 3))
        >>> bool(frechet_distance(x, y + 1) > 2.5)  # of the laws: 3
        True
    """
    x, y = as_features(x, "x"), as_features(y, "y")
    if x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"`x` and `y` must have as many features, and 2 rows or more, got {x.shape} and {y.shape}.")
    centre = x.mean(0)
    return _distance(_moments(x - centre), _moments(y - centre))


def extrapolated_frechet_distance(x: ArrayLike, y: ArrayLike, num_groups: int = 20, seed: int = 0) -> DistanceEstimate:
    """The Frechet distance of infinitely many images, which has no bias of order 1 over their number.

    Distances of a quarter, a half, and all of the images lie on a line in 1 over the share; it is followed to 0. Both sets
    are shuffled once and divided into groups, and shares are whole groups.

    Args:
        x: features of shape (n, d); n should exceed d severalfold.
        y: features of shape (m, d).
        num_groups: groups that the standard error is estimated from, by leaving out one after another. The matrices of a
            pair of sets, (d, d), are decomposed about 7 times for each.
        seed: of the shuffle.

    Raises:
        ValueError: shapes do not fit each other, numbers are not finite, or there are too few.

    Source: Chong and Forsyth 2020, arXiv 1911.07023, eq. 4, who keep the real images as they are; here both sets shrink.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import extrapolated_frechet_distance
        >>> x, y = np.random.default_rng(0).normal(size=(2, 400, 3))
        >>> estimate = extrapolated_frechet_distance(x, y)
        >>> abs(estimate.value) < 4 * estimate.std_error
        True
    """
    x, y, number = check_pair(x, y, num_groups, 4)
    rng, centre = np.random.default_rng(seed), x.mean(0)
    groups = [
        [_moments(part - centre) for part in np.array_split(rows[rng.permutation(len(rows))], number)]
        for rows in (x, y)
    ]

    def extrapolate(kept: np.ndarray) -> float:
        inverses, distances = [], []
        for share in _SHARES:
            size = max(1, round(share * len(kept)))
            starts = range(0, len(kept) - size + 1, size)
            found = [_distance(*(_merge(one, kept[start : start + size]) for one in groups)) for start in starts]
            inverses.append(len(kept) / size)
            distances.append(np.mean(found))
        return float(np.polynomial.Polynomial.fit(inverses, distances, 1)(0.0))

    return jackknife(extrapolate, number)


def _moments(x: np.ndarray) -> Moments:
    return Moments(len(x), x.sum(0), x.T @ x)


def _merge(groups: list[Moments], kept: np.ndarray) -> Moments:
    chosen = [groups[index] for index in kept]
    return Moments(
        sum(one.count for one in chosen), np.sum([one.total for one in chosen], 0),
        np.sum([one.products for one in chosen], 0),
    )  # fmt: skip


def _distance(x: Moments, y: Moments) -> float:
    of_x, of_y = x.covariance, y.covariance
    # With A A^T = C_x, the trace of (C_x C_y)^(1/2) is that of (A^T C_y A)^(1/2): symmetric, also where C_x is singular.
    values, vectors = np.linalg.eigh(of_x)
    factor = vectors * np.sqrt(np.maximum(values, 0))
    root = np.sqrt(np.maximum(np.linalg.eigvalsh(factor.T @ of_y @ factor), 0)).sum()
    return float(np.square(x.mean - y.mean).sum() + np.trace(of_x) + np.trace(of_y) - 2 * root)
