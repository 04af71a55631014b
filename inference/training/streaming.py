"""Read batches of memory-mapped data ahead of the device, without keeping more of the files in memory."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ..model.data import check_data

# Numbers that are read together where all data are checked.
_NUMBERS_AT_ONCE = 2**24
# Numbers of batches that are read together, threads that read, and how often that much is kept ready.
_NUMBERS_AHEAD = 2**23
_NUM_THREADS = 2
_PARTS_AHEAD = 2


def is_streamed(data: Any) -> bool:
    """Whether a leaf is an `np.memmap`, as `np.load(path, mmap_mode="r")` gives it."""
    return any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves(data))


def check_streamed(data: Any, *, may_miss: bool = False) -> tuple[Any, int]:
    """Check data as `check_data` does, a part at a time, and leave them in their files.

    Args:
        data: pytree of arrays (num_data, ...), some of them memory maps.
        may_miss: whether NaN is accepted, for missing entries.

    Returns:
        The same pytree, whose other leaves are arrays of NumPy; and num_data.

    Raises:
        ValueError: as `check_data`, or a memory map is one whose changes are not written to its file, or whose rows are in
            pieces there.
    """
    check_data(jax.tree.map(lambda leaf: leaf if np.ndim(leaf) == 0 else leaf[:1], data), may_miss=may_miss)
    data = jax.tree.map(lambda leaf: leaf if isinstance(leaf, np.memmap) else np.asarray(leaf), data)
    (first_path, first), *others = jax.tree.leaves_with_path(data)
    for path, leaf in others:
        if len(leaf) != len(first):
            raise ValueError(
                f"`data{jax.tree_util.keystr(path)}` has leading size {len(leaf)}, but "
                f"`data{jax.tree_util.keystr(first_path)}` has {len(first)}: every leaf needs one row per datum."
            )
    for path, leaf in [(first_path, first), *others]:
        if not isinstance(leaf, np.memmap):
            continue
        if leaf.mode == "c":
            raise ValueError(
                f"`data{jax.tree_util.keystr(path)}` is mapped copy-on-write, so what is changed in memory is not in the "
                'file that is read. Map it by `np.load(path, mmap_mode="r")`.'
            )
        if not leaf[:1].flags.c_contiguous:
            raise ValueError(
                f"The rows of `data{jax.tree_util.keystr(path)}` are not contiguous in the file. Write it in C order."
            )
    if any(np.issubdtype(leaf.dtype, np.inexact) for leaf in jax.tree.leaves(data)):
        for part in parts(data):
            check_data(read_rows(data, part), may_miss=may_miss)
    return data, len(first)


def parts(data: Any) -> list[np.ndarray]:
    """Rows in their order, in parts of a bounded size that does not depend on whether data are streamed."""
    num_data = len(jax.tree.leaves(data)[0])
    num_rows = max(1, _NUMBERS_AT_ONCE // _row_size(data))
    return [np.arange(start, min(start + num_rows, num_data)) for start in range(0, num_data, num_rows)]


def read_rows(data: Any, rows: np.ndarray) -> Any:
    """Copy rows (n,) of data into memory: a pytree of NumPy arrays (n, ...)."""
    return jax.tree.map(lambda leaf: _read(leaf, rows) if isinstance(leaf, np.memmap) else leaf[rows], data)


def num_batches_together(data: Any, batch_size: int) -> int:
    """How many batches are read in one go: starting a small program costs more than running it."""
    return max(1, _NUMBERS_AHEAD // (batch_size * _row_size(data)))


def read_ahead(data: Any, wanted: Sequence[np.ndarray]) -> Iterator[Any]:
    """Read rows in threads that run ahead of the consumer, and put them on the device.

    Args:
        data: pytree of arrays (num_data, ...).
        wanted: rows (n,) of each part.

    Raises:
        ImportError: Grain is not installed.
    """
    try:
        import grain
    except ImportError as error:
        raise ImportError("Data in memory maps are read by Grain: `pip install kaem-ppl[train]` brings it.") from error
    read = grain.MapDataset.range(len(wanted)).map(lambda number: read_rows(data, wanted[number]))
    # Put on the device here, not in the threads: JAX's thread-local settings do not apply there.
    return map(
        jax.device_put,
        read.to_iter_dataset(grain.ReadOptions(num_threads=_NUM_THREADS, prefetch_buffer_size=_PARTS_AHEAD)),
    )


def _row_size(data: Any) -> int:
    """Numbers in a row, at least 1."""
    return max(1, sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(data)))


def _read(leaf: np.memmap, rows: np.ndarray) -> np.ndarray:
    """Rows by plain reads: reading through the mapping would keep its pages, and their neighbours, in memory."""
    row = leaf[:1]
    content = np.empty((len(rows), row.nbytes), np.uint8)
    first = _position(leaf)
    filename = str(leaf.filename)
    with open(filename, "rb", buffering=0) as file:
        for part, number in zip(content, rows, strict=True):
            file.seek(first + int(number) * leaf.strides[0])
            if file.readinto(part) < row.nbytes:
                raise OSError(f"{filename} ends before row {number}: it was truncated after it was mapped.")
    return content.view(leaf.dtype).reshape(len(rows), *leaf.shape[1:])


def _position(leaf: np.memmap) -> int:
    """Where in its file a mapped array starts, which may be a slice of what was mapped."""
    mapped: Any = leaf
    while isinstance(mapped.base, np.ndarray):
        mapped = mapped.base
    return mapped.offset + leaf.ctypes.data - mapped.ctypes.data
