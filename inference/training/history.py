"""The history of training: loss and metrics, one row per epoch."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike

import numpy as np

from kaem_ppl.printing import to_html


@dataclass(frozen=True)
class History(Mapping[str, np.ndarray]):
    """Columns by name, each a NumPy array with one entry per finished epoch.

    `history["log_evidence"]` is a column and `dict(history)` all of them, in order: `epoch`, counted from 1, `loss`,
    and the strategy's metrics, each a mean over the epoch's steps.

    `loss` is what the optimiser goes down: its gradient is the one that is wanted, and its value need mean nothing.
    `log_evidence` is the number to read: the mean log-evidence of a training datum, in nats, as the strategy estimates it
    on the way. It is an average over the epoch, so that it lags behind the parameters, and is too low where draws are few.
    Whether a model generalises is seen in held-out data only, by `log_evidence` of this package or by `fit(evaluate=)`.

    - `ImportanceMLE`: the loss is minus the joint log-density of data and weighted draws, and lies above minus the
      `log_evidence`; the difference changes with the posteriors' width, so that losses of two models do not compare.
    - `PathwiseImportanceMLE`, `VariationalMLE`: the loss is minus `log_evidence`, a lower bound (with a `kl_weight` other
      than 1, minus the weighted bound).
    - `LangevinMLE`, `ContrastiveMLE`: the loss is minus the joint log-density at the chains, and there is no
      `log_evidence`: watch `log_likelihood`, and evaluate held-out data.
    - `ThermodynamicMLE`: the loss is that of its `objective`; `log_evidence` is by stepping stones over its replicas.

    Printed, a history has the first, the last and the best value of each column.

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
        >>> print(history)  # doctest: +SKIP
        3 epochs                  first     last  best (epoch)
        effective_sample_size    170.99   171.47    171.47 (3)
        log_evidence            -3.7804  -3.7743   -3.7743 (3)
        loss                     4.5284   4.5214    4.5214 (3)
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

    def __repr__(self) -> str:
        if not len(self.get("epoch", ())):
            return "No epochs"
        table = [(f"{len(self['epoch'])} epochs", "first", "last", "best (epoch)")]
        for name, column in self.items():
            if name == "epoch":
                continue
            # Of every other column more is better, or neither is.
            order = np.where(np.isnan(column), np.inf, column if name == "loss" else -column)
            best = int(np.argmin(order))
            shown = f"{column[best]:.5g} ({self['epoch'][best]})"
            table.append((name, f"{column[0]:.5g}", f"{column[-1]:.5g}", shown))
        widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in table
        )

    def _repr_html_(self) -> str:
        return to_html(repr(self))

    def write_csv(self, path: str | PathLike) -> None:
        """Write a header and one line per epoch."""
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.columns)
            writer.writerows(zip(*(column.tolist() for column in self.columns.values()), strict=True))
