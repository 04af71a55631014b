"""All benchmarks, each in a process of its own, within a budget of time, and what they found as Markdown.

Run as `python benchmarks/run.py [--minutes M] [--resume] [--quick] [--only NAME ...] [--out FOLDER]`. Leaves for each
benchmark `NAME.jsonl`, one line for each measurement, and `NAME.png`, or, where it failed or was killed, what it had
measured in `NAME.partial.jsonl`; and `summary.md`, whose first table sets the headline ratios beside their bars, and beside
what the last run in the same folder found. Each benchmark gets an equal share of the minutes that are left; one that
needs longer stops there with what it has, and the summary says so. `--resume` leaves out what the last run finished.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

FOLDER = Path(__file__).parent
# Exit status of a benchmark that stopped after its share of time; see `measure.main`.
CUT = 3
QUICK = ("sampling", "training_step", "posterior_sampling", "evidence_cost", "prior", "quality", "density")
BENCHMARKS = (*QUICK, "posteriors", "prior_settings", "streaming", "dependence", "evidence_rivals", "hierarchical")


def run_all(names, quick, out, minutes):
    """Run them one after another; seconds of each, which failed, and which their share of time stopped."""
    seconds, failed, cut = {}, [], []
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as cache:
        # What all of them compile, small programs by the dozen, is compiled by the first.
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        for number, name in enumerate(bar := tqdm(names, unit="benchmark")):
            bar.set_description(name)
            share = max(1.0, end - time.monotonic()) / (len(names) - number)
            command = [sys.executable, str(FOLDER / f"{name}.py"), "--out", str(out), "--seconds", f"{share:.0f}"]
            command += ["--quick"] if quick else []
            started = time.perf_counter()
            partial = out / f"{name}.partial.jsonl"
            with partial.open("w") as lines:
                done = subprocess.run(command, stdout=lines, env=environment, check=False)
            seconds[name] = time.perf_counter() - started
            if done.returncode not in (0, CUT):
                failed.append(name)
                continue
            partial.unlink()
            if done.returncode == CUT:
                cut.append(name)
            else:
                (out / f"{name}.done").touch()
    return seconds, failed, cut


def read_lines(out):
    """Lines of every benchmark that has any, by its name."""
    paths = {name: out / f"{name}.jsonl" for name in BENCHMARKS}
    return {
        name: [json.loads(line) for line in path.read_text().splitlines()]
        for name, path in paths.items()
        if path.exists()
    }


def summarise(found, before, seconds, failed, cut, quick):
    """The summary, as Markdown."""
    parts = ["# Benchmarks", _origin(found, quick)]
    parts += [f"**{name} failed; its results are from an earlier run.**" for name in failed]
    parts += [f"**{name} was stopped after its share of time; what it had measured is here.**" for name in cut]
    parts.append(_headlines(found, before))
    for name, lines in found.items():
        took = f" ({seconds[name]:.0f} s)" if name in seconds else ""
        parts += [f"## {name.replace('_', ' ')}{took}", f"![{name}]({name}.png)", _table(lines)]
    return "\n\n".join(parts) + "\n"


def _origin(found, quick):
    last = next(iter(found.values()))[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    settings = "Quick settings" if quick else "Full settings"
    return f"{settings} on {last['device']}, {last['cpus']} CPUs or devices; {versions}."


def _headlines(found, before):
    """Every line that has a bar."""
    earlier = {_key(line): line["value"] for lines in before.values() for line in lines}
    rows = []
    for lines in found.values():
        for line in lines:
            if "at_most" not in line and "at_least" not in line:
                continue
            value, last = line["value"], earlier.get(_key(line))
            bar = f"at most {line['at_most']}" if "at_most" in line else f"at least {line['at_least']}"
            met = value <= line["at_most"] if "at_most" in line else value >= line["at_least"]
            change = "" if last is None else f"{100 * (value / last - 1):+.1f} %"
            quartiles = " to ".join(f"{x:.3g}" for x in line["quartiles"])
            rows.append((line["question"], f"{value:.3g}", quartiles, bar, "yes" if met else "no", change))
    return _rows(("headline", "median", "quartiles", "bar", "met", "change since the last run"), rows)


def _key(line):
    return line["question"], json.dumps(line["setting"], sort_keys=True)


def _table(lines):
    """Every line: its setting, value and quartiles, and its ratio to its rival."""
    rows = []
    for line in lines:
        setting = ", ".join(f"{name} {value}" for name, value in line["setting"].items() if name != "rival")
        ratio = line["ratio"] if "ratio" in line else line["value"] if line["unit"] == "ratio" else None
        rows.append(
            (
                line["question"], line["setting"].get("rival", ""), setting, f"{line['value']:.3g} {line['unit']}",
                " to ".join(f"{x:.3g}" for x in line["quartiles"]), "" if ratio is None else f"{ratio:.3g}",
                line["relative_to"] or "", f"{line['compile_seconds']:.1f}" if "compile_seconds" in line else "",
                f"{line['peak_memory_mib']:.0f}",
            )
        )  # fmt: skip
    columns = ("what", "which", "setting", "median", "quartiles", "ratio", "to", "compilation, s", "peak memory, MiB")
    return _rows(columns, rows)


def _rows(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def main():
    """Run, then write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few settings and small ones")
    parser.add_argument("--minutes", type=float, default=60.0, help="for all of it; 60 unless given")
    parser.add_argument("--resume", action="store_true", help="leave out what the last run in the folder finished")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help="those to run")
    parser.add_argument("--out", type=Path, default=FOLDER / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    before = read_lines(options.out)
    names = options.only or (QUICK if options.quick else BENCHMARKS)
    for name in names:
        if not options.resume:
            (options.out / f"{name}.done").unlink(missing_ok=True)
    names = [name for name in names if not (options.out / f"{name}.done").exists()]
    seconds, failed, cut = run_all(names, options.quick, options.out, options.minutes)
    found = read_lines(options.out)
    if found:
        summary = summarise(found, before, seconds, failed, cut, options.quick)
        (options.out / "summary.md").write_text(summary)
        print(summary.split("\n## ")[0], f"\nAll of it: {options.out / 'summary.md'}", sep="\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
