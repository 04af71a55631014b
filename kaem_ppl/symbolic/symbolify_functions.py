"""`symbolify_functions`: the simplest formula within an error for each function of a bank or a network."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..arguments import as_array, as_count, as_names, as_number, check_kind
from ..network import KANetwork, apply_layer
from ..univariate import UnivariateKAN, check_bank
from .forms import Floats, Form
from .function import FunctionFormula, SymbolicFunction
from .functions import FUNCTIONS, POWERS
from .network import SymbolicBank, SymbolicNetwork
from .points import Starts, Target, in_double_precision
from .search import pareto_front

LIBRARY = ("polynomial", *(name for name in FUNCTIONS if name not in POWERS))
_EXPECTED = "a `UnivariateKAN`, or the network that `kan_generator`, or a `KANGenerator` called with its name, returns"
# Terms of a formula beyond which nobody reads it, and a search takes minutes.
_MOST_TERMS = 3


@overload
def symbolify_functions(
    functions: KANetwork,
    inputs: ArrayLike | None = None,
    *,
    max_error: float = 1e-3,
    library: Sequence[str] = LIBRARY,
    max_terms: int = 2,
) -> SymbolicNetwork: ...
@overload
def symbolify_functions(
    functions: UnivariateKAN,
    inputs: ArrayLike | None = None,
    *,
    max_error: float = 1e-3,
    library: Sequence[str] = LIBRARY,
    max_terms: int = 2,
) -> SymbolicFunction | SymbolicBank: ...
def symbolify_functions(
    functions: UnivariateKAN | KANetwork,
    inputs: ArrayLike | None = None,
    *,
    max_error: float = 1e-3,
    library: Sequence[str] = LIBRARY,
    max_terms: int = 2,
) -> SymbolicFunction | SymbolicBank | SymbolicNetwork:
    """Find the simplest formula for each learnt function that differs little from it over its inputs.

    A formula g is an intercept and a sum of powers up to z^4 and functions of b z + c. It differs from the function f by

        error = E[(f(z) - g(z))^2] / Var[f(z)] = 1 - R^2,

    z distributed as the function's inputs are: the draws that are given, or the uniform distribution on the function's
    domain; inputs beyond it count as its ends. Forms are tried in the order of their complexity until one is within
    `max_error`, so that hard functions take longest: a tenth of a second for most, a second where nothing is found. Inner
    constants b and c minimise the error over 256 quantiles of the inputs, outer ones over all inputs, by which the error is
    stated too. Functions that rounding alone keeps from being constant are constants.

    The learnt functions of a `KANGenerator`, or of `kan_generator`, are those of the network that it makes where its
    parameters are substituted, as in the second example; prior draws of its latents are its inputs. Errors of its functions
    add up: `output_error` is what they come to in the outputs.

    Args:
        functions: a bank of functions, or a network.
        inputs: draws of the inputs. Of a network shape (n, in), and those of later layers follow from them; of a bank
            (n,), the same for each function, or (n, ...) that broadcasts with its batch shape. None for inputs that are
            uniform on the domain of each function.
        max_error: the error allowed, above 0 and below 1.
        library: what is tried, of "polynomial" for the powers, and "abs", "exp", "sin", "logistic", "gaussian" and "silu",
            z / (1 + exp(-z)). The hyperbolic tangent is a logistic function, up to constants.
        max_terms: of a sum, besides the intercept: 1, 2 or 3.

    Returns:
        Of one function a `SymbolicFunction`, whose formulae have text, LaTeX and a SymPy expression, and are called with
        NumPy's and JAX's arrays. Of a bank a `SymbolicBank` of them, which is indexed as the bank is. Of a network a
        `SymbolicNetwork`, whose `layers` are such banks, and which computes the outputs that the formulae give. Both print
        as tables.

    Raises:
        TypeError: where `functions` is neither a bank nor a network, or `inputs` are no numbers.
        ValueError: where the inputs have another shape or are not finite, `library` names something else, or `max_error`
            or `max_terms` is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, kaem_ppl as kp
        >>> basis = kp.FormulaBasis((("sin", 2.0, 0.5),))
        >>> function = kp.UnivariateKAN.init(0, basis=basis, domain=(-3, 3), activation=jnp.zeros_like)
        >>> found = kp.symbolify_functions(function)
        >>> found.best.name, [round(x, 3) for x in found.best.terms[0][1:]]
        ('sin', [2.0, 0.5])

        >>> from kaem_ppl.models import KANGenerator
        >>> generator = KANGenerator((1, 2), basis=basis)
        >>> with numpyro.handlers.seed(rng_seed=0):
        ...     decode = generator("decoder")  # learnt: `with numpyro.handlers.substitute(data=fitted.params)`
        >>> formulae = kp.symbolify_functions(decode, jax.random.normal(jax.random.key(1), (500, 1)))
        >>> formulae(jnp.zeros((4, 1))).shape, formulae.output_error < 1e-3
        ((4, 2), True)
    """
    check_kind(functions, (UnivariateKAN, KANetwork), "functions", _EXPECTED)
    max_error = as_number(max_error, "max_error", above=0, below=1)
    max_terms = as_count(max_terms, "max_terms", 1)
    if max_terms > _MOST_TERMS:
        raise ValueError(f"`max_terms` must be at most {_MOST_TERMS}, got {max_terms}.")
    forms = _forms(library, max_terms)
    is_network = isinstance(functions, KANetwork)
    for layer in functions.layers if is_network else [functions]:
        check_bank(layer, argument="functions")
    samples = None if inputs is None else _check_inputs(functions, inputs)
    if not is_network:
        found = _of_bank(functions, samples, forms, max_error)
        return found if functions.batch_shape else found[()]
    layers: list[SymbolicBank] = []
    x = samples
    for layer in functions.layers:
        layers.append(_of_bank(layer, None if x is None else np.asarray(x)[..., None], forms, max_error))
        x = None if x is None else apply_layer(layer, jnp.asarray(x, float))
    found = SymbolicNetwork(tuple(layers), functions.output)
    return found if samples is None else replace(found, output_error=_output_error(functions, found, samples))


def _forms(library: Any, max_terms: int) -> list[Form]:
    """Sums of the library's functions, by complexity."""
    names = as_names(library, "library", LIBRARY)
    known = [name for name in FUNCTIONS if name in names or (name in POWERS and "polynomial" in names)]
    forms = [
        Form(chosen)
        for size in range(1, max_terms + 1)
        for chosen in itertools.combinations_with_replacement(known, size)
        if all(chosen.count(name) == 1 for name in chosen if name in POWERS)
    ]
    return sorted(forms, key=lambda form: form.complexity)


