"""Tilted densities: `KANTilted` and mixtures of them."""

from .mixture import KANTiltedMixture as KANTiltedMixture
from .tilted import KANTilted as KANTilted
