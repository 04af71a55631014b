"""Posterior draws turned into a prior: tilted marginals of every number in the sites named, and a copula."""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, biject_to, constraints

from ..arguments import describe
from ..basis import Basis, BSpline
from ..distributions import KANTilted
from ..reference.composite import sign_of
from ..whitening import to_standard_normal
from .copula import KANCopula
from .vine import DVine

_BASIS = BSpline(3, num_grid=60)
# So many draws are few for a density, and many for a number of chains.
_FEW_DRAWS = 32
_DEPENDENCES = ("gaussian", "vine", "independent")


class JointPrior(KANCopula):
    """The joint density of the numbers in several sites; made by `prior_from`.

    Sites come in the order in which they were named, the numbers of a site in row-major order (the last axis fastest).

    Args:
        marginals: as for `KANCopula`.
        dependence: as for `KANCopula`.
        sites: shape of each site, by name.
        validate_args: as for `KANCopula`.
    """

    pytree_aux_fields = ("sites",)

    def __init__(
        self,
        marginals: Distribution | Sequence[Distribution],
        dependence: ArrayLike | DVine | None,
        sites: Mapping[str, tuple[int, ...]],
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.sites = tuple((name, tuple(shape)) for name, shape in sites.items())
        super().__init__(marginals, dependence, validate_args=validate_args)

    def unpack(self, value: ArrayLike) -> dict[str, Array]:
        """The sites' values, (...) + shape each, of the numbers (..., d)."""
        value = jnp.asarray(value)
        ends = np.cumsum([math.prod(shape) for _, shape in self.sites])[:-1].tolist()
        parts = zip(self.sites, jnp.split(value, ends, axis=-1), strict=True)
        return {name: part.reshape(*value.shape[:-1], *shape) for (name, shape), part in parts}

    def pack(self, values: Mapping[str, ArrayLike]) -> Array:
        """The numbers (..., d) of the sites' values, (...) + shape each."""
        parts = []
        for name, shape in self.sites:
            x = jnp.asarray(values[name])
            parts.append(x.reshape(*x.shape[: x.ndim - len(shape)], math.prod(shape)))
        return jnp.concatenate(parts, axis=-1)


def prior_from(
    draws: Any,
    names: Sequence[str] | None = None,
    *,
    supports: Mapping[str, constraints.Constraint] | None = None,
    weights: ArrayLike | None = None,
    basis: Basis = _BASIS,
    dependence: Literal["gaussian", "vine", "independent"] = "gaussian",
) -> JointPrior:
    """The joint density of posterior draws, to be the prior of the next data.

    Each number's marginal is fitted by `KANTilted.fit` in unconstrained coordinates (its logarithm, or logit), and their
    dependence is that of the draws' normal scores. What is lost: the error of the fits, of the order of that of the
    draws themselves, and any dependence that is not a Gaussian copula's. A D-vine keeps the dependence of pairs whatever
    its shape, such as that of a banana, at the cost of fitting and evaluating a table for each pair that is not Gaussian:
    `DVine`. What it loses is how the dependence of two numbers changes with others.

    Args:
        draws: the result of `sample_posterior`, whose `samples` have two leading axes, of chains and draws; or a mapping
            from names to arrays with one leading axis of draws, such as NumPyro's `mcmc.get_samples()`.
        names: of the sites, all latent ones by default; deterministic ones too, such as the parts of a joint prior that
            `replace_priors` put into the model, whose supports are then to be given.
        supports: of sites that are not all of the real line, such as {"tau": constraints.positive}. Where they are not
            given, the result of `sample_posterior` knows those of its model; in a mapping they are real.
        weights: of the draws, of the shape of their leading axes; equal by default.
        basis: of the energies.
        dependence: "gaussian", a Gaussian copula; "vine", a D-vine, whose tree is printed with the prior; "independent".

    Returns:
        A distribution of event shape (d,) with `unpack`, which gives the sites their shapes back.

    Raises:
        TypeError: where `draws` or `names` is of the wrong kind.
        ValueError: where a site is missing, or holds too few draws, draws off its support, or numbers that others
            determine, or the dependence has another name.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, kaem_ppl as kp
        >>> keys = jax.random.split(jax.random.key(0))
        >>> draws = {"mu": jax.random.normal(keys[0], (1000,)), "tau": jax.random.gamma(keys[1], 3.0, (1000,))}
        >>> prior = kp.prior_from(draws, ["mu", "tau"], supports={"tau": dist.constraints.positive})
        >>> def model():
        ...     sites = prior.unpack(numpyro.sample("theta", prior))
        ...     numpyro.sample("y", dist.Normal(sites["mu"], sites["tau"]), obs=0.3)
        >>> prior.event_shape
        (2,)
    """
    if not isinstance(dependence, str) or dependence not in _DEPENDENCES:
        raise ValueError(
            f"`dependence` must be one of {', '.join(map(repr, _DEPENDENCES))}, got {describe(dependence)}."
        )
    samples, lead = _samples_of(draws, names)
    chosen = _names(names, samples)
    given = {} if supports is None else dict(supports)
    unknown = sorted(set(given) - set(chosen))
    if unknown:
        raise ValueError(f"`supports` names {unknown}, which `names` does not: {chosen}.")
    # Asked of the class: an error while a model is asked for its supports must not pass for a result without any.
    supports = (dict(draws.supports) if hasattr(type(draws), "supports") else {}) | given
    columns, transforms, signs, sites = [], [], [], {}
    for name in chosen:
        array = np.asarray(samples[name])
        if lead == 1 and array.ndim > 1 and array.shape[0] < _FEW_DRAWS < array.shape[1]:
            raise ValueError(
                f"`draws` is a mapping, whose arrays have one leading axis of draws, but {name!r} has shape {array.shape}: "
                "if its first axis runs over chains, hand over the result of `sample_posterior` itself, or flatten the two."
            )
        sites[name] = array.shape[lead:]
        flat = array.reshape(math.prod(array.shape[:lead]), math.prod(sites[name]))
        transform = _transform(name, _flatten(supports.get(name, constraints.real), sites[name]), flat)
        columns.append(np.asarray(transform._inverse(jnp.asarray(flat))))
        if not np.all(np.isfinite(columns[-1])):
            raise ValueError(f"`draws` holds values of {name!r} that are not finite or at an end of its support.")
        transforms += [transform] * flat.shape[1]
        signs.append(np.broadcast_to(np.asarray(sign_of(transform), float), flat.shape[1]))
        if name not in supports and _is_near_zero(flat):
            warnings.warn(
                f"All draws of {name!r} are above 0, and some close to it, but `supports` says nothing of it, so its prior "
                f"will have some mass below: if it can't be negative, say supports={{{name!r}: constraints.positive}}.",
                stacklevel=2,
            )
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"`draws` must hold equally many draws of each site, got {[len(c) for c in columns]}.")
    numbers = np.concatenate(columns, axis=1)
    shares = None if weights is None else np.asarray(weights).reshape(-1)
    bank = KANTilted.fit(numbers, shares, basis=basis).density
    # A number falls as its unconstrained coordinate rises where its support is bounded above alone.
    scores = np.asarray(to_standard_normal(bank, jnp.asarray(numbers)), np.float64) * np.concatenate(signs)
    return JointPrior(_segments(bank, transforms), _dependence(dependence, scores, shares, sites), sites)


