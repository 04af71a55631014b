"""Draws in files: blocks that are complete or absent, a netCDF file that shows all of them, and arrays read lazily."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kaem_ppl.saving.files import write_atomically

from .checkpoint import Checkpoint, explain

if TYPE_CHECKING:
    import h5py

type Records = dict[str, dict[str, np.ndarray]]

# A block of about this many bytes is written at once, and until then held in memory and in the state.
BYTES_OF_BLOCK = 2**24
_BLOCKS = "draws"
# The file that shows all blocks as one.
INDEX = "draws.nc"


@dataclass(frozen=True)
class DiskArray:
    """An array in a file, of which what is indexed is read; draws that were added to the file later are not part of it.

    Attributes:
        file: HDF5 or netCDF.
        name: of the dataset in it.
        shape: of the array.
        dtype: of its numbers.
        has_data_axis: whether an axis of one datum, the third, is added to what is in the file.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    has_data_axis: bool = False

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read a part; slices and numbers of axes are read alone, anything else after the whole was read.

        Raises:
            FileNotFoundError: the file is gone.
        """
        import h5py

        if not self.file.exists():
            raise FileNotFoundError(
                f"{self.file} is no longer there: move the folder back, or call `sample_posterior` with where it is now."
            )
        with h5py.File(self.file, "r") as file:
            dataset: Any = file[self.name]
            parts = index if isinstance(index, tuple) else (index,)
            if len(parts) > (2 if self.has_data_axis else self.ndim) or not all(
                isinstance(part, slice | int | np.integer) for part in parts
            ):
                whole = dataset[:, : self.shape[1]]
                return (whole[:, :, None] if self.has_data_axis else whole)[index]
            parts = (*parts, slice(None))[: max(2, len(parts))]
            found = dataset[(parts[0], self._own(parts[1]), *parts[2:])]
            # Numbers take their axis away.
            axis = sum(isinstance(part, slice) for part in parts)
            return np.expand_dims(found, axis) if self.has_data_axis else np.asarray(found)

    def _own(self, part: slice | int) -> slice | int:
        """A slice or a number of draws, among those of this array."""
        if isinstance(part, slice):
            return slice(*part.indices(self.shape[1]))
        if not -self.shape[1] <= part < self.shape[1]:
            raise IndexError(f"There are {self.shape[1]} draws of each chain: there is no draw {part}.")
        return part % self.shape[1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype)

    def reshape(self, *shape: int) -> np.ndarray:
        """The whole array, read, in another shape."""
        return np.asarray(self).reshape(*shape)

    def without_data_axis(self) -> "DiskArray":
        """The array as it is in the file, where an axis of one datum was added."""
        return DiskArray(self.file, self.name, (*self.shape[:2], *self.shape[3:]), self.dtype)


class _Variable(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype


class Spool:
    """Records of draws that are appended to a folder, by group and name arrays (draws, C, N, ...).

    Args:
        checkpoint: whose folder.
        saved: what `state` returned when the work was stopped; None at the beginning.
    """

    def __init__(self, checkpoint: Checkpoint, saved: Any = None) -> None:
        self.checkpoint = checkpoint
        self._sizes: list[int] = [] if saved is None else np.asarray(saved["sizes"]).tolist()
        self._pending: list[Records] = [] if saved is None or not saved["pending"] else [saved["pending"]]
        for number, size in enumerate(self._sizes, 1):
            _check_block(self._block(number), size)

    def _block(self, number: int) -> Path:
        return self.checkpoint.folder / _BLOCKS / f"{number:06}.h5"

    @property
    def num_draws(self) -> int:
        """Of each chain, written and pending."""
        return sum(self._sizes) + sum(map(_length, self._pending))

    def append(self, records: Records) -> None:
        """Add draws of all chains."""
        self._pending.append(records)
        if sum(x.nbytes for part in self._pending for x in _leaves(part)) >= BYTES_OF_BLOCK:
            self.flush()

    def state(self) -> Any:
        """What a later `Spool` goes on from, a tree of arrays."""
        return {"sizes": np.asarray(self._sizes, np.int64), "pending": _join(self._pending)}

    def flush(self) -> None:
        """Write what is pending as a block.

        Raises:
            OSError: it can't be written; what was written before is kept.
        """
        import h5py

        records = _join(self._pending)
        if not records:
            return
        folder = self.checkpoint.folder / _BLOCKS
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            for group, arrays in records.items():
                for name, x in arrays.items():
                    file.create_group(group) if group not in file else None
                    file[group].create_dataset(_escape(name), data=np.moveaxis(x, 0, 1))  # pyright: ignore
        try:
            folder.mkdir(exist_ok=True)
            write_atomically(self._block(len(self._sizes) + 1), lambda out: out.write(content.getbuffer()))
        except OSError as error:
            raise explain(error, self.checkpoint.folder) from error
        self._sizes.append(_length(records))
        self._pending = []

    def close(
        self, dims: Mapping[str, Sequence[str | None]], data_dims: Sequence[str | None]
    ) -> dict[str, dict[str, DiskArray]]:
        """Write what is pending and the file `draws.nc`, which xarray and ArviZ open, and return the arrays by group.

        Args:
            dims: by group/name of a variable, names of its axes after those of chains and draws.
            data_dims: those of any other: the data plate, or nothing where there is none. Then the file has no axis for
                the data, and arrays show one.
        """
        import h5py

        self.flush()
        path = self.checkpoint.folder / INDEX
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        found: dict[str, dict[str, DiskArray]] = {}
        files = [self._block(number) for number in range(1, len(self._sizes) + 1)]
        with h5py.File(files[0], "r") as first:
            variables = {
                group: {name: _Variable(x.shape, x.dtype) for name, x in content.items()}  # pyright: ignore
                for group, content in first.items()
            }
        try:
            with h5py.File(part, "w") as out:
                for group, content in variables.items():
                    found[group] = {}
                    target = out.create_group(group)
                    for name, variable in content.items():
                        whole, array = self._virtual(files, f"{group}/{name}", variable, bool(data_dims))
                        # What a lost file leaves is to be seen.
                        gap = np.nan if np.issubdtype(variable.dtype, np.inexact) else 0
                        dataset = target.create_virtual_dataset(name, whole, fillvalue=gap)
                        real = _unescape(name)
                        axes = dims.get(f"{group}/{real}", data_dims)
                        _name_axes(target, dataset, ("chain", "draw", *axes), name)
                        found[group][real] = array
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise explain(error, self.checkpoint.folder) from error
        return found

    def _virtual(
        self, files: list[Path], name: str, variable: _Variable, has_data_axis: bool
    ) -> tuple["h5py.VirtualLayout", DiskArray]:
        """Blocks behind each other along the draws, and the array that shows them."""
        import h5py

        num_draws = sum(self._sizes)
        chains, _, num_data, *rest = variable.shape
        shape = (chains, num_draws, num_data, *rest)
        in_file = shape if has_data_axis else (chains, num_draws, *rest)
        layout, start = h5py.VirtualLayout(in_file, variable.dtype), 0
        for file, size in zip(files, self._sizes, strict=True):
            # Relative to the file that shows them, so that the folder can be moved.
            source = h5py.VirtualSource(f"{_BLOCKS}/{file.name}", name, (chains, size, num_data, *rest))
            layout[:, start : start + size] = source if has_data_axis else source[:, :, 0]
            start += size
        return layout, DiskArray(self.checkpoint.folder / INDEX, name, shape, variable.dtype, not has_data_axis)


def _check_block(path: Path, size: int) -> None:
    """Raise where a block is lost, or holds another number of draws."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            shapes: list[tuple[int, ...]] = []
            file.visititems(lambda _, x: shapes.append(x.shape) if isinstance(x, h5py.Dataset) else None)
            reason = None if shapes and all(shape[1] == size for shape in shapes) else "it holds other draws"
    # HDF5 reports damage by many kinds of errors.
    except Exception as error:
        reason = str(error)
    if reason is not None:
        raise ValueError(f"`checkpoint`: {path} is lost or damaged: {reason}. Restore it, or give another folder.")


def _name_axes(group: Any, dataset: Any, names: Sequence[str | None], variable: str) -> None:
    """Attach netCDF dimensions, which are made where they are missing."""
    for axis, size in enumerate(dataset.shape):
        name = (names[axis] if axis < len(names) else None) or f"{variable}_dim_{axis - 2}"
        if name not in group:
            scale = group.create_dataset(name, data=np.arange(size))
            scale.make_scale(name)
        dataset.dims[axis].attach_scale(group[name])


def _length(records: Records) -> int:
    return len(next(_leaves(records)))


def _leaves(records: Records) -> Any:
    return (x for arrays in records.values() for x in arrays.values())


def _join(parts: list[Records]) -> Records:
    if not parts:
        return {}
    return {
        group: {name: np.concatenate([part[group][name] for part in parts]) for name in arrays}
        for group, arrays in parts[0].items()
    }


def _escape(name: str) -> str:
    # A stroke makes groups in HDF5, and scoped sites have one in their names.
    return name.replace("/", "\\")


def _unescape(name: str) -> str:
    return name.replace("\\", "/")
