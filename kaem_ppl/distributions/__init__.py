"""Tilted densities: `KANTilted`, mixtures of them, and what is derived: truncation, divergences."""

from . import divergence as divergence
from .mixture import KANTiltedMixture as KANTiltedMixture
from .tilted import KANTilted as KANTilted
from .truncated import TruncatedTilted as TruncatedTilted
