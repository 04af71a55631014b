"""A model as learning strategies read it: the posteriors of a batch, and the densities of given latents."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from kaem_ppl import KANTilted
from kaem_ppl.distributions.tabulated import TabulatedPrior, interpolate

from .coordinates import Coordinates, Unconstrained
from .latent_placeholders import undrawn
from .parameters import Params
from .plate_model import PlateModel, read_plate_model
from .power_posterior import Position, PowerPosterior, read_power_posterior
from .wrappers import unwrap

# Cells of a prior's table made anew at each update. Where energies vary by about two nats, cubics on them are right to
# 1e-5 nats for 20 radial functions, and to 5e-4 for waves of equal height, the shortest a fiftieth of the domain.
_NUM_CELLS = 512


@dataclass(frozen=True)
class TrainingModel(PlateModel):
    """A `PlateModel` that also gives the posterior of each datum of a batch, inside a traced update.

    Attributes:
        first_params: constrained parameters to read the model with.
        first_rows: a few rows of data to read it with.
    """

    first_params: Params = field(compare=False, repr=False)
    first_rows: Any = field(compare=False, repr=False)
    # By coordinates, the posterior as it was read; what changes between updates is put in its place later.
    _templates: dict[Coordinates, PowerPosterior] = field(default_factory=dict, compare=False, repr=False)

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
        with undrawn():
            sites = self._run(jax.random.key(0), params, first)
        return {name: unwrap(sites[name]["fn"]) for name in names}

    def values(self, posterior: PowerPosterior, positions: Position) -> dict[str, jax.Array]:
        """Latents of a batch, as the model's sites hold them, at one position (B, ...) for each datum."""
        values = jax.vmap(posterior.values)(posterior.rows, positions)
        axes = {site.name: site.plate_axis for site in posterior.latents}
        return {name: jnp.moveaxis(value, 0, axes[name]) for name, value in values.items()}

    def log_densities(self, params: Params, batch: Any, latents: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """log p(x_b | z_b) and log p(z_b) at given latents, shape (B,) each; differentiable in everything.

        The prior's is exact, its normaliser included.
        """
        sites = self._run(jax.random.key(0), params, batch, latents)
        log_likelihood, log_prior = (
            sum(self.site_log_prob(sites[name]) for name in names) for names in (self.observed, self.latent)
        )
        return log_likelihood, log_prior

    def site_log_prob(self, site: dict[str, Any]) -> jax.Array:
        """Log-density of a site of a trace, scaled, of each datum: shape (B,)."""
        return self._log_prob(site, site["value"])

    def data_first(self, site: dict[str, Any]) -> jax.Array:
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

        def draws(key, rows):
            sites, _ = self._prior_draws(key, params, rows)
            return sites, {name: self.data_first(sites[name]) for name in self.latent}

        if self.draws_are_shared:
            # The same key as the scores: the same draws.
            log_likelihood, _ = self.score_prior_draws(draw_key, params, batch, num_draws)
            rows = jax.tree.map(lambda leaf: jnp.zeros((num_draws, *leaf.shape[1:]), leaf.dtype), batch)
            chosen = jax.vmap(jax.random.categorical)(keys, log_likelihood)
            return jax.tree.map(lambda leaf: leaf[chosen], draws(draw_key, rows)[1])

        def choose(key_and_datum):
            key, datum = key_and_datum
            draw_key, choice_key = jax.random.split(key)
            rows = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_draws, *leaf.shape)), datum)
            sites, values = draws(draw_key, rows)
            log_likelihood = sum(self.site_log_prob(sites[name]) for name in self.observed)
            chosen = jax.random.categorical(choice_key, log_likelihood)
            return jax.tree.map(lambda leaf: leaf[chosen], values)

        return lax.map(choose, (keys, batch))

    def _template(self, coordinates):
        if coordinates not in self._templates:
            args, kwargs = _arguments(self.first_rows)
            with jax.ensure_compile_time_eval():
                self._templates[coordinates] = read_power_posterior(
                    self.model, args, kwargs, params=self.first_params, plate=self.plate, coordinates=coordinates
                )
        return self._templates[coordinates]


def read_training_model(key: jax.Array, model: Callable, data: Any, plate: str, params: Params) -> TrainingModel:
    """Read a model for training; see `read_plate_model`, whose errors it raises.

    Args:
        key: PRNG key.
        model: NumPyro model.
        data: pytree of arrays (num_data, ...).
        plate: name of the plate that holds the data.
        params: constrained parameters.
    """
    plate_model = read_plate_model(key, model, data, plate, params)
    first = jax.tree.map(lambda leaf: leaf[:2], data)
    return TrainingModel(
        **{field.name: getattr(plate_model, field.name) for field in dataclasses.fields(plate_model)},
        first_params=params,
        first_rows=first,
    )


def _arguments(batch):
    """Positional and keyword arguments, as `call_model` passes them."""
    if isinstance(batch, dict):
        return (), batch
    return (batch if isinstance(batch, tuple) else (batch,)), {}


def _tabulate(prior):
    if isinstance(prior, KANTilted):
        # Chains need no normaliser, and integrals take long to compile. A mixture's components need theirs.
        none = jnp.zeros(prior.batch_shape)
        return _fill_table(prior.given(log_normalizer=(none, none)), prior)
    return _fill_table(prior, prior)


def _fill_table(up_to_a_constant, prior):
    low, cell, cubics, error, _ = interpolate(up_to_a_constant, _NUM_CELLS)
    return TabulatedPrior(prior, prior.table, prior.reference_tails, low, cell, cubics, error)
