"""`Formula`: a sum of elementary functions, which evaluates, and prints as text, LaTeX or a SymPy expression."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .functions import Term


@dataclass(frozen=True, repr=False)
class Formula:
    """intercept + sum_k a_k s_k(b_k z + c_k).

    Attributes:
        terms: the functions s_k with b_k and c_k.
        coefficients: a_k, one for each term.
        intercept: a constant.
    """

    terms: tuple[Term, ...] = ()
    coefficients: tuple[float, ...] = ()
    intercept: float = 0.0

    def __call__(self, z: Any) -> Any:
        """Values at points: of a JAX array by JAX, of anything else by NumPy in double precision."""
        if isinstance(z, jax.Array):
            return self._sum(jnp, z) + jnp.zeros_like(z)
        return self._sum(np, np.asarray(z, float)) + np.zeros(np.shape(z))

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.to_text()!r})"

    def to_text(self, digits: int = 3) -> str:
        """As text, with this many digits of each constant."""
        return self._print(lambda x: f"{x:.{digits}g}", latex=False)

    def to_latex(self, digits: int = 3) -> str:
        """The same in LaTeX."""
        return self._print(lambda x: latex_number(x, digits), latex=True)

    def to_sympy(self) -> Any:
        """As a SymPy expression of the symbol z, with all digits of the constants.

        Raises:
            ImportError: where SymPy is not installed; `pip install sympy` brings it.
        """
        import sympy

        functions = SimpleNamespace(abs=sympy.Abs, exp=sympy.exp, sin=sympy.sin, tanh=sympy.tanh)
        return sympy.sympify(self._sum(functions, sympy.Symbol("z", real=True)))

    def _repr_latex_(self) -> str:
        return f"${self.to_latex()}$"

    def _sum(self, xp: Any, z: Any) -> Any:
        total = self.intercept
        for coefficient, term in zip(self.coefficients, self.terms, strict=True):
            total = total + coefficient * term(xp, z)
        return total

    def _print(self, number: Callable[[float], str], latex: bool) -> str:
        times = r"\," if latex else "*"
        parts = []
        for coefficient, term in zip(self.coefficients, self.terms, strict=True):
            size, function = number(abs(coefficient)), term.print(number, latex)
            parts.append((coefficient, size + function[1:] if function.startswith("1/") else size + times + function))
        if self.intercept or not parts:
            parts.append((self.intercept, number(abs(self.intercept))))
        text = ""
        for coefficient, part in parts:
            sign = "-" if coefficient < 0 else "+"
            text += f" {sign} {part}" if text else f"{'-' if sign == '-' else ''}{part}"
        return text


def latex_number(x: float, digits: int) -> str:
    """A number with so many digits, its exponent as a power of ten."""
    text = f"{x:.{digits}g}"
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}"
