"""MNIST and Fashion-MNIST: 28 x 28 grey images of ten classes, in files of the IDX format."""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset import Dataset
from .fetch import DataFile, DataFileError, Download, find_files

IMAGE_SHAPE = (28, 28)
NUM_CLASSES = 10
# The type code of unsigned bytes in the magic number of an IDX file.
_UNSIGNED_BYTES = 0x08


@dataclass(frozen=True)
class IDXImages:
    """Images and labels in four IDX files, two for each split.

    Attributes:
        folder: name of the data set's folder.
        base_url: address that the file names complete.
        md5: checksums of the images and labels to train on, then of those to test on.

    Sources: LeCun, Cortes and Burges, The MNIST database of handwritten digits, 1998; Xiao, Rasul and Vollgraf 2017,
    arXiv 1708.07747.

    Example:
        >>> from kaem_ppl.models import DATASETS, load_dataset
        >>> DATASETS["MNIST"].folder
        'mnist'
        >>> load_dataset("MNIST").values.shape  # doctest: +SKIP
        (60000, 28, 28, 1)
    """

    folder: str
    base_url: str
    md5: tuple[str, str, str, str]

    splits = ("train", "test")

    def files(self, split: str) -> tuple[DataFile, DataFile]:
        """The file of the images and that of the labels."""
        prefix, first = {"train": ("train", 0), "test": ("t10k", 2)}[split]
        return (
            DataFile(f"{prefix}-images-idx3-ubyte.gz", self.md5[first]),
            DataFile(f"{prefix}-labels-idx1-ubyte.gz", self.md5[first + 1]),
        )

    def downloads(self) -> tuple[Download, ...]:
        """One for each file."""
        files = (file for split in self.splits for file in self.files(split))
        return tuple(Download(self.base_url + file.name, (file,)) for file in files)

    def load(self, root: Path, split: str, progress_bar: bool) -> Dataset:
        """Read a split."""
        image_path, label_path = find_files(root / self.folder, self.files(split))
        images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
        if images.shape[1:] != IMAGE_SHAPE:
            raise DataFileError(f"{image_path} holds images of {images.shape[1:]} pixels: expected {IMAGE_SHAPE}.")
        if len(images) == 0:
            raise DataFileError(f"{image_path} holds no image.")
        if len(images) != len(labels):
            raise DataFileError(f"{label_path} has {len(labels)} labels for the {len(images)} images beside it.")
        if labels.max() >= NUM_CLASSES:
            raise DataFileError(f"{label_path} holds the label {labels.max()}: expected 0 to {NUM_CLASSES - 1}.")
        return Dataset(images[..., None], labels.astype(int))


def read_idx(path: Path, num_axes: int) -> np.ndarray:
    """An array of bytes from a gzipped IDX file.

    Args:
        path: the file.
        num_axes: the number of axes it should have, 3 for images and 1 for labels.

    Returns:
        An array of uint8.

    Raises:
        DataFileError: the file is not gzipped, is truncated, has another magic number, or another size than its header.

    Source: LeCun, Cortes and Burges, The MNIST database of handwritten digits, 1998: file formats.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except EOFError as error:
        raise DataFileError(f"{path} is truncated: its gzip stream has no end.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataFileError(f"{path} is damaged or not gzipped: {error}.") from error
    header = 4 + 4 * num_axes
    magic, expected = content[:4], bytes((0, 0, _UNSIGNED_BYTES, num_axes))
    if magic != expected:
        raise DataFileError(
            f"{path} has the magic number 0x{magic.hex()} where an IDX file of bytes with {num_axes} "
            f"{'axis' if num_axes == 1 else 'axes'} has 0x{expected.hex()}."
        )
    if len(content) < header:
        raise DataFileError(f"{path} is truncated: its header has {len(content)} bytes of {header}.")
    shape = tuple(np.frombuffer(content, ">u4", num_axes, offset=4).tolist())
    if len(content) - header != math.prod(shape):
        raise DataFileError(
            f"{path} holds {len(content) - header:,} bytes of data where its header {shape} promises "
            f"{math.prod(shape):,}: it is truncated or damaged."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
