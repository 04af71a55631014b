"""Formulae for one function: the simplest within an error, and what more complexity would buy."""

from dataclasses import dataclass

from ..printing import to_html
from .formula import Formula


@dataclass(frozen=True, repr=False)
class FunctionFormula(Formula):
    """One formula for a function.

    Attributes:
        name: of the functions in it, such as "z + sin"; "constant" where there is none.
        complexity: number of constants, variables and functions in it.
        error: mean squared difference from the function over the function's variance.
    """

    name: str = "constant"
    complexity: int = 1
    error: float = 0.0

    def __repr__(self) -> str:
        return f"FunctionFormula({self.to_text()!r}, error={self.error:.2g}, complexity={self.complexity})"


@dataclass(frozen=True, eq=False, repr=False)
class SymbolicFunction:
    """Formulae for one function; made by `symbolify_functions`.

    Attributes:
        best: the simplest one within `max_error`; None where there is none.
        front: Pareto front, by growing complexity and falling error, as far as `best`.
        max_error: as asked for.
        std: standard deviation of the function over its inputs.
        domain: (a, b); beyond it the function has the values at its ends, and formulae hold inside.
    """

    best: FunctionFormula | None
    front: tuple[FunctionFormula, ...]
    max_error: float
    std: float
    domain: tuple[float, float]

    @property
    def nearest(self) -> FunctionFormula:
        """`best`, or where there is none the formula of least error."""
        return self.front[-1]

    def __repr__(self) -> str:
        lines = [f"SymbolicFunction: {self.best if self.best is not None else f'nothing within {self.max_error:g}'}"]
        lines += [f"  complexity {x.complexity:2}  error {x.error:8.2g}  {x}" for x in self.front]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return to_html(repr(self))
