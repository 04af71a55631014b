"""A loaded data set: values, labels and vocabulary, arrays whose first axis runs over the data."""

from dataclasses import dataclass, replace

import numpy as np

from .vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data, with labels and vocabulary where they exist.

    Attributes:
        values: shape (num_data, ...). Images are (num_data, height, width, channels), bytes from 0 to 255 (uint8, a
            quarter of the memory of floats; `to_unit_interval` makes grey levels of a batch) or grey levels in [0, 1]
            (float32). Fields are (num_data, height, width, 1), float32. Texts are tokens (num_data, length), int32.
        labels: classes, integers of shape (num_data,); None where there are none.
        vocabulary: of texts, the meaning of their tokens; None for other data.
        unit: the physical value of 1 in `values`; other than 1 for fields only.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import Dataset
        >>> Dataset(np.zeros((100, 64), np.float32), labels=np.zeros(100, int)).values.shape
        (100, 64)
    """

    values: np.ndarray
    labels: np.ndarray | None = None
    vocabulary: Vocabulary | None = None
    unit: float = 1.0

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: np.ndarray | slice) -> "Dataset":
        """The data of these rows, integers or a slice, in their order."""
        return replace(self, values=self.values[rows], labels=None if self.labels is None else self.labels[rows])
