"""Colours and axes that all figures share."""

from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter

# What a figure is about; what it is compared with; references, guides and priors.
MAIN, CONTRAST, NEUTRAL = "#2a6f97", "#c8553d", "#8a8a8a"
# Of several curves, the first two of which are those above.
CYCLE = (MAIN, CONTRAST, "#588157", "#7b5ea7", "#b08900", "#4a4a4a")


def plain_axes(panel: Axes) -> None:
    """Leave the two axes that carry numbers, and write each tick's number in full, without an offset to add to it."""
    panel.spines[["top", "right"]].set_visible(False)
    for axis in (panel.xaxis, panel.yaxis):
        formatter = axis.get_major_formatter()
        if isinstance(formatter, ScalarFormatter):
            formatter.set_useOffset(False)
