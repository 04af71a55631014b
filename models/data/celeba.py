"""CelebA: photographs of faces, aligned, as JPEG files in a zip archive."""

import io
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kaem_ppl.arguments import set_counts

from .dataset import Dataset
from .fetch import DataFile, DataFileError, Download, find_files

if TYPE_CHECKING:
    from PIL import Image

_IMAGES = DataFile("img_align_celeba.zip", "00d2c5bc6d35e252742224ab0c1e8fcb")
_PARTITION = DataFile("list_eval_partition.txt", "d32c9cbf5e040fd4025c592c306e6668")
# The official address is a folder of Google Drive; these are its files.
_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="


@dataclass(frozen=True)
class CelebA:
    """202,599 faces in the official three parts, the central square of each.

    The first time, images are unpacked and reduced, which takes minutes, into one file of bytes beside the archive. From
    then on that file is mapped into memory: `values` holds no more of it than is read.

    Attributes:
        size: height and width, in pixels.

    Raises:
        ValueError: `size` is not positive.

    Source: Liu, Luo, Wang and Tang 2015, arXiv 1411.7766.

    Example:
        >>> from kaem_ppl.models import CelebA, load_dataset
        >>> CelebA(size=32)
        CelebA(size=32)
        >>> load_dataset(CelebA(size=32)).values.shape  # doctest: +SKIP
        (162770, 32, 32, 3)
    """

    size: int = 64

    folder = "celeba"
    splits = ("train", "valid", "test")

    def __post_init__(self) -> None:
        set_counts(self, size=1)

    def downloads(self) -> tuple[Download, ...]:
        """The photographs, and which part each belongs to."""
        return (
            Download(f"{_DRIVE}0B7EVK8r0v71pY0NSMzRuSXJEVkk", (_PARTITION,)),
            Download(f"{_DRIVE}0B7EVK8r0v71pZjFTYXZWM3FlRnM", (_IMAGES,)),
        )

    def load(self, root: Path, split: str, progress_bar: bool) -> Dataset:
        """Read a split."""
        archive, partition = find_files(root / self.folder, (_IMAGES, _PARTITION))
        names = read_partition(partition)[split]
        if not names:
            raise DataFileError(f"{partition} names no image of the split {split!r}.")
        # Another archive or another list is another file: the name depends on both.
        version = f"{archive.stat().st_size:x}-{archive.stat().st_mtime_ns:x}-{partition.stat().st_mtime_ns:x}"
        reduced = root / self.folder / f"{split}-{self.size}-{version}.npy"
        if not reduced.exists():
            _reduce(archive, names, self.size, reduced, progress_bar)
        try:
            images = np.load(reduced, mmap_mode="r")
        except (ValueError, OSError, EOFError) as error:
            raise DataFileError(f"{reduced} is damaged: {error}. Delete it; it is made again.") from error
        if images.shape != (len(names), self.size, self.size, 3):
            raise DataFileError(f"{reduced} holds {images.shape}. Delete it; it is made again.")
        return Dataset(images)


def read_partition(path: Path) -> dict[str, list[str]]:
    """File names of each split, from lines `NAME NUMBER`, 0 for train, 1 for valid and 2 for test.

    Raises:
        DataFileError: a line is something else, or the last one is cut off.
    """
    names: dict[str, list[str]] = {split: [] for split in CelebA.splits}
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.endswith("\n"):
        raise DataFileError(f"{path} does not end with a line end: it is truncated.")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise DataFileError(f"{path} has {line[:80]!r} in line {number}: expected a file name and 0, 1 or 2.")
        names[CelebA.splits[int(words[1])]].append(words[0])
    return names


def _reduce(archive: Path, names: list[str], size: int, path: Path, progress_bar: bool) -> None:
    """Write the images, reduced, as one array; the file has its name only once it is complete."""
    from PIL import Image, UnidentifiedImageError
    from tqdm import tqdm

    # A unique name: several processes may start on the same data.
    part = path.with_suffix(f".{os.getpid()}.part")
    shape = (len(names), size, size, 3)
    try:
        with zipfile.ZipFile(archive) as photographs, part.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for name in tqdm(names, "CelebA", disable=not progress_bar):
                try:
                    image = Image.open(io.BytesIO(photographs.read(f"img_align_celeba/{name}"))).convert("RGB")
                except KeyError as error:
                    raise DataFileError(f"{archive} has no img_align_celeba/{name}.") from error
                except (UnidentifiedImageError, OSError, SyntaxError, zlib.error) as error:
                    raise DataFileError(f"{archive} has a damaged img_align_celeba/{name}: {error}.") from error
                file.write(np.asarray(_central_square(image).resize((size, size), Image.Resampling.BILINEAR)).tobytes())
        os.replace(part, path)
    except zipfile.BadZipFile as error:
        raise DataFileError(f"{archive} is truncated or damaged: {error}.") from error
    finally:
        part.unlink(missing_ok=True)


def _central_square(image: "Image.Image") -> "Image.Image":
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
