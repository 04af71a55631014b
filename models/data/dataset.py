"""What every data set is once it is loaded: arrays whose first axis runs over the data."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from .vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data, and what is known of each.

    Attributes:
        values: shape (num_data, ...). Images are (num_data, height, width, channels), bytes from 0 to 255 (uint8, a
            quarter of the memory of floats; `to_unit_interval` makes grey levels of a batch) or grey levels in [0, 1]
            (float32). Fields are (num_data, height, width, 1), float32. Texts are tokens (num_data, length), int32.
        labels: classes, integers of shape (num_data,); None where there are none.
        vocabulary: of texts, what their tokens stand for; None for other data.
        unit: what 1 in `values` is worth in the data's own unit; only fields have another one than 1.
    """

    values: np.ndarray
    labels: np.ndarray | None = None
    vocabulary: Vocabulary | None = None
    unit: float = 1.0

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: ArrayLike) -> "Dataset":
        """The data of these rows, integers or a slice, in their order."""
        return replace(self, values=self.values[rows], labels=None if self.labels is None else self.labels[rows])
