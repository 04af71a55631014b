"""KAEM models written with the plugin, their generators, and the data they are made for."""

from .digits import Digits, load_digits, split_digits
from .generators import ConvGenerator, Generator, KANGenerator, MLPGenerator
from .kaem import MixtureKAEM, ProductKAEM

__all__ = [
    "ConvGenerator",
    "Digits",
    "Generator",
    "KANGenerator",
    "MLPGenerator",
    "MixtureKAEM",
    "ProductKAEM",
    "load_digits",
    "split_digits",
]
