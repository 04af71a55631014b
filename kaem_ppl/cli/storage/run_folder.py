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
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..errors import CommandError
from ..settings.config import Config, read_config
from .checkpoints import Checkpoints

if TYPE_CHECKING:
    from ...inference.model.parameters import Params

_PACKAGES = ("kaem-ppl", "jax", "jaxlib", "numpyro", "optax", "flax", "orbax-checkpoint", "grain", "blackjax", "numpy")


@dataclass(frozen=True)
class RunFolder:
    """`config.toml`, `versions.json`, `history.csv`, and the folders `checkpoints`, `plots` and `samples`.

    Attributes:
        path: of the folder.
    """

    path: Path

    @property
    def plots(self) -> Path:
        """Folder of the figures; created if it is missing."""
        return self._folder("plots")

    @property
    def samples(self) -> Path:
        """Folder of generated data; created if it is missing."""
        return self._folder("samples")

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

    def create(self, config: Config) -> None:
        """Create the folder, with settings and versions in it.

        Raises:
            CommandError: it exists and is not empty, or can't be written.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise CommandError(f"{self.path} is not empty: give another --run-dir, or continue it by --resume.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"{self.path} can't be created: {error.strerror}.") from error
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
        """Undo `create`, where training could not start."""
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

    def check_writable(self) -> None:
        """Raise before long work whose results could not be written.

        Raises:
            CommandError: files can't be created in the folder.
        """
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise CommandError(f"{self.path} is read-only: results are written there. Copy the run to another folder.")

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder


def save_parameters(path: Path, params: "Params") -> None:
    """Write parameters as NumPy arrays, named by site and path, such as `prior$params/coef`."""
    leaves = jax.tree.leaves_with_path(params)
    arrays: dict[str, Any] = {
        jax.tree_util.keystr(keys, simple=True, separator="/"): np.asarray(x) for keys, x in leaves
    }
    np.savez(path, **arrays)


def run_folders(config: Config, root: Path = Path("runs")) -> Iterator[RunFolder]:
    """Folders for runs of these settings, named by data set and mode, the second ending in -2, and so on."""
    name = f"{config.dataset.lower()}-{config.mode}"
    if config.model.kind != "kaem":
        name = f"{config.dataset.lower()}-{config.model.kind}"
    yield RunFolder(root / name)
    for number in itertools.count(2):
        yield RunFolder(root / f"{name}-{number}")


def new_run_folder(config: Config, root: Path = Path("runs")) -> RunFolder:
    """The first of `run_folders` that does not exist yet."""
    return next(folder for folder in run_folders(config, root) if not folder.path.exists())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
