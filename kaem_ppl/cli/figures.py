"""Figures of a run: how training went, and fields with their spectra."""

import numpy as np
from matplotlib.figure import Figure
from scipy.fft import dstn

_GENERATED, _REAL, _LINE = "#c8553d", "#2a6f97", "#2a6f97"


def plot_history(rows: list[dict[str, float]], *, num_columns: int = 3) -> Figure:
    """Every number of the history against the epoch, one panel each.

    Args:
        rows: one for each epoch, with `epoch` among the numbers.
        num_columns: panels in a row.
    """
    names = [name for name in rows[0] if name != "epoch"]
    epochs = [row["epoch"] for row in rows]
    num_columns = min(num_columns, len(names))
    num_rows = -(-len(names) // num_columns)
    figure = Figure(figsize=(3.2 * num_columns, 2.3 * num_rows + 0.2), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True).ravel()
    for name, panel in zip(names, panels, strict=False):
        panel.plot(
            epochs, [row[name] for row in rows], color=_LINE, linewidth=1.4, marker="o" if len(rows) < 15 else ""
        )
        panel.set_title(name.replace("_", " "), fontsize=10)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    figure.supxlabel("epoch", fontsize=10)
    return figure


def plot_fields(generated: np.ndarray, real: np.ndarray, *, num_rows: int = 4, num_columns: int = 4) -> Figure:
    """Generated fields beside real ones, on one scale.

    Args:
        generated: shape (num_fields, n, n), in the data's own unit.
        real: the same.
        num_rows: fields in a column on each side.
        num_columns: fields in a row.
    """
    low, high = min(0.0, float(real.min())), float(real.max())
    figure = Figure(figsize=(1.0 * 2 * num_columns + 1.2, 1.0 * num_rows + 0.5), layout="constrained")
    sides = figure.subfigures(1, 2)
    for side, (name, fields) in zip(sides, {"generated": generated, "real": real}.items(), strict=True):
        side.suptitle(name, fontsize=11)
        panels = side.subplots(num_rows, num_columns, squeeze=False).ravel()
        for panel in panels:
            panel.set_axis_off()
        for panel, field in zip(panels, fields, strict=False):
            image = panel.imshow(field, vmin=low, vmax=high, cmap="viridis")
    figure.colorbar(image, ax=panels, label="pressure", shrink=0.8)
    return figure


def plot_spectra(generated: np.ndarray, real: np.ndarray) -> Figure:
    """Mean power of sine modes against their wave number, of generated fields and of real ones.

    Args:
        generated: shape (num_fields, n, n).
        real: the same.
    """
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    panel = figure.subplots()
    for name, fields, color in (("real", real, _REAL), ("generated", generated, _GENERATED)):
        wave_number, power = sine_spectrum(fields)
        panel.loglog(wave_number, power, color=color, label=name, linewidth=1.4)
    panel.set_xlabel("wave number (half waves along a side)")
    panel.set_ylabel("mean power of a mode")
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def sine_spectrum(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean square of the orthonormal sine transform of fields that are 0 on the boundary, over modes of like length.

    Args:
        fields: values at cells' centres, shape (num_fields, n, n).

    Returns:
        Wave numbers 1 to n, and for each the mean power of the modes (i, j) with sqrt(i^2 + j^2) / sqrt(2) rounding to it.
    """
    n = fields.shape[-1]
    power = np.square(dstn(np.asarray(fields, float), type=2, axes=(1, 2), norm="ortho")).mean(0)
    mode = np.arange(1, n + 1)
    length = np.rint(np.sqrt((mode[:, None] ** 2 + mode**2) / 2)).astype(int).ravel()
    total, count = (np.bincount(length, weights, n + 1)[1:] for weights in (power.ravel(), None))
    return mode, total / count
