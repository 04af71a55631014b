"""Learnt densities read as formulae."""

from .basis import FormulaBasis as FormulaBasis
from .expression import Expression as Expression
from .symbolify import SymbolicDensity as SymbolicDensity
from .symbolify import symbolify as symbolify
