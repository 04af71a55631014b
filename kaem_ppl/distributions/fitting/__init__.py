"""Maximum penalised likelihood of the energies of tilted densities, for many densities at once."""

from .result import TiltedFit as TiltedFit
from .solution import Solution as Solution
from .solution import solve as solve
