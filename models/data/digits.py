"""The 8x8 handwritten digits that come with scikit-learn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kaem_ppl.arguments import as_count

from .dataset import Dataset

NUM_TRAIN = 1500
IMAGE_SHAPE = (8, 8)


class Digits(NamedTuple):
    """Images and their labels.

    Attributes:
        images: grey levels in [0, 1], float32, shape (num_images, 64), flattened 8x8 images.
        labels: the digits 0 to 9, shape (num_images,).

    Example:
        >>> from kaem_ppl.models import load_digits
        >>> images, labels = load_digits()
        >>> images.shape, labels[:5].tolist()
        ((1797, 64), [0, 1, 2, 3, 4])
    """

    images: np.ndarray
    labels: np.ndarray


def load_digits() -> Digits:
    """All 1,797 digits, in scikit-learn's order.

    Source: the test set of Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.

    Raises:
        ImportError: where scikit-learn is not installed; `pip install kaem-ppl[train]` brings it.

    Example:
        >>> from kaem_ppl.models import load_digits
        >>> load_digits().images.shape
        (1797, 64)
    """
    from sklearn import datasets

    digits: Any = datasets.load_digits()
    return Digits((digits.data / 16).astype(np.float32), digits.target)


def split_digits(seed: int = 0) -> tuple[Digits, Digits]:
    """Random disjoint sets of 1,500 digits to train on and 297 held out.

    Args:
        seed: of the shuffle.

    Example:
        >>> from kaem_ppl.models import split_digits
        >>> train, held_out = split_digits()
        >>> train.images.shape, held_out.images.shape
        ((1500, 64), (297, 64))
    """
    images, labels = load_digits()
    order = np.random.default_rng(as_count(seed, "seed", 0)).permutation(len(images))
    train, held_out = order[:NUM_TRAIN], order[NUM_TRAIN:]
    return Digits(images[train], labels[train]), Digits(images[held_out], labels[held_out])


@dataclass(frozen=True)
class DigitsImages:
    """The digits as a data set of images with one channel: `split_digits`, with its seed 0.

    Raises:
        ImportError: where scikit-learn is not installed; `pip install kaem-ppl[train]` brings it.

    Example:
        >>> from kaem_ppl.models import DigitsImages, load_dataset
        >>> load_dataset(DigitsImages()).values.shape
        (1500, 8, 8, 1)
    """

    folder = "digits"
    splits = ("train", "test")

    def downloads(self) -> tuple[()]:
        """None: scikit-learn has them."""
        return ()

    def load(self, root: Path, split: str, progress_bar: bool) -> Dataset:
        """One of the two parts."""
        images, labels = split_digits()[self.splits.index(split)]
        return Dataset(images.reshape(-1, *IMAGE_SHAPE, 1), labels)
