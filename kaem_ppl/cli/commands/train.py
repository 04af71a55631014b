"""`kaem train`: a run from its first epoch, or resumed from its last checkpoint."""

import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from ...inference import NonFiniteLossError, Strategy, TrainingState, fit
from ...inference.training.data_parallel import DataParallel
from ...models import Dataset
from ...saving import save_params
from ..building.data import load_data
from ..building.devices import all_devices, gather, place
from ..building.model import build_model, build_optimizer, build_strategy
from ..errors import CommandError, Stopped, is_out_of_memory
from ..messages import as_command, print_result, print_warning
from ..settings.config import Config
from ..stopping import StopSignals
from ..storage.checkpoints import Checkpoint, Place
from ..storage.lock import locked
from ..storage.run_folder import RunFolder, check_unchanged
from .pictures import TrainingPictures

_OF_EVIDENCE = ("log_evidence", "log_likelihood", "kl_divergence")
# Steps between two callbacks, which check the clock and signals: few enough for slow steps, and cheap for fast ones.
_STEPS_BETWEEN_CALLBACKS = 10


def train(config: Config, folder: RunFolder, signals: StopSignals) -> None:
    """Start a run in a new folder.

    Args:
        config: settings.
        folder: of the run.
        signals: that stop the run.

    Raises:
        CommandError: settings do not fit each other or the data, or training failed.
        Stopped: a signal came; a checkpoint is written where there was a step.
    """
    if jax.process_index() > 0:
        _fit(_prepare(config), config, folder, None, signals)
        return
    folder.make()
    # Locked before anything is written: two processes may have been told of one folder.
    with locked(folder.path):
        folder.check_empty()
        try:
            folder.start(config)
            job = _prepare(config)
        except BaseException:
            folder.remove()
            raise
        try:
            _fit(job, config, folder, None, signals)
        except Exception as error:
            # With these settings it would not start the next time either.
            if is_out_of_memory(error) and not folder.checkpoints().places():
                folder.remove()
            raise


def resume(config: Config, folder: RunFolder, signals: StopSignals) -> None:
    """Continue a run as if it had not been stopped.

    Args:
        config: the run's settings; the number of epochs and those of checkpoints may have changed.
        folder: of the run.
        signals: that stop the run.

    Raises:
        CommandError: other settings were changed, no checkpoint can be read, or training failed.
        Stopped: as in `train`.
    """
    if jax.process_index() > 0:
        _resume(config, folder, signals)
        return
    # Locked before the checkpoint is read: another process may be about to write a later one.
    with locked(folder.path):
        _resume(config, folder, signals)


def _resume(config: Config, folder: RunFolder, signals: StopSignals) -> None:
    checkpoint = folder.checkpoints().load_last(print_warning)
    if checkpoint is None:
        print_result(f"{folder.path} has no checkpoint yet: training starts from the beginning.")
        job = _prepare(config)
    else:
        _check_resumable(checkpoint, config, folder)
        if checkpoint.place >= Place(config.training.num_epochs):
            print_result(f"{folder.path} is complete, with {checkpoint.place.epoch} epochs. {_advise_longer(config)}")
            return
        print_result(f"{folder.path}: resuming after {checkpoint.place}.")
        job = _prepare(config)
        if jax.process_index() == 0:
            # The run may have been killed between the checkpoint and the history.
            folder.write_history(checkpoint.rows)
            folder.write("config.toml", config.to_toml())
    _fit(job, config, folder, checkpoint, signals)


class _Job(NamedTuple):
    """The objects that a run's settings describe."""

    dataset: Dataset
    sharding: NamedSharding | None
    model: Callable
    strategy: Strategy
    optimizer: optax.GradientTransformation


def _prepare(config: Config) -> _Job:
    settings = config.training
    dataset = load_data(config, "train", sys.stderr.isatty())
    if config.data.num_test is not None:
        # What the commands on a trained run will read: it should be there before the training.
        load_data(config, "test", sys.stderr.isatty())
    if settings.batch_size > len(dataset):
        raise CommandError(f"batch_size is {settings.batch_size}, but there are only {len(dataset)} training examples.")
    sharding = all_devices(settings.batch_size)
    model = build_model(config, dataset)
    strategy = build_strategy(config, model, dataset)
    return _Job(dataset, sharding, model, strategy, build_optimizer(config, len(dataset)))


