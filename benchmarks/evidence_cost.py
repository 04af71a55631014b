"""Error against cost of each estimator of the log-evidence, where the truth is known in closed form.

A linear-Gaussian model in 1, 10 and 50 dimensions. A run estimates the evidence of 50 equal data at once, each with
random numbers of its own: its error is the root-mean-square over them, its cost the seconds for one. Every method runs
with several budgets, which differ by factors of four. Costs are compared at equal error, by error^2 x seconds relative
to importance sampling from the prior: more draws leave that as it is where errors shrink with the root of their number.
"""

import time

import jax
import numpy as np
from evidence import KERNEL, linear_gaussian
from measure import main, report
from tqdm import tqdm

from kaem_ppl.inference import (
    HMC,
    AdaptedLadder,
    AnnealedImportanceSampling,
    ImportanceSampling,
    NestedSampling,
    ParallelTempering,
    PowerLadder,
    TemperedSMC,
    log_evidence,
)

QUESTION, RIVAL, REPETITIONS, NUM_SEEDS = "error of the log-evidence", "importance", 7, 50


def make_methods(dimension, factor, kernel):
    """Method and draws of each chain by name, for a budget larger by a factor; nested sampling up to ten dimensions."""
    found = {
        RIVAL: (ImportanceSampling(500 * factor), 4),
        "SMC": (TemperedSMC(25 * factor, kernel, 5), 4),
        "annealed": (AnnealedImportanceSampling(2 * factor, kernel, PowerLadder(32)), 4),
        "tempering": (ParallelTempering(kernel, AdaptedLadder({1: 9, 10: 17, 50: 33}[dimension])), 50 * factor),
    }
    return found if dimension > 10 else found | {"nested": (NestedSampling(25 * factor), 4)}


def measure_dimension(dimension, factors, names, kernel):
    """One line for each method and budget; they take turns."""
    model, x, exact = linear_gaussian(dimension, NUM_SEEDS)
    rivals = {
        (name, factor): method
        for factor in factors
        for name, method in make_methods(dimension, factor, kernel).items()
        if names is None or name in names
    }
    first, found = {}, {rival: [] for rival in rivals}
    for number in tqdm(range(REPETITIONS + 1), desc=f"{dimension} dimensions", disable=None, leave=False):
        for rival, (method, num_samples) in rivals.items():
            start = time.perf_counter()
            evidence = log_evidence(
                jax.random.key(number), model, x, plate="data", method=method, num_chains=2, num_samples=num_samples,
                num_warmup=num_samples, progress_bar=False,
            )  # fmt: skip
            seconds = (time.perf_counter() - start) / NUM_SEEDS
            if number == 0:
                first[rival] = seconds * NUM_SEEDS
                continue
            error = np.sqrt(np.mean(np.square(evidence.value - exact)))
            found[rival].append((error, seconds, np.mean(evidence.is_trustworthy)))
    columns = {rival: np.array(rows).T for rival, rows in found.items()}
    work = {rival: error**2 * seconds for rival, (error, seconds, _) in columns.items()}
    return [
        report(
            QUESTION, {"dimension": dimension, "seeds": NUM_SEEDS, "budget": factor, "rival": name}, error, "nats",
            relative_to=f"{RIVAL}, error^2 x seconds", ratios=work[name, factor] / work[RIVAL, factor],
            seconds_of_an_evidence=float(np.median(seconds)), trusted=float(np.mean(trusted)),
            first_call_seconds=first[name, factor],
            compile_seconds=max(0.0, first[name, factor] - NUM_SEEDS * float(np.median(seconds))),
        )
        for (name, factor), (error, seconds, trusted) in columns.items()
    ]  # fmt: skip


def measure(quick):
    """Every dimension."""
    if quick:
        # No step size to adapt.
        return measure_dimension(10, (1, 4), (RIVAL, "annealed"), HMC(step_size=0.3, num_integration_steps=5))
    return [line for dimension in (1, 10, 50) for line in measure_dimension(dimension, (1, 4, 16), None, KERNEL)]


def draw(lines):
    """Error against seconds, one panel for each dimension."""
    from matplotlib.figure import Figure
    from plots import PALETTE, plain_axis

    dimensions = sorted({line["setting"]["dimension"] for line in lines})
    names = list(dict.fromkeys(line["setting"]["rival"] for line in lines))
    figure = Figure(figsize=(1.5 + 3.5 * len(dimensions), 4.2), layout="constrained")
    panels = figure.subplots(1, len(dimensions), squeeze=False, sharey=True)[0]
    for panel, dimension in zip(panels, dimensions, strict=True):
        for colour, name in zip(PALETTE, names, strict=False):
            chosen = sorted(
                (line["seconds_of_an_evidence"], line["value"], *line["quartiles"])
                for line in lines
                if (line["setting"]["dimension"], line["setting"]["rival"]) == (dimension, name)
            )
            if not chosen:
                continue
            x, y, low, high = np.array(chosen).T
            panel.errorbar(
                1e3 * x, y, yerr=(y - low, high - y), marker="o", markersize=4, color=colour, label=name
            )  # fmt: skip
        plain_axis(panel, "milliseconds for one evidence", f"dimension {dimension}")
    panels[0].set_ylabel("root-mean-square error, nats")
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    columns = min(len(handles), 3 * len(dimensions))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)
    return figure


if __name__ == "__main__":
    main(measure, draw)
