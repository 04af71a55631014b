"""Colours that all figures share."""

# What a figure is about; what it is compared with; references, guides and priors.
MAIN, CONTRAST, NEUTRAL = "#2a6f97", "#c8553d", "#8a8a8a"
# Of several curves, the first two of which are those above.
CYCLE = (MAIN, CONTRAST, "#588157", "#7b5ea7", "#b08900", "#4a4a4a")
