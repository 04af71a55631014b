"""The constants with which a form is nearest to a function: outer ones by linear least squares, inner ones by search.

Variable projection (Golub and Pereyra 1973): for given inner constants the outer ones are known, so that the search, by
Levenberg and Marquardt's method, is over the inner ones alone.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import optimize

from .forms import Floats, Form
from .formula import Formula
from .functions import FUNCTIONS, POWERS, Term
from .points import Starts, Target

# Starts of a search that are followed, the nearest first.
_NUM_STARTS = 2
# Steps of a search: where more are needed, constants run off to the limit of a simpler form.
_NUM_STEPS = 50
# Largest size of a term, in standard deviations of the function: larger ones cancel, and stand for a simpler form's limit.
_LARGEST_TERM = 20.0
# An error that rounding of the learnt coefficients may make.
_EXACT = 1e-10
# What error a more complex formula must have, as a share of the simpler one's.
_WORTHWHILE = 0.99


class Fit(NamedTuple):
    """A form with its constants.

    Attributes:
        form: the form.
        formula: with constants.
        error: 1 - R^2 under the distribution of the inputs.
    """

    form: Form
    formula: Formula
    error: float


def pareto_front(target: Target, starts: Starts, forms: Sequence[Form], max_error: float) -> list[Fit]:
    """By growing complexity the nearest formulae, until one is within the error.

    Args:
        target: the function.
        starts: of the same inputs.
        forms: by growing complexity, those with a term less before those with more.
        max_error: the largest error allowed.
    """
    constant = Form(())
    if target.is_flat:
        return [Fit(constant, Formula(intercept=target.mean), 0.0)]
    search = _Search(target, starts)
    front = [Fit(constant, Formula(intercept=target.mean), 1.0)]
    for _, group in itertools.groupby(forms, lambda form: form.complexity):
        found = [fit for form in group if (fit := search.fit(form)) is not None]
        nearest = min(found, key=lambda fit: fit[1], default=None)
        if nearest is None or nearest[1] > _WORTHWHILE * front[-1].error:
            continue
        fit = finish(target, *nearest[0])
        if fit.error <= _WORTHWHILE * front[-1].error:
            front.append(fit)
        if fit.error <= max_error:
            break
    return front


def finish(target: Target, form: Form, terms: tuple[Term, ...]) -> Fit:
    """The formula of these inner constants: outer ones, and the error, by all points of the inputs."""
    kinks = form.kinks(form.constants(terms, np.ones(len(terms))))
    z, weights, values = target.points(kinks)
    mean = weights @ values
    variance = weights @ (values - mean) ** 2
    root = np.sqrt(weights)

    def solve(terms: tuple[Term, ...]) -> Fit:
        columns = np.stack([term(np, z) for term in terms], axis=1)
        means = weights @ columns
        coefficients = _least_squares(root[:, None] * (columns - means), root * (values - mean))
        formula = Formula(terms, tuple(coefficients.tolist()), float(mean - coefficients @ means))
        return Fit(form, formula, float(weights @ (values - formula(z)) ** 2 / variance))

    def is_as_near(other: Fit) -> bool:
        return other.error <= max(fit.error / _WORTHWHILE, _EXACT)

    fit = solve(terms)
    fit = solve(form.terms(form.normalised(form.constants(terms, np.array(fit.formula.coefficients)))))
    # Constants that make no difference are 0.
    for index, term in enumerate(fit.formula.terms):
        own = fit.formula.terms
        if term.shift and is_as_near(simpler := solve((*own[:index], term._replace(shift=0.0), *own[index + 1 :]))):
            fit = simpler
    without = replace(fit.formula, intercept=0.0)
    simpler = Fit(form, without, float(weights @ (values - without(z)) ** 2 / variance))
    return simpler if is_as_near(simpler) else fit


class _Search:
    """Searches of one function; a form of several terms starts from those found with one term less."""

    def __init__(self, target: Target, starts: Starts) -> None:
        self._starts = starts
        centred = target.search_values - target.search_values.mean()
        self._scale = np.sqrt(np.mean(centred**2))
        self._values = centred / (self._scale or 1.0)
        self._middle = 0.5 * sum(starts.interval)
        # Of each form all places where its searches ended.
        self._found: dict[tuple[str, ...], list[tuple[Term, ...]]] = {(): [()]}

    def fit(self, form: Form) -> tuple[tuple[Form, tuple[Term, ...]], float] | None:
        """The form with its inner constants, and the error at the points of the search; None where terms cancel."""
        if not self._scale:
            return None
        options = sorted(self._options(form), key=self._error)[:_NUM_STARTS]
        refined = [self._refine(form, terms) for terms in options] if len(form.inner_labels) else options[:1]
        kept = [(terms, self._error(terms)) for terms in refined if not self._cancels(terms)]
        if not kept:
            return None
        self._found[form.functions] = [terms for terms, _ in kept]
        terms, error = min(kept, key=lambda pair: pair[1])
        return (form, terms), error

    def _options(self, form: Form) -> Iterator[tuple[Term, ...]]:
        """Starts: each function in turn added, where it helps most, to what was found without it."""
        for index, name in enumerate(form.functions):
            rest = (*form.functions[:index], *form.functions[index + 1 :])
            if name in form.functions[:index]:
                continue
            for base in self._found.get(rest, []):
                number = 1 if base else _NUM_STARTS
                for term in self._best_additions(name, base, number):
                    yield (*base[:index], term, *base[index:])

    def _best_additions(self, name: str, base: tuple[Term, ...], number: int) -> list[Term]:
        terms, features = self._starts.features[name]
        residual = self._values
        length = np.sum(features**2, axis=1)
        if base:
            basis, _ = np.linalg.qr(self._columns(base))
            residual = residual - basis @ (basis.T @ residual)
            features = features - (features @ basis) @ basis.T
        rest = np.sum(features**2, axis=1)
        with np.errstate(all="ignore"):
            explained = np.where(rest > 1e-8 * length, (features @ residual) ** 2 / rest, -1.0)
        chosen: list[int] = []
        for index in np.argsort(explained)[::-1]:
            # Neighbours among the starts lead to the same place.
            shares = [(features[index] @ features[j]) ** 2 / (rest[index] * rest[j] + 1e-300) for j in chosen]
            if all(share < 0.9 for share in shares):
                chosen.append(index)
            if len(chosen) == number:
                break
        return [terms[index] for index in chosen]

    def _refine(self, form: Form, terms: tuple[Term, ...]) -> tuple[Term, ...]:
        number = len(form.functions)
        units = form.units(self._starts.interval)[number:]

        def with_constants(x: Floats) -> tuple[Term, ...]:
            return self._from_middle(form.terms(np.concatenate([np.ones(number), x * units])), 1)

        def residual(x: Floats) -> Floats:
            with np.errstate(all="ignore"):
                columns = self._columns(with_constants(x))
                if not np.all(np.isfinite(columns)):
                    return np.full_like(self._values, 1e3)
                return self._values - columns @ _least_squares(columns, self._values)

        start = form.constants(self._from_middle(terms, -1), np.ones(number))[number:] / units
        found = optimize.least_squares(residual, start, method="lm", max_nfev=_NUM_STEPS)
        return with_constants(found.x)

    def _from_middle(self, terms: tuple[Term, ...], sign: int) -> tuple[Term, ...]:
        """Shifts measured from the middle of the domain, where rates do not change them much, and back."""
        moved = []
        for term in terms:
            has_shift = FUNCTIONS[term.function].num_inner == 2 or FUNCTIONS[term.function].has_kink
            moved.append(term._replace(shift=term.shift - sign * term.scale * self._middle) if has_shift else term)
        return tuple(moved)

    def _columns(self, terms: tuple[Term, ...]) -> Floats:
        """Values of the terms at the points less their means, shape (points, terms)."""
        columns = np.stack([term(np, self._starts.z) for term in terms], axis=1)
        return columns - columns.mean(0)

    def _error(self, terms: tuple[Term, ...]) -> float:
        columns = self._columns(terms)
        if not np.all(np.isfinite(columns)):
            return np.inf
        return float(np.mean((self._values - columns @ _least_squares(columns, self._values)) ** 2))

    def _cancels(self, terms: tuple[Term, ...]) -> bool:
        columns = self._columns(terms)
        if not np.all(np.isfinite(columns)):
            return True
        largest = [np.max(np.abs(term(np, self._starts.z))) for term in terms]
        sizes = np.abs(_least_squares(columns, self._values)) * largest
        # Of powers on a domain far from 0 that is as it must be.
        return any(size > _LARGEST_TERM for size, term in zip(sizes, terms, strict=True) if term.function not in POWERS)


def _least_squares(columns: Floats, values: Floats) -> Floats:
    return np.linalg.lstsq(columns, values, rcond=None)[0]
