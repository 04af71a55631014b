"""Open a trained run: its settings, held-out data, model and parameters."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ...inference import TrainingState
from ...inference.model.parameters import Params
from ...models import Dataset
from ..building.data import load_data
from ..building.draws import model_params
from ..building.model import build_model
from ..errors import CommandError
from ..messages import as_command, print_warning
from ..settings.config import Config
from .run_folder import RunFolder, check_unchanged


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A trained run.

    Attributes:
        folder: of the run.
        config: its settings.
        data: held out.
        model: the trained one.
        params: learnt, constrained.
        rows: of the history.
        state: of training.
    """

    folder: RunFolder
    config: Config
    data: Dataset
    model: Callable
    params: Params
    rows: list[dict[str, float]]
    state: TrainingState


def open_saved_run(folder: RunFolder, checkpoint: str, progress_bar: bool) -> SavedRun:
    """Read a run and its held-out data.

    Args:
        folder: of the run.
        checkpoint: `last`, or `best` for the one of the lowest loss.
        progress_bar: whether to show the progress of long work on data.

    Raises:
        CommandError: it is not the folder of a run, has no good checkpoint, its settings are not those of the checkpoint,
            or its parameters are not finite; or a data file is missing.
    """
    config = folder.read_config()
    checkpoints = folder.checkpoints()
    saved = (checkpoints.load_best if checkpoint == "best" else checkpoints.load_last)(print_warning)
    if saved is None:
        raise CommandError(
            f"{folder.path} has no checkpoint: continue it by {as_command('train', '--resume', folder.path)}."
        )
    check_unchanged(saved, config, folder)
    data = load_data(config, "test", progress_bar)
    model = build_model(config, data)
    params = model_params(model, data, saved.state)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        raise CommandError(
            f"The parameters of {folder.path} after {saved.place} are not finite: train again with a smaller "
            "--learning-rate, or --clip-norm.",
            status=1,
        )
    return SavedRun(folder, config, data, model, params, saved.rows, saved.state)


def first_held_out(run: SavedRun, num_data: int, flag: str = "--num-data", each: int = 1) -> np.ndarray:
    """The first held-out data of a run.

    Args:
        run: whose data.
        num_data: what the flag says.
        flag: named in the message.
        each: data that one of its number stands for.

    Raises:
        CommandError: there are fewer.
    """
    if each * num_data > len(run.data):
        raise CommandError(
            f"{flag} is {num_data}, but {run.config.dataset} has {len(run.data)} held-out data here: expected at most "
            f"{len(run.data) // each}."
        )
    return run.data.values[: each * num_data]
