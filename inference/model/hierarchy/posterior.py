"""The joint posterior of latents outside the data plate, the globals, and inside it, the locals, and its conditionals."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.primitives import Messenger

from ..arguments import check_call
from ..coordinates import Coordinates, Unconstrained
from ..discrete.latents import DiscreteLatents
from ..handlers import PlaceLatents, SiteMessage, Trace
from ..missing.masking import Missing, check_missing, incomplete_model
from ..parameters import Params, as_params
from ..power_posterior import Position, PowerPosterior, Target, condition, read_power_posterior
from ..reader import read_model
from ..sites import OutsidePlateError, Site, apply_scale, scaled_log_prob
from ..two_runs import Reading
from .globals_as_params import globals_as_params
from .standardize import Standardized, can_standardize


class BlockLayout(NamedTuple):
    """Which latents are globals and which are locals; hashable, for it is static.

    Attributes:
        plate: name of the plate around the locals.
        global_names: of the latents outside it.
        local_axes: by name of a latent inside it, the batch axis of the plate, counted from the left.
        has_standardized: whether a local is of a location-scale family.
    """

    plate: str
    global_names: tuple[str, ...]
    local_axes: tuple[tuple[str, int], ...]
    has_standardized: bool

    def split(self, position: Position) -> tuple[Position, Position]:
        """Globals and locals."""
        globals_ = {name: position[name] for name in self.global_names}
        return globals_, {name: position[name] for name, _ in self.local_axes}

    def data_first(self, locals_: Position) -> Position:
        """Positions of the locals as the posterior of each datum has them, (num_data, ...)."""
        return {n: jnp.expand_dims(jnp.moveaxis(locals_[n], axis, 0), axis + 1) for n, axis in self.local_axes}

    def data_in_place(self, positions: Position) -> Position:
        """The inverse of `data_first`."""
        return {n: jnp.moveaxis(jnp.squeeze(positions[n], axis + 1), 0, axis) for n, axis in self.local_axes}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "shared", "params", "tables", "given_globals"],
    meta_fields=[
        "model", "layout", "plate", "coordinates", "latents", "observed", "deterministics", "has_proper_prior", "discrete",
        "draws_are_shared",
        "blocks",
    ],
)  # fmt: skip
@dataclass(frozen=True, eq=False, kw_only=True)
class HierarchicalPosterior(PowerPosterior):
    """The joint posterior of globals and locals, as one problem; its targets also know the conditionals.

    Attributes:
        given_globals: the posterior of each datum's locals; its `params` hold values of the globals.
        blocks: which latents are which.
    """

    given_globals: PowerPosterior
    blocks: BlockLayout

    def target(self, datum: tuple[jax.Array, ...]) -> "JointTarget":
        """The joint problem; `datum` is empty."""
        target = super().target(datum)
        return JointTarget(target.log_prior, target.log_likelihood, target.draw, target.both, posterior=self)

    def of_locals(self, globals_: Position, locals_: Position) -> PowerPosterior:
        """The posterior of each datum's locals given the globals, which do not depend on the locals' position."""
        sites = self._place((), globals_ | locals_)
        values = {name: sites[name]["value"] for name in self.blocks.global_names}
        return replace(self.given_globals, params=self.given_globals.params | values)

    def of_globals(self, locals_: Position) -> Target:
        """The globals given the locals' coordinates: their prior, and all else as likelihood."""

        def densities(globals_: Position) -> tuple[jax.Array, jax.Array]:
            position = globals_ | locals_
            return self._block(self._placer(position), position, self.coordinates)

        return _target(densities)

    def of_globals_given_values(self, locals_: Position) -> Target:
        """The globals given the locals in unconstrained space, as `unstandardize` returns them."""

        def densities(globals_: Position) -> tuple[jax.Array, jax.Array]:
            position = globals_ | locals_
            return self._block(self._placer_unconstrained(position), position, Unconstrained())

        return _target(densities)

    def unstandardize(self, globals_: Position, locals_: Position) -> Position:
        """The locals in unconstrained space."""
        sites = self._place((), globals_ | locals_)
        return {name: Unconstrained().coordinate(sites[name]["fn"], sites[name]["value"]) for name in locals_}

    def standardize(self, globals_: Position, locals_: Position) -> Position:
        """The inverse of `unstandardize`, at other globals."""
        sites = self._run((), self._placer_unconstrained(globals_ | locals_))
        return {name: Standardized().coordinate(sites[name]["fn"], sites[name]["value"]) for name in locals_}

    def resolution(self, globals_: Position, locals_: Position) -> jax.Array:
        """How far a standardised coordinate moves with the last digit of the unconstrained one, at most.

        Locals that differ from their location by less than its last digit have lost their standardised coordinates; to
        move a scale given such locals would take it to 0.
        """
        here = self.standardize(globals_, locals_)
        there = self.standardize(globals_, jax.tree.map(lambda x: jnp.nextafter(x, jnp.full_like(x, jnp.inf)), locals_))
        return jnp.stack([jnp.abs(there[name] - here[name]).max() for name in here]).max()

    def written_in(self, coordinates: Coordinates) -> "HierarchicalPosterior":
        """The same posterior, in other coordinates than it was read in."""
        coordinates = _known_coordinates(coordinates, self.discrete)
        return replace(
            self, coordinates=coordinates, given_globals=replace(self.given_globals, coordinates=coordinates)
        )

    def _block(
        self, placer: PlaceLatents, position: Position, locals_coordinates: Coordinates
    ) -> tuple[jax.Array, jax.Array]:
        """Log-prior of the globals, and the sum of all other log-densities, discrete latents summed out."""
        sites = self._run((), placer)

        def log_prior(name: str, coordinates: Coordinates) -> jax.Array:
            site = sites[name]
            log_prob, log_jacobian = coordinates.log_prior(site["fn"], position[name], site["value"])
            return jnp.sum(apply_scale(log_prob, site)) + log_jacobian

        of_globals = sum(log_prior(name, self.coordinates) for name in self.blocks.global_names)
        entangled = () if self.discrete is None else self.discrete.entangled
        apart = [name for name, _ in self.blocks.local_axes if name not in entangled]
        of_locals = sum(log_prior(name, locals_coordinates) for name in apart)
        if self.discrete is None:
            log_likelihood = sum(jnp.sum(scaled_log_prob(sites[site.name])) for site in self.observed)
        else:

            def run(handler: Messenger) -> Trace:
                return self._run((), placer, handler)

            log_likelihood = self.discrete.log_likelihood(run) + self.discrete.log_prior(run, self._jacobians(position))
        return jnp.asarray(of_globals), jnp.asarray(of_locals + log_likelihood)

    def _placer_unconstrained(self, position: Position) -> PlaceLatents:
        """Puts the locals where a position in unconstrained space says, the globals by the posterior's coordinates."""
        return _PlaceBlocks(self.blocks.global_names, self.coordinates, position, replace=self._with_table)


