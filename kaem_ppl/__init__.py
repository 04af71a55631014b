"""kaem_ppl: Kolmogorov-Arnold Energy Models for NumPyro."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

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
from .saving import load_params as load_params
from .saving import save_params as save_params
from .univariate import UnivariateKAN as UnivariateKAN

if TYPE_CHECKING:
    from .cli.opening import open_run as open_run
    from .density import DVine as DVine
    from .density import FormulaBasis as FormulaBasis
    from .density import KANCopula as KANCopula
    from .density import density_of_sum as density_of_sum
    from .density import prior_from as prior_from
    from .density import prune as prune
    from .density import replace_priors as replace_priors
    from .density import symbolify as symbolify
    from .symbolic import symbolify_functions as symbolify_functions

__version__ = version("kaem-ppl")


# What opens a run builds its model and reads its data: it stands above all rooms. What is made of learnt densities, and
# formulae, are searched for by SciPy's optimisers. They are imported when they are asked for.
_ON_DEMAND = {"open_run": ".cli.opening", "symbolify_functions": ".symbolic"} | dict.fromkeys(
    ("DVine", "FormulaBasis", "KANCopula", "prior_from", "prune", "density_of_sum", "replace_priors", "symbolify"),
    ".density",
)


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return getattr(import_module(_ON_DEMAND[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
