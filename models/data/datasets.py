"""All data sets by name, and functions that download and load them."""

from pathlib import Path
from typing import Protocol

from kaem_ppl.arguments import describe

from .celeba import CelebA
from .cifar10 import CIFAR10
from .darcy_flow import DarcyFlow
from .dataset import Dataset
from .digits import DigitsImages
from .fetch import Download, data_dir, fetch
from .mnist import IDXImages
from .penn_treebank import PennTreebank
from .sms_spam import SMSSpam
from .svhn import SVHN


class DatasetSource(Protocol):
    """A data set before it is loaded: a frozen value, whose fields are the settings of its preprocessing.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import Dataset, load_dataset
        >>> class Noise:  # a data set of one's own, which downloads nothing
        ...     folder, splits = "noise", ("train",)
        ...     def downloads(self):
        ...         return ()
        ...     def load(self, root, split, progress_bar):
        ...         return Dataset(np.random.default_rng(0).normal(size=(50, 3)))
        >>> load_dataset(Noise()).values.shape
        (50, 3)
    """

    @property
    def folder(self) -> str:
        """Name of its folder in `data_dir()`."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of its parts."""
        ...

    def downloads(self) -> tuple[Download, ...]:
        """Where its files come from."""
        ...

    def load(self, root: Path, split: str, progress_bar: bool) -> Dataset:
        """Read one part from its folder in `root`."""
        ...


DATASETS: dict[str, DatasetSource] = {
    "DIGITS": DigitsImages(),
    "MNIST": IDXImages(
        "mnist",
        # A mirror of files that their authors no longer serve.
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    "FASHION_MNIST": IDXImages(
        "fashion_mnist",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
    "CIFAR10": CIFAR10(),
    "SVHN": SVHN(),
    "CELEBA": CelebA(),
    "PENN_TREEBANK": PennTreebank(),
    "SMS_SPAM": SMSSpam(),
    "DARCY_FLOW": DarcyFlow(),
}


def load_dataset(source: str | DatasetSource, split: str = "train", *, progress_bar: bool = True) -> Dataset:
    """Read one part of a data set from the files in `data_dir()`. Nothing is downloaded: see `fetch_dataset`.

    Images come as bytes where their files hold bytes; models take `to_unit_interval(dataset.values)`.

    Args:
        source: a name in `DATASETS`, or a value with other settings, such as `CelebA(size=32)`.
        split: "train", "test", or where there is one "valid".
        progress_bar: whether to show the progress, with tqdm, of work that takes minutes and is done once: unpacking
            CelebA, solving for Darcy flow.

    Raises:
        TypeError: `source` is neither a name nor a data set.
        ValueError: there is no such data set or split.
        FileNotFoundError: a file is missing; the message says which, and where it belongs.
        DataFileError: a file is truncated, damaged or of another format; the message says which, and what is wrong.

    Example:
        >>> from kaem_ppl.models import load_dataset
        >>> load_dataset("DIGITS", "test").values.shape
        (297, 8, 8, 1)
    """
    source = _find(source)
    if split not in source.splits:
        raise ValueError(f"`split` is {split!r}: expected one of {', '.join(source.splits)}.")
    return source.load(data_dir(), split, progress_bar)


def fetch_dataset(source: str | DatasetSource, *, progress_bar: bool = True) -> Path:
    """Download the files of a data set that are not in `data_dir()` yet.

    Args:
        source: a name in `DATASETS`, or a value.
        progress_bar: whether to show the number of bytes, with tqdm.

    Returns:
        The data set's folder.

    Raises:
        ImportError: pooch is not installed; `pip install kaem-ppl[train]` brings it.
        ValueError: there is no such data set.
        ConnectionError: an address can't be reached.
        DataFileError: the download is not the official file. It is not kept.

    Example:
        >>> from kaem_ppl.models import fetch_dataset
        >>> folder = fetch_dataset("DIGITS")  # comes with scikit-learn: there is nothing to download
        >>> folder.name
        'digits'
    """
    source = _find(source)
    folder = data_dir() / source.folder
    fetch(folder, source.downloads(), progress_bar)
    return folder


def _find(source: str | DatasetSource) -> DatasetSource:
    if not isinstance(source, str):
        if isinstance(source, type) or not hasattr(source, "splits"):
            raise TypeError(
                f"`source` must be one of {', '.join(DATASETS)}, or a value such as `CelebA(size=32)`, got "
                f"{describe(source)}."
            )
        return source
    if source not in DATASETS:
        raise ValueError(f"`source` is {source!r}: expected one of {', '.join(DATASETS)}.")
    return DATASETS[source]