@dataclass(frozen=True, kw_only=True)
class JointTarget(Target):
    """The joint problem, and the posterior it came from, for what moves in blocks."""

    posterior: HierarchicalPosterior


class _PlaceBlocks(PlaceLatents):
    """Puts the globals where coordinates of their own say, and the locals where unconstrained ones do."""

    def __init__(
        self,
        global_names: tuple[str, ...],
        coordinates: Coordinates,
        position: Position,
        replace: Callable[[SiteMessage], dist.Distribution],
    ) -> None:
        super().__init__(position, Unconstrained().value, replace)
        self.global_names, self.coordinates = global_names, coordinates

    def give_value(self, site: SiteMessage) -> None:
        """See `GiveLatents`."""
        super().give_value(site)
        if site["name"] in self.global_names:
            site["value"] = self.coordinates.value(site["fn"], self.position[site["name"]])


def read_posterior(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    params: Params | None = None,
    plate: str | None = None,
    coordinates: Coordinates = Unconstrained(),  # noqa: B008 - a frozen value
    missing: Missing = None,
) -> PowerPosterior:
    """As `read_power_posterior`; a `HierarchicalPosterior` where continuous latents stand outside the plate and inside.

    Where all that is inside is discrete, it is summed out, and what is outside is one problem, as without a plate.

    With `missing` NaN among the observations stand for missing entries.

    Where `params` has values for all latents outside the plate, as `fit` returns them, these are held there.

    Raises:
        ValueError: as there, but for latents outside the plate; and a site outside the plate depends on latents inside.
    """
    check_call(model, args, kwargs, plate)
    params = as_params(params)
    whole_model, model = model, incomplete_model(model, missing)
    check_missing(whole_model, missing, args, kwargs, params)
    try:
        return read_power_posterior(model, args, kwargs, params=params, plate=plate, coordinates=coordinates)
    except OutsidePlateError as error:
        assert plate is not None
        if params:
            held = globals_as_params(model, plate)
            try:
                return read_power_posterior(held, args, kwargs, params=params, plate=plate, coordinates=coordinates)
            except ValueError:
                # Not all of them are there, or something else is amiss, which the joint reading says.
                pass
        found = _read_hierarchical(model, args, kwargs, params, plate, coordinates)
        if found is None:
            # Only observed sites stand outside, or only latents: there is nothing to split.
            raise error
        return found