def _fit(
    job: _Job,
    config: Config,
    folder: RunFolder,
    checkpoint: Checkpoint | None,
    signals: StopSignals,
) -> None:
    settings, sharding, strategy = config.training, job.sharding, job.strategy
    pictures = None
    if settings.sample_every is not None and job.dataset.vocabulary is None:
        pictures = TrainingPictures(config, folder.path, job.model, job.dataset)
    recorder = _Recorder(config, folder, checkpoint, signals, pictures)
    started = time.perf_counter()
    try:
        with signals.restored():
            fit(
                jax.random.key(config.seed),
                job.model,
                {"x": place(job.dataset.values, sharding)},
                # Data read from a file are placed on no device, so that `fit` could not tell.
                strategy=strategy if sharding is None else DataParallel(strategy, sharding),
                optimizer=job.optimizer,
                num_epochs=settings.num_epochs,
                batch_size=settings.batch_size,
                average=settings.average,
                callback=recorder,
                callback_every=_STEPS_BETWEEN_CALLBACKS,
                state=None if checkpoint is None else checkpoint.state,
                progress_bar=jax.process_index() == 0,
            )
    except NonFiniteLossError as error:
        recorder.save_last()
        save_params(folder.path / "last_good.npz", error.params)
        save_params(folder.path / "broken.npz", error.broken_params)
        raise CommandError(_describe_failure(error, recorder), status=1) from error
    except Stopped as stopped:
        signals.acknowledge()
        recorder.save_last()
        saved = recorder.place_saved
        kept = f"after {saved}" if saved else "before the first step"
        raise Stopped(stopped.signal, f"{kept}. Continue by {as_command('train', '--resume', folder.path)}.") from None
    if pictures is not None and jax.process_index() == 0:
        pictures.animate()
    numbers = ", ".join(f"{name} {value:.5g}" for name, value in recorder.rows[-1].items() if name != "epoch")
    print_result(f"{folder.path}: {len(recorder.rows)} epochs, {numbers}; {time.perf_counter() - started:.0f} s")


class _Recorder:
    """The callback of training: collects the history, and saves checkpoints when they are due."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        checkpoint: Checkpoint | None,
        signals: StopSignals,
        pictures: TrainingPictures | None,
    ) -> None:
        self._pictures = pictures
        self.rows = [] if checkpoint is None else list(checkpoint.rows)
        self.place_saved = None if checkpoint is None else checkpoint.place
        self._config, self._folder, self._signals = config, folder, signals
        self._checkpoints = folder.checkpoints(config.training.keep_checkpoints)
        self._state: TrainingState | None = None
        self._time_saved = time.monotonic()

    def __call__(self, state: TrainingState, row: dict[str, float] | None) -> None:
        """Called after each epoch with its row, and inside epochs without."""
        if row is not None:
            # Of a diffusion the bound is not one on the evidence of the data.
            hidden = _OF_EVIDENCE if self._config.model.kind == "diffusion" else ()
            self.rows.append(
                {name: int(x) if name == "epoch" else float(x) for name, x in row.items() if name not in hidden}
            )
        if self._state is None and self.place_saved is None:
            self._checkpoints.check_space(state)
        self._state = state
        self._signals.check()
        settings = self._config.training
        if row is not None and self._pictures is not None and len(self.rows) % (settings.sample_every or 1) == 0:
            on_host = gather(state)
            if jax.process_index() == 0:
                self._pictures.draw(on_host, len(self.rows))
        is_due = time.monotonic() - self._time_saved >= 60 * settings.checkpoint_minutes
        if jax.process_count() > 1:
            # Processes gather their parts together, and their clocks differ: the first one's decides.
            is_due = bool(multihost_utils.broadcast_one_to_all(is_due))
        if is_due or len(self.rows) == settings.num_epochs:
            self.save_last()

    def save_last(self) -> None:
        """Save the last state, unless that was done."""
        if self._state is None:
            return
        state = gather(self._state)
        place = Place(int(state.epoch), int(state.step))
        if jax.process_index() == 0:
            with self._signals.deferred():
                self._checkpoints.save(Checkpoint(place, state, self.rows, self._config.to_toml()))
                self._folder.write_history(self.rows)
                # Before a signal that came meanwhile stops the command.
                self._state, self._time_saved, self.place_saved = None, time.monotonic(), place
        self._state, self._time_saved, self.place_saved = None, time.monotonic(), place


def _check_resumable(checkpoint: Checkpoint, config: Config, folder: RunFolder) -> None:
    check_unchanged(checkpoint, config, folder)
    finished, wanted = checkpoint.place.epoch, config.training.num_epochs
    if wanted < finished or (wanted == finished and checkpoint.place.step):
        raise CommandError(
            f"{folder.path} has {finished} finished epochs already, and num_epochs is {wanted}: expected at least as many."
        )


def _advise_longer(config: Config) -> str:
    if config.training.schedule == "constant":
        return "Give a larger --num-epochs to train longer."
    return "Its learning rate has decayed to the end; start a new run with a larger --num-epochs to train longer."


def _describe_failure(error: NonFiniteLossError, recorder: _Recorder) -> str:
    where = f"What is not finite: {', '.join(error.sites)}." if error.sites else "Draws or a gradient are not finite."
    saved = recorder.place_saved
    kept = f"The checkpoint of {saved} is kept, and the" if saved else "No checkpoint was saved; the"
    return (
        f"The loss stopped being finite in epoch {error.epoch}, step {error.step}. {where} {kept} parameters are in "
        "broken.npz, the last good ones in last_good.npz. Start again with a smaller --learning-rate, --clip-norm, or a "
        "larger --scale."
    )
