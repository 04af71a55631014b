"""`kaem evaluate`: the held-out log-likelihood by importance sampling from the prior, and distances of images."""

import csv
import io
import math
from pathlib import Path

import jax
import numpy as np

from ...inference import ImportanceSampling, log_evidence
from ...progress import Progress
from ..errors import CommandError
from ..messages import print_result, print_warning
from ..storage.saved_run import SavedRun, first_held_out
from .distance import evaluate_distance

# An effective sample size below this makes the estimate too low on average.
_FEW_DRAWS = 10
# Kinds of models without evidence, each with the reason.
_WITHOUT_EVIDENCE = {
    "latent-ebm": "A latent-ebm's prior has an unknown normaliser, so it has no evidence.",
    "diffusion": "A diffusion has a bound on its evidence only, in nats of another likelihood, so it has no evidence.",
}


def evaluate(run: SavedRun, key: jax.Array, num_data: int | None, num_draws: int, distance: bool, folder: Path) -> None:
    """Write `evaluation.csv`, one line for each datum, and what `evaluate_distance` writes where it is wanted.

    Args:
        run: to evaluate.
        key: PRNG key.
        num_data: number of held-out data, the first ones; None takes all.
        num_draws: of the prior.
        distance: whether to measure distances of images too; a model without evidence then has these alone.
        folder: to write into.

    Raises:
        CommandError: the model's evidence is not defined, there are fewer data, or an estimate can't be made.
    """
    if distance:
        evaluate_distance(run, jax.random.fold_in(key, 1), folder)
        if run.config.model.kind in _WITHOUT_EVIDENCE:
            print_result(f"held-out log-evidence: not defined. {_WITHOUT_EVIDENCE[run.config.model.kind]}")
            return
        Progress.innermost().begin("compiling and evaluating held-out data")
    check_evidence(run)
    x = first_held_out(run, len(run.data) if num_data is None else num_data)
    try:
        found = log_evidence(
            key, run.model, x=x, params=run.params, method=ImportanceSampling(num_draws), plate="data", num_chains=1,
            progress_bar=False,
        )  # fmt: skip
    except ValueError as error:
        raise CommandError(
            f"The log-evidence can't be estimated: {error} Or the parameters of {run.folder.path} are too large: train "
            "again with a smaller --learning-rate, or --clip-norm.",
            status=1,
        ) from error
    value = found.value
    columns = {"value": value, "std_error": found.std_error, **found.summary}
    size = np.median(columns["effective_sample_size"])
    # The spread of the data, and what the sum over them is not known by.
    total, of_sum = found.total()
    spread = value.std(ddof=1) * math.sqrt(len(value)) if len(value) > 1 else math.nan
    mean, std_error = total / len(value), math.hypot(spread, of_sum) / len(value)
    print_result(f"held-out log-evidence: {mean:.2f} +- {std_error:.2f} nats per datum, over {len(value)} data")
    print_result(f"effective sample size, median over data: {size:.1f} of {num_draws:,} draws")
    (folder / "evaluation.csv").write_text(table_of_data(columns), encoding="utf-8")
    if size < _FEW_DRAWS:
        print_warning(
            "few draws carry the weight, so the log-evidence is too low on average: `kaem evidence` estimates it better."
        )


def table_of_data(columns: dict[str, np.ndarray]) -> str:
    """A table as CSV, one line for each datum, which is numbered from 0."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["datum", *columns])
    num_data = len(next(iter(columns.values())))
    writer.writerows(zip(range(num_data), *(column.tolist() for column in columns.values()), strict=True))
    return text.getvalue()


def check_evidence(run: SavedRun) -> None:
    """Raise for a model without evidence.

    Raises:
        CommandError: it has.
    """
    reason = _WITHOUT_EVIDENCE.get(run.config.model.kind)
    if reason is not None:
        raise CommandError(f"{reason} Sample it, or measure distances of its images by `kaem evaluate --distance`.")
