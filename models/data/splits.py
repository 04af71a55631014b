"""Random disjoint parts of a data set, by seed."""

from collections.abc import Sequence

import numpy as np

from kaem_ppl.arguments import as_count, as_shape, check_kind

from .dataset import Dataset


def split_dataset(dataset: Dataset, sizes: Sequence[int], seed: int = 0) -> tuple[Dataset, ...]:
    """Disjoint random parts.

    Args:
        dataset: what is divided.
        sizes: number of data of each part; together at most all, and what is left is left out.
        seed: of the shuffle. The first parts do not depend on the sizes of the later ones.

    Raises:
        TypeError: `dataset` is no `Dataset`.
        ValueError: a size is negative, or the parts need more data than there are.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import Dataset, split_dataset
        >>> train, test = split_dataset(Dataset(np.arange(10.0)), (7, 3))
        >>> train.values.shape, test.values.shape
        ((7,), (3,))
    """
    check_kind(dataset, Dataset, "dataset", "a `Dataset`, as `load_dataset` returns")
    sizes = list(as_shape(sizes, "sizes"))
    if sum(sizes) > len(dataset):
        raise ValueError(f"`sizes` is {list(sizes)}, {sum(sizes)} together: the data set has only {len(dataset)}.")
    order = np.random.default_rng(as_count(seed, "seed", 0)).permutation(len(dataset))
    return tuple(dataset.take(rows) for rows in np.split(order, np.cumsum(sizes))[:-1])


def subset(dataset: Dataset, num_data: int, seed: int = 0) -> Dataset:
    """`num_data` random data without repetition.

    Raises:
        ValueError: there are fewer than that.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import Dataset, subset
        >>> subset(Dataset(np.arange(10.0)), 4).values.shape
        (4,)
    """
    return split_dataset(dataset, [as_count(num_data, "num_data", 0)], seed)[0]
