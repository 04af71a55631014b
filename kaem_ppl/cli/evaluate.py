"""`kaem evaluate`: the log-evidence of held-out data by importance sampling from the prior."""

import csv
import math

import jax
import numpy as np

from ..inference import importance_log_evidence
from .errors import CommandError
from .messages import say, warn
from .saved_run import SavedRun

# Numbers of outputs that pass through the model at once.
_OUTPUTS_AT_ONCE = 2**24
_FEW_DRAWS = 10


def evaluate(run: SavedRun, key: jax.Array, num_data: int | None, num_draws: int) -> None:
    """Write `evaluation.csv`, one line for each datum.

    Args:
        run: to be evaluated.
        key: PRNG key.
        num_data: the first so many of the held-out data; None takes all.
        num_draws: of the prior.

    Raises:
        CommandError: the model's evidence is not defined.
    """
    check_evidence(run)
    x = run.data.values[:num_data]
    outputs = math.prod(x.shape[1:]) * (1 if run.data.vocabulary is None else len(run.data.vocabulary))
    found = importance_log_evidence(
        key, run.model, {"x": x}, num_draws=num_draws, params=run.params,
        chunk_size=max(1, min(2000, _OUTPUTS_AT_ONCE // outputs)),
    )  # fmt: skip
    columns = {name: np.asarray(column) for name, column in found._asdict().items()}
    with (run.folder.path / "evaluation.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["datum", *columns])
        writer.writerows(zip(range(len(x)), *(column.tolist() for column in columns.values()), strict=True))
    value, size = columns["value"], np.median(columns["effective_sample_size"])
    std_error = value.std(ddof=1) / math.sqrt(len(value)) if len(value) > 1 else math.nan
    say(f"held-out log-evidence: {value.mean():.2f} +- {std_error:.2f} nats per datum, over {len(value)} data")
    say(f"effective sample size, median over data: {size:.1f} of {num_draws:,} draws")
    if size < _FEW_DRAWS:
        warn(
            "few draws carry the weight, so the log-evidence is too low on average: `kaem evidence` estimates it better."
        )


def check_evidence(run: SavedRun) -> None:
    """Refuse a model whose prior has an unknown normaliser.

    Raises:
        CommandError: it has.
    """
    if run.config.model.kind == "latent-ebm":
        raise CommandError("A latent-ebm's prior has an unknown normaliser, so it has no evidence: sample or plot it.")
