"""`FormulaBasis`: a few given functions as the basis of an energy, so that a formula is a density like any other."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from ...arguments import describe
from ...basis import Basis
from ...symbolic.functions import FUNCTIONS, Term

# Panels of a formula's integral, at whose edges its kinks are.
_NUM_PANELS = 40


@dataclass(frozen=True)
class FormulaBasis(Basis):
    """Given functions of z, one a coefficient: what `symbolify` finds, to be refined by learning the coefficients.

    Args:
        terms: functions by name, scale and shift, for example `(("sin", 2.0, 0.5), ("z^2", 1.0, 0.0))`; the names are those
            of the library of `symbolify_functions`, with "z", "z^2", "z^3" and "z^4" for the polynomial.
        coef_scale: standard deviation of initial coefficients.

    Raises:
        ValueError: where there is no term, or one of an unknown function.

    Example:
        >>> import jax, kaem_ppl as kp
        >>> basis = kp.FormulaBasis((("sin", 2.0, 0.5), ("z^2", 1.0, 0.0)))
        >>> kp.UnivariateKAN.init(jax.random.key(0), (3,), basis=basis, domain=(-3, 3)).coef.shape
        (3, 2)
    """

    terms: tuple[Term, ...] = ()

    width_constraint: ClassVar = None

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            terms = tuple(Term(str(name), float(scale), float(shift)) for name, scale, shift in self.terms)
        except (TypeError, ValueError):
            terms = ()
        if not terms or any(term.function not in FUNCTIONS for term in terms):
            raise ValueError(
                f"`terms` must be triples (function, scale, shift), functions among {list(FUNCTIONS)}, got "
                f"{describe(self.terms)}."
            )
        object.__setattr__(self, "terms", terms)

    @property
    def num_features(self) -> int:
        """One function a term."""
        return len(self.terms)

    @property
    def num_panels(self) -> int:
        """Enough for functions that vary several times over the domain."""
        return _NUM_PANELS

    def __call__(self, z: Array, grid: Array, width: Array) -> Array:
        return jnp.stack([term(jnp, z) for term in self.terms], axis=-1)

    def init_grid(self, domain: Array) -> Array:
        """Edges of panels: equally spaced, those nearest to kinks moved there; shape (0,) without kinks."""
        kinks = [-term.shift / term.scale for term in self.terms if FUNCTIONS[term.function].has_kink]
        if not kinks:
            return super().init_grid(domain)
        grid = jnp.linspace(domain[..., 0], domain[..., 1], _NUM_PANELS + 1, axis=-1)
        spacing = grid[..., 1:2] - grid[..., :1]
        ends = jnp.arange(_NUM_PANELS + 1) % _NUM_PANELS == 0
        for kink in kinks:
            grid = jnp.where((jnp.abs(grid - kink) <= 0.5 * spacing) & ~ends, kink, grid)
        return grid

    def breakpoints(self, grid: Array) -> Array | None:
        """The grid, where the formula has kinks."""
        return grid if grid.shape[-1] else None
