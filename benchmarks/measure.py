"""Timing of rivals side by side, the line of JSON that each measurement becomes, and the command line of a benchmark."""

import argparse
import inspect
import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from tqdm import tqdm

from kaem_ppl.inference.model.parameters import read_parameters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A call shorter than this is repeated within one measurement, for the clock and the scheduler have their own grain.
_SHORTEST_SECONDS = 0.02
# Exit status of a benchmark that its share of time stopped.
_CUT = 3
# What a benchmark has measured, and when it has to stop (by `time.monotonic`).
_MEASURED: list[dict] = []
_DEADLINE = math.inf


class OutOfTimeError(Exception):
    """The benchmark's share of time is used up."""


def interleave(rivals: dict[str, Callable[[], Any]], repetitions: int = 7) -> tuple[dict[str, np.ndarray], dict]:
    """Seconds of each rival, shape (repetitions,), one call of each in turn; and of its first call, compilation included.

    Each measured call follows one that is not: what the rival before left in the caches is not this one's cost.
    """
    first, counts, times = {}, {}, {name: [] for name in rivals}
    for name, call in rivals.items():
        first[name] = _seconds(call, 1)
        counts[name] = max(1, math.ceil(_SHORTEST_SECONDS / _seconds(call, 1)))
    for _ in tqdm(range(repetitions), unit="round", disable=None, leave=False):
        for name, call in rivals.items():
            _seconds(call, 1)
            times[name].append(_seconds(call, counts[name]))
    return {name: np.asarray(values) for name, values in times.items()}, first


def _seconds(call, count):
    start = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(call())
    return (time.perf_counter() - start) / count


def ratio(times: dict[str, np.ndarray], name: str, rival: str) -> np.ndarray:
    """Ratios of `name` to `rival`, repetition by repetition, so that what slows the machine slows both."""
    return times[name] / times[rival]


def report(
    question: str, setting: dict[str, Any], values, unit: str, *, relative_to: str | None = None, ratios=None, **more
) -> dict:
    """Print a measurement as one line of JSON: median, quartiles, and where it was made.

    Args:
        question: what is asked.
        setting: sizes and choices by name.
        values: one for each repetition, or one alone.
        unit: of the values; "ratio" where they are relative.
        relative_to: the rival, for a ratio.
        ratios: of the values to the rival's, repetition by repetition, where the values themselves are not relative.
        **more: other numbers that belong to it, such as `first_call_seconds`; a headline has its bar, `at_most` or
            `at_least`; and `peak_memory_mib` where it is that of another process.

    Raises:
        OutOfTimeError: the benchmark's share of time is used up; the line is printed and kept.
    """
    values = np.atleast_1d(np.asarray(values, float))
    value, quartiles = _median_and_quartiles(values)
    line = {
        "question": question,
        "setting": setting,
        "value": value,
        "unit": unit,
        "relative_to": relative_to,
        "quartiles": quartiles,
        "repetitions": len(values),
        **(
            dict(zip(("ratio", "ratio_quartiles"), _median_and_quartiles(ratios), strict=True))
            if ratios is not None
            else {}
        ),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (1 << 20 if sys.platform == "darwin" else 1 << 10),
        **_device_memory(),
        "device": jax.devices()[0].device_kind,
        "cpus": jax.device_count() if jax.default_backend() != "cpu" else _cpus(),
        "versions": {name: version(name) for name in ("kaem-ppl", "jax", "numpyro", "blackjax")}
        | {"python": platform.python_version()},
        **more,
    }
    print(json.dumps(line), flush=True)
    _MEASURED.append(line)
    if time.monotonic() > _DEADLINE:
        raise OutOfTimeError
    return line


def compare(
    question: str, setting: dict[str, Any], rivals: dict[str, Callable[[], Any]], relative_to: str, repetitions: int
) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Time rivals side by side; a line for each, with its seconds and its ratio to one of them, and the times."""
    times, first = interleave(rivals, repetitions)
    lines = [
        report(
            question, {**setting, "rival": name}, seconds, "seconds", relative_to=relative_to,
            ratios=ratio(times, name, relative_to), first_call_seconds=first[name],
            compile_seconds=max(0.0, first[name] - float(np.median(seconds))),
        )
        for name, seconds in times.items()
    ]  # fmt: skip
    return lines, times


def initial_params(model: Callable, *args: Any) -> dict[str, Any]:
    """Values of the model's parameters by site name, as initialised."""
    return read_parameters(jax.random.key(1), model, args).values


def _median_and_quartiles(values):
    low, median, high = np.quantile(np.asarray(values, float), [0.25, 0.5, 0.75])
    return float(median), [float(low), float(high)]


def _device_memory():
    """What an accelerator has held at most; a CPU's memory is the process's."""
    found = jax.devices()[0].memory_stats() or {}
    return {"peak_device_memory_mib": found["peak_bytes_in_use"] / 2**20} if "peak_bytes_in_use" in found else {}


def _cpus():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def write_lines(lines: Iterable[dict], path: Path | None) -> None:
    """Write measurements as JSON lines, where a path is given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def main(measure: Callable[[bool], list[dict]], draw: Callable[[list[dict]], "Figure"]) -> None:
    """The command line of a benchmark: measure, print, and write `NAME.jsonl` and `NAME.png` where a folder is given.

    With `--seconds` it stops after the first line that is later, and writes and draws what it has; exit status 3 says so.

    Args:
        measure: from whether to be quick to lines made by `report`.
        draw: from these lines to a figure.
    """
    path = Path(inspect.getfile(measure))
    parser = argparse.ArgumentParser(
        description=sys.modules[measure.__module__].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few settings and small ones")
    parser.add_argument("--out", type=Path, help="folder for the lines and the plot")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which it stops with what it has")
    options = parser.parse_args()
    global _DEADLINE
    _DEADLINE = time.monotonic() + options.seconds
    try:
        lines, is_cut = measure(options.quick), False
    except OutOfTimeError:
        lines, is_cut = _MEASURED, True
    if options.out is not None:
        write_lines(lines, options.out / f"{path.stem}.jsonl")
        try:
            draw(lines).savefig(options.out / f"{path.stem}.png", dpi=150)
        except (IndexError, KeyError, ValueError, StopIteration):
            # A plot may need the lines that there was no time for.
            if not is_cut:
                raise
    sys.exit(_CUT if is_cut else 0)
