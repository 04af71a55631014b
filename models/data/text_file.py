"""Read UTF-8 text files line by line, and detect truncated ones."""

from pathlib import Path

from .fetch import DataFileError


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text file, without their ends.

    Raises:
        DataFileError: the file is not UTF-8, or its last line does not end: it was cut off.
    """
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise DataFileError(f"{path} is damaged, or not UTF-8 text: byte {error.start} can't be read.") from error
    if not text.endswith("\n"):
        raise DataFileError(f"{path} does not end with a line end: it is truncated.")
    # Not `splitlines`: messages may hold other characters that it takes for line ends.
    return [line.removesuffix("\r") for line in text[:-1].split("\n")]
