"""Download and verify data files.

A downloaded file is checked against its checksum when it arrives and whenever it is read: the checksum is in the same
folder, in `downloaded.md5`, which `md5sum --check` reads too. Of a file that a user put there, the format is checked.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_logger = logging.getLogger(__name__)
_CHECKSUMS = "downloaded.md5"


class DataFileError(ValueError):
    """A data file is truncated, damaged, empty, or of another format; the message names it.

    Example:
        >>> import os, pathlib, tempfile
        >>> from unittest import mock
        >>> from kaem_ppl.models import DataFileError, load_dataset
        >>> with tempfile.TemporaryDirectory() as root, mock.patch.dict(os.environ, KAEM_DATA_DIR=root):
        ...     folder = pathlib.Path(root, "cifar10")
        ...     folder.mkdir()
        ...     size = (folder / "test_batch.bin").write_bytes(b"cut off")
        ...     try:
        ...         load_dataset("CIFAR10", "test")
        ...     except DataFileError as error:
        ...         print("a whole number of records" in str(error))
        True
    """


@dataclass(frozen=True)
class DataFile:
    """A file of a data set.

    Attributes:
        name: its name in the data set's folder.
        md5: checksum of the official file; None where it is not published, so that only the format can be checked.
    """

    name: str
    md5: str | None = None


@dataclass(frozen=True)
class Download:
    """Where files of a data set come from.

    Attributes:
        url: address.
        files: the one file itself, or the members of an archive that are kept.
        archive_md5: checksum of a zip or tar archive at `url`; None where it is not published.
        members: paths of the files inside the archive; empty where `url` is the file itself.
    """

    url: str
    files: tuple[DataFile, ...]
    archive_md5: str | None = None
    members: tuple[str, ...] = ()


def data_dir() -> Path:
    """The folder of all data sets: the environment variable `KAEM_DATA_DIR`, or the platform's cache folder.

    Example:
        >>> import os
        >>> from unittest import mock
        >>> from kaem_ppl.models import data_dir
        >>> with mock.patch.dict(os.environ, KAEM_DATA_DIR="/data"):
        ...     print(data_dir())
        /data
    """
    if folder := os.environ.get("KAEM_DATA_DIR"):
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("kaem-ppl"))


def fetch(folder: Path, downloads: Iterable[Download], progress_bar: bool = True) -> None:
    """Download the files that are not in the folder yet. Existing files are not changed, whatever they are.

    Args:
        folder: of the data set; made where it is missing.
        downloads: where its files come from.
        progress_bar: whether to show the number of bytes, with tqdm.

    Raises:
        ImportError: pooch is not installed; `pip install kaem-ppl[train]` brings it.
        ConnectionError: the address can't be reached.
        DataFileError: the download is not the official file. It is not kept.
    """
    for download in downloads:
        missing = [file for file in download.files if not (folder / file.name).exists()]
        if missing:
            folder.mkdir(parents=True, exist_ok=True)
            _fetch_one(folder, download, missing, progress_bar)


def _fetch_one(folder: Path, download: Download, missing: list[DataFile], progress_bar: bool) -> None:
    import pooch

    names = ", ".join(file.name for file in missing)
    md5 = download.archive_md5 if download.members else download.files[0].md5
    # A unique name: several processes may start on the same data.
    part = folder / f"{missing[0].name}.{os.getpid()}.download"
    part.unlink(missing_ok=True)
    try:
        pooch.retrieve(
            download.url,
            None if md5 is None else f"md5:{md5}",
            part.name,
            folder,
            downloader=pooch.HTTPDownloader(progressbar=progress_bar),  # pyright: ignore[reportArgumentType]
        )
    except OSError as error:
        raise ConnectionError(
            f"{download.url} can't be fetched: {error}. Put {names} into {folder} yourself, or try again."
        ) from error
    except ValueError as error:
        raise DataFileError(
            f"{download.url} gave a file that is not the official one, which has MD5 {md5}. It was not kept; try again, or "
            f"put {names} into {folder} yourself."
        ) from error
    try:
        _keep(_unpack(part, folder, download, missing) if download.members else {missing[0]: part}, folder)
    finally:
        part.unlink(missing_ok=True)


def _unpack(archive: Path, folder: Path, download: Download, missing: list[DataFile]) -> dict[DataFile, Path]:
    """Extract the missing files of an archive under temporary names."""
    paths = dict(zip(download.files, download.members, strict=True))
    parts: dict[DataFile, Path] = {}
    try:
        with _open_archive(archive) as read:
            for file in missing:
                parts[file] = folder / f"{file.name}.{os.getpid()}.part"
                with read(paths[file]) as member, parts[file].open("wb") as copy:
                    shutil.copyfileobj(member, copy)
    except (zipfile.BadZipFile, zlib.error, tarfile.TarError, KeyError, EOFError) as error:
        _remove(parts.values())
        raise DataFileError(f"{download.url} gave an archive that can't be unpacked: {error}.") from error
    except BaseException:
        _remove(parts.values())
        raise
    return parts


@contextlib.contextmanager
def _open_archive(archive: Path) -> Iterator[Callable[[str], IO[bytes]]]:
    """A function that opens a member of a zip or tar archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as source:
            yield source.open
        return
    with tarfile.open(archive) as source:

        def read(name: str) -> IO[bytes]:
            member = source.extractfile(name)
            if member is None:
                raise KeyError(f"{name} is not a file")
            return member

        yield read


