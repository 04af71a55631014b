"""From the command line to Python: a trained run as a model with its parameters, data and history."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from ..inference import History, TrainingState
from ..inference.model.parameters import Params
from ..models import Dataset
from ..printing import describe_arrays, to_html
from ..saving import load_params
from .building.data import load_data
from .demo import PARAMETERS, digits_model, held_out_digits, is_demo
from .errors import CommandError
from .storage.run_folder import RunFolder
from .storage.saved_run import open_saved_run


@dataclass(frozen=True, eq=False, repr=False)
class OpenedRun:
    """A trained run, as `kaem train` or the demo left it.

    Attributes:
        folder: of the run.
        model: the trained one, a NumPyro model.
        params: learnt, constrained, by site name.
        data: held out; `data.values` are what the model observes.
        history: one row for each epoch.
        state: of training, for `fit(..., state=)`; None for the demo, which keeps none.
    """

    folder: Path
    model: Callable
    params: Params
    data: Dataset
    history: History
    state: TrainingState | None

    def training_data(self) -> Dataset:
        """The data that the run was trained on.

        Raises:
            ValueError: their files are missing.
        """
        if is_demo(self.folder):
            return held_out_digits("train")
        try:
            return load_data(RunFolder(self.folder).read_config(), "train", progress_bar=False)
        except CommandError as error:
            raise ValueError(str(error)) from None

    def __repr__(self) -> str:
        columns = self.history.columns
        epochs = len(next(iter(columns.values()), ()))
        numbers = "".join(f", {name} {x[-1]:.5g}" for name, x in columns.items() if name != "epoch" and len(x))
        model = type(self.model).__name__
        return "\n".join(
            [f"{self.folder}: {model}, {epochs} epochs{numbers}; {len(self.data)} held-out data",
             *describe_arrays(self.params)]
        )  # fmt: skip

    def _repr_html_(self) -> str:
        return to_html(repr(self))


def open_run(folder: str | PathLike, *, checkpoint: str = "last") -> OpenedRun:
    """Open a run that `kaem train` or `make demo` left.

    Args:
        folder: of the run.
        checkpoint: whose parameters, `last` or `best`, the one of the lowest loss.

    Raises:
        ValueError: it is not the folder of a run, it has no good checkpoint, a file of its data is missing, or the
            checkpoint is neither of the two.

    Example:
        `run = kp.open_run("runs/mnist-importance")`, and then
        `sample_posterior(key, run.model, x=run.data.values[:4], params=run.params, plate="data")`.

    Example:
        >>> import contextlib, io, tempfile, kaem_ppl as kp
        >>> from kaem_ppl.cli import main
        >>> flags = "--num-train 200 --num-epochs 1 --num-latents 4 --num-components 2"
        >>> with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        ...     status = main(["train", "importance", "--dataset", "DIGITS", "--run-dir", f"{folder}/run", *flags.split()])
        ...     run = kp.open_run(f"{folder}/run")
        >>> run.data.values.shape, len(run.history["loss"])
        ((297, 8, 8, 1), 1)
    """
    path = Path(folder)
    if checkpoint not in ("last", "best"):
        raise ValueError(f"`checkpoint` is {checkpoint!r}: expected 'last' or 'best'.")
    if is_demo(path):
        return OpenedRun(
            path, digits_model(), load_params(path / PARAMETERS), held_out_digits("test"), _read_history(path), None
        )
    try:
        saved = open_saved_run(RunFolder(path), checkpoint, False)
    except CommandError as error:
        raise ValueError(str(error)) from None
    names = list(saved.rows[0]) if saved.rows else []
    history = History({name: np.array([row[name] for row in saved.rows]) for name in names})
    return OpenedRun(path, saved.model, saved.params, saved.data, history, saved.state)


def _read_history(folder: Path) -> History:
    path = folder / "history.csv"
    if not path.is_file():
        raise ValueError(f"{path} is missing: run the demo again.")
    try:
        with path.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return History({name: np.array([float(row[name]) for row in rows]) for name in (rows[0] if rows else ())})
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error}. Run the demo again.") from error
