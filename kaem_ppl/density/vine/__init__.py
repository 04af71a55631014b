"""D-vines: joint densities of normal scores made of pairs, for dependence that is not Gaussian."""

from .d_vine import DVine as DVine
from .d_vine import VinePair as VinePair
