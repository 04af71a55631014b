"""SVHN: 32 x 32 colour images of house numbers' digits, in MATLAB files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset import Dataset
from .fetch import DataFile, DataFileError, Download, find_files

_FILES = {
    "train": DataFile("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
    "test": DataFile("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
}


@dataclass(frozen=True)
class SVHN:
    """73,257 digits to train on and 26,032 to test on, cropped.

    Source: Netzer et al., Reading digits in natural images with unsupervised feature learning, 2011.

    Example:
        >>> from kaem_ppl.models import SVHN, load_dataset
        >>> SVHN()
        SVHN()
        >>> load_dataset(SVHN()).values.shape  # doctest: +SKIP
        (73257, 32, 32, 3)
    """

    folder = "svhn"
    splits = ("train", "test")

    def downloads(self) -> tuple[Download, ...]:
        """One for each split."""
        base = "http://ufldl.stanford.edu/housenumbers/"
        return tuple(Download(base + file.name, (file,)) for file in _FILES.values())

    def load(self, root: Path, split: str, progress_bar: bool) -> Dataset:
        """Read a split."""
        (path,) = find_files(root / self.folder, (_FILES[split],))
        return Dataset(*read_svhn(path))


def read_svhn(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one file: its arrays `X` (32, 32, 3, num_images) and `y`, in which 10 is the digit 0.

    Returns:
        Images, uint8, shape (num_images, 32, 32, 3), and labels 0 to 9.

    Raises:
        DataFileError: it is not a MATLAB 5 file, it is truncated or damaged, or its arrays are not these.
    """
    from scipy import io

    with path.open("rb") as file:
        header = file.read(19)
    if header != b"MATLAB 5.0 MAT-file":
        raise DataFileError(f"{path} starts with {header!r}: expected b'MATLAB 5.0 MAT-file'.")
    try:
        arrays = io.loadmat(path, variable_names=("X", "y"))
    # SciPy's reader raises many kinds of errors on damaged bytes: zlib.error, ValueError, TypeError, OSError, ...
    except Exception as error:
        raise DataFileError(f"{path} is truncated or damaged: {type(error).__name__}: {error}") from error
    for name in ("X", "y"):
        if name not in arrays:
            raise DataFileError(f"{path} has no array {name!r}: it is truncated, or not a file of cropped digits.")
    images, labels = arrays["X"], arrays["y"].ravel()
    if images.ndim != 4 or images.shape[:3] != (32, 32, 3) or images.dtype != np.uint8 or not images.size:
        raise DataFileError(
            f"{path} has an array X of {images.dtype} and shape {images.shape}: expected uint8, (32, 32, 3, num_images)."
        )
    if len(labels) != images.shape[3]:
        raise DataFileError(f"{path} has {len(labels)} labels for {images.shape[3]} images.")
    if not np.isin(labels, np.arange(1, 11)).all():
        raise DataFileError(f"{path} has labels from {labels.min()} to {labels.max()}: expected 1 to 10.")
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(int) % 10
