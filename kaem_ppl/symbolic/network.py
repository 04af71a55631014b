"""Formulae for banks of functions and for networks of them: tables, and networks that formulae make."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..printing import to_html
from .function import SymbolicFunction
from .functions import FUNCTIONS

# Functions of a bank that are printed, those of the largest standard deviation, and forms.
_NUM_LINES, _NUM_FORMS = 10, 8


@dataclass(frozen=True, eq=False, repr=False)
class SymbolicBank:
    """Formulae for every function of a bank; made by `symbolify_functions`.

    Printed are the forms by how many functions have them, and the functions that vary most; `bank[i, j]` has the formulae
    of one function, and iterating goes through all of them in row-major order.

    Attributes:
        functions: array of `SymbolicFunction`, of the shape of the bank.
        max_error: as asked for.
    """

    functions: np.ndarray
    max_error: float

    @property
    def num_found(self) -> int:
        """Functions with a formula within the error."""
        return sum(x.best is not None for x in self)

    def __getitem__(self, index: int | tuple[int, ...]) -> SymbolicFunction:
        return self.functions[index]

    def __iter__(self) -> Iterator[SymbolicFunction]:
        return iter(self.functions.ravel().tolist())

    def __len__(self) -> int:
        return self.functions.size

    def __repr__(self) -> str:
        return "\n".join([f"SymbolicBank: {self._summary()}", *self._lines()])

    def _repr_html_(self) -> str:
        return to_html(repr(self))

    def _summary(self) -> str:
        return f"{self.num_found} of {len(self)} functions within {self.max_error:g}"

    def _lines(self) -> list[str]:
        """The forms, and a table of the functions that vary most."""
        if not len(self):
            return []
        forms = Counter("none" if x.best is None else x.best.name for x in self).most_common()
        others = sum(number for _, number in forms[_NUM_FORMS:])
        shown = [*forms[:_NUM_FORMS], ("others", others)] if others else forms
        lines = ["  forms: " + ", ".join(f"{name} {number}" for name, number in shown)]
        functions = list(self)
        order = np.argsort([-x.std for x in functions], kind="stable")[:_NUM_LINES]
        places = ["[" + ", ".join(map(str, np.unravel_index(i, self.functions.shape))) + "]" for i in order]
        width = max(map(len, places))
        lines += [f"  {'':{width}}  complexity    error      std  formula"]
        for index, place in zip(order, places, strict=True):
            function = functions[index]
            formula, is_found = function.nearest, function.best is not None
            said = str(formula) if is_found else f"{formula} (nearest)"
            row = f"{formula.complexity:10}  {formula.error:7.2g}  {function.std:7.2g}  {said}"
            lines.append(f"  {place:{width}}  {row}")
        if len(self) > _NUM_LINES:
            lines.append(f"  and {len(self) - _NUM_LINES} that vary less")
        return lines


@dataclass(frozen=True, eq=False, repr=False)
class SymbolicNetwork:
    """Formulae for every function of a `KANetwork`; made by `symbolify_functions`.

    Called as the network is, it computes with JAX the outputs that formulae give in place of the functions: the simplest
    within the error, or where there is none the nearest. Inputs of a formula are clipped to its function's domain.

    Attributes:
        layers: formulae of each layer's functions, of shape (in, out).
        output: elementwise function of the outputs, the network's own.
        output_error: mean squared difference of the outputs from the network's, over their variance, all outputs together;
            of the inputs that were given, else None.
    """

    layers: tuple[SymbolicBank, ...]
    output: Callable[[Array], Array] | None = None
    output_error: float | None = None

    def __call__(self, x: ArrayLike) -> Array:
        """Outputs at inputs of shape (..., in): shape (..., out)."""
        x = jnp.asarray(x, float)
        for layer in self._sums:
            x = layer(x)
        return x if self.output is None else self.output(x)

    def __repr__(self) -> str:
        found, number = sum(layer.num_found for layer in self.layers), sum(map(len, self.layers))
        line = f"SymbolicNetwork: {found} of {number} functions within {self.layers[0].max_error:g}"
        if self.output_error is not None:
            line += f", error of the outputs {self.output_error:.2g}"
        lines = [line]
        for index, layer in enumerate(self.layers):
            lines += [f"layer {index}, {layer.functions.shape}: {layer._summary()}", *layer._lines()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return to_html(repr(self))

    @cached_property
    def _sums(self) -> tuple["_LayerSums", ...]:
        return tuple(_LayerSums(layer) for layer in self.layers)


class _LayerSums:
    """sum_i of the formulae f_ij(x_i), every elementary function evaluated for all terms of its kind at once."""

    def __init__(self, bank: SymbolicBank) -> None:
        shape = bank.functions.shape
        chosen = [(*index, function.nearest) for index, function in zip(np.ndindex(shape), bank, strict=True)]
        self._domain = np.reshape([function.domain for function in bank], (*shape, 2))
        self._intercept = np.reshape([formula.intercept for _, _, formula in chosen], shape).sum(0)
        rows: dict[str, list[tuple[float, ...]]] = {}
        for i, j, formula in chosen:
            for term, coefficient in zip(formula.terms, formula.coefficients, strict=True):
                rows.setdefault(term.function, []).append((i, j, term.scale, term.shift, coefficient))
        self._terms = {name: np.array(own).T for name, own in rows.items()}

    def __call__(self, x: Array) -> Array:
        total = jnp.broadcast_to(jnp.asarray(self._intercept, x.dtype), (*x.shape[:-1], len(self._intercept)))
        for name, (rows, columns, *constants) in self._terms.items():
            i, j = rows.astype(int), columns.astype(int)
            low, high = (jnp.asarray(self._domain[i, j, end], x.dtype) for end in (0, 1))
            scale, shift, coefficient = (jnp.asarray(own, x.dtype) for own in constants)
            values = FUNCTIONS[name].evaluate(jnp, scale * jnp.clip(x[..., i], low, high) + shift)
            total = total.at[..., j].add(coefficient * values)
        return total
