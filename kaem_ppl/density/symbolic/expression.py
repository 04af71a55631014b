"""A formula for one density: what it says, how far it is from the density, and the distribution that it is."""

from dataclasses import dataclass, field

import numpy as np
from numpyro.distributions import Distribution

from ...symbolic.formula import Formula, latex_number
from ...symbolic.functions import Term


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
        if self.formula is not None:
            return self.formula.to_text(digits)
        return f"{self.name}({', '.join(f'{key}={value:.{digits}g}' for key, value in self.constants.items())})"

    def to_latex(self, digits: int = 3) -> str:
        """The same in LaTeX."""
        if self.formula is not None:
            return self.formula.to_latex(digits)
        return rf"\mathrm{{{self.name}}}({', '.join(latex_number(x, digits) for x in self.constants.values())})"

    def _repr_latex_(self) -> str:
        return f"${self.to_latex()}$"

    @property
    def formula(self) -> Formula | None:
        """The energy as a function of z, without its constant; None for a named family."""
        if not self.terms and self.constants:
            return None
        return Formula(self.terms, tuple(self.coefficients.tolist()))

    @property
    def coefficients(self) -> np.ndarray:
        """Of the terms."""
        return np.array([self.constants[f"a{i + 1}"] for i in range(len(self.terms))])
