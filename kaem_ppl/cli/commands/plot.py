"""`kaem plot`: figures of the training history and of the learnt prior."""

from ...plots import plot_prior
from ..building.model import build_prior
from ..messages import print_result, print_warning
from ..storage.saved_run import SavedRun
from .figures import plot_history


def plot(run: SavedRun) -> None:
    """Write `plots/history.png` where an epoch is finished, and for a KAEM `plots/prior.png`."""
    plots = run.folder.plots
    if run.rows:
        plot_history(run.rows).savefig(plots / "history.png", dpi=150)
    else:
        print_warning("no epoch is finished yet, so there is no history to plot.")
    prior = build_prior(run.config, run.params)
    if prior is not None:
        plot_prior(prior).savefig(plots / "prior.png", dpi=150)
    print_result(f"figures in {plots}")
