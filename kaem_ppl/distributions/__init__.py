"""Tilted densities: `KANTilted`, mixtures of them, and what is derived: truncation, censoring, divergences."""

from . import divergence as divergence
from .censored import IntervalCensoredTilted as IntervalCensoredTilted
from .censored import LeftCensoredTilted as LeftCensoredTilted
from .censored import RightCensoredTilted as RightCensoredTilted
from .mixture import KANTiltedMixture as KANTiltedMixture
from .tilted import KANTilted as KANTilted
from .truncated import TruncatedTilted as TruncatedTilted
