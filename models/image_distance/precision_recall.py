"""Precision and recall of generated images: how many look real, and how many real ones are reached."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from kaem_ppl.arguments import as_count

from .estimate import DistanceEstimate, as_features

_ROWS = 1024


class PrecisionRecall(NamedTuple):
    """Shares of images that lie near those of the other set, with binomial standard errors.

    Attributes:
        precision: of the generated images near real ones.
        recall: of the real images near generated ones.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import precision_recall
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> precision_recall(x, x).recall.value
        1.0
    """

    precision: DistanceEstimate
    recall: DistanceEstimate


def precision_recall(real: ArrayLike, generated: ArrayLike, num_neighbours: int = 3) -> PrecisionRecall:
    """Shares of images inside the other set's manifold, the union of balls that reach each image's k-th neighbour.

    Both depend on the numbers of images: compare models by as many images of each.

    Args:
        real: features of shape (n, d).
        generated: features of shape (m, d).
        num_neighbours: k.

    Raises:
        ValueError: shapes do not fit each other, numbers are not finite, or there are no k neighbours.

    Source: Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 1 and 2.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import precision_recall
        >>> x, y = np.random.default_rng(0).normal(size=(2, 400, 3))
        >>> found = precision_recall(x, 0.2 * y)  # generated close to the middle
        >>> found.precision.value > 0.9 > found.recall.value
        True
    """
    number = as_count(num_neighbours, "num_neighbours", 1)
    real, generated = as_features(real, "real"), as_features(generated, "generated")
    if real.shape[1] != generated.shape[1]:
        raise ValueError(f"`real` and `generated` must have as many features, got {real.shape} and {generated.shape}.")
    if min(len(real), len(generated)) <= number:
        raise ValueError(f"`num_neighbours` is {number}: expected fewer than the images of either set.")
    return PrecisionRecall(_share_inside(generated, real, number), _share_inside(real, generated, number))


def _share_inside(x: np.ndarray, others: np.ndarray, number: int) -> DistanceEstimate:
    """The share of x that lies in a ball around one of the others."""
    # The nearest of all is the image itself.
    radii = np.concatenate([np.partition(part, number, axis=1)[:, number] for part in _distances(others, others)])
    inside = np.concatenate([(part <= radii).any(1) for part in _distances(x, others)])
    share = float(inside.mean())
    return DistanceEstimate(share, float(np.sqrt(share * (1 - share) / len(x))))


def _distances(x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances, some rows of x at a time."""
    squares = np.square(y).sum(1)
    for start in range(0, len(x), _ROWS):
        part = x[start : start + _ROWS]
        yield np.maximum(np.square(part).sum(1)[:, None] - 2 * part @ y.T + squares, 0)
