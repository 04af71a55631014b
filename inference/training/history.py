"""The history of training: loss and metrics, one row per epoch."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike

import numpy as np


@dataclass(frozen=True)
class History(Mapping[str, np.ndarray]):
    """Columns by name, each a NumPy array with one entry per finished epoch.

    `history["log_evidence"]` is a column and `dict(history)` all of them, in order: `epoch`, counted from 1, `loss`,
    and the strategy's metrics, each a mean over the epoch's steps.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, optax
        >>> from kaem_ppl.inference import fit
        >>> def model(x=None, size=None):
        ...     loc = numpyro.param("loc", 0.0)
        ...     with numpyro.plate("data", size if x is None else len(x)):
        ...         z = numpyro.sample("z", dist.Normal(loc, 1))
        ...         numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> x = 2 + jax.random.normal(jax.random.key(0), (100,))
        >>> history = fit(jax.random.key(1), model, x, num_epochs=3, progress_bar=False).history
        >>> history["epoch"].tolist(), "loss" in history
        ([1, 2, 3], True)
    """

    columns: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        """Return one column."""
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the columns."""
        return iter(self.columns)

    def __len__(self) -> int:
        """Count the columns."""
        return len(self.columns)

    def write_csv(self, path: str | PathLike) -> None:
        """Write a header and one line per epoch."""
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.columns)
            writer.writerows(zip(*(column.tolist() for column in self.columns.values()), strict=True))
