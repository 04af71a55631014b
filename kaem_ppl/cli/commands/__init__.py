"""One module for each command of `kaem`, and the figures that they draw."""
