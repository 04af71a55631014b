"""`kaem train`: a run from its first epoch, or from where it was stopped."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax.experimental import multihost_utils

from ..inference import NonFiniteLossError, Strategy, TrainingState, fit
from ..models import Dataset
from .build import build_model, build_optimizer, build_strategy
from .checkpoints import Checkpoint, Place
from .config import Config, differences, parse_config
from .data import load_data
from .devices import DataParallel, all_devices, gather, place
from .errors import CommandError
from .messages import say, warn
from .run_folder import RunFolder, save_parameters

# What may differ between two parts of a run: neither is what an epoch does.
_MAY_CHANGE = ("num_epochs", "checkpoint_minutes", "keep_checkpoints")
# Steps from one look at the clock to the next: few enough for a slow step, and dear to none.
_STEPS_BETWEEN_LOOKS = 10


def train(config: Config, folder: RunFolder, progress_bar: bool) -> None:
    """Start a run in a new folder.

    Raises:
        CommandError: settings do not fit, or the run can't go on.
    """
    if jax.process_index() == 0:
        folder.create(config)
    try:
        job = _prepare(config, progress_bar)
    except BaseException:
        # Nothing came of it.
        if jax.process_index() == 0:
            folder.remove()
        raise
    _run(job, config, folder, None, progress_bar)


def resume(folder: RunFolder, config: Config, progress_bar: bool) -> None:
    """Go on with a run as if it had not been stopped.

    Args:
        folder: of the run.
        config: the run's settings; a later end is the only one that may have changed.
        progress_bar: whether to show epochs.

    Raises:
        CommandError: settings were changed, no checkpoint can be read, or the run can't go on.
    """
    checkpoint = folder.checkpoints().load_last(warn)
    if checkpoint is None:
        say(f"{folder.path} has no checkpoint yet: training starts anew.")
        _run(_prepare(config, progress_bar), config, folder, None, progress_bar)
        return
    _check_unchanged(checkpoint, config, folder)
    if jax.process_index() == 0:
        # The run may have been killed between the checkpoint and these.
        folder.write_history(checkpoint.rows)
        folder.write("config.toml", config.to_toml())
    if checkpoint.place >= Place(config.training.num_epochs):
        say(
            f"{folder.path} is complete, with {checkpoint.place.epoch} epochs. Give a larger --num-epochs to train longer."
        )
        return
    say(f"{folder.path}: going on after {checkpoint.place}.")
    _run(_prepare(config, progress_bar), config, folder, checkpoint, progress_bar)


class _Job(NamedTuple):
    """What a run's settings stand for."""

    dataset: Dataset
    sharding: Any
    model: Callable
    strategy: Strategy
    optimizer: optax.GradientTransformation


def _prepare(config, progress_bar):
    settings = config.training
    dataset = load_data(config, "train", progress_bar)
    if settings.batch_size > len(dataset):
        raise CommandError(f"batch_size is {settings.batch_size}, but there are only {len(dataset)} data to train on.")
    sharding = all_devices(settings.batch_size)
    model = build_model(config, dataset)
    strategy = build_strategy(config, model, dataset)
    return _Job(dataset, sharding, model, strategy, build_optimizer(config, len(dataset)))


def _run(job, config, folder, checkpoint, progress_bar):
    settings, sharding, strategy = config.training, job.sharding, job.strategy
    record = _Record(config, folder, checkpoint)
    started = time.perf_counter()
    try:
        fit(
            jax.random.key(config.seed),
            job.model,
            {"x": place(job.dataset.values, sharding)},
            strategy=strategy if sharding is None else DataParallel(strategy, sharding),
            optimizer=job.optimizer,
            num_epochs=settings.num_epochs,
            batch_size=settings.batch_size,
            callback=record,
            callback_every=_STEPS_BETWEEN_LOOKS,
            state=None if checkpoint is None else checkpoint.state,
            progress_bar=progress_bar and jax.process_index() == 0,
        )
    except NonFiniteLossError as error:
        record.save_last()
        save_parameters(folder.path / "last_good.npz", error.params)
        save_parameters(folder.path / "broken.npz", error.broken_params)
        raise CommandError(_describe_failure(error, record), status=1) from error
    except KeyboardInterrupt:
        record.save_last()
        raise
    numbers = ", ".join(f"{name} {value:.5g}" for name, value in record.rows[-1].items() if name != "epoch")
    say(f"{folder.path}: {len(record.rows)} epochs, {numbers}; {time.perf_counter() - started:.0f} s")


class _Record:
    """Keeps the rows of the history, and saves them and the state when it is time."""

    def __init__(self, config: Config, folder: RunFolder, checkpoint: Checkpoint | None):
        self.rows = [] if checkpoint is None else list(checkpoint.rows)
        self.place_saved = None if checkpoint is None else checkpoint.place
        self._config, self._folder = config, folder
        self._checkpoints = folder.checkpoints(config.training.keep_checkpoints)
        self._state, self._time_saved = None, time.monotonic()

    def __call__(self, state: TrainingState, row: dict[str, float] | None) -> None:
        """Called after each epoch with its row, and between steps without."""
        if row is not None:
            self.rows.append({name: int(x) if name == "epoch" else float(x) for name, x in row.items()})
        self._state = state
        settings = self._config.training
        is_due = time.monotonic() - self._time_saved >= 60 * settings.checkpoint_minutes
        if jax.process_count() > 1:
            # Processes gather their parts together, and their clocks differ: the first one's counts.
            is_due = bool(multihost_utils.broadcast_one_to_all(is_due))
        if is_due or len(self.rows) == settings.num_epochs:
            self.save_last()

    def save_last(self) -> None:
        """Save where training was seen last, unless that was done."""
        if self._state is None:
            return
        state = gather(self._state)
        place = Place(int(state.epoch), int(state.step))
        if jax.process_index() == 0:
            self._checkpoints.save(Checkpoint(place, state, self.rows, self._config.to_toml()))
            self._folder.write_history(self.rows)
        self._state, self._time_saved, self.place_saved = None, time.monotonic(), place


def _check_unchanged(checkpoint, config, folder):
    old = parse_config(checkpoint.config, f"The checkpoint of {checkpoint.place}")
    # The length of a cosine is part of what an epoch does.
    ignored = _MAY_CHANGE if config.training.schedule == "constant" else _MAY_CHANGE[1:]
    changed = differences(old, config, ignored)
    if changed:
        words = "; ".join(f"{name} was {before!r} and is {after!r} now" for name, before, after in changed)
        raise CommandError(
            f"{folder.path} was started with other settings: {words}. Put them back, or start a new run with them."
        )


def _describe_failure(error, record):
    where = f"What is not finite: {', '.join(error.sites)}." if error.sites else "Draws or a gradient are not finite."
    saved = record.place_saved
    kept = f"The checkpoint of {saved} is kept, and the" if saved else "No checkpoint was saved; the"
    return (
        f"The loss stopped being finite in epoch {error.epoch}, step {error.step}. {where} {kept} parameters are in "
        "broken.npz, the last good ones in last_good.npz. Start again with a smaller --learning-rate, --clip-norm, or a "
        "larger --scale."
    )
