"""Shared style of the benchmarks' plots: a colour-blind-safe palette, and axes of ratios."""

# Okabe and Ito's, without the yellow, which is hard to see on white.
PALETTE = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#8c510a", "#5e3c99")


def plain_axis(panel, xlabel, title, *, xscale="log", yscale="log"):
    """Labels, scales, and a light grid, after everything is drawn."""
    # To set a scale anew, the same one too, takes away the names that stand at its ticks.
    for name, scale in (("x", xscale), ("y", yscale)):
        if getattr(panel, f"get_{name}scale")() != scale:
            panel.set(**{f"{name}scale": scale})
    for axis, scale, (low, high) in (
        (panel.xaxis, xscale, panel.get_xlim()), (panel.yaxis, yscale, panel.get_ylim()),
    ):  # fmt: skip
        if scale == "log":
            _label_few(axis, high / low)
    panel.set_xlabel(xlabel)
    panel.set_title(title, fontsize=10)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def ratio_axis(panel, xlabel, title):
    """The same, with a line where both are equal."""
    plain_axis(panel, xlabel, title)
    panel.axhline(1, color="#7f7f7f", linewidth=0.8, linestyle="--")


def _label_few(axis, span):
    """Powers of ten alone, or 2 and 5 between them where there are few."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    if span > 50:
        axis.set_minor_formatter(NullFormatter())
        return
    axis.set_minor_locator(LogLocator(subs=(2, 5) if span > 3 else (1.5, 2, 3, 4, 5, 7)))
    thousands = EngFormatter(sep="\N{THIN SPACE}")
    axis.set_major_formatter(lambda x, _: thousands(x) if x >= 1000 else f"{x:g}")
    axis.set_minor_formatter(axis.get_major_formatter())
