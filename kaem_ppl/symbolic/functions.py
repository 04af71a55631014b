"""Elementary functions of which formulae are written: their values, by NumPy or JAX, and how they are printed."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Function(NamedTuple):
    """A function of u = scale z + shift.

    Attributes:
        evaluate: maps `numpy` or `jax.numpy`, and u, to values.
        text: of the function of `{u}`; `{v}` is the same in parentheses where it is not z alone.
        latex: the same in LaTeX.
        has_kink: whether it has one at u = 0.
        num_inner: constants inside that make a difference: 0 for powers of z, 1 for a rate or a centre, 2 for both.
    """

    evaluate: Callable[[Any, Any], Any]
    text: str
    latex: str
    has_kink: bool = False
    num_inner: int = 2


FUNCTIONS = {
    "z": Function(lambda xp, u: u, "{u}", "{u}", num_inner=0),
    "z^2": Function(lambda xp, u: u * u, "{u}^2", "{u}^{{2}}", num_inner=0),
    "z^3": Function(lambda xp, u: u * u * u, "{u}^3", "{u}^{{3}}", num_inner=0),
    "z^4": Function(lambda xp, u: (u * u) * (u * u), "{u}^4", "{u}^{{4}}", num_inner=0),
    "abs": Function(lambda xp, u: xp.abs(u), "|{u}|", r"\left|{u}\right|", has_kink=True, num_inner=1),
    "exp": Function(lambda xp, u: xp.exp(u), "exp({u})", r"\exp({u})", num_inner=1),
    "sin": Function(lambda xp, u: xp.sin(u), "sin({u})", r"\sin({u})"),
    # By the hyperbolic tangent, which does not overflow.
    "logistic": Function(lambda xp, u: 0.5 * (1 + xp.tanh(0.5 * u)), "1/(1 + exp(-{v}))", r"\sigma({u})"),
    "gaussian": Function(lambda xp, u: xp.exp(-u * u), "exp(-{v}^2)", r"\exp(-{v}^2)"),
    "silu": Function(lambda xp, u: u * (0.5 * (1 + xp.tanh(0.5 * u))), "{v}/(1 + exp(-{v}))", r"{v}\,\sigma({u})"),
}
"""By name; "logistic" stands for the hyperbolic tangent too, which differs by constants."""

POWERS = ("z", "z^2", "z^3", "z^4")


class Term(NamedTuple):
    """coefficient * function(scale z + shift), the coefficient being kept elsewhere."""

    function: str
    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, xp: Any, z: Any) -> Any:
        """Values at points, by `numpy` or `jax.numpy`."""
        function = FUNCTIONS[self.function]
        return function.evaluate(xp, z if function.num_inner == 0 else self.scale * z + self.shift)

    def print(self, number: Callable[[float], str], latex: bool) -> str:
        """The function of z, constants by `number`."""
        function = FUNCTIONS[self.function]
        u = self._inner(number, latex)
        return (function.latex if latex else function.text).format(u=u, v=u if u == "z" else f"({u})")

    def _inner(self, number: Callable[[float], str], latex: bool) -> str:
        times = r"\," if latex else "*"
        inner = "z" if number(self.scale) == "1" else f"{number(self.scale)}{times}z"
        if FUNCTIONS[self.function].num_inner == 0:
            return "z"
        if self.shift == 0:
            return inner
        return f"{inner} {'+' if self.shift > 0 else '-'} {number(abs(self.shift))}"
