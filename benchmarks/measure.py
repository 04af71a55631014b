"""Timing of rivals side by side, and the line of JSON that each measurement becomes."""

import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np


def interleave(rivals: dict[str, Callable[[], Any]], repetitions: int = 7) -> tuple[dict[str, np.ndarray], dict]:
    """Seconds of each rival, shape (repetitions,), one call of each in turn; and of its first call, compilation included.

    Each measured call follows one that is not: what the rival before left in the caches is not this one's cost.
    """
    first, times = {}, {name: [] for name in rivals}
    for name, call in rivals.items():
        first[name] = _seconds(call)
    for _ in range(repetitions):
        for name, call in rivals.items():
            _seconds(call)
            times[name].append(_seconds(call))
    return {name: np.asarray(values) for name, values in times.items()}, first


def _seconds(call):
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def ratio(times: dict[str, np.ndarray], name: str, rival: str) -> np.ndarray:
    """Ratios of `name` to `rival`, repetition by repetition, so that what slows the machine slows both."""
    return times[name] / times[rival]


def report(
    question: str, setting: dict[str, Any], values, unit: str, *, relative_to: str | None = None, **more
) -> dict:
    """Print a measurement as one line of JSON: median, quartiles, and where it was made.

    Args:
        question: what is asked.
        setting: sizes and choices by name.
        values: one for each repetition, or one alone.
        unit: of the values; "ratio" where they are relative.
        relative_to: the rival, for a ratio.
        **more: other numbers that belong to it, such as `first_call_seconds`.
    """
    values = np.atleast_1d(np.asarray(values, float))
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    line = {
        "question": question,
        "setting": setting,
        "value": float(median),
        "unit": unit,
        "relative_to": relative_to,
        "quartiles": [float(low), float(high)],
        "repetitions": len(values),
        **more,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (1 << 20 if sys.platform == "darwin" else 1 << 10),
        "device": jax.devices()[0].device_kind,
        "cpus": jax.device_count() if jax.default_backend() != "cpu" else _cpus(),
        "versions": {name: version(name) for name in ("kaem-ppl", "jax", "numpyro", "blackjax")}
        | {"python": platform.python_version()},
    }
    print(json.dumps(line), flush=True)
    return line


def _cpus():
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def write_lines(lines: list[dict], path: Path | None) -> None:
    """Write measurements as JSON lines, where a path is given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
