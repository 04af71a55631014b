"""Formulae evaluate, print and translate to the same values."""

import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_ppl.symbolic import Formula
from kaem_ppl.symbolic.forms import Form, inner_starts
from kaem_ppl.symbolic.functions import FUNCTIONS, Term

EVERY = Formula(
    (
        Term("z"), Term("z^2"), Term("z^3"), Term("z^4"), Term("abs", 1.0, -0.5), Term("exp", 0.5), Term("sin", 2.0, 0.25),
        Term("logistic", 4.0, -1.0), Term("gaussian", 1.5, 0.5), Term("silu", -1.0, 0.75), Term("silu"), Term("logistic"),
    ),
    (0.5, -0.25, 0.125, 1e-3, 2.0, -1.5, 0.75, 3.0, -1.0, 1.25, 0.5, -2.0),
    -0.75,
)  # fmt: skip
Z = np.linspace(-2, 2, 41)


def by_hand(z):
    def sigmoid(u):
        return 1 / (1 + math.exp(-u))

    total = -0.75 + 0.5 * z - 0.25 * z**2 + 0.125 * z**3 + 1e-3 * z**4 + 2 * abs(z - 0.5) - 1.5 * math.exp(0.5 * z)
    total += 0.75 * math.sin(2 * z + 0.25) + 3 * sigmoid(4 * z - 1) - math.exp(-((1.5 * z + 0.5) ** 2))
    return total + 1.25 * (0.75 - z) * sigmoid(0.75 - z) + 0.5 * z * sigmoid(z) - 2 * sigmoid(z)


def python_of(latex):
    """LaTeX as Python, by what stands for what."""
    for old, new in (
        (r" \cdot 10^{-3}", "e-3"), (r"\left|", "abs("), (r"\right|", ")"), (r"\exp", "math.exp"), (r"\sin", "math.sin"),
        (r"\sigma", "sigmoid"), (r"\,", "*"), ("^{", "**{"), ("^2", "**2"), ("{", "("), ("}", ")"),
    ):  # fmt: skip
        latex = latex.replace(old, new)
    return latex


def test_a_formula_has_one_value_however_it_is_evaluated():
    expected = [by_hand(z) for z in Z]
    np.testing.assert_allclose(EVERY(Z), expected, rtol=1e-12)
    assert EVERY(Z).dtype == np.float64
    np.testing.assert_allclose(jax.jit(EVERY)(jnp.asarray(Z)), expected, rtol=1e-5, atol=1e-5)
    names = {"math": math, "sigmoid": lambda u: 1 / (1 + math.exp(-u))}
    in_latex = [eval(python_of(EVERY.to_latex()), names | {"z": z}) for z in Z]
    np.testing.assert_allclose(in_latex, expected, rtol=1e-12)
    assert EVERY(1).shape == ()
    assert pickle.loads(pickle.dumps(EVERY)) == EVERY


def test_sympy_has_the_same_values():
    sympy = pytest.importorskip("sympy")
    z = sympy.Symbol("z", real=True)
    np.testing.assert_allclose(sympy.lambdify(z, EVERY.to_sympy(), "numpy")(Z), EVERY(Z), rtol=1e-12)
    # The text is SymPy's language too, but for the bars of an absolute value.
    text = EVERY.to_text().replace("|z - 0.5|", "Abs(z - 0.5)")
    parsed = sympy.sympify(text, locals={"z": z})
    np.testing.assert_allclose(sympy.lambdify(z, parsed, "numpy")(Z), EVERY(Z), rtol=1e-12)
    slope = sympy.diff(EVERY.to_sympy(), z)
    np.testing.assert_allclose(float(slope.subs(z, 1.0)), (by_hand(1 + 1e-6) - by_hand(1 - 1e-6)) / 2e-6, rtol=1e-7)


def test_constants_print_with_their_digits():
    formula = Formula((Term("sin", 2.03456, -0.5), Term("logistic", -1.0, 0.25)), (-1.5, 3.0), 12345.6)
    assert str(formula) == "-1.5*sin(2.03*z - 0.5) + 3/(1 + exp(-(-1*z + 0.25))) + 1.23e+04"
    assert formula.to_text(6) == "-1.5*sin(2.03456*z - 0.5) + 3/(1 + exp(-(-1*z + 0.25))) + 12345.6"
    assert formula.to_latex(2).endswith(r"+ 1.2 \cdot 10^{4}")
    assert str(Formula()) == "0"
    assert str(Formula(intercept=-2.0)) == "-2"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_normalised_constants_give_the_same_sum_up_to_a_constant(name):
    form = Form((name, "exp"))
    constants = np.random.default_rng(0).normal(size=len(form.labels))
    constants[list(form.labels).index("a1")] = -1.5
    if "b1" in form.labels:
        constants[list(form.labels).index("b1")] = -0.7

    def values(x):
        return sum(a * term(np, Z) for a, term in zip(x[:2], form.terms(x), strict=True))

    difference = values(form.normalised(constants)) - values(constants)
    np.testing.assert_allclose(difference, difference[0], atol=1e-12)
    np.testing.assert_array_equal(form.constants(form.terms(constants), constants[:2]), constants)


def test_starts_lie_on_the_interval():
    for name in ("abs", "logistic", "gaussian", "silu"):
        centres = [-term.shift / term.scale for term in inner_starts(name, (5.0, 7.0))]
        assert min(centres) == pytest.approx(5)
        assert max(centres) == pytest.approx(7)
