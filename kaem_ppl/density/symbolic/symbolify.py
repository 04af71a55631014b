"""`symbolify`: the simplest formula within a divergence of a learnt density, and what more complexity would buy."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from ...arguments import as_names, as_number, check_kind
from ...distributions.base import TiltedDistribution
from ...distributions.fitting import TiltedFit
from ...distributions.tilted import KANTilted
from ...printing import to_html
from ...symbolic.functions import POWERS
from ...univariate import UnivariateKAN, uniform_grid
from .basis import FormulaBasis
from .candidates import Candidate, EnergyCandidate
from .expression import Expression
from .families import FAMILIES, family_distribution
from .nodes import Nodes, nodes_of
from .search import Found, Samples, refine, search

_ENERGIES = ("abs", "exp", "sin", "logistic", "gaussian")
# Nats that are not worth more complexity.
_NO_GAIN = 1e-6
LIBRARY = ("polynomial", *_ENERGIES, *FAMILIES)


@dataclass(frozen=True, eq=False, repr=False)
class SymbolicDensity:
    """Formulae for one density; made by `symbolify`.

    Attributes:
        best: the simplest one within `max_kl`; None where there is none.
        front: Pareto front, by growing complexity and falling divergence.
        max_kl: as asked for, in nats.
    """

    best: Expression | None
    front: tuple[Expression, ...]
    max_kl: float

    def __repr__(self) -> str:
        lines = [f"SymbolicDensity: {self.best if self.best is not None else f'nothing within {self.max_kl:g} nats'}"]
        lines += [f"  complexity {x.complexity:2}  kl {x.kl:8.2g}  {x}" for x in self.front]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return to_html(repr(self))


def symbolify(
    density: TiltedDistribution | TiltedFit, *, library: Sequence[str] = LIBRARY, max_kl: float = 0.01
) -> SymbolicDensity | tuple[SymbolicDensity, ...]:
    """Find the simplest formula for each learnt density whose divergence from it is small.

    Candidates are energies over the learnt density's own reference, clamped to its domain as the learnt energy is
    (every sum of the powers up to z^4, and single functions of b z + c), and named families. Constants minimise
    KL(learnt || formula), computed on the panels and tails of the learnt density. Of a `TiltedFit` they then maximise the
    likelihood of its samples, which smoothing has not touched, and have standard errors. A few seconds a density.

    Args:
        density: a tilted density, or a fit of one; a bank of them is read one by one.
        library: what is tried, of "polynomial", "abs", "exp", "sin", "logistic", "gaussian" for energies (the hyperbolic
            tangent is a logistic function, up to constants) and "Normal", "Laplace", "Logistic", "Gamma", "Beta",
            "NormalMixture" for families.
        max_kl: divergence allowed, in nats.

    Returns:
        Formulae, each with its text, LaTeX, constants and the NumPyro distribution that it is; of a bank a tuple, in
        row-major order.

    Raises:
        TypeError: where the density is not a tilted one.
        ValueError: where `library` names something else, or `max_kl` is no positive number.

    Example:
        >>> import jax, kaem_ppl as kp
        >>> fitted = kp.KANTilted.fit(2 + jax.random.logistic(jax.random.key(0), (4000,)))
        >>> found = kp.symbolify(fitted, library=["Normal", "Laplace", "Logistic"])
        >>> found.best.name
        'Logistic'
    """
    check_kind(density, (TiltedDistribution, TiltedFit), "density", "a tilted density, or what `KANTilted.fit` returns")
    max_kl = as_number(max_kl, "max_kl", above=0)
    names = as_names(library, "library", LIBRARY)
    fitted = density if isinstance(density, TiltedFit) else None
    tilted = fitted.density if fitted is not None else density
    assert isinstance(tilted, TiltedDistribution)
    candidates = _candidates(names)
    members = nodes_of(tilted)
    fronts = [_pareto(candidates, nodes) for nodes in members]
    if fitted is not None:
        samples = [_samples(fitted, index) for index in range(len(members))]
        triples = zip(fronts, members, samples, strict=True)
        fronts = [[x if own is None else refine(x, nodes, own) for x in front] for front, nodes, own in triples]
    kinks = [[kink for x in front for kink in x.candidate.kinks(x.constants)] for front in fronts]
    if any(kinks):
        # A divergence is right to the last digits where no panel has a kink inside.
        members = nodes_of(tilted, kinks)
    read = []
    for index, (front, nodes) in enumerate(zip(fronts, members, strict=True)):
        reference = _member(tilted.reference, tilted.batch_shape, index)
        expressions = [_express(x, nodes, reference) for x in front]
        best = next((x for x in expressions if x.kl <= max_kl), None)
        read.append(SymbolicDensity(best, tuple(expressions), max_kl))
    return read[0] if not tilted.batch_shape else tuple(read)


def _candidates(names: list[str]) -> list[Candidate]:
    found: list[Candidate] = [EnergyCandidate(())]
    if "polynomial" in names:
        sizes = range(1, len(POWERS) + 1)
        found += [EnergyCandidate(x) for size in sizes for x in itertools.combinations(POWERS, size)]
    found += [EnergyCandidate((name,)) for name in _ENERGIES if name in names]
    return found + [FAMILIES[name] for name in names if name in FAMILIES]


def _samples(fitted: TiltedFit, index: int) -> Samples | None:
    """Of one density; None where some are known only to lie in intervals."""
    observations = fitted.observations
    if not np.all(observations.is_exact[index]):
        return None
    return Samples(observations.values[index], observations.weights[index], observations.effective_number[index])


def _member(reference: Distribution, batch_shape: tuple[int, ...], index: int) -> Distribution:
    """One member of a batch of references."""
    if not reference.batch_shape:
        return reference
    place = np.unravel_index(index, batch_shape)
    wide = reference.expand(batch_shape) if reference.batch_shape != batch_shape else reference
    own = jax.tree.map(lambda x: jnp.broadcast_to(x, batch_shape)[place], wide)
    own._batch_shape = ()
    return own


def _pareto(candidates: list[Candidate], nodes: Nodes) -> list[Found]:
    """By growing complexity, those that are nearer than all simpler ones."""
    known = [found for candidate in candidates if (found := search(candidate, nodes)) and math.isfinite(found.kl)]
    # Of equals, a family before the reference that was made to have its moments.
    known.sort(key=lambda x: (x.candidate.complexity, round(x.kl, 6), isinstance(x.candidate, EnergyCandidate)))
    front: list[Found] = []
    for found in known:
        if not front or found.kl < front[-1].kl - _NO_GAIN:
            front.append(found)
    return front


def _express(found: Found, nodes: Nodes, reference: Distribution) -> Expression:
    candidate = found.candidate
    constants = dict(zip(candidate.labels, found.constants.tolist(), strict=True))
    errors = {} if found.std_errors is None else dict(zip(candidate.labels, found.std_errors.tolist(), strict=True))
    kl = max(0.0, candidate.divergence(found.constants, nodes))
    expression = Expression(candidate.name, candidate.complexity, kl, constants, errors, (), reference)
    if not isinstance(candidate, EnergyCandidate):
        return replace(expression, distribution=family_distribution(candidate.name, constants))
    if not candidate.functions:
        return expression
    terms = candidate.terms(found.constants)
    basis = FormulaBasis(terms)
    coefficients = jnp.asarray(found.constants[: len(terms)], float)
    shared = uniform_grid(basis, nodes.interval)
    energy = UnivariateKAN(
        coef=coefficients,
        base_weight=jnp.zeros((), coefficients.dtype),
        spline_weight=jnp.ones((), coefficients.dtype),
        grid=shared["grid"],
        width=shared["width"],
        domain=shared["domain"],
        basis=basis,
    )
    return replace(expression, terms=terms, distribution=KANTilted(energy, reference))
