"""An estimate with its standard error, by leaving out one group of data after another."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kaem_ppl.arguments import as_count


class DistanceEstimate(NamedTuple):
    """A distance between two laws, estimated from samples.

    Attributes:
        value: may be below 0, where the bias has been taken out of the estimate of a distance near 0.
        std_error: by the jackknife over groups of both samples. It is right where the laws differ; where they are equal it
            is too large, by a factor of about the square root of 2.

    Example:
        >>> from kaem_ppl.models import DistanceEstimate
        >>> print(DistanceEstimate(3.25, 0.4))
        3.25 +- 0.4
    """

    value: float
    std_error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.std_error:.2g}"


def as_features(x: Any, name: str) -> np.ndarray:
    """Features as an array (n, d) of double precision.

    Raises:
        ValueError: they have another shape, or are not finite.
    """
    features = np.asarray(x, float)
    if features.ndim != 2:
        raise ValueError(f"`{name}` must be features of shape (n, d), one row for each image, got {features.shape}.")
    if not np.isfinite(features).all():
        raise ValueError(f"`{name}` has features that are not finite: check the images and the network.")
    return features


def check_pair(x: Any, y: Any, num_groups: int, least_of_a_group: int = 1) -> tuple[np.ndarray, np.ndarray, int]:
    """Both sets of features, of one width, and the number of groups that each is divided into.

    Raises:
        ValueError: shapes do not fit each other, or there are too few rows.
    """
    number = as_count(num_groups, "num_groups", 4)
    x, y = as_features(x, "x"), as_features(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"`x` has {x.shape[1]} features and `y` has {y.shape[1]}: expected the same network for both.")
    for name, rows in (("x", x), ("y", y)):
        if len(rows) < number * least_of_a_group:
            raise ValueError(
                f"`{name}` has {len(rows)} rows: expected at least {number * least_of_a_group}, {least_of_a_group} for "
                f"each of the {number} groups of `num_groups`."
            )
    return x, y, number


def jackknife(estimate: Callable[[np.ndarray], float], num_groups: int) -> DistanceEstimate:
    """The estimate from all groups, and its standard error from all but one (Efron and Stein 1981).

    Args:
        estimate: from the numbers of the groups that count.
        num_groups: of them.
    """
    every = np.arange(num_groups)
    without = np.array([estimate(np.delete(every, group)) for group in every])
    variance = (num_groups - 1) / num_groups * np.square(without - without.mean()).sum()
    return DistanceEstimate(estimate(every), float(np.sqrt(variance)))
