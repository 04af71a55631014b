"""`kaem plot`: figures of the training history and of the learnt prior."""

from pathlib import Path

from ...plots import plot_prior
from ..building.model import build_prior
from ..messages import print_warning
from ..storage.saved_run import SavedRun
from .figures import plot_history


def plot(run: SavedRun, folder: Path) -> None:
    """Write into a folder `history.png` where an epoch is finished, and for a KAEM `prior.png`."""
    if run.rows:
        plot_history(run.rows).savefig(folder / "history.png", dpi=150)
    else:
        print_warning("no epoch is finished yet, so there is no history to plot.")
    prior = build_prior(run.config, run.params)
    if prior is not None:
        plot_prior(prior).savefig(folder / "prior.png", dpi=150)
