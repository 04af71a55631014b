"""Figures of a run: the training history, and generated fields with their spectra."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.fft import dstn

from ...plot_style import CONTRAST, MAIN, plain_axes

_UNITS = {
    **dict.fromkeys(("log_evidence", "log_likelihood", "kl_divergence", "loss", "evaluation"), "nats per datum"),
    "effective_sample_size": "draws",
    "acceptance_rate": "share",
    "step_size": "of a datum, mean",
}


def plot_history(rows: list[dict[str, float]], *, num_columns: int = 3) -> Figure:
    """Loss and metrics against the epoch, one panel each.

    Args:
        rows: one for each epoch; `epoch` is one of the names.
        num_columns: panels in a row.
    """
    names = [name for name in rows[0] if name != "epoch"]
    epochs = [row["epoch"] for row in rows]
    num_columns = min(num_columns, len(names))
    num_rows = -(-len(names) // num_columns)
    figure = Figure(figsize=(3.2 * num_columns, 2.3 * num_rows + 0.2), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for name, panel in zip(names, panels, strict=False):
        panel.plot(epochs, [row[name] for row in rows], color=MAIN, linewidth=1.4, marker="o" if len(rows) < 15 else "")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(rows) == 1:
            # Around a single point there is no whole number but its own.
            panel.set_xlim(epochs[0] - 1, epochs[0] + 1)
        unit = _UNITS.get(name)
        panel.set_title(name.replace("_", " ") + (f" ({unit})" if unit else ""), fontsize=10)
        panel.tick_params(labelsize=8)
        plain_axes(panel)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    figure.supxlabel("epoch", fontsize=10)
    return figure


def plot_fields(generated: np.ndarray, real: np.ndarray, *, num_rows: int = 4, num_columns: int = 4) -> Figure:
    """Generated and real fields side by side, on one scale.

    Args:
        generated: shape (num_fields, n, n), in physical units.
        real: the same.
        num_rows: fields in a column on each side.
        num_columns: fields in a row.
    """
    low, high = min(0.0, float(real.min())), float(real.max())
    figure = Figure(figsize=(2 * num_columns + 1.2, num_rows + 0.5), layout="constrained")
    figure.set_layout_engine("constrained", w_pad=0.1)
    panels = figure.subplots(1, 2)
    for panel, (name, fields) in zip(panels, {"generated": generated, "real": real}.items(), strict=True):
        tiles = _tile(fields[: num_rows * num_columns], num_rows, num_columns)
        image = panel.imshow(tiles, vmin=low, vmax=high, cmap="viridis")
        panel.set_title(name, fontsize=11)
        panel.set_axis_off()
    figure.colorbar(image, ax=panels, label="pressure", shrink=0.8)
    return figure


def _tile(fields: np.ndarray, num_rows: int, num_columns: int) -> np.ndarray:
    """One array of all fields, NaN between neighbours."""
    n = fields.shape[-1]
    canvas = np.full((num_rows * (n + 1) - 1, num_columns * (n + 1) - 1), np.nan)
    for index, field in enumerate(fields):
        top, left = (n + 1) * np.array(divmod(index, num_columns))
        canvas[top : top + n, left : left + n] = field
    return canvas


def plot_spectra(generated: np.ndarray, real: np.ndarray) -> Figure:
    """Mean power of sine modes against their wave number, of generated and of real fields.

    Args:
        generated: shape (num_fields, n, n).
        real: the same.
    """
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    panel = figure.subplots()
    for name, fields, color in (("real", real, MAIN), ("generated", generated, CONTRAST)):
        wave_number, power = sine_spectrum(fields)
        panel.semilogy(wave_number, power, color=color, label=name, linewidth=1.4)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("wave number (half waves along a side)")
    panel.set_ylabel("mean power of a mode")
    panel.legend(frameon=False)
    plain_axes(panel)
    return figure


def sine_spectrum(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean square of the orthonormal sine transform of fields that are 0 on the boundary, over modes of similar length.

    Args:
        fields: values at cells' centres, shape (num_fields, n, n).

    Returns:
        Wave numbers 1 to n, and for each the mean power of the modes (i, j) with sqrt(i^2 + j^2) / sqrt(2) rounding to it.
    """
    n = fields.shape[-1]
    power = np.square(np.asarray(dstn(np.asarray(fields, float), type=2, axes=(1, 2), norm="ortho"))).mean(0)
    mode = np.arange(1, n + 1)
    length = np.rint(np.sqrt((mode[:, None] ** 2 + mode**2) / 2)).astype(int).ravel()
    total, count = (np.bincount(length, weights, n + 1)[1:] for weights in (power.ravel(), None))
    return mode, total / count
