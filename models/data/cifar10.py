"""CIFAR-10: 32 x 32 colour images of ten classes, in the binary version of its files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset import Dataset
from .fetch import DataFile, DataFileError, Download, find_files, read_checksums

NUM_CLASSES = 10
_IMAGE_BYTES = 3 * 32 * 32
_RECORD_BYTES = 1 + _IMAGE_BYTES
# The archive's checksum is published, those of the files in it are not.
_FILES = {
    "train": tuple(DataFile(f"data_batch_{index}.bin") for index in range(1, 6)),
    "test": (DataFile("test_batch.bin"),),
}


@dataclass(frozen=True)
class CIFAR10:
    """50,000 images to train on and 10,000 to test on. Some of the five training files suffice.

    Source: Krizhevsky, Learning multiple layers of features from tiny images, 2009.

    Example:
        >>> from kaem_ppl.models import CIFAR10, load_dataset
        >>> CIFAR10()
        CIFAR10()
        >>> load_dataset(CIFAR10()).values.shape  # doctest: +SKIP
        (50000, 32, 32, 3)
    """

    folder = "cifar10"
    splits = ("train", "test")

    def downloads(self) -> tuple[Download, ...]:
        """One archive."""
        files = (*_FILES["train"], *_FILES["test"])
        return (
            Download(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                files,
                "c32a1d4ab5d03f1284b67883e8d87530",
                tuple(f"cifar-10-batches-bin/{file.name}" for file in files),
            ),
        )

    def load(self, root: Path, split: str, progress_bar: bool) -> Dataset:
        """Read a split."""
        folder = root / self.folder
        # All downloaded files must still exist; of files that a user put there, some suffice.
        downloaded = read_checksums(folder)
        present = [file for file in _FILES[split] if file.name in downloaded or (folder / file.name).exists()]
        # If there is none, the error names the first.
        present = present or _FILES[split][:1]
        images, labels = zip(*map(read_cifar10, find_files(folder, present)), strict=True)
        return Dataset(np.concatenate(images), np.concatenate(labels))


def read_cifar10(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one file: for each image the byte of its label, and the planes of red, green and blue.

    Returns:
        Images, uint8, shape (num_images, 32, 32, 3), and labels 0 to 9.

    Raises:
        DataFileError: the file's size is not a whole number of records, or a label is not below 10.
    """
    content = np.fromfile(path, np.uint8)
    if len(content) == 0 or len(content) % _RECORD_BYTES:
        raise DataFileError(
            f"{path} has {len(content):,} bytes, not a whole number of records of {_RECORD_BYTES:,}: it is truncated, or "
            "not the binary version of CIFAR-10."
        )
    records = content.reshape(-1, _RECORD_BYTES)
    labels = records[:, 0].astype(int)
    if labels.max() >= NUM_CLASSES:
        record = int(np.argmax(labels >= NUM_CLASSES))
        raise DataFileError(
            f"{path} is damaged, or not the binary version of CIFAR-10: record {record} has the label {labels[record]}, "
            f"expected 0 to {NUM_CLASSES - 1}."
        )
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels
