"""`kaem evidence`: the log-evidence of a few held-out data, with standard errors and checks."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...inference import (
    AnnealedImportanceSampling,
    ImportanceSampling,
    TemperedSMC,
    log_evidence,
)
from ...inference.evidence.plots import plot_estimates, plot_thermodynamic_curve
from ..messages import print_result
from ..storage.saved_run import SavedRun, first_held_out
from .diagnose import TEMPERING, with_temperatures
from .evaluate import check_evidence, table_of_data

METHODS: dict[str, Any] = {
    "tempering": TEMPERING,
    "smc": TemperedSMC(),
    "ais": AnnealedImportanceSampling(),
    "importance": ImportanceSampling(),
}


def evidence(
    run: SavedRun,
    key: jax.Array,
    method: str,
    num_data: int,
    num_chains: int,
    num_samples: int,
    num_temperatures: int | None,
    folder: Path,
    unfinished: Path,
) -> None:
    """Write `evidence.txt`, `evidence.csv` with one line for each datum, and figures.

    Args:
        run: whose evidence.
        key: PRNG key.
        method: name in `METHODS`.
        num_data: number of held-out data, the first ones.
        num_chains: independent estimates, which are averaged.
        num_samples: draws of each chain of `tempering`, and steps of warm-up before.
        num_temperatures: of `tempering`; None takes its default.
        folder: to write into.
        unfinished: where the method keeps its state until then, if it can go on after a stop.

    Raises:
        CommandError: the model's evidence is not defined, or there are fewer data.
    """
    check_evidence(run)
    chosen = with_temperatures(METHODS[method], num_temperatures)
    found = log_evidence(
        key, run.model, x=first_held_out(run, num_data), params=run.params, method=chosen, plate="data",
        num_chains=num_chains, num_samples=num_samples, num_warmup=num_samples,
        checkpoint=unfinished if getattr(chosen, "keeps_state", False) else None,
    )  # fmt: skip
    print_result(str(found))
    (folder / "evidence.txt").write_text(f"{found}\n", encoding="utf-8")
    columns = {
        "log_evidence": np.asarray(found.value),
        "std_error": np.asarray(found.std_error),
        "is_trustworthy": np.asarray(found.is_trustworthy),
    }
    (folder / "evidence.csv").write_text(table_of_data(columns), encoding="utf-8")
    plot_estimates({method: found}).savefig(folder / "estimates.png", dpi=150)
    if found.curve is not None:
        plot_thermodynamic_curve(found).savefig(folder / "thermodynamic_curve.png", dpi=150)
