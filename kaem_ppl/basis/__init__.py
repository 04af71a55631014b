"""Bases of univariate functions: one file each, one contract (`Basis`)."""

from .base import Basis as Basis
from .bspline import BSpline as BSpline
from .chebyshev import Chebyshev as Chebyshev
from .fourier import Fourier as Fourier
from .morlet import Morlet as Morlet
from .rbf import RBF as RBF
from .rswaf import RSWAF as RSWAF
