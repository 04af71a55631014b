"""The folder of a run and its files; none of them holds a path, so that the folder can be moved."""

import contextlib
import csv
import io
import itertools
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import jax

from ..errors import CommandError
from ..settings.config import Config, differences, parse_config, read_config
from .checkpoints import Checkpoint, Checkpoints

# Settings that may differ between two parts of a run: they do not change what an epoch does.
MAY_CHANGE = ("num_epochs", "checkpoint_minutes", "keep_checkpoints", "sample_every")

_PACKAGES = ("kaem-ppl", "jax", "jaxlib", "numpyro", "optax", "flax", "orbax-checkpoint", "grain", "blackjax", "numpy")


@dataclass(frozen=True)
class RunFolder:
    """`config.toml`, `versions.json`, `history.csv`, and the folders `checkpoints` and `results`.

    Attributes:
        path: of the folder.
    """

    path: Path

    def checkpoints(self, num_kept: int = 3) -> Checkpoints:
        """The run's checkpoints."""
        return Checkpoints(self.path / "checkpoints", num_kept)

    def read_config(self) -> Config:
        """The run's settings.

        Raises:
            CommandError: this is not the folder of a run, or its settings are damaged.
        """
        if not (self.path / "config.toml").is_file():
            raise CommandError(f"{self.path} is not the folder of a run: expected one with a config.toml in it.")
        return read_config(self.path / "config.toml")

    def make(self) -> None:
        """Make the folder, where it does not exist yet.

        Raises:
            CommandError: it can't be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise CommandError(f"{self.path} is a file: give another --run-dir.") from None
        except OSError as error:
            raise CommandError(f"{self.path} can't be created: {error.strerror}.") from error

    def check_empty(self) -> None:
        """Raise where a new run can't be started in the folder.

        Raises:
            CommandError: it is not empty.
        """
        if any(path.name != ".lock" for path in self.path.iterdir()):
            raise CommandError(f"{self.path} is not empty: give another --run-dir, or continue it by --resume.")

    def start(self, config: Config) -> None:
        """Write settings and versions of a new run; the caller holds the lock of the folder.

        Raises:
            CommandError: they can't be written.
        """
        versions = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
            "command": " ".join(["kaem", *sys.argv[1:]]),
            "seed": config.seed,
            **{name: _version(name) for name in _PACKAGES},
        }
        self.write("versions.json", json.dumps(versions, indent=2) + "\n")
        # Last: a folder with settings is a run.
        self.write("config.toml", config.to_toml())

    def remove(self) -> None:
        """Undo `make` and `start`, where training could not start."""
        for name in ("config.toml", "versions.json", ".lock"):
            (self.path / name).unlink(missing_ok=True)
        # Other files stay, and the folder with them.
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write `history.csv`, one line for each epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["epoch"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write("history.csv", text.getvalue())

    def write(self, name: str, text: str) -> None:
        """Write a file of text, atomically."""
        part = self.path / f".{name}.{os.getpid()}.part"
        try:
            part.write_text(text, encoding="utf-8")
            os.replace(part, self.path / name)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise CommandError(f"{self.path / name} can't be written: {error.strerror}.", status=1) from error


def run_folders(config: Config, root: Path = Path("runs")) -> Iterator[RunFolder]:
    """Folders for runs of these settings, named by data set and mode, the second ending in -2, and so on."""
    name = f"{config.dataset.lower()}-{config.mode}"
    if config.model.kind != "kaem":
        name = f"{config.dataset.lower()}-{config.model.kind}"
    yield RunFolder(root / name)
    for number in itertools.count(2):
        yield RunFolder(root / f"{name}-{number}")


def new_run_folder(config: Config, root: Path = Path("runs")) -> RunFolder:
    """Make the first of `run_folders` that does not exist yet; of two processes at once each makes its own.

    Raises:
        CommandError: it can't be made.
    """
    RunFolder(root).make()
    for folder in run_folders(config, root):
        try:
            folder.path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise CommandError(f"{folder.path} can't be created: {error.strerror}.") from error
        return folder
    raise AssertionError("there is always a new folder")


def check_unchanged(checkpoint: Checkpoint, config: Config, folder: RunFolder) -> None:
    """Raise where settings are not those that a checkpoint was made with.

    Raises:
        CommandError: they are not, or the checkpoint is that of another run.
    """
    old = parse_config(checkpoint.config, f"The checkpoint of {checkpoint.place}")
    # The length of a schedule that is not constant is part of what an epoch does.
    ignored = MAY_CHANGE if config.training.schedule == "constant" else MAY_CHANGE[1:]
    changed = differences(old, config, ignored)
    if changed:
        words = "; ".join(f"{name} was {before!r} and is {after!r} now" for name, before, after in changed)
        raise CommandError(
            f"{folder.path} was started with other settings: {words}. Restore them, or start a new run with them."
        )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
