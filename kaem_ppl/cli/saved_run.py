"""A run that was trained, ready to be looked at."""

from collections.abc import Callable
from dataclasses import dataclass

from ..inference.model.parameters import Params
from ..models import Dataset
from .build import build_model, model_params
from .config import Config
from .data import load_data
from .errors import CommandError
from .messages import warn
from .run_folder import RunFolder


@dataclass(frozen=True, eq=False)
class SavedRun:
    """What is needed of a run after training.

    Attributes:
        folder: of the run.
        config: its settings.
        data: held out.
        model: that was trained.
        params: learnt, constrained.
        rows: of the history.
    """

    folder: RunFolder
    config: Config
    data: Dataset
    model: Callable
    params: Params
    rows: list[dict[str, float]]


def open_run(folder: RunFolder, checkpoint: str, progress_bar: bool) -> SavedRun:
    """Read a run, and the data it is compared with.

    Args:
        folder: of the run.
        checkpoint: `last`, or `best` for the one of the lowest loss.
        progress_bar: whether to show long work on data.

    Raises:
        CommandError: it is not the folder of a run, or has no good checkpoint.
        FileNotFoundError: a data file is missing.
    """
    config = folder.read_config()
    checkpoints = folder.checkpoints()
    saved = checkpoints.load_best(warn) if checkpoint == "best" else checkpoints.load_last(warn)
    if saved is None:
        raise CommandError(f"{folder.path} has no checkpoint: continue it by `kaem train --resume {folder.path}`.")
    data = load_data(config, "test", progress_bar)
    model = build_model(config, data)
    return SavedRun(folder, config, data, model, model_params(model, data, saved.state), saved.rows)
