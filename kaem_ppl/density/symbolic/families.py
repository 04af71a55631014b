"""Named families that a density is compared with, and the NumPyro distributions that they are."""

from collections.abc import Callable

import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import Distribution
from scipy import special

from ...symbolic.forms import Floats
from .candidates import FamilyCandidate, log_normal

_LOCATION_SCALE = (("loc", "scale"), (False, True))


def _around(factor: float) -> Callable[[float, float], list[tuple[float, ...]]]:
    return lambda mean, sd: [(mean, factor * sd)]


def _logistic(loc: float, scale: float, z: Floats) -> Floats:
    u = np.abs(z - loc) / scale
    return -u - 2 * np.log1p(np.exp(-u)) - np.log(scale)


def _gamma(concentration: float, rate: float, z: Floats) -> Floats:
    return concentration * np.log(rate) + (concentration - 1) * np.log(z) - rate * z - special.gammaln(concentration)


def _beta(concentration1: float, concentration0: float, z: Floats) -> Floats:
    powers = (concentration1 - 1) * np.log(z) + (concentration0 - 1) * np.log1p(-z)
    return powers - special.betaln(concentration1, concentration0)


def _beta_start(mean: float, sd: float) -> list[tuple[float, ...]]:
    total = max(mean * (1 - mean) / sd**2 - 1, 0.1)
    return [(mean * total, (1 - mean) * total)]


def _two_normals(odds: float, loc1: float, scale1: float, loc2: float, scale2: float, z: Floats) -> Floats:
    first = np.log(odds / (1 + odds)) + log_normal(loc1, scale1, z)
    return np.logaddexp(first, -np.log1p(odds) + log_normal(loc2, scale2, z))


def _two_starts(mean: float, sd: float) -> list[tuple[float, ...]]:
    starts: list[tuple[float, ...]] = [(1.0, mean - 0.8 * sd, 0.6 * sd, mean + 0.8 * sd, 0.6 * sd)]
    starts.append((1.0, mean, 0.4 * sd, mean, 1.3 * sd))
    starts += [(3.0, mean - 0.3 * side * sd, 0.7 * sd, mean + side * sd, 0.5 * sd) for side in (-1, 1)]
    return starts


FAMILIES = {
    candidate.name: candidate
    for candidate in (
        FamilyCandidate("Normal", *_LOCATION_SCALE, log_normal, _around(1.0)),
        FamilyCandidate(
            "Laplace", *_LOCATION_SCALE, lambda m, s, z: -np.abs(z - m) / s - np.log(2 * s), _around(0.5**0.5)
        ),
        FamilyCandidate("Logistic", *_LOCATION_SCALE, _logistic, _around(3**0.5 / np.pi)),
        FamilyCandidate(
            "Gamma", ("concentration", "rate"), (True, True), _gamma,
            lambda mean, sd: [((mean / sd) ** 2, mean / sd**2)], (0.0, np.inf),
        ),
        FamilyCandidate(
            "Beta", ("concentration1", "concentration0"), (True, True), _beta, _beta_start, (0.0, 1.0)
        ),
        FamilyCandidate(
            "NormalMixture", ("odds", "loc1", "scale1", "loc2", "scale2"), (True, False, True, False, True),
            _two_normals, _two_starts,
        ),
    )
}  # fmt: skip
"""By name; "NormalMixture" is one of two normal densities, `odds` of the first to the second."""


def family_distribution(name: str, constants: dict[str, float]) -> Distribution:
    """The NumPyro distribution of a named family with these parameters."""
    if name != "NormalMixture":
        return getattr(dist, name)(**constants)
    probability = constants["odds"] / (1 + constants["odds"])
    components = dist.Normal(
        np.array([constants["loc1"], constants["loc2"]]), np.array([constants["scale1"], constants["scale2"]])
    )
    return dist.MixtureSameFamily(dist.Categorical(probs=np.array([probability, 1 - probability])), components)
