"""A model for training strategies: posteriors of a batch, and log-densities of given latents."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from kaem_ppl import KANTilted
from kaem_ppl.distributions.base import TiltedDistribution
from kaem_ppl.distributions.tabulated import TabulatedPrior, interpolate

from .arguments import batch_arguments
from .coordinates import Coordinates, Unconstrained
from .handlers import PlaceLatents, SiteMessage, Trace, run_model, substitute_zero_latents
from .hierarchy.globals_as_params import GlobalsAsParams, globals_as_params, log_density_outside
from .modules.recording import Slot
from .modules.training_mode import TrainingMode, accepted_kwargs
from .parameters import Parameters, Params, check_floating, read_parameters
from .plate_model import PlateModel, describe_plate_model
from .power_posterior import Position, PowerPosterior, condition
from .reader import read_rows_model
from .sites import OutsidePlateError, check_names
from .traced import Traced
from .two_runs import Reading
from .wrappers import unwrap

# Cells of a prior's table made anew at each update. Where energies vary by about two nats, cubics on them are right to
# 1e-5 nats for 20 radial functions, and to 5e-4 for waves of equal height, the shortest a fiftieth of the domain.
_NUM_CELLS = 512


@dataclass(frozen=True)
class TrainingModel(PlateModel):
    """A `PlateModel` that also gives the posterior of each datum of a batch, inside a traced update."""

    # The model with latents outside the plate, whose values are among the parameters; None where there are none.
    outside: GlobalsAsParams | None
    # Arguments of the model, and of a guide that takes them, in training only.
    training_kwargs: tuple[tuple[str, Any], ...] = ()
    _reading: Reading = field(compare=False, repr=False, kw_only=True)
    # By coordinates, the posterior as it was read; what changes between updates is put in its place later.
    _templates: dict[Coordinates, PowerPosterior] = field(default_factory=dict, compare=False, repr=False)

    @property
    def first_params(self) -> Params:
        """Constrained parameters that the model was read with, and first states of its modules."""
        return self._reading.parameters.values

    def in_training(self, key: jax.Array, slots: Mapping[str, Slot]) -> "TrainingModel":
        """The model for one step of training: passes that are scored run in training mode, posteriors in evaluation mode.

        Args:
            key: of dropout and the like.
            slots: where new states of modules come out; see `note_states`.
        """
        if not slots and not self.training_kwargs:
            return self
        return dataclasses.replace(self, training=TrainingMode(key, dict(self.training_kwargs), slots))

    def run_guide(self, guide: Callable[..., Any], key: jax.Array, params: Params, batch: Any) -> Trace:
        """The sites of a run of a guide, in training mode where the model is."""
        args, kwargs = batch_arguments(batch)
        if self.training is None:
            return run_model(guide, args, kwargs, params, (), key)
        kwargs = kwargs | accepted_kwargs(guide, self.training.kwargs)
        return run_model(guide, args, kwargs, params, (), key, self.training.key)

    def posterior(
        self,
        params: Params,
        batch: Any,
        coordinates: Coordinates = Unconstrained(),  # noqa: B008 - a frozen value
    ) -> PowerPosterior:
        """The posterior of each datum of a batch; traceable, and a constant to derivatives.

        Tilted priors are tabulated on a fixed number of cells, once for all that is done with the posterior; their
        log-densities are right up to a constant.

        Args:
            params: constrained parameters.
            batch: pytree of arrays (B, ...).
            coordinates: what positions are written in.

        Raises:
            ValueError: the coordinates do not exist for a latent site.
        """
        template = self._template(coordinates)
        params = lax.stop_gradient(params)
        tables = {name: _tabulate(prior) for name, prior in self.priors(params, batch, template.tables).items()}
        return dataclasses.replace(self.posterior_at(template, batch), params=params, tables=tables)

    def initial_posterior(self, data: Any, coordinates: Coordinates = Unconstrained()) -> PowerPosterior:  # noqa: B008
        """The posterior of each datum at the first parameters, whose priors are tabulated already."""
        return self.posterior_at(self._template(coordinates), data)

    def posterior_at(self, posterior: PowerPosterior, batch: Any) -> PowerPosterior:
        """The same posterior, of other data."""
        return dataclasses.replace(posterior, rows=tuple(jax.tree.leaves(batch)))

    def priors(self, params: Params, batch: Any, names: Iterable[str]) -> dict[str, dist.Distribution]:
        """The distributions of the latent sites `names`, without what wraps them."""
        first = jax.tree.map(lambda leaf: leaf[:1], batch)
        sites = self._run(jax.random.key(0), params, first, substitute_zero_latents())
        return {name: unwrap(sites[name]["fn"]) for name in names}

    def values(self, posterior: PowerPosterior, positions: Position) -> dict[str, jax.Array]:
        """Latents of a batch, as the model's sites hold them, at one position (B, ...) for each datum."""
        values = jax.vmap(posterior.values)(posterior.rows, positions)
        axes = {site.name: site.plate_axis for site in posterior.latents if site.plate_axis is not None}
        return {name: jnp.moveaxis(value, 0, axes[name]) for name, value in values.items()}

    def log_densities(self, params: Params, batch: Any, latents: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """log p(x_b | z_b) and log p(z_b) at given latents, shape (B,) each; differentiable in everything.

        The prior's is exact, its normaliser included.
        """
        sites = self._train(jax.random.key(0), params, batch, PlaceLatents(latents))
        return self._log_densities(params, batch, sites, self._log_prior(sites))

    def log_density_outside(self, params: Params, batch: Any) -> jax.Array | float:
        """Log-density of all sites outside the plate, their latents being parameters; it counts once for all data."""
        if self.outside is None:
            return 0.0
        return log_density_outside(self.outside, params, *batch_arguments(jax.tree.map(lambda leaf: leaf[:1], batch)))

    def data_first(self, site: SiteMessage) -> jax.Array:
        """Value of a sample site of a trace, its data axis in front."""
        return jnp.moveaxis(site["value"], self._dim(site) - site["fn"].event_dim, 0)

    def draw_by_weight(self, key: jax.Array, params: Params, batch: Any, num_draws: int) -> dict[str, jax.Array]:
        """Draw latents of each datum from its posterior, by importance weights of prior draws; data axis in front.

        Args:
            key: PRNG key.
            params: constrained parameters.
            batch: pytree of arrays (B, ...).
            num_draws: prior draws, for all data together where draws are shared, for each datum otherwise.
        """
        draw_key, choice_key = jax.random.split(key)
        keys = jax.random.split(choice_key, jax.tree.leaves(batch)[0].shape[0])

        def draws(key: jax.Array, rows: Any) -> tuple[Trace, dict[str, jax.Array]]:
            sites, _ = self.draw_prior(key, params, rows)
            return sites, {name: self.data_first(sites[name]) for name in self.latent}

        if self.draws_are_shared:
            # The same key as the scores: the same draws.
            log_likelihood, _ = self.score_prior_draws(draw_key, params, batch, num_draws)
            rows = jax.tree.map(lambda leaf: jnp.zeros((num_draws, *leaf.shape[1:]), leaf.dtype), batch)
            chosen = jax.vmap(jax.random.categorical)(keys, log_likelihood)
            return jax.tree.map(lambda leaf: leaf[chosen], draws(draw_key, rows)[1])

        def choose(key_and_datum: tuple[jax.Array, Any]) -> dict[str, jax.Array]:
            key, datum = key_and_datum
            draw_key, choice_key = jax.random.split(key)
            rows = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_draws, *leaf.shape)), datum)
            sites, values = draws(draw_key, rows)
            log_likelihood, _ = self._log_densities(params, rows, sites, jnp.zeros(()))
            chosen = jax.random.categorical(choice_key, log_likelihood)
            return jax.tree.map(lambda leaf: leaf[chosen], values)

        return lax.map(choose, (keys, batch))

    def _template(self, coordinates: Coordinates) -> PowerPosterior:
        if coordinates not in self._templates:
            with jax.ensure_compile_time_eval():
                self._templates[coordinates] = condition(self._reading, coordinates)
        return self._templates[coordinates]


