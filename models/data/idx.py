"""The IDX format of MNIST: bytes, big-endian, behind a magic number and the size of each axis."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from .fetch import DataFileError

_UNSIGNED_BYTES = 0x08


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
