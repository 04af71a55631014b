"""Functions read as formulae."""

from .formula import Formula as Formula
from .function import FunctionFormula as FunctionFormula
from .function import SymbolicFunction as SymbolicFunction
from .network import SymbolicBank as SymbolicBank
from .network import SymbolicNetwork as SymbolicNetwork
from .symbolify_functions import symbolify_functions as symbolify_functions
