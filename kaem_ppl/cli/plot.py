"""`kaem plot`: how training went, and what the prior became."""

from ..plots import plot_prior
from .build import build_prior
from .figures import plot_history
from .messages import say, warn
from .saved_run import SavedRun


def plot(run: SavedRun) -> None:
    """Write `plots/history.png` where an epoch is finished, and for a KAEM `plots/prior.png`."""
    plots = run.folder.plots
    if run.rows:
        plot_history(run.rows).savefig(plots / "history.png", dpi=150)
    else:
        warn("no epoch is finished yet, so there is no history to draw.")
    prior = build_prior(run.config, run.params)
    if prior is not None:
        plot_prior(prior).savefig(plots / "prior.png", dpi=150)
    say(f"figures in {plots}")
