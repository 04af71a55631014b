"""Constants of a candidate: those nearest to the learnt density, or likeliest for the samples it was fitted to."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import optimize

from ...symbolic.forms import Floats
from .candidates import Candidate, EnergyCandidate, FamilyCandidate
from .nodes import Nodes


class Samples(NamedTuple):
    """What a density was fitted to: values (n,), weights that sum to 1, and the effective number."""

    values: Floats
    weights: Floats
    effective_number: float


class Found(NamedTuple):
    """A candidate with its constants, their standard errors (None without samples) and KL(p || q)."""

    candidate: Candidate
    constants: Floats
    std_errors: Floats | None
    kl: float


def search(candidate: Candidate, nodes: Nodes) -> Found | None:
    """The constants that minimise KL(p || q); None where the support does not hold the density's, or none are found."""
    if isinstance(candidate, FamilyCandidate) and not candidate.covers(nodes):
        return None
    unit = _unit(candidate, nodes)
    best, lowest = None, np.inf
    for start in candidate.starts(nodes):
        found = _minimise(lambda x: candidate.divergence(x, nodes), start, unit, candidate)
        value = candidate.divergence(found, nodes)
        if value < lowest:
            best, lowest = found, value
    return None if best is None else Found(candidate, candidate.normalised(best), None, lowest)


def refine(found: Found, nodes: Nodes, samples: Samples) -> Found:
    """The constants that are likeliest for the samples, which smoothing has not touched, and their standard errors."""
    candidate = found.candidate

    def loss(x: Floats) -> float:
        return -float(np.sum(samples.weights * candidate.log_density(x, nodes, samples.values)))

    best = candidate.normalised(_minimise(loss, found.constants, _unit(candidate, nodes), candidate))
    errors = _std_errors(loss, best, samples.effective_number)
    return Found(candidate, best, errors, candidate.divergence(best, nodes))


def _unit(candidate: Candidate, nodes: Nodes) -> Floats:
    """What one step in each constant is measured in."""
    if isinstance(candidate, EnergyCandidate):
        return candidate.form.units(nodes.interval)
    length = nodes.interval[1] - nodes.interval[0]
    return np.array([length if label[0] == "l" else 1.0 for label in candidate.labels])


def _minimise(function: Callable[[Floats], float], start: Floats, unit: Floats, candidate: Candidate) -> Floats:
    """By BFGS from a start, positive constants by their logarithms, others in their units."""
    if not len(start):
        return start
    positive = candidate.positive if isinstance(candidate, FamilyCandidate) else np.zeros(len(start), bool)

    def natural(x: Floats) -> Floats:
        return np.where(positive, np.exp(np.where(positive, np.clip(x, -300, 300), 0.0)), x * unit)

    def guarded(x: Floats) -> float:
        with np.errstate(all="ignore"):
            value = function(natural(x))
        return value if np.isfinite(value) else 1e10

    first = np.where(positive, np.log(np.where(positive, start, 1.0)), start / unit)
    found = optimize.minimize(guarded, first, method="BFGS", jac="3-point", options={"gtol": 1e-8})
    return natural(found.x)


def _std_errors(function: Callable[[Floats], float], at: Floats, number: float) -> Floats:
    """From the inverse Hessian of the mean negative log-likelihood, by central differences; NaN where it is singular."""
    size = len(at)
    steps = 1e-4 * np.maximum(np.abs(at), 1e-2)
    hessian = np.empty((size, size))
    for i in range(size):
        for j in range(i + 1):
            a, b = np.zeros(size), np.zeros(size)
            a[i], b[j] = steps[i], steps[j]
            corners = function(at + a + b) - function(at + a - b) - function(at - a + b) + function(at - a - b)
            hessian[i, j] = hessian[j, i] = corners / (4 * steps[i] * steps[j])
    if not size:
        return np.zeros(0)
    try:
        variance = np.diag(np.linalg.inv(hessian)) / number
    except np.linalg.LinAlgError:
        variance = np.full(size, np.nan)
    return np.sqrt(np.where(variance > 0, variance, np.nan))
