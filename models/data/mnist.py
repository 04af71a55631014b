"""MNIST and Fashion-MNIST: 28 x 28 grey images of ten classes, in IDX files of the same names."""

from dataclasses import dataclass
from pathlib import Path

from .dataset import Dataset
from .fetch import DataFile, DataFileError, Download, find_files
from .idx import read_idx

IMAGE_SHAPE = (28, 28)
NUM_CLASSES = 10


@dataclass(frozen=True)
class IDXImages:
    """Images and labels in four IDX files, two for each split.

    Attributes:
        folder: name of the data set's folder.
        base_url: address that the file names complete.
        md5: checksums of the images and labels to train on, then of those to test on.

    Sources: LeCun, Cortes and Burges, The MNIST database of handwritten digits, 1998; Xiao, Rasul and Vollgraf 2017,
    arXiv 1708.07747.
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