def _check_inputs(functions: UnivariateKAN | KANetwork, inputs: Any) -> Floats:
    """Draws of the inputs in double precision: (n, in) of a network, of a bank (n,) + what broadcasts with its shape."""
    x = np.asarray(as_array(inputs, "inputs"), float)
    if not np.all(np.isfinite(x)):
        raise ValueError("`inputs` must be finite numbers, got some that are not.")
    shape = functions.layers[0].batch_shape[:1] if isinstance(functions, KANetwork) else functions.batch_shape
    if isinstance(functions, KANetwork):
        is_right, wanted = x.ndim >= 2 and x.shape[-1:] == shape, f"(n, {shape[0]})"
        x = x.reshape(-1, *shape) if is_right and x.size else x
    else:
        own = (1,) * len(shape) if x.ndim == 1 else x.shape[1:]
        is_right = x.ndim >= 1 and len(own) == len(shape) and all(a in (1, b) for a, b in zip(own, shape, strict=True))
        wanted = f"(n,), or (n,) and what broadcasts with {shape}"
        x = x.reshape(-1, *own) if is_right and x.size else x
    if not is_right or len(x) < 2 or not x.size:
        raise ValueError(f"`inputs` must have shape {wanted}, n at least 2, got {x.shape}.")
    return x


def _of_bank(bank: UnivariateKAN, samples: Floats | None, forms: list[Form], max_error: float) -> SymbolicBank:
    bank = in_double_precision(bank)
    names = {name for form in forms for name in form.functions}
    num_kinks = max(sum(FUNCTIONS[name].has_kink for name in form.functions) for form in forms)
    found = np.empty(bank.batch_shape, object)
    starts: Starts | None = None
    for index in np.ndindex(bank.batch_shape):
        own = None if samples is None else samples[(slice(None), *_own_place(index, samples.shape[1:]))]
        target = Target(bank.member(index), own, num_kinks)
        # Functions of the same input follow one another.
        if starts is None or not np.array_equal(starts.z, target.search_z):
            starts = Starts.of(target.search_z, names)
        found[index] = _of_function(target, starts, forms, max_error)
    return SymbolicBank(found, max_error)


def _own_place(index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(0 if size == 1 else i for i, size in zip(index, shape, strict=True))


def _of_function(target: Target, starts: Starts, forms: list[Form], max_error: float) -> SymbolicFunction:
    front = tuple(
        FunctionFormula(
            fit.formula.terms,
            fit.formula.coefficients,
            fit.formula.intercept,
            name=fit.form.name or "constant",
            complexity=1 + fit.form.complexity,
            error=fit.error,
        )
        for fit in pareto_front(target, starts, forms, max_error)
    )
    best = front[-1] if front[-1].error <= max_error else None
    return SymbolicFunction(best, front, max_error, target.std, target.interval)


def _output_error(network: KANetwork, found: SymbolicNetwork, samples: Floats) -> float:
    x = jnp.asarray(samples, float)
    outputs, approximate = (np.asarray(f(x), float) for f in (network, found))
    variance = np.sum(np.var(outputs, axis=0))
    error = np.sum(np.mean((outputs - approximate) ** 2, axis=0))
    return float(error / variance) if variance > 0 else float(error > 0)
