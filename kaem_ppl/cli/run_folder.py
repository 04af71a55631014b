"""The folder of a run: all there is to know of it, with no path in it, so that it can be moved."""

import contextlib
import csv
import io
import json
import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from .checkpoints import Checkpoints
from .config import Config, read_config
from .errors import CommandError

if TYPE_CHECKING:
    from ..inference.model.parameters import Params

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
        """Where figures go; made where it is missing."""
        return self._folder("plots")

    @property
    def samples(self) -> Path:
        """Where generated data go; made where it is missing."""
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
        """Make the folder, with settings and versions in it.

        Raises:
            CommandError: there is something already.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise CommandError(f"{self.path} is not empty: give another --run-dir, or continue it by --resume.")
        self.path.mkdir(parents=True, exist_ok=True)
        versions = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
            "command": " ".join(["kaem", *sys.argv[1:]]),
            "seed": config.seed,
            **{name: _version(name) for name in _PACKAGES},
        }
        self.write("versions.json", json.dumps(versions, indent=2) + "\n")
        # Last: what has settings is a run.
        self.write("config.toml", config.to_toml())

    def remove(self) -> None:
        """Take back what `create` made, where no run came of it."""
        for name in ("config.toml", "versions.json"):
            (self.path / name).unlink(missing_ok=True)
        # What somebody else put there stays.
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
        """Write a file of text, which is never there in part."""
        part = self.path / f".{name}.{os.getpid()}.part"
        try:
            part.write_text(text, encoding="utf-8")
            os.replace(part, self.path / name)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise CommandError(f"{self.path / name} can't be written: {error.strerror}.", status=1) from error

    def _folder(self, name):
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder


def save_parameters(path: Path, params: "Params") -> None:
    """Write parameters as NumPy arrays, named by their site and their path inside it, such as `prior$params/coef`."""
    leaves = jax.tree.leaves_with_path(params)
    np.savez(path, **{jax.tree_util.keystr(keys, simple=True, separator="/"): np.asarray(x) for keys, x in leaves})


def new_run_folder(config: Config, root: Path = Path("runs")) -> RunFolder:
    """A folder that does not exist yet, named by data set and mode."""
    name = f"{config.dataset.lower()}-{config.mode}"
    if config.model.kind != "kaem":
        name = f"{config.dataset.lower()}-{config.model.kind}"
    path, number = root / name, 1
    while path.exists():
        number += 1
        path = root / f"{name}-{number}"
    return RunFolder(path)


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
