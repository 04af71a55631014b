"""A path of temperatures that starts at a distribution fitted to posterior draws, in place of the prior."""

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..model.coordinates import Coordinates
from ..model.power_posterior import Position, PowerPosterior, Target
from ..sampling.checks import check_prior
from ..sampling.importance.proposals import StudentProposal

_ARRAYS = ("rows", "shared", "params", "tables")


@dataclass(frozen=True, kw_only=True)
class _FittedTarget(Target):
    """One problem on such a path.

    Attributes:
        model: the problem as the model states it.
    """

    model: Target


@partial(
    jax.tree_util.register_dataclass,
    data_fields=_ARRAYS,
    meta_fields=[
        *(field.name for field in fields(PowerPosterior) if field.name not in _ARRAYS),
        "reference",
        "structure",
    ],
)
@dataclass(frozen=True, eq=False, kw_only=True)
class FittedPosterior(PowerPosterior):
    """A posterior written as reference times ratio: q(z) (p(z) p(x | z) / q(z))^t at temperature t.

    At 1 it is the posterior, and from 0 to 1 the log-normaliser rises by log p(x), for q is normalised: whatever runs
    along temperatures runs along this path (Surjanovic et al. 2022). "Prior" and "likelihood" of its targets are q and
    the ratio. The parameters of q are rows of the data.

    Attributes:
        reference: q.
        structure: of its parameters, which are the last of `rows`.
    """

    reference: StudentProposal
    structure: Any

    def target(self, datum: tuple[jax.Array, ...]) -> Target:
        """See `PowerPosterior.target`."""
        datum, parameters = self._split(datum)
        model = super().target(datum)

        def log_reference(position: Position) -> jax.Array:
            return self.reference.log_density(parameters, position)

        def log_ratio(position: Position) -> jax.Array:
            total = sum(model.densities(position)) - log_reference(position)
            return jnp.where(jnp.isnan(total), -jnp.inf, total)

        def draw(key: jax.Array) -> Position:
            return self.reference.draw(parameters, key, self, datum)[0]

        return _FittedTarget(log_reference, log_ratio, draw, model=model)

    def values(self, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
        """See `PowerPosterior.values`."""
        return super().values(self._split(datum)[0], position)

    def _split(self, datum: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, ...], Any]:
        number = len(datum) - self.structure.num_leaves
        return datum[:number], jax.tree.unflatten(self.structure, datum[number:])


def from_reference(
    posterior: PowerPosterior, reference: StudentProposal | None, coordinates: Coordinates, sampler: str
) -> PowerPosterior:
    """The posterior with a path that starts at the reference; at the prior, where there is none.

    Raises:
        ValueError: the prior is to be drawn from and can't be; or the reference was fitted to draws of another posterior,
            or in other coordinates.
    """
    if reference is None:
        check_prior(posterior, sampler)
        return posterior
    if reference.coordinates != coordinates:
        raise ValueError(
            f"`reference` was fitted to draws in {type(reference.coordinates).__name__.lower()} coordinates, but the "
            f"kernel moves in {type(coordinates).__name__.lower()} ones: give a fit to draws by the kernel itself."
        )
    reference.check(posterior)
    parameters, structure = jax.tree.flatten(reference.parameters())
    known = {field.name: getattr(posterior, field.name) for field in fields(PowerPosterior)}
    fitted = FittedPosterior(**known, reference=reference, structure=structure)
    return replace(fitted, rows=(*posterior.rows, *parameters), has_proper_prior=True, draws_are_shared=False)


def check_reference(reference: Any, sampler: str) -> None:
    """Refuse what is no reference.

    Raises:
        TypeError: it is none.
    """
    if reference is not None and not isinstance(reference, StudentProposal):
        raise TypeError(
            f"`reference` of {sampler} must be None, for the prior, or a `StudentProposal(draws)`, got "
            f"{type(reference).__name__}."
        )


def densities_of_the_model(target: Target, position: Position, lp: jax.Array) -> dict[str, jax.Array]:
    """The model's own log-prior and log-likelihood at a position, whose sum is known; empty where the path is its own."""
    if not isinstance(target, _FittedTarget):
        return {}
    log_prior = target.model.log_prior(position)
    return {"log_prior": log_prior, "log_likelihood": lp - log_prior}