def read_training_model(
    key: jax.Array, model: Callable[..., Any], data: Any, plate: str, params: Params
) -> TrainingModel:
    """Read a model for training; see `read_plate_model`, whose errors it raises.

    Args:
        key: PRNG key.
        model: NumPyro model.
        data: pytree of arrays (num_data, ...).
        plate: name of the plate that holds the data.
        params: constrained parameters.
    """
    return read_for_training(key, model, None, data, plate, params)[0]


def read_for_training(
    key: jax.Array,
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: Any,
    plate: str,
    given: Params,
    training_kwargs: Mapping[str, Any] | None = None,
) -> tuple[TrainingModel, Parameters]:
    """Read a model for training, and the first values of its parameters and of a guide's.

    It is read in evaluation mode, in which data are problems of their own and densities no random numbers.

    Args:
        key: seed of the first values.
        model: NumPyro model.
        guide: NumPyro program of the same arguments that is learnt beside it, or None.
        data: pytree of arrays (num_data, ...).
        plate: name of the plate that holds the data.
        given: constrained values that replace the first ones.
        training_kwargs: arguments of the model, and of a guide that takes them, in training only.

    Raises:
        ValueError: `given` names a parameter that does not exist, or the model can't be read as `read_plate_model` says.
        TypeError: `training_kwargs` has a name that neither the model nor the guide takes.
    """
    training_kwargs = dict(training_kwargs or {})
    for name in training_kwargs:
        if not any(name in accepted_kwargs(f, training_kwargs) for f in (model, guide) if f is not None):
            raise TypeError(
                f"`training_kwargs` has {name!r}, but neither the model nor a guide has an argument of that name."
            )
    guide_parameters = Parameters({}, {})
    if guide is not None:
        key, guide_key = jax.random.split(key)
        guide_parameters = read_parameters(guide_key, guide, data, given, may_lack=True)
    outside = None
    try:
        reading = read_rows_model(key, model, data, plate, given)
    except OutsidePlateError:
        outside = globals_as_params(model, plate, is_learnt=True)
        reading = read_rows_model(key, outside, data, plate, given)
        _check_outside(outside, reading, data)
    parameters = reading.parameters
    check_names(set(given), {*guide_parameters.values, *parameters.values})
    found = parameters.values | guide_parameters.values
    transforms = parameters.transforms | guide_parameters.transforms
    check_floating({name: found[name] for name in transforms})
    described = describe_plate_model(reading)
    training_model = TrainingModel(
        **described, outside=outside, training_kwargs=tuple(training_kwargs.items()), _reading=reading
    )
    return training_model, Parameters(guide_parameters.values | parameters.values, transforms)