def _read_hierarchical(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    params: Params,
    plate: str,
    coordinates: Coordinates,
) -> PowerPosterior | None:
    reading = read_model(model, args, kwargs, params=jax.tree.map(jnp.asarray, params))
    sites = reading.sites
    locals_ = tuple(site for site in sites.latents if plate in site.dims)
    globals_ = tuple(site for site in sites.latents if plate not in site.dims)
    if globals_ and not locals_ and any(plate in site.dims for site in sites.discrete):
        return condition(reading, coordinates)
    if globals_ and not locals_:
        names = ", ".join(repr(site.name) for site in globals_)
        raise OutsidePlateError(
            f"`plate` is {plate!r}, which has no latent site: all its rows share {names}, and are one problem. "
            "Leave `plate` out; it is for models with a latent for each row."
        )
    if not locals_ or not globals_:
        return None
    if reading.discrete is not None:
        _check_discrete(reading.discrete, plate, globals_)
        coordinates = _known_coordinates(coordinates, reading.discrete)
    _check_no_local_in_global(reading, plate, globals_, locals_)
    joint = condition(reading, coordinates)
    local_model = globals_as_params(reading.model.function, plate)
    values = _draw_values(joint)
    given = {**joint.params, **{site.name: values[site.name] for site in globals_}}
    local = read_power_posterior(local_model, args, kwargs, params=given, plate=plate, coordinates=coordinates)
    # A prior that depends on a global is no table, though it depends on nothing in the plate.
    local = replace(local, tables={name: table for name, table in local.tables.items() if name in joint.tables})
    axes = tuple((site.name, site.dims.index(plate)) for site in locals_)
    has_standardized = _known_coordinates(Standardized(), reading.discrete) == Standardized() and any(
        can_standardize(reading.priors[site.name]) for site in locals_
    )
    blocks = BlockLayout(plate, tuple(site.name for site in globals_), axes, has_standardized)
    values_of_joint = {field.name: getattr(joint, field.name) for field in fields(PowerPosterior)}
    return HierarchicalPosterior(**values_of_joint, given_globals=local, blocks=blocks)


def _known_coordinates(coordinates: Coordinates, discrete: DiscreteLatents | None) -> Coordinates:
    """Unconstrained ones where location and scale of a latent are not known, for its law depends on a discrete one."""
    is_unknown = discrete is not None and discrete.entangled and isinstance(coordinates, Standardized)
    return Unconstrained() if is_unknown else coordinates


def _check_discrete(discrete: DiscreteLatents, plate: str, globals_: tuple[Site, ...]) -> None:
    """Refuse discrete latents that data have in common, or that the law of a global depends on."""
    outside = [site.name for site in discrete.sites if plate not in site.dims]
    entangled = [site.name for site in globals_ if site.name in discrete.entangled]
    if outside or entangled:
        why = (
            f"Discrete latent site {outside[0]!r} stands outside plate {plate!r}, so"
            if outside
            else f"The law of {entangled[0]!r}, outside plate {plate!r}, depends on the discrete latent sites "
            f"{list(discrete.names)}, so"
        )
        raise ValueError(
            f"{why} the data are not independent where it is summed out: leave `plate` out to sample the joint posterior "
            "as one problem."
        )


def _check_no_local_in_global(
    reading: Reading, plate: str, globals_: tuple[Site, ...], locals_: tuple[Site, ...]
) -> None:
    """Refuse a site outside the plate whose density depends on latents inside: given it, data depend on each other."""
    outside = [*globals_, *(site for site in reading.sites.observed if plate not in site.dims)]
    for site in outside:
        *_, values, _ = reading.one.select(lambda outputs: outputs["log_probs"][site.name]).uses()  # noqa: B023
        depends = [local.name for local in locals_ if any(jax.tree.leaves(values[local.name]))]
        if depends:
            raise ValueError(
                f"Site {site.name!r} stands outside plate {plate!r} and depends on {depends[0]!r} inside it, so the data "
                "are not independent given what is outside. Leave `plate` out to sample the joint posterior as one problem."
            )


@jax.jit
def _draw_values(joint: PowerPosterior) -> dict[str, jax.Array]:
    return joint.values((), joint.target(()).draw(jax.random.key(0)))


def _target(densities: Callable[[Position], tuple[jax.Array, jax.Array]]) -> Target:
    def both(globals_: Position) -> tuple[jax.Array, jax.Array]:
        log_prior, value = densities(globals_)
        # NaN would be accepted by a comparison somewhere.
        return log_prior, jnp.where(jnp.isnan(value), -jnp.inf, value)

    def draw(key: jax.Array) -> Position:
        raise NotImplementedError("a conditional is moved on, not started from a draw")

    return Target(lambda globals_: both(globals_)[0], lambda globals_: both(globals_)[1], draw, both)
