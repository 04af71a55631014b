"""`kaem evidence`: the log-evidence of a few held-out data, with errors that can be believed."""

import csv
from typing import Any

import jax
import numpy as np

from ..inference import (
    AnnealedImportanceSampling,
    ImportanceSampling,
    ParallelTempering,
    TemperedSMC,
    log_evidence,
)
from ..inference.evidence.plots import plot_estimates, plot_thermodynamic_curve
from .evaluate import check_evidence
from .messages import say
from .saved_run import SavedRun

METHODS: dict[str, Any] = {
    "tempering": ParallelTempering(),
    "smc": TemperedSMC(),
    "ais": AnnealedImportanceSampling(),
    "importance": ImportanceSampling(),
}


def evidence(
    run: SavedRun, key: jax.Array, method: str, num_data: int, num_chains: int, num_samples: int, progress_bar: bool
) -> None:
    """Write `evidence.txt`, `evidence.csv` with one line for each datum, and figures.

    Args:
        run: whose evidence.
        key: PRNG key.
        method: name in `METHODS`.
        num_data: the first so many of the held-out data.
        num_chains: independent estimates, which are averaged.
        num_samples: draws of each chain of `tempering`, and steps of warm-up before.
        progress_bar: whether to show steps.

    Raises:
        CommandError: the model's evidence is not defined.
    """
    check_evidence(run)
    found = log_evidence(
        key, run.model, x=run.data.values[:num_data], params=run.params, method=METHODS[method], plate="data",
        num_chains=num_chains, num_samples=num_samples, num_warmup=num_samples, progress_bar=progress_bar,
    )  # fmt: skip
    run.folder.write("evidence.txt", f"{found}\n")
    with (run.folder.path / "evidence.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["datum", "log_evidence", "std_error", "is_trustworthy"])
        columns = (np.asarray(x).tolist() for x in (found.value, found.std_error, found.is_trustworthy))
        writer.writerows(zip(range(num_data), *columns, strict=False))
    plots = run.folder.plots
    plot_estimates({method: found}).savefig(plots / "estimates.png", dpi=150)
    if found.curve is not None:
        plot_thermodynamic_curve(found).savefig(plots / "thermodynamic_curve.png", dpi=150)
    say(str(found))
