"""kaem_ppl: Kolmogorov-Arnold Energy Models for NumPyro."""

from .basis import RBF as RBF
from .basis import RSWAF as RSWAF
from .basis import BSpline as BSpline
from .basis import Chebyshev as Chebyshev
from .basis import Fourier as Fourier
from .basis import Morlet as Morlet
from .univariate import UnivariateKAN as UnivariateKAN
from .distributions import KANTilted as KANTilted
from .distributions import KANTiltedMixture as KANTiltedMixture
