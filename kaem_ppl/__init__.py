"""kaem_ppl: Kolmogorov-Arnold Energy Models for NumPyro."""

from importlib.metadata import version

import numpyro

# ArviZ registers a NumPyro that loads itself when an attribute is first read. Loaded by way of a submodule instead, it
# loses that submodule's own submodules, and `numpyro.factor` fails: so an attribute is read before anything else.
assert numpyro.__version__

from .basis import RBF as RBF
from .basis import RSWAF as RSWAF
from .basis import BSpline as BSpline
from .basis import Chebyshev as Chebyshev
from .basis import Fourier as Fourier
from .basis import Morlet as Morlet
from .distributions import KANTilted as KANTilted
from .distributions import KANTiltedMixture as KANTiltedMixture
from .primitives import kan_generator as kan_generator
from .primitives import kan_prior as kan_prior
from .reparam import InverseTransformReparam as InverseTransformReparam
from .univariate import UnivariateKAN as UnivariateKAN

__version__ = version("kaem-ppl")