def _check_outside(model: GlobalsAsParams, reading: Reading, data: Any) -> None:
    """Refuse a model with a site outside the plate that depends on latents inside.

    Raises:
        ValueError: there is one.
    """
    arguments = batch_arguments(jax.tree.map(lambda leaf: leaf[:2], data))
    params = reading.parameters.values

    def density(inside: dict[str, jax.Array]) -> jax.Array:
        return log_density_outside(model, params, *arguments, inside)

    values = jax.eval_shape(lambda: _two_rows(model, reading, arguments, params))
    (used,) = Traced.of(density, values).uses()
    depends = [name for name, is_used in used.items() if is_used]
    if depends:
        raise ValueError(
            f"A site outside plate {reading.plate!r} depends on {depends[0]!r} inside it, so the data are not independent "
            "given what is outside. `fit` learns from independent data: move the site into the plate."
        )


def _two_rows(
    model: GlobalsAsParams, reading: Reading, arguments: tuple[tuple[Any, ...], dict[str, Any]], params: Params
) -> dict[str, jax.Array]:
    """Some values of the latents inside the plate, of the first rows."""
    sites = run_model(model, *arguments, params, (substitute_zero_latents(),))
    return {site.name: sites[site.name]["value"] for site in reading.sites.latents}


def _tabulate(prior: dist.Distribution) -> TabulatedPrior:
    assert isinstance(prior, TiltedDistribution), "only tilted priors have tables"
    if isinstance(prior, KANTilted):
        # Chains need no normaliser, and integrals take long to compile. A mixture's components need theirs.
        none = jnp.zeros(prior.batch_shape)
        return _fill_table(prior.given(log_normalizer=(none, none)), prior)
    return _fill_table(prior, prior)


def _fill_table(up_to_a_constant: TiltedDistribution, prior: TiltedDistribution) -> TabulatedPrior:
    low, cell, cubics, error, _ = interpolate(up_to_a_constant, _NUM_CELLS)
    return TabulatedPrior(prior, prior.table, prior.reference_tails, low, cell, cubics, error)
