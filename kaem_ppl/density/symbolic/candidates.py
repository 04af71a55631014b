"""What a density may turn out to be: energies of few functions over the reference, and named families.

All is NumPy in double precision on one density's nodes: dozens of candidates of a few constants each, every one of which
would be a program of its own to compile.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from ...symbolic.forms import Floats, Form, inner_starts
from ...symbolic.functions import FUNCTIONS, Term
from .nodes import Nodes

# How many of the starts of a search for inner constants are followed.
_NUM_STARTS = 3


class Candidate(ABC):
    """A form with constants to be found.

    Attributes:
        name: of the form.
        complexity: number of constants, variables and functions in it.
        labels: names of the constants.
    """

    name: str
    complexity: int
    labels: tuple[str, ...]

    @abstractmethod
    def starts(self, nodes: Nodes) -> list[Floats]:
        """Constants to search from, (number of constants,) each."""

    @abstractmethod
    def log_density(self, constants: Floats, nodes: Nodes, z: Floats) -> Floats:
        """log q - log pi_0 for an energy, log q for a family, at points."""

    @abstractmethod
    def divergence(self, constants: Floats, nodes: Nodes) -> float:
        """KL(p || q)."""

    def normalised(self, constants: Floats) -> Floats:
        """The same law by constants of the signs that are printed."""
        return constants

    def kinks(self, constants: Floats) -> list[float]:
        """Points where the log-density has a kink."""
        return []


class EnergyCandidate(Candidate):
    """exp(sum_k a_k s_k(b_k z + c_k)) pi_0, functions clamped to the domain as the learnt energy is."""

    def __init__(self, functions: tuple[str, ...]) -> None:
        self.form = Form(functions)
        self.functions, self.labels = functions, self.form.labels
        self.name = self.form.name or "reference"
        # Times the reference, which counts as much as a family of location and scale.
        self.complexity = 3 + self.form.complexity

    def terms(self, constants: Floats) -> tuple[Term, ...]:
        """The functions with their inner constants."""
        return self.form.terms(constants)

    def log_density(self, constants: Floats, nodes: Nodes, z: Floats) -> Floats:
        return self._energy(constants, np.clip(z, *nodes.interval)) - self._log_normaliser(constants, nodes)

    def divergence(self, constants: Floats, nodes: Nodes) -> float:
        energy = self._energy(constants, nodes.clipped)
        return float(np.sum(nodes.mass * (nodes.log_ratio - energy)) + self._log_normaliser(constants, nodes))

    def starts(self, nodes: Nodes) -> list[Floats]:
        if not self.functions:
            return [np.zeros(0)]
        if all(FUNCTIONS[name].num_inner == 0 for name in self.functions):
            return [self._least_squares(nodes, self.terms(np.zeros(len(self.labels))))]
        (name,) = self.functions
        options = inner_starts(name, nodes.interval)
        features = np.stack([term(np, nodes.clipped) for term in options])
        # The share of the energy's variance that each explains alone.
        centred = features - (features @ nodes.mass)[:, None]
        target = nodes.log_ratio - nodes.mass @ nodes.log_ratio
        with np.errstate(all="ignore"):
            explained = (centred @ (nodes.mass * target)) ** 2 / (centred**2 @ nodes.mass)
        best = np.argsort(np.where(np.isfinite(explained), explained, -np.inf))[::-1]
        chosen, found = [], []
        for index in best:
            # Neighbours on the grid lead to the same place.
            if all(np.corrcoef(features[index], features[j])[0, 1] ** 2 < 0.9 for j in chosen):
                chosen.append(index)
                terms = (options[index],)
                found.append(self.form.constants(terms, self._least_squares(nodes, terms)))
            if len(chosen) == _NUM_STARTS:
                break
        return found

    def kinks(self, constants: Floats) -> list[float]:
        return self.form.kinks(constants)

    def normalised(self, constants: Floats) -> Floats:
        return self.form.normalised(constants)

    def _energy(self, constants: Floats, z: Floats) -> Floats:
        total = np.zeros_like(z)
        with np.errstate(over="ignore"):
            for coefficient, term in zip(constants, self.terms(constants), strict=False):
                total = total + coefficient * term(np, z)
        return total

    def _log_normaliser(self, constants: Floats, nodes: Nodes) -> float:
        values = self._energy(constants, nodes.energy_z) + nodes.log_reference_mass
        peak = np.max(values)
        return float(peak + np.log(np.sum(np.exp(values - peak))))

    def _least_squares(self, nodes: Nodes, terms: tuple[Term, ...]) -> Floats:
        columns = np.stack([*(term(np, nodes.clipped) for term in terms), np.ones_like(nodes.clipped)], axis=1)
        root = np.sqrt(nodes.mass)
        return np.linalg.lstsq(columns * root[:, None], nodes.log_ratio * root, rcond=None)[0][:-1]


class FamilyCandidate(Candidate):
    """A named family; constants are searched for without bounds, positive ones by their logarithms.

    Args:
        name: of the family.
        labels: names of its parameters.
        positive: which of them are positive.
        log_density: of the parameters and points.
        starts: of the mean and the standard deviation.
        bounds: ends of its support.
    """

    def __init__(
        self,
        name: str,
        labels: tuple[str, ...],
        positive: tuple[bool, ...],
        log_density: Callable[..., Floats],
        starts: Callable[[float, float], list[tuple[float, ...]]],
        bounds: tuple[float, float] = (-np.inf, np.inf),
    ) -> None:
        self.name, self.labels, self.complexity = name, labels, 1 + len(labels)
        self.positive, self.bounds = np.array(positive), bounds
        self._log_density, self._starts = log_density, starts

    def covers(self, nodes: Nodes) -> bool:
        """Whether its support holds the density's."""
        return self.bounds[0] <= nodes.support[0] and nodes.support[1] <= self.bounds[1]

    def starts(self, nodes: Nodes) -> list[Floats]:
        mean = nodes.mass @ nodes.z
        scale = np.sqrt(nodes.mass @ (nodes.z - mean) ** 2)
        return [np.array(x, float) for x in self._starts(float(mean), float(scale))]

    def log_density(self, constants: Floats, nodes: Nodes, z: Floats) -> Floats:
        # Where a support ends, a density may be 0 or infinite.
        low, high = self.bounds
        inside = np.clip(z, low + 1e-300 if np.isfinite(low) else low, high - 1e-16 if np.isfinite(high) else high)
        with np.errstate(all="ignore"):
            return self._log_density(*constants, inside)

    def kinks(self, constants: Floats) -> list[float]:
        return [float(constants[0])] if self.name == "Laplace" else []

    def divergence(self, constants: Floats, nodes: Nodes) -> float:
        return float(np.sum(nodes.mass * (nodes.log_density - self.log_density(constants, nodes, nodes.z))))


def log_normal(loc: Any, scale: Any, z: Floats) -> Floats:
    """Log-density of a normal variable."""
    return -0.5 * ((z - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
