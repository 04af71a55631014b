"""`kaem report`: all that is known of a run on one page, whose pictures are inside it."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from ...plots import plot_prior
from ...progress import Progress
from ..building.model import build_prior
from ..errors import CommandError
from ..messages import print_result, print_warning
from ..settings.parsing import to_toml
from ..storage.saved_run import SavedRun
from .figures import plot_history
from .latents import plot_traversal
from .page import Page
from .sample import draw_figures, draw_texts

NAME = "report.html"
# Of the history, the columns that stand at the top, with what they are.
_HEADLINES = {"log_evidence": "log-evidence in training, nats", "evaluation": "evaluation", "loss": "loss"}
# Of earlier results by the beginning of their folder's name: the section, and what each picture shows.
_RESULTS = {
    "diagnose": ("Convergence diagnostics", {
        "posterior.png": "draws of each latent's posterior, of all data together, over its prior",
        "swap_rates.png": "how often neighbours on the ladder swap",
        "replica_trace.png": "where replicas stand on the ladder",
    }),
    "evidence": ("Evidence of held-out data", {
        "estimates.png": "estimators side by side; hollow where one fails its checks",
        "thermodynamic_curve.png": "mean log-likelihood against temperature",
    }),
    "interpolate": ("Paths between held-out data", {"interpolate.png": "each point follows the prior where its ends do"}),
}  # fmt: skip


def report(run: SavedRun, key: jax.Array, folder: Path) -> None:
    """Write `report.html`: numbers, samples, curves, densities, traversals, results of other commands, and settings.

    Args:
        run: to report.
        key: PRNG key, of the samples and of the point that is traversed.
        folder: to write into.

    Raises:
        CommandError: samples are not finite.
    """
    sample_key, traverse_key = jax.random.split(key)
    config, progress = run.config, Progress.innermost()
    page = Page(f"{config.dataset}, {config.model.kind} trained by {config.mode}")
    page.numbers(_headlines(run))
    page.section("Samples")
    if run.data.vocabulary is not None:
        page.listing("\n".join(draw_texts(run, sample_key, 12)))
    else:
        for name, figure in draw_figures(run, sample_key, 64).items():
            page.figure(figure, _CAPTIONS[name])
    page.section("Distances and held-out evidence")
    _add_evaluation(page, run)
    page.section("Training")
    if run.rows:
        page.figure(plot_history(run.rows), "epoch means; the loss is what training minimises")
    for path in sorted((run.folder.path / "pictures").glob("*.gif")):
        page.file(path, f"{path.stem}, epoch after epoch")
    prior = build_prior(config, run.params)
    if prior is not None:
        page.section("Learnt densities")
        page.figure(plot_prior(prior), "the prior of each latent over its reference")
    page.section("Traversals")
    try:
        progress.begin("compiling and moving latents")
        figure, _ = plot_traversal(run, traverse_key, 8, 9)
        page.figure(figure, "latents in the order in which they change the output, each along its own quantiles")
    except CommandError as error:
        page.text(str(error))
    for name, (title, captions) in _RESULTS.items():
        page.section(title)
        for path in _newest(run, name):
            _add_result(page, path, captions)
    page.section("Settings")
    tables = {"data": config.data, "model": config.model, config.mode: config.strategy, "training": config.training}
    page.tables(
        (name, [(field, to_toml(value).strip('"[]')) for field, value in dataclasses.asdict(table).items()])
        for name, table in tables.items()
    )
    page.tables([("software", _versions(run))])
    text = page.to_html()
    (folder / NAME).write_text(text, encoding="utf-8")
    print_result(f"{NAME}, {len(text) / 2**20:.1f} MiB")


_CAPTIONS = {
    "samples.png": "means of the likelihood, drawn from the model, beside held-out data",
    "spectra.png": "mean power of sine modes",
}


def _headlines(run: SavedRun) -> list[tuple[str, str]]:
    last = run.rows[-1] if run.rows else {}
    size = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(run.params))
    found = [("finished epochs", str(int(last.get("epoch", 0)))), ("learnt numbers", f"{size:,}")]
    found += [(text, f"{last[name]:.5g}") for name, text in _HEADLINES.items() if name in last]
    return [*found, ("held-out data", f"{len(run.data):,}")]


def _add_evaluation(page: Page, run: SavedRun) -> None:
    for folder in _newest(run, "evaluate"):
        table, texts = folder / "evaluation.csv", folder / "distances.txt"
        if table.is_file() and (text := _read(table, _describe_evaluation)) is not None:
            page.text(text)
        if texts.is_file() and (text := _read(texts, str)) is not None:
            page.listing(text)
        return
    page.text(f"Not evaluated yet: kaem evaluate {run.folder.path.name} --distance.")


def _describe_evaluation(text: str) -> str:
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows:
        raise ValueError("it has no row")
    values = np.array([float(row["value"]) for row in rows])
    sizes = np.median([float(row["effective_sample_size"]) for row in rows])
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return (
        f"Held-out log-evidence by importance sampling: {values.mean():.2f} ± {error:.2f} nats for each of "
        f"{len(values)} data; median effective sample size {sizes:.1f}."
    )


def _read[T](path: Path, parse: Callable[[str], T]) -> T | None:
    """What a file of earlier results says; None, with a warning, where it is damaged."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, KeyError, AttributeError, OSError, csv.Error) as error:
        print_warning(f"{path} is damaged, and left out: {error}.")
        return None


def _add_result(page: Page, folder: Path, captions: dict[str, str]) -> None:
    for path in sorted(folder.glob("*.txt")):
        if (text := _read(path, str)) is not None:
            page.listing(text)
    for name, caption in captions.items():
        if (folder / name).is_file():
            page.file(folder / name, f"{caption} ({folder.name})")


def _newest(run: SavedRun, command: str) -> list[Path]:
    """The last results of a command, one folder for each of its methods."""
    found: dict[str, Path] = {}
    for path in sorted((run.folder.path / "results").glob(f"{command}-*"), key=lambda path: path.stat().st_mtime):
        if path.is_dir():
            # COMMAND-METHOD-DATE-TIME, perhaps with a number behind.
            found["-".join(part for part in path.name.split("-") if not part.isdigit())] = path
    return [*found.values()]


def _versions(run: SavedRun) -> list[tuple[str, str]]:
    path = run.folder.path / "versions.json"
    found = _read(path, lambda text: list(json.loads(text).items())) if path.is_file() else None
    return [(name, ", ".join(map(str, x)) if isinstance(x, list) else str(x)) for name, x in found or ()]
