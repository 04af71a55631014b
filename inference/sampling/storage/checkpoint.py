"""Checkpoints of sampling and evidence: a folder that keeps their state, so that the same call goes on."""

import hashlib
import json
import operator
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kaem_ppl.arguments import describe
from kaem_ppl.saving.files import FolderInUseError, locked, write_atomically
from kaem_ppl.saving.trees import load_tree, save_tree

from ...model.power_posterior import PowerPosterior
from ..sampler import problem_keys

_IDENTITY = "run.json"
# Results of one program on two kinds of devices differ by rounding; those of another model differ by more.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-3
# Saving takes at most this share of the time, and does not happen more often than this.
SHARE, SECONDS = 0.05, 1.0


@dataclass(eq=False)
class Checkpoint:
    """The states of one piece of work, by name, in a folder that belongs to it alone. Made by `open_checkpoint`.

    Attributes:
        folder: where they are.
        saved: when one was saved last, and how long that took, in seconds.
    """

    folder: Path
    saved: tuple[float, float]

    def is_due(self) -> bool:
        """Whether a state should be saved: not so often that it takes more than a twentieth of the time."""
        when, seconds = self.saved
        return time.monotonic() - when >= max(SECONDS, seconds / SHARE)

    def save(self, name: str, tree: Any) -> None:
        """Replace the state of this name, atomically.

        Raises:
            OSError: it can't be written; the last one is kept.
        """
        started = time.monotonic()
        try:
            save_tree(self.folder / f"{name}.npz", tree, {"state": name})
        except OSError as error:
            raise explain(error, self.folder) from error
        ended = time.monotonic()
        self.saved = ended, ended - started

    def has(self, name: str) -> bool:
        """Whether there is a state of this name."""
        return (self.folder / f"{name}.npz").exists()

    def load(self, name: str) -> Any:
        """The state of this name, its arrays NumPy's; None where there is none.

        Raises:
            ValueError: the file is damaged, or another one.
        """
        path = self.folder / f"{name}.npz"
        try:
            tree, notes = load_tree(path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"`checkpoint`: {error}") from error
        if notes != {"state": name}:
            raise ValueError(f"`checkpoint`: {path} holds something else than a state. Give another folder.")
        return tree


@contextmanager
def open_checkpoint(
    folder: str | PathLike | None, kind: str, key: jax.Array, posterior: PowerPosterior, settings: dict[str, Any]
) -> Iterator[Checkpoint | None]:
    """Open a folder for a piece of work, new or begun, and keep other processes from it.

    Args:
        folder: created if it is missing; None keeps nothing.
        kind: of work, the name of a function.
        key: PRNG key of the work.
        posterior: of the model and its data.
        settings: values by name that must be the same when the work goes on.

    Raises:
        TypeError: it is no path.
        ValueError: the folder belongs to something else, another process writes to it, or it can't be written; the message
            says which.
    """
    if folder is None:
        yield None
        return
    if not isinstance(folder, str | PathLike):
        raise TypeError(f"`checkpoint` must be the path of a folder, got {describe(folder)}.")
    if not str(folder):
        raise ValueError("`checkpoint` is empty: give the path of a folder, or None.")
    # Draws in it are read later, wherever the process is then.
    path = Path(folder).absolute()
    identity = _identify(kind, key, posterior, settings)
    with _locked(path):
        for part in path.glob(".*.part"):
            part.unlink(missing_ok=True)
        _check_identity(path, identity)
        # The first state is worth keeping soon.
        yield Checkpoint(path, (time.monotonic(), 0.0))


@contextmanager
def reopen_checkpoint(folder: Path) -> Iterator[Checkpoint]:
    """Open the folder of work that is known to be the same.

    Raises:
        ValueError: another process writes to it, it is gone, or it can't be written.
    """
    if not (folder / _IDENTITY).exists():
        raise ValueError(
            f"`checkpoint` {folder} is no longer there: move it back, or call `sample_posterior` with where it is now."
        )
    with _locked(folder):
        yield Checkpoint(folder, (time.monotonic(), 0.0))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = locked(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.__enter__()
    except FolderInUseError as error:
        raise ValueError(f"`checkpoint`: {error}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"`checkpoint` {folder} can't be written: {reason}. Give another folder.") from error
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def explain(error: OSError, folder: Path) -> OSError:
    """An error of writing in one sentence that says what to do, and that work can go on."""
    is_full = shutil.disk_usage(folder).free < 2**20 if folder.exists() else False
    reason = "the disk is full" if is_full else error.strerror or str(error)
    return OSError(
        error.errno,
        f"{folder} can't be written: {reason}. What was saved before is kept; free space, and call the same again to go on",
    )


def _identify(kind: str, key: jax.Array, posterior: PowerPosterior, settings: dict[str, Any]) -> dict[str, Any]:
    """What tells one piece of work from another, as JSON values.

    Two log-densities of each datum, at a point drawn from the prior, stand for the model: they need no name for a function,
    and notice a change inside of it.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((posterior.rows, posterior.shared, posterior.params)):
        array = np.asarray(leaf)
        digest.update(repr((array.shape, array.dtype.str)).encode() + np.ascontiguousarray(array).tobytes())
    log_prior, log_likelihood = (np.asarray(x, float) for x in _probe(posterior))
    numbers = np.nan_to_num(np.concatenate([log_prior, log_likelihood]), nan=1e30, posinf=1e30, neginf=-1e30)
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return {
        "kind": kind,
        "key": np.asarray(jax.random.key_data(key) if typed else key).tolist(),
        "plate": posterior.plate,
        "number of data": posterior.num_data,
        "latents": [site.name for site in posterior.latents],
        "double precision": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
        **{name: _words(value) for name, value in settings.items()},
        "data or parameters": digest.hexdigest(),
        "model": numbers.tolist(),
    }


def _words(value: Any) -> str:
    # Where an object lies in memory is not what it is.
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@jax.jit
def _probe(posterior: PowerPosterior) -> tuple[jax.Array, jax.Array]:
    def probe(key: jax.Array, datum: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        target = posterior.target(datum)
        position = target.draw(key)
        return target.log_prior(position), target.log_likelihood(position)

    return jax.vmap(probe)(problem_keys(jax.random.key(0), 1, posterior.num_data)[0], posterior.rows)


def _check_identity(folder: Path, identity: dict[str, Any]) -> None:
    file = folder / _IDENTITY
    if not file.exists():
        others = [path.name for path in folder.iterdir() if path.name != ".lock"]
        if others:
            raise ValueError(
                f"`checkpoint` {folder} holds other files, such as {others[0]}. Give a new folder, or one of the same call."
            )
        write_atomically(file, lambda out: out.write(json.dumps(identity, indent=1).encode()))
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError(f"expected a table, got {describe(before)}")
    except (ValueError, OSError) as error:
        raise ValueError(f"`checkpoint` {folder} has a damaged {_IDENTITY}: {error}. Give another folder.") from None
    for name, value in identity.items():
        if name in before and (_are_close if name == "model" else operator.eq)(before[name], value):
            continue
        numbers = {"model": "its model differs", "data or parameters": "its data or parameters differ"}
        change = numbers[name] if name in numbers else f"its {name} was {before.get(name)!r}, and is {value!r} now"
        raise ValueError(
            f"`checkpoint` {folder} belongs to another run: {change}. Give another folder, or remove this one."
        )


def _are_close(before: list[float], now: list[float]) -> bool:
    return np.shape(before) == np.shape(now) and np.allclose(before, now, rtol=_RELATIVE, atol=_ABSOLUTE)
