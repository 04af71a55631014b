"""Draws in files as what ArviZ reads, lazily."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .spool import INDEX

if TYPE_CHECKING:
    import xarray


def read_spooled(
    folder: Path, num_draws: int, attributes: Mapping[str, Any], summary: Mapping[str, Any]
) -> "xarray.DataTree":
    """The groups `posterior` and `sample_stats` of a folder's draws, whose arrays are read as they are needed.

    Args:
        folder: of a checkpoint.
        num_draws: of each chain, the first ones.
        attributes: of both groups.
        summary: what becomes the group `run_summary`, arrays (C, ...).

    Raises:
        FileNotFoundError: the file of draws is gone.
    """
    import xarray

    if not (folder / INDEX).exists():
        raise FileNotFoundError(
            f"{folder / INDEX} is no longer there: move the folder back, or call `sample_posterior` with where it is now."
        )

    groups: dict[str, Any] = {
        name: xarray.open_dataset(folder / INDEX, engine="h5netcdf", group=name)
        .isel(draw=slice(num_draws))
        .assign_attrs(attributes)
        for name in ("posterior", "sample_stats")
    }
    groups["run_summary"] = xarray.Dataset(
        {
            name: (("chain", *(f"{name}_dim_{axis}" for axis in range(np.ndim(x) - 1))), np.asarray(x))
            for name, x in summary.items()
        }
    )
    return xarray.DataTree.from_dict(groups)
