"""A formula for one density: what it says, how far it is from the density, and the distribution that it is."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpyro.distributions import Distribution

from .functions import Term


@dataclass(frozen=True, eq=False, repr=False)
class Expression:
    """One candidate for a density.

    Attributes:
        name: of the named family, such as "Normal", or of the functions in the energy, such as "z + sin".
        complexity: number of constants, variables and functions in the expression.
        kl: KL(learnt || this), in nats.
        constants: by name.
        std_errors: of the constants, where the density was fitted to samples, else empty.
        terms: of an energy; empty for a named family.
        distribution: the density of the formula: an energy's is a `KANTilted` over the learnt one's reference.
    """

    name: str
    complexity: int
    kl: float
    constants: dict[str, float]
    std_errors: dict[str, float]
    terms: tuple[Term, ...]
    distribution: Distribution = field(repr=False)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"Expression({self.to_text()!r}, kl={self.kl:.2g}, complexity={self.complexity})"

    def to_text(self, digits: int = 3) -> str:
        """The energy f(z) without its constant, or the family with its parameters."""
        return self._print(lambda x: f"{x:.{digits}g}", latex=False)

    def to_latex(self, digits: int = 3) -> str:
        """The same in LaTeX."""
        return self._print(lambda x: _latex_number(x, digits), latex=True)

    def _repr_latex_(self) -> str:
        return f"${self.to_latex()}$"

    def _print(self, number: Any, latex: bool) -> str:
        if not self.terms and self.constants:
            parameters = ", ".join(f"{key}={number(value)}" for key, value in self.constants.items())
            if latex:
                return rf"\mathrm{{{self.name}}}({', '.join(number(value) for value in self.constants.values())})"
            return f"{self.name}({parameters})"
        text = ""
        for term, coefficient in zip(self.terms, self.coefficients, strict=True):
            sign = "-" if coefficient < 0 else "+"
            product = f"{number(abs(coefficient))}{chr(92) + ',' if latex else '*'}{term.print(number, latex)}"
            text += f" {sign} {product}" if text else f"{'-' if sign == '-' else ''}{product}"
        return text or "0"

    @property
    def coefficients(self) -> np.ndarray:
        """Of the terms."""
        return np.array([self.constants[f"a{i + 1}"] for i in range(len(self.terms))])


def _latex_number(x: float, digits: int) -> str:
    text = f"{x:.{digits}g}"
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}"