def _keep(parts: dict[DataFile, Path], folder: Path) -> None:
    """Rename complete files; checksums are written first, so that a file that is lost on the way is reported as missing."""
    checksums = {file.name: _md5(part) for file, part in parts.items()}
    for file in parts:
        if file.md5 not in (None, checksums[file.name]):
            _remove(parts.values())
            raise DataFileError(
                f"{file.name} came with MD5 {checksums[file.name]} where the official one has {file.md5}. It was not kept."
            )
    lines = "".join(f"{md5}  {name}\n" for name, md5 in {**read_checksums(folder), **checksums}.items())
    new = folder / f"{_CHECKSUMS}.{os.getpid()}.part"
    new.write_text(lines)
    new.replace(folder / _CHECKSUMS)
    for file, part in parts.items():
        part.replace(folder / file.name)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def find_files(folder: Path, files: Iterable[DataFile]) -> list[Path]:
    """Paths of files that exist and pass their checks; one warning, in the log, if some are not the official ones.

    Args:
        folder: of the data set.
        files: its files.

    Raises:
        FileNotFoundError: a file is missing.
        DataFileError: a file is empty, or was downloaded and has changed since.
    """
    downloaded, paths, unofficial = read_checksums(folder), [], []
    for file in files:
        path = folder / file.name
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing. Download it by `kaem data NAME` or `kaem_ppl.models.fetch_dataset`, put the official "
                "file there, or set KAEM_DATA_DIR to the folder that holds the data sets' folders."
            )
        if path.stat().st_size == 0:
            raise DataFileError(f"{path} is empty. Delete it and fetch it again.")
        md5 = _md5(path)
        if file.name in downloaded and md5 != downloaded[file.name]:
            raise DataFileError(
                f"{path} was downloaded with MD5 {downloaded[file.name]} and has {md5} now: it is damaged. Delete it and "
                f"fetch it again; if you replaced it yourself, take its line out of {folder / _CHECKSUMS}."
            )
        if file.name not in downloaded and md5 != file.md5:
            unofficial.append(file.name)
        paths.append(path)
    if unofficial:
        _logger.warning(
            "%s: not known to be the official %s; the format alone is checked.",
            folder,
            "file " + unofficial[0] if len(unofficial) == 1 else "files " + ", ".join(unofficial),
        )
    return paths


def read_checksums(folder: Path) -> dict[str, str]:
    """Checksums of the files that were downloaded into a folder, by name.

    Raises:
        DataFileError: the list of them is damaged.
    """
    path = folder / _CHECKSUMS
    if not path.is_file():
        return {}
    # Bytes that are no text make lines that are no checksums.
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if any(len(line.split("  ", 1)) != 2 for line in lines):
        raise DataFileError(f"{path} has a line that is not an MD5 checksum, two spaces and a file name. Delete it.")
    return {name: md5 for md5, name in (line.split("  ", 1) for line in lines)}


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
