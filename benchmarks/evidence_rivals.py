"""Seconds to a log-evidence within 0.1 nat: ours beside dynesty, nautilus and jaxns on eight problems with known answers.

Each method runs on each problem in a fresh process with empty caches, at its defaults, and again with twice the budget
until the error that it states is at most 0.1 nat, three doublings at most. Its seconds are those of all these runs
together, compilation included and imports not. The outcome is one of

- reached: the stated error is at most 0.1, ours passed its own checks, and the estimate is within 3 stated errors of the
  truth or within 0.1;
- wrong: the same, but the estimate is farther from the truth;
- not trusted: a check of ours failed at every budget;
- not reached: the stated error stayed above 0.1;
- cut off: the process had the time limit, 90 s (20 s in quick mode; `KAEM_LIMIT` where it is given), and was ended; its
  numbers are those of the last run that ended before;
- failed: the process ended with an error.

The ratio of a problem is the seconds of the best of ours that reached it over those of the best rival. A side that nowhere
reached it counts with the time limit, which makes the ratio too large where no rival did, and too small where none of ours.

Rivals live in environments of their own, for their JAX may be another:

    python -m venv FOLDER && FOLDER/bin/pip install dynesty nautilus-sampler
    python -m venv OTHER && OTHER/bin/pip install jaxns
    KAEM_RIVALS=FOLDER/bin/python:OTHER/bin/python python benchmarks/evidence_rivals.py

Each of these Pythons runs those rivals that it has. Without them their lines and all ratios are missing, and the page says
so. `KAEM_SEED` is the seed, 1 unless given. At most 84 minutes in full: `run.py --only evidence_rivals --minutes 90`. On a
core that others use too, the time limit cuts off what would have ended.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from evidence_problems import PROBLEMS
from evidence_runs import LARGEST_ERROR, RIVALS
from measure import main, report
from tqdm import tqdm

SECONDS, RATIO = "seconds to a log-evidence within 0.1 nat", "best of ours over best rival"
OURS = ("TemperedSMC", "ParallelTempering", "NestedSampling", "ImportanceSampling")
SCRIPT = Path(__file__).resolve().parent / "evidence_runs.py"
DOUBLINGS = 3


def find_rivals():
    """Python that runs each rival, by its name, and the version it has."""
    found = {}
    for python in filter(None, os.environ.get("KAEM_RIVALS", "").split(os.pathsep)):
        for rival, (_, package) in RIVALS.items():
            asked = f"from importlib.metadata import version; print(version({package!r}))"
            answer = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
            if answer.returncode == 0:
                found.setdefault(rival, (python, answer.stdout.strip()))
    return found


def run(python, problem, method, seed, limit):
    """The runs of a method on a problem, and whether the process was cut off or failed."""
    # In a folder of its own, for jaxns leaves a log where it runs.
    command = [os.path.abspath(python), str(SCRIPT), problem, method, str(seed), str(DOUBLINGS)]
    with tempfile.TemporaryDirectory() as folder:
        # Nothing compiled before; and no path of ours into the rivals' Python.
        dropped = ("JAX_COMPILATION_CACHE_DIR", "PYTHONPATH")
        environment = {k: v for k, v in os.environ.items() if k not in dropped} | {"XDG_CACHE_HOME": folder}
        with (Path(folder) / "lines").open("w+") as lines, (Path(folder) / "errors").open("w+") as errors:
            try:
                code = subprocess.run(
                    command, stdout=lines, stderr=errors, env=environment, cwd=folder, timeout=limit, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
            lines.seek(0)
            errors.seek(0)
            found = [json.loads(line) for line in lines.read().splitlines() if line.startswith("{")]
            last_words = errors.read().splitlines()[-1:]
    stopped = "cut off" if code is None else "failed" if code else ""
    if stopped == "failed":
        print(problem, method, *last_words, file=sys.stderr)
    return found, stopped


def judge(found, stopped, truth):
    """The outcome, in the words of the first lines of this file."""
    last = found[-1] if found else None
    is_enough = last is not None and last["trusted"] is not False and last["std_error"] <= LARGEST_ERROR
    if is_enough:
        within = abs(last["estimate"] - truth) <= max(3 * last["std_error"], LARGEST_ERROR)
        return "reached" if within else "wrong"
    if stopped:
        return stopped
    return "not trusted" if not last["trusted"] and last["trusted"] is not None else "not reached"


def measure_one(problem, method, python, seed, limit, truth, source, version):
    """The line of a method on a problem."""
    found, stopped = run(python, problem, method, seed, limit)
    outcome = judge(found, stopped, truth)
    setting = {"problem": problem, "rival": method, "outcome": outcome}
    more = {}
    if found:
        last = found[-1]
        error = last["estimate"] - truth
        setting |= {"estimate - truth": f"{error:+.3f} +- {last['std_error']:.3f}", "budget": last["budget"]}
        more = {"error": error, "std_error": last["std_error"], "seconds_of_last_run": last["seconds"]}
        more["peak_memory_mib"] = last["peak_memory_mib"]
        more["evaluations"] = sum(x["evaluations"] for x in found) if last["evaluations"] else None
        if last["trusted"] is not None:
            setting["trusted"] = "yes" if last["trusted"] else "no"
    seconds = limit if outcome == "cut off" else sum(x["seconds"] for x in found)
    more |= {"truth": truth, "truth_by": source, "version": version, "runs": found, "seed": seed}
    return report(SECONDS, setting, seconds, "seconds", **more)


def best_of(lines, names, limit, key):
    """Least seconds of those that reached it and who that was; the time limit where none did."""
    reached = [
        (key(x), x["setting"]["rival"])
        for x in lines
        if x["setting"]["rival"] in names and x["setting"]["outcome"] == "reached"
    ]
    return min(reached, default=(limit, "none"))


def compare(lines, problem, rivals, limit):
    """The ratio of a problem, by all runs and by the last ones alone; no line where neither side reached it."""
    ours, theirs = (best_of(lines, names, limit, lambda x: x["value"]) for names in (OURS, rivals))
    if ours[1] == theirs[1] == "none":
        return []
    last = [best_of(lines, names, limit, lambda x: x["seconds_of_last_run"])[0] for names in (OURS, rivals)]
    setting = {"problem": problem, "ours": ours[1], "theirs": theirs[1], "limit": limit}
    return [report(RATIO, setting, ours[0] / theirs[0], "ratio", by_last_runs=last[0] / last[1])]


def measure(quick):
    """Every method on every problem, then the median ratio."""
    seed, limit = int(os.environ.get("KAEM_SEED", "1")), float(os.environ.get("KAEM_LIMIT", 20 if quick else 90))
    rivals = find_rivals()
    methods = dict.fromkeys(OURS, (sys.executable, "ours")) | rivals
    missing = [name for name in RIVALS if name not in rivals]
    lines, ratios = [], []
    if missing:
        setting = {"not installed": "; ".join(missing), "how": "see the first lines of evidence_rivals.py"}
        lines.append(report("rivals left out", setting, len(missing), "rivals"))
    for name in tqdm(list(PROBLEMS)[1:3] if quick else PROBLEMS, unit="problem", disable=None, leave=False):
        problem = PROBLEMS[name]()
        truth = float(problem.truth())
        found = [
            measure_one(name, method, python, seed, limit, truth, problem.source, version)
            for method, (python, version) in methods.items()
        ]
        ratios += compare(found, name, rivals, limit) if rivals else []
        lines += found
    lines += ratios
    if ratios:
        setting = {"problems": len(ratios)}
        lines.append(report(f"{RATIO}, median", setting, [x["value"] for x in ratios], "ratio", at_most=0.5))
        values = [x["by_last_runs"] for x in ratios]
        lines.append(report(f"{RATIO}, median, the run that reached it alone", setting, values, "ratio"))
    return lines


def draw(lines):
    """Error of each run against the seconds up to its end, a panel for each problem; open where it was not reached."""
    from matplotlib.figure import Figure
    from plots import PALETTE, plain_axis

    lines = [line for line in lines if line["question"] == SECONDS]
    problems = list(dict.fromkeys(line["setting"]["problem"] for line in lines))
    methods = list(dict.fromkeys(line["setting"]["rival"] for line in lines))
    columns = min(4, len(problems))
    rows = -(-len(problems) // columns)
    figure = Figure(figsize=(1 + 3.3 * columns, 1 + 3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, problem in zip(panels, problems, strict=False):
        for line in (x for x in lines if x["setting"]["problem"] == problem and x["runs"]):
            name = line["setting"]["rival"]
            colour, marker = PALETTE[methods.index(name)], "o" if name in OURS else "s"
            seconds = np.cumsum([x["seconds"] for x in line["runs"]])
            errors = [max(1e-3, abs(x["estimate"] - line["truth"])) for x in line["runs"]]
            panel.plot(seconds, errors, color=colour, linewidth=0.8)
            face = colour if line["setting"]["outcome"] == "reached" else "white"
            panel.plot(seconds[-1:], errors[-1:], marker, color=colour, markerfacecolor=face, label=name)
        panel.axhline(LARGEST_ERROR, color="#7f7f7f", linewidth=0.8, linestyle="--")
        plain_axis(panel, "seconds", problem)
    for row in range(rows):
        panels[row * columns].set_ylabel("|error|, nats (1e-3 and less)")
    handles = {
        text: handle for panel in panels for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


if __name__ == "__main__":
    main(measure, draw)
