"""Checkpoints of training: written atomically, verified by checksums, and damaged ones skipped."""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from ...saving.trees import describe, rebuild
from ..errors import CommandError
from ..messages import as_command

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

    from ...inference import TrainingState

_NOTES, _ARRAYS = "notes.json", "arrays"
_NAME = re.compile(r"(\d{6,})(?:\+(\d{6,}))?")


class Place(NamedTuple):
    """A point of training.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the current epoch.
    """

    epoch: int
    step: int = 0

    def __str__(self) -> str:
        return f"epoch {self.epoch}" if self.step == 0 else f"epoch {self.epoch + 1}, step {self.step}"


class Checkpoint(NamedTuple):
    """What is saved of a run.

    Attributes:
        place: of the state.
        state: of training, arrays of NumPy.
        rows: of the history, one for each finished epoch.
        config: settings of the run, as TOML.
    """

    place: Place
    state: "TrainingState"
    rows: list[dict[str, float]]
    config: str


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in a folder, one subfolder for each, named by finished epochs and steps: `000003` or `000003+000120`.

    Each is written into a folder of another name, which is renamed when it is complete: `notes.json`, with the history, the
    settings and a checksum of each array, and `arrays`, by Orbax.

    Attributes:
        folder: of the checkpoints.
        num_kept: number of last ones that are kept, in addition to the one after the epoch with the lowest loss.
    """

    folder: Path
    num_kept: int = 3

    def places(self) -> list[Place]:
        """Places with a checkpoint, in order.

        Raises:
            CommandError: something else is in the place of the folder.
        """
        if not os.path.lexists(self.folder):
            return []
        if not self.folder.is_dir():
            raise CommandError(f"{self.folder} is not a folder: expected that of a run's checkpoints.")
        matches = [_NAME.fullmatch(path.name) for path in self.folder.iterdir() if path.is_dir()]
        return sorted(Place(int(match[1]), int(match[2] or 0)) for match in matches if match)

    def check_space(self, state: "TrainingState") -> None:
        """Raise CommandError where the disk has no room for one of this state: before training, not after."""
        needed = sum(int(leaf.nbytes) for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self.folder.parent).free
        if free < needed:
            raise CommandError(
                f"A checkpoint takes {needed / 1e6:.1f} MB, and the disk of {self.folder.parent} has {free / 1e6:.1f} MB "
                "left. Free space, or give another --run-dir.",
                status=1,
            )

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one, and delete those that are no longer kept.

        Raises:
            CommandError: it can't be written; earlier ones are unchanged.
        """
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(checkpoint.state)]
        notes = {
            "structure": describe(checkpoint.state),
            "checksum": _checksum(leaves),
            "rows": checkpoint.rows,
            "config": checkpoint.config,
        }
        path = self._path(checkpoint.place)
        part = path.with_name(f".{path.name}.part")
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            (part / _NOTES).write_text(json.dumps(notes), encoding="utf-8")
            with _checkpointer() as checkpointer:
                checkpointer.save(part.absolute() / _ARRAYS, _named(leaves))
            # One of the same place exists only if it is damaged.
            shutil.rmtree(path, ignore_errors=True)
            part.rename(path)
        # Orbax and TensorStore report a full disk by many kinds of errors.
        except Exception as error:
            shutil.rmtree(part, ignore_errors=True)
            places = self.places()
            last = f"The last good one is that of {places[-1]}" if places else "There is none before it"
            raise CommandError(
                f"The checkpoint of {checkpoint.place} can't be written to {self.folder}: "
                f"{_reason(error, self.folder)} {last}; continue by {as_command('train', '--resume', self.folder.parent)}.",
                status=1,
            ) from error
        self._delete_old(checkpoint.rows)

    def load(self, place: Place) -> Checkpoint:
        """Read one.

        Raises:
            ValueError: it is damaged.
        """
        path = self._path(place)
        try:
            notes = json.loads((path / _NOTES).read_text(encoding="utf-8"))
            # NumPy arrays of the same shapes: the devices may be others now.
            blank = [np.empty(shape, dtype) for shape, dtype, _ in notes["checksum"]]
            with _checkpointer() as checkpointer:
                arrays = checkpointer.restore(path.absolute() / _ARRAYS, _named(blank))
            leaves = [np.asarray(arrays.get(_name(index), leaf)) for index, leaf in enumerate(blank)]
            if _checksum(leaves) != notes["checksum"]:
                raise ValueError("its arrays do not have their checksum")
            state = rebuild(notes["structure"], leaves)
            return Checkpoint(place, state, notes["rows"], notes["config"])
        # Damaged bytes lead Orbax and TensorStore to many kinds of errors.
        except Exception as error:
            raise ValueError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error

    def load_last(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """Read the last good one; None where there is none at all.

        Args:
            warn: is called with a message for each damaged one that is skipped.

        Raises:
            CommandError: all are damaged.
        """
        places = self.places()
        for place in reversed(places):
            try:
                return self.load(place)
            except ValueError as error:
                warn(f"{error}. It is passed over.")
        if places:
            raise CommandError(
                f"All checkpoints in {self.folder} are damaged: train anew, in another folder.", status=1
            )
        return None

    def load_best(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """Read the one after the epoch of the lowest loss, by the last good one's history; None where there is none at all.

        Raises:
            CommandError: all are damaged.
        """
        last = self.load_last(warn)
        if last is None:
            return None
        best = _best(last.rows, self.places())
        if best == last.place:
            return last
        try:
            return self.load(best)
        except ValueError as error:
            warn(f"{error}. The last good one is used.")
            return last

    def _delete_old(self, rows: list[dict[str, float]]) -> None:
        places = self.places()
        kept = {*places[-self.num_kept :], _best(rows, places)}
        for place in places:
            if place not in kept:
                shutil.rmtree(self._path(place), ignore_errors=True)

    def _path(self, place: Place) -> Path:
        return self.folder / (f"{place.epoch:06}" if place.step == 0 else f"{place.epoch:06}+{place.step:06}")


def _checkpointer() -> "ocp.Checkpointer":
    import orbax.checkpoint as ocp
    from orbax.checkpoint.options import MultiprocessingOptions

    # What fails is raised as well, and said in one line: the log would show a traceback of each of its threads.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # Each process of a distributed run reads and writes alone: it holds all arrays completely.
    me = jax.process_index()
    alone = MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=str(me))
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _named(leaves: list[np.ndarray]) -> dict[str, np.ndarray]:
    # Orbax does not save arrays without elements.
    return {_name(index): leaf for index, leaf in enumerate(leaves) if leaf.size}


def _name(index: int) -> str:
    return f"{index:05}"


def _checksum(leaves: list[np.ndarray]) -> list[list[Any]]:
    """Shape, dtype and SHA-256 of each array."""
    return [
        [list(leaf.shape), str(leaf.dtype), hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()]
        for leaf in leaves
    ]


def _best(rows: list[dict[str, float]], places: list[Place]) -> Place:
    losses = {Place(int(row["epoch"])): row["loss"] for row in rows}
    return min((place for place in places if place in losses), key=lambda place: losses[place], default=places[-1])


def _reason(error: Exception, folder: Path) -> str:
    is_full = "No space left" in str(error) or (folder.exists() and shutil.disk_usage(folder).free < 2**20)
    if is_full:
        return "the disk is full. Free space."
    return f"{' '.join(str(error).split())[:200]}. Free space, or make the folder writable."
