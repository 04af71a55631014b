"""`kaem evidence`: the log-evidence of a few held-out data, with standard errors and checks."""

from typing import Any

import jax
import numpy as np

from ...inference import (
    AnnealedImportanceSampling,
    ImportanceSampling,
    ParallelTempering,
    TemperedSMC,
    log_evidence,
)
from ...inference.evidence.plots import plot_estimates, plot_thermodynamic_curve
from ..messages import print_result
from ..storage.saved_run import SavedRun, first_held_out
from .diagnose import with_temperatures
from .evaluate import check_evidence, table_of_data

METHODS: dict[str, Any] = {
    "tempering": ParallelTempering(),
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
    progress_bar: bool,
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
        progress_bar: whether to show a bar of steps.

    Raises:
        CommandError: the model's evidence is not defined, there are fewer data, or a method without temperatures is given
            a number of them.
    """
    check_evidence(run)
    chosen = with_temperatures(METHODS[method], f"--method {method}", num_temperatures)
    found = log_evidence(
        key, run.model, x=first_held_out(run, num_data), params=run.params, method=chosen, plate="data",
        num_chains=num_chains, num_samples=num_samples, num_warmup=num_samples, progress_bar=progress_bar,
    )  # fmt: skip
    run.folder.write("evidence.txt", f"{found}\n")
    columns = {
        "log_evidence": np.asarray(found.value),
        "std_error": np.asarray(found.std_error),
        "is_trustworthy": np.asarray(found.is_trustworthy),
    }
    run.folder.write("evidence.csv", table_of_data(columns))
    plots = run.folder.plots
    plot_estimates({method: found}).savefig(plots / "estimates.png", dpi=150)
    if found.curve is not None:
        plot_thermodynamic_curve(found).savefig(plots / "thermodynamic_curve.png", dpi=150)
    else:
        # Of another method, from an earlier call.
        (plots / "thermodynamic_curve.png").unlink(missing_ok=True)
    print_result(str(found))
