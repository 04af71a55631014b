"""Learnt densities as objects: joint ones by a copula, priors from posterior draws, formulae."""

from .copula import KANCopula as KANCopula
from .posterior import JointPrior as JointPrior
from .posterior import prior_from as prior_from
from .pruning import PrunedPrior as PrunedPrior
from .pruning import prune as prune
from .replacement import replace_priors as replace_priors
from .sums import density_of_sum as density_of_sum
from .symbolic import FormulaBasis as FormulaBasis
from .symbolic import symbolify as symbolify
from .vine import DVine as DVine