def _dependence(
    kind: str, scores: np.ndarray, weights: np.ndarray | None, sites: Mapping[str, tuple[int, ...]]
) -> ArrayLike | DVine | None:
    """What `KANCopula` takes, of the draws' normal scores."""
    if kind == "independent":
        return None
    if kind == "vine":
        names = [f"{name}{list(i)}" if i else name for name, shape in sites.items() for i in np.ndindex(*shape)]
        return DVine.fit(scores, weights, names=names)
    covariance = np.atleast_2d(np.cov(scores, rowvar=False, aweights=weights))
    scale = np.sqrt(np.diag(covariance))
    return covariance / np.outer(scale, scale)


def _samples_of(draws: Any, names: Any) -> tuple[Mapping[str, Any], int]:
    """Arrays by name, deterministic sites where one is named, and the number of their leading axes that count draws."""
    if isinstance(draws, Mapping):
        return draws, 1
    samples = getattr(draws, "samples", None)
    if not isinstance(samples, Mapping):
        raise TypeError(
            f"`draws` must be the result of `sample_posterior`, or a mapping from names to arrays, got {describe(draws)}."
        )
    if isinstance(names, str) or names is None or all(name in samples for name in names):
        return samples, 2
    # As where the model's own prior was a joint one: see `replace_priors`.
    return {**getattr(draws, "deterministics", {}), **samples}, 2


def _names(names: Any, samples: Mapping[str, Any]) -> list[str]:
    if names is None:
        return list(samples)
    if isinstance(names, str) or not all(isinstance(name, str) for name in names) or not len(names):
        raise TypeError(f'`names` must be a list of names of sites, such as ["mu", "tau"], got {describe(names)}.')
    missing = [name for name in names if name not in samples]
    if missing:
        raise ValueError(f"`names` must be among the sites {list(samples)}, got {missing}.")
    return list(names)


def _flatten(support: constraints.Constraint, shape: tuple[int, ...]) -> constraints.Constraint:
    """The support of the numbers of a site in a row."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return jax.tree.map(lambda bound: jnp.broadcast_to(bound, shape).reshape(-1) if jnp.ndim(bound) else bound, support)


def _transform(name: str, support: constraints.Constraint, values: np.ndarray) -> Any:
    """The monotone map from the real line to a support."""
    transform = biject_to(support)
    if sign_of(transform) is None:
        raise ValueError(
            f"`supports` must be intervals of the real line, such as `constraints.positive`, got {support} for {name!r}."
        )
    if not np.all(support(values)):
        raise ValueError(f"`draws` holds values of {name!r} outside of its support, {support}.")
    return transform


def _is_near_zero(values: np.ndarray) -> bool:
    """Whether a number is above 0 in all draws, though a normal density of its moments is below in one of a thousand."""
    is_positive = np.all(values > 0, axis=0)
    return bool(np.any(is_positive & (values.mean(0) < 3.1 * values.std(0))))


def _segments(bank: Any, transforms: list[Any]) -> list[Distribution]:
    """The bank in pieces of neighbours on the same support."""
    # `Any`, for the annotations of NumPyro's distributions lack what theirs have.
    energy, normal = bank.energy, bank.reference
    found, start = [], 0
    for _, group in itertools.groupby(transforms, key=id):
        piece = slice(start, start := start + len(list(group)))
        names = ("coef", "base_weight", "spline_weight", "grid", "domain")
        part = dataclasses.replace(energy, **{name: getattr(energy, name)[piece] for name in names})
        tilted = KANTilted(part, dist.Normal(normal.loc[piece], normal.scale[piece]))
        transform = transforms[start - 1]
        is_real = isinstance(transform, dist.transforms.IdentityTransform)
        found.append(tilted if is_real else dist.TransformedDistribution(tilted, transform))
    return found
