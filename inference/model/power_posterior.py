"""The power posterior p(z) p(x | z)^t of any NumPyro model, discrete latents summed out; one for each row of a plate."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.primitives import Messenger

from kaem_ppl.distributions.tabulated import TabulatedPrior, tabulate_prior

from .arguments import Layout, check_call
from .coordinates import Coordinates, Unconstrained, Whitened
from .discrete.latents import DiscreteLatents
from .handlers import DrawLatents, PlaceLatents, RedrawObserved, SiteMessage, Trace, in_control_flow, run_model
from .missing.incomplete import Incomplete
from .parameters import Params, as_params
from .reader import read_model
from .sites import Site, apply_scale, scaled_log_prob
from .traced import ModelIdentity
from .two_runs import Reading
from .wrappers import with_base

type Position = dict[str, jax.Array]


@dataclass(frozen=True)
class Target:
    """One problem: a prior and a likelihood as functions of a position, and a way to draw from the prior.

    Attributes:
        log_prior: position to scalar, in the coordinates that the position is in.
        log_likelihood: position to scalar.
        draw: key to a position distributed as the prior.
        both: log-prior and log-likelihood by one run of the model; None where that takes two.
    """

    log_prior: Callable[[Position], jax.Array]
    log_likelihood: Callable[[Position], jax.Array]
    draw: Callable[[jax.Array], Position]
    both: Callable[[Position], tuple[jax.Array, jax.Array]] | None = None

    def densities(self, position: Position) -> tuple[jax.Array, jax.Array]:
        """Log-prior and log-likelihood."""
        if self.both is not None:
            return self.both(position)
        return self.log_prior(position), self.log_likelihood(position)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "shared", "params", "tables"],
    meta_fields=[
        "model",
        "layout",
        "plate",
        "coordinates",
        "latents",
        "observed",
        "deterministics",
        "has_proper_prior",
        "discrete",
        "draws_are_shared",
    ],
)
@dataclass(frozen=True, eq=False)
class PowerPosterior:
    """A model, its data and its parameters, ready to be conditioned. Made by `read_power_posterior`.

    A pytree whose arrays are data and whose other fields are static: a program compiled for one of them serves every
    other of the same model and shapes.

    Attributes:
        rows: arrays (num_data, ...), of which each datum owns a row; empty without a plate.
        shared: arrays that every datum reads whole.
        params: constrained values of the model's `numpyro.param` sites.
        tables: by name of the latent site, its prior, where that is tilted and the same for all data and latents.
        model: the model, and what it computed when it was read.
        layout: how arrays and other values make up the arguments of the model.
        plate: name of the plate that holds the data; None where the model is one problem.
        coordinates: the coordinates positions are in.
        latents: the continuous latent sites; a position is of these.
        observed: the observed sites; `numpyro.factor` is one, and counts as likelihood.
        deterministics: the deterministic sites.
        has_proper_prior: whether a position can be drawn from the prior, and the draw is from its density.
        discrete: the discrete latents, which are summed out of the likelihood; None where there is none.
        draws_are_shared: whether prior and likelihood are the same functions for every datum of the plate, so that one
            set of prior draws serves all.
    """

    rows: tuple[jax.Array, ...]
    shared: tuple[jax.Array, ...]
    params: Params
    tables: dict[str, TabulatedPrior]
    model: ModelIdentity
    layout: Layout
    plate: str | None
    coordinates: Coordinates
    latents: tuple[Site, ...]
    observed: tuple[Site, ...]
    deterministics: tuple[Site, ...]
    has_proper_prior: bool
    discrete: DiscreteLatents | None = None
    draws_are_shared: bool = False

    @property
    def num_data(self) -> int:
        """Number of problems."""
        return self.rows[0].shape[0] if self.rows else 1

    def target(self, datum: tuple[jax.Array, ...]) -> Target:
        """The problem of one datum, whose rows, without a leading axis, are `datum`."""

        def log_prior(position: Position) -> jax.Array:
            sites = self._place(datum, position)
            apart = self.latents
            total = jnp.zeros(())
            if self.discrete is not None:
                apart = tuple(site for site in apart if site.name not in self.discrete.entangled)
                total += self.discrete.log_prior(partial(self._enumerate, datum, position), self._jacobians(position))
            return total + sum(self._log_prior(sites[site.name], position[site.name]) for site in apart)

        def log_likelihood(position: Position) -> jax.Array:
            if self.discrete is not None:
                total = self.discrete.log_likelihood(partial(self._enumerate, datum, position))
            else:
                sites = self._place(datum, position)
                total = sum(jnp.sum(scaled_log_prob(sites[site.name])) for site in self.observed)
            # NaN would be accepted by a comparison somewhere.
            return jnp.where(jnp.isnan(total), -jnp.inf, total)

        def both(position: Position) -> tuple[jax.Array, jax.Array]:
            sites = self._place(datum, position)
            prior = sum(self._log_prior(sites[site.name], position[site.name]) for site in self.latents)
            likelihood = sum(jnp.sum(scaled_log_prob(sites[site.name])) for site in self.observed)
            return jnp.asarray(prior), jnp.where(jnp.isnan(likelihood), -jnp.inf, likelihood)

        def draw(key: jax.Array) -> Position:
            handler = DrawLatents(key, self.coordinates.draw, self.coordinates.value, self._with_table)
            # Apart from the keys of sites, which are numbered from 0.
            return handler.position(self._run(datum, handler, key=jax.random.fold_in(key, 2**31 - 1)))

        return Target(log_prior, log_likelihood, draw, both if self.discrete is None else None)

    def values(self, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
        """Values of the latent sites at a position, without the data plate's axis."""
        sites = self._place(datum, position)
        return {site.name: site.drop_plate_axis(sites[site.name]["value"]) for site in self.latents}

    def supports(self, datum: tuple[jax.Array, ...], position: Position) -> dict[str, constraints.Constraint]:
        """Supports of the latent sites at a position, on which their bounds may depend."""
        sites = self._place(datum, position)
        return {
            site.name: constraints.circular if site.is_circular else sites[site.name]["fn"].support
            for site in self.latents
        }

    def deterministic_values(
        self, datum: tuple[jax.Array, ...], position: Position, key: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Values of the deterministic sites at a position, without the data plate's axis; discrete latents are drawn."""
        if key is not None:
            position = position | self._draw_discrete(key, datum, position)
        sites = self._place(datum, position)
        return {site.name: site.drop_plate_axis(jnp.asarray(sites[site.name]["value"])) for site in self.deterministics}

    def pointwise_log_likelihood(self, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
        """Log-likelihood of each observed site, its batch axes kept; with a plate one number for the datum."""
        if self.discrete is not None:
            pointwise = self.discrete.pointwise(partial(self._enumerate, datum, position))
            return pointwise if self.plate is None else jax.tree.map(jnp.sum, pointwise)
        sites = self._place(datum, position)
        pointwise = {site.name: scaled_log_prob(sites[site.name]) for site in self.observed}
        return pointwise if self.plate is None else jax.tree.map(jnp.sum, pointwise)

    def pointwise_log_prior(self, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
        """Log-prior of each latent site's value, its batch axes kept; with a plate one number for the datum."""
        sites = self._place(datum, position)
        pointwise = {site.name: jnp.asarray(scaled_log_prob(sites[site.name])) for site in self.latents}
        return pointwise if self.plate is None else jax.tree.map(jnp.sum, pointwise)

    def predict(self, key: jax.Array, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
        """Draw every observed site anew given a position, without the data plate's axis."""
        if self.discrete is not None:
            position = position | self._draw_discrete(jax.random.fold_in(key, 1), datum, position)
        return self._read_observed(self._run(datum, RedrawObserved(), self._placer(position), key=key))

    def impute(self, key: jax.Array, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
        """Values of the observed sites given a position, what is missing of them drawn, without the data plate's axis."""
        sites = self._place(datum, position)
        for number, site in enumerate(self.observed):
            fn = sites[site.name]["fn"]
            if isinstance(fn, Incomplete):
                value = sites[site.name]["value"]
                value = jnp.broadcast_to(value, jnp.broadcast_shapes(jnp.shape(value), fn.shape()))
                sites[site.name]["value"] = fn.impute(jax.random.fold_in(key, number), value)
        return self._read_observed(sites)

    def draw_prior(
        self, key: jax.Array, datum: tuple[jax.Array, ...]
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Draw the latents from the prior; their values, without the data plate's axis, and new observations."""
        position, observations = self.draw_joint(key, datum)
        return self.values(datum, position), observations

    def draw_joint(self, key: jax.Array, datum: tuple[jax.Array, ...]) -> tuple[Position, dict[str, jax.Array]]:
        """Draw a position from the prior, and new observations given it and discrete latents of the prior."""
        draw_key, predict_key = jax.random.split(key)
        if self.discrete is None:
            position = self.target(datum).draw(draw_key)
            return position, self.predict(predict_key, datum, position)
        # In one run: discrete latents as they were drawn with the others, for `predict` draws them given the data.
        handler = DrawLatents(draw_key, self.coordinates.draw, self.coordinates.value, self._with_table)
        sites = self._run(datum, RedrawObserved(), handler, key=predict_key)
        # Observed sites look latent where they were drawn.
        observed = {site.name for site in self.observed}
        position = handler.position({name: site for name, site in sites.items() if name not in observed})
        return position, self._read_observed(sites)

    def infer_discrete(self, key: jax.Array, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
        """Draw the discrete latents from their law given a position and the data, without the data plate's axis."""
        if self.discrete is None:
            return {}
        drawn = self._draw_discrete(key, datum, position)
        return {site.name: site.drop_plate_axis(drawn[site.name]) for site in self.discrete.sites}

    def observations(self) -> dict[str, jax.Array]:
        """Values of the observed sites other than factors, shape (num_data, ...) with a plate."""

        def read(datum: tuple[jax.Array, ...]) -> dict[str, jax.Array]:
            handler = DrawLatents(jax.random.key(0), self.coordinates.draw, self.coordinates.value, self._with_table)
            return self._read_observed(self._run(datum, handler))

        return jax.jit(jax.vmap(read))(self.rows) if self.rows else jax.jit(read)(())

    def _read_observed(self, sites: Trace) -> dict[str, jax.Array]:
        named = {site.name: site for site in self.observed if not isinstance(sites[site.name]["fn"], dist.Unit)}
        return {name: site.drop_plate_axis(sites[name]["value"]) for name, site in named.items()}

    def _log_prior(self, site: SiteMessage, coordinate: jax.Array) -> jax.Array:
        log_prob, log_jacobian = self.coordinates.log_prior(site["fn"], coordinate, site["value"])
        return jnp.sum(apply_scale(log_prob, site)) + log_jacobian

    def _with_table(self, site: SiteMessage) -> dist.Distribution:
        """The site's distribution, its tilted base replaced by the table of it where there is one."""
        table = self.tables.get(site["name"])
        return site["fn"] if table is None or in_control_flow(site) else with_base(site["fn"], table)

    def _placer(self, position: Position) -> PlaceLatents:
        return PlaceLatents(position, self.coordinates.value, self._with_table)

    def _enumerate(self, datum: tuple[jax.Array, ...], position: Position, handler: Messenger) -> Trace:
        """The run in which discrete latents take all their states."""
        return self._run(datum, self._placer(position), handler)

    def _draw_discrete(self, key: jax.Array, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
        assert self.discrete is not None, "there are discrete latents"
        return self.discrete.draw(key, partial(self._enumerate, datum, position))

    def _jacobians(self, position: Position) -> Callable[[Trace], dict[str, jax.Array]]:
        """log |d value / d coordinate| of the latents whose prior depends on discrete ones, from the sites of a run."""

        def jacobian(site: SiteMessage) -> jax.Array:
            _, log_jacobian = self.coordinates.log_prior(site["fn"], position[site["name"]], site["value"])
            return jnp.asarray(log_jacobian)

        names = () if self.discrete is None else self.discrete.entangled
        return lambda sites: {name: jacobian(sites[name]) for name in names}

    def _place(self, datum: tuple[jax.Array, ...], position: Position) -> Trace:
        return self._run(datum, self._placer(position))

    def _run(self, datum: tuple[jax.Array, ...], *messengers: Messenger, key: jax.Array | None = None) -> Trace:
        args, kwargs = self.layout.arguments([row[None] for row in datum], self.shared)
        return run_model(self.model.function, args, kwargs, self.params, messengers, key)


def read_power_posterior(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    params: Params | None = None,
    plate: str | None = None,
    coordinates: Coordinates = Unconstrained(),  # noqa: B008 - a frozen value
) -> PowerPosterior:
    """Read a model's latent and observed sites and tabulate its tilted priors.

    The model is traced twice, and its log-density compared with NumPyro's at one point; see `read_model`.

    Args:
        model: NumPyro model.
        args: its positional arguments; pytrees. Those that are no rows reach a model that looks at their values, as by
            `np.asarray(x)`, as they are; programs are then compiled for these values.
        kwargs: its keyword arguments; pytrees.
        params: constrained values of its `numpyro.param` sites, or what `fit` returned.
        plate: name of the plate whose rows are problems of their own. Arrays among the arguments whose leading axis has
            the plate's size are cut into rows, but those that the model reads whole for a datum; everything else reaches
            the model as it is.
        coordinates: what positions are written in.

    Raises:
        ValueError: the model has no such plate or subsamples it, or a site stands outside it; a discrete latent can't be
            summed out, or the coordinates do not exist for a continuous one; nothing continuous is latent, or nothing
            observed; a parameter is missing; a site can't be read, or its log-density is not NumPyro's.
    """
    check_call(model, args, kwargs, plate)
    reading = read_model(model, args, kwargs, params=jax.tree.map(jnp.asarray, as_params(params)), plate=plate)
    if not reading.sites.latents:
        raise ValueError(
            f"All latent sites of `model`, {[site.name for site in reading.sites.discrete]}, are discrete, so there is "
            "no continuous one to sample: give a parameter of the model a prior, or learn parameters by `fit`."
        )
    return condition(reading, coordinates)


def condition(reading: Reading, coordinates: Coordinates) -> PowerPosterior:
    """The power posterior of a reading, its tilted priors tabulated.

    Raises:
        ValueError: the coordinates do not exist for a latent site.
    """
    sites, discrete = reading.sites, reading.discrete
    if discrete is not None and discrete.entangled and not isinstance(coordinates, Unconstrained):
        raise ValueError(
            f"The prior of latent site {discrete.entangled[0]!r} depends on the discrete latent sites "
            f"{list(discrete.names)}, so it can't be whitened. Choose a sampler that moves in unconstrained space, such as "
            "`NUTS()`."
        )
    for site in sites.latents:
        coordinates.check(site.name, reading.priors[site.name])
        if isinstance(coordinates, Whitened) and site.name in sites.weighted:
            raise ValueError(
                f"Latent site {site.name!r} is scaled or masked, so it is not standard normal a priori when whitened. "
                "Put `numpyro.handlers.scale` or `mask` around the observed sites only, or choose a sampler that moves "
                "in unconstrained space, such as `NUTS()`."
            )
    tables = {name: tabulate_prior(name, prior) for name, prior in reading.fixed_priors().items()}
    return PowerPosterior(
        tuple(map(jnp.asarray, reading.rows)), tuple(map(jnp.asarray, reading.shared)), reading.parameters.values, tables,
        reading.model, reading.layout, reading.plate, coordinates, sites.latents, sites.observed, sites.deterministics,
        has_proper_prior=not (sites.weighted_continuous or sites.improper), discrete=discrete,
        draws_are_shared=not (reading.reads_rows() or sites.scale_varies or discrete),
    )  # fmt: skip
