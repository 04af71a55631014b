"""`Form`: which functions a formula sums, which of its constants are to be found, and where a search for them starts."""

import numpy as np
from numpy.typing import NDArray

from .functions import FUNCTIONS, POWERS, Term

type Floats = NDArray[np.float64]

# Rates and centres of a function that a search starts from.
_NUM_RATES, _NUM_CENTRES = 24, 31
# Of a function's value at -u: the sign that its coefficient takes, up to a constant. The others are neither even nor odd.
_PARITY = {"sin": -1.0, "logistic": -1.0, "gaussian": 1.0}


class Form:
    """sum_k a_k s_k(b_k z + c_k) with constants to be found.

    Attributes:
        functions: names of the s_k.
        name: the names joined by " + ".
        labels: names of the constants: a1, a2, ..., then b1, c1, b2, ... of those functions that have them.
        complexity: number of constants, variables and functions in it.
    """

    def __init__(self, functions: tuple[str, ...]) -> None:
        self.functions = functions
        self.name = " + ".join(functions)
        outer = [f"a{i + 1}" for i in range(len(functions))]
        inner = []
        for i, name in enumerate(functions):
            has_scale = FUNCTIONS[name].num_inner > 0 and not FUNCTIONS[name].has_kink
            has_shift = FUNCTIONS[name].num_inner == 2 or FUNCTIONS[name].has_kink
            inner += [f"b{i + 1}"] * has_scale + [f"c{i + 1}"] * has_shift
        self.labels = (*outer, *inner)
        # Of each term its coefficient and variable, an exponent (1) or a transcendental function (2), and what is inside.
        used = sum({"z": 0, "abs": 1}.get(name, 1 if name in POWERS else 2) for name in functions)
        # A square, or a factor, outside the transcendental function.
        used += sum(name in ("gaussian", "silu") for name in functions)
        self.complexity = 2 * len(functions) + used + len(inner)

    @property
    def inner_labels(self) -> tuple[str, ...]:
        """Names of the constants inside the functions."""
        return self.labels[len(self.functions) :]

    def terms(self, constants: Floats) -> tuple[Term, ...]:
        """The functions with their inner constants, of all constants in the order of `labels`."""
        values = dict(zip(self.labels, constants.tolist(), strict=True))
        pairs = enumerate(self.functions, start=1)
        return tuple(Term(name, values.get(f"b{i}", 1.0), values.get(f"c{i}", 0.0)) for i, name in pairs)

    def constants(self, terms: tuple[Term, ...], coefficients: Floats) -> Floats:
        """All constants in the order of `labels`; the inverse of `terms`."""
        fields = {"b": "scale", "c": "shift"}
        inner = [getattr(terms[int(label[1:]) - 1], fields[label[0]]) for label in self.inner_labels]
        return np.concatenate([coefficients, np.array(inner, float)])

    def kinks(self, constants: Floats) -> list[float]:
        """Points where the sum has a kink."""
        return [-term.shift / term.scale for term in self.terms(constants) if FUNCTIONS[term.function].has_kink]

    def units(self, interval: tuple[float, float]) -> Floats:
        """What one step in each constant is measured in, on an interval."""
        low, high = interval
        length, reach = high - low, max(abs(low), abs(high))
        found = []
        for label in self.labels:
            name = self.functions[int(label[1:]) - 1]
            has_kink = FUNCTIONS[name].has_kink
            match label[0]:
                case "a" if name in POWERS:
                    found.append(reach ** -(POWERS.index(name) + 1))
                case "a":
                    found.append(1 / length if has_kink else 1.0)
                case "b":
                    found.append(1 / length)
                case _:
                    found.append(length if has_kink else 1.0)
        return np.array(found)

    def normalised(self, constants: Floats) -> Floats:
        """The same sum, up to a constant, by constants of the signs that are printed."""
        values = dict(zip(self.labels, constants.tolist(), strict=True))
        for i, name in enumerate(self.functions, start=1):
            sign = _PARITY.get(name)
            if sign is not None and values[f"b{i}"] < 0:
                values |= {f"a{i}": sign * values[f"a{i}"], f"b{i}": -values[f"b{i}"], f"c{i}": -values[f"c{i}"]}
            if name == "sin":
                if values[f"a{i}"] < 0:
                    values |= {f"a{i}": -values[f"a{i}"], f"c{i}": values[f"c{i}"] + np.pi}
                values[f"c{i}"] = (values[f"c{i}"] + np.pi) % (2 * np.pi) - np.pi
        return np.array(list(values.values()))


def inner_starts(name: str, interval: tuple[float, float]) -> list[Term]:
    """Terms of one function with the inner constants that a search on an interval starts from."""
    low, high = interval
    length = high - low
    centres = np.linspace(low, high, _NUM_CENTRES)
    if FUNCTIONS[name].num_inner == 0:
        return [Term(name)]
    match name:
        case "sin":
            rates = np.geomspace(0.5 * np.pi, 16 * np.pi, 2 * _NUM_RATES) / length
            return [Term(name, rate, phase - rate * low) for rate in rates for phase in np.arange(4) * np.pi / 4]
        case "abs":
            return [Term(name, 1.0, -centre) for centre in centres]
        case "exp":
            rates = np.geomspace(0.3, 30, _NUM_RATES) / length
            return [Term(name, sign * rate, 0.0) for rate in rates for sign in (1, -1)]
    rates = np.geomspace(3, 60, _NUM_RATES) / length
    # A function that is neither even nor odd differs where it is turned round.
    signs = (1,) if name in _PARITY else (1, -1)
    return [Term(name, sign * rate, -sign * rate * centre) for rate in rates for centre in centres for sign in signs]
