"""The result of sampling: draws, statistics of each draw, prediction, and conversion to ArviZ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from kaem_ppl.arguments import as_key

from ..kernels.kernel import Kernel
from ..model.power_posterior import Position, PowerPosterior
from . import batching
from .sampler import Sampler
from .to_arviz import convert

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws of C chains, S each; with a plate an axis of N data follows, without one it is absent.

    Attributes:
        samples: values of the latent sites, arrays (C, S, [N], ...).
        sample_stats: of each draw, arrays (C, S, [N], ...), by the names that ArviZ uses: `lp` (log-density in the
            sampler's coordinates), `log_prior`, `log_likelihood`, `energy`, `acceptance_rate`, `step_size`, and the
            sampler's own.
        summary: of each chain as a whole, arrays (C, [N], ...), such as `step_size`, `temperatures`, `pareto_k` or
            `log_evidence`.
        dims: by name of a statistic or summary, names of its axes after those.
        sampler: what drew them.
        seconds: wall time of drawing, warm-up left out. Compiling is part of it where there was no warm-up.
        posterior: what was drawn from.
        positions: the draws in the sampler's coordinates, (C, S, N, ...).
        key: the key the draws were made with.
    """

    samples: dict[str, jax.Array]
    sample_stats: dict[str, jax.Array]
    summary: dict[str, jax.Array]
    dims: dict[str, tuple[str, ...]]
    sampler: Sampler | Kernel
    seconds: float
    posterior: PowerPosterior
    positions: Position
    key: jax.Array

    @property
    def num_chains(self) -> int:
        """C."""
        return jax.tree.leaves(self.positions)[0].shape[0]

    @property
    def num_samples(self) -> int:
        """S."""
        return jax.tree.leaves(self.positions)[0].shape[1]

    @property
    def plate(self) -> str | None:
        """Name of the plate whose rows are problems of their own."""
        return self.posterior.plate

    @cached_property
    def deterministics(self) -> dict[str, jax.Array]:
        """Values of the deterministic sites, arrays (C, S, [N], ...); the model is run for them when first asked."""
        return self._run(_deterministics)

    @cached_property
    def log_likelihood(self) -> dict[str, jax.Array]:
        """Log-likelihood by observed site: of each datum with a plate, (C, S, N), else over its batch, (C, S, ...)."""
        return self._run(_log_likelihood)

    @cached_property
    def log_prior(self) -> dict[str, jax.Array]:
        """Log-prior by latent site: of each datum with a plate, (C, S, N), else over its batch, (C, S, ...)."""
        return self._run(_log_prior)

    def predict(self, key: jax.Array) -> dict[str, jax.Array]:
        """Draw new observations for each posterior draw, arrays (C, S, [N], ...).

        Args:
            key: PRNG key, or an integer seed.
        """
        return self._run(_predict, jax.random.split(as_key(key), self.num_chains * self.num_samples))

    def draw_prior(self) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Draw latents from the prior and observations given them, (1, S, [N], ...), as many draws as a chain has.

        Raises:
            ValueError: the prior can't be drawn from.
        """
        if not self.posterior.has_proper_prior:
            raise ValueError(
                "The prior of `model` is flat, scaled or masked in part, so it can't be drawn from: give the model a "
                "proper prior, or leave the prior out."
            )
        keys = jax.random.split(jax.random.fold_in(self.key, 2), self.num_samples)
        results = _map_draws(_prior, self.posterior, {}, keys)
        return jax.tree.map(lambda x: (x if self.plate is not None else x[:, 0])[None], results)

    def _run(self, function: Callable[..., dict[str, jax.Array]], *keys: jax.Array) -> dict[str, jax.Array]:
        number = self.num_chains * self.num_samples
        positions = jax.tree.map(lambda x: x.reshape(number, *x.shape[2:]), self.positions)
        results = _map_draws(function, self.posterior, positions, *keys)
        split = jax.tree.map(lambda x: x.reshape(self.num_chains, self.num_samples, *x.shape[1:]), results)
        return split if self.plate is not None else jax.tree.map(lambda x: x[:, :, 0], split)

    def to_arviz(
        self,
        *,
        prior: bool = False,
        posterior_predictive: bool = False,
        deterministics: bool = True,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Any] | None = None,
    ) -> "xarray.DataTree":
        """Convert to what ArviZ reads.

        Groups: `posterior`, `sample_stats`, `log_likelihood`, `log_prior` (log-densities of the latent sites, as
        `psense_summary` reads them), `observed_data`, `run_summary`, and where the model takes other arrays than those
        that are observed, `constant_data`. The data plate and the plates inside are named dimensions. A slash in a name,
        as `numpyro.handlers.scope` puts it there, becomes a dot; sites without elements are left out.

        Args:
            prior: whether to add the groups `prior` and `prior_predictive`, as many draws as a chain has.
            posterior_predictive: whether to add the group `posterior_predictive`.
            deterministics: whether deterministic sites belong to the posterior. Leave them out where they are large,
                such as the mean of an image.
            dims: by name of the site, names of its last axes; those before keep the names of their plates.
            coords: by name of an axis, a label for each of its entries.

        Returns:
            A tree that `.to_netcdf` writes, given h5netcdf or netCDF4.

        Raises:
            TypeError: `dims` or `coords` is no dictionary.
            ValueError: they name what there is not, or have another length.
        """
        return convert(
            self, prior=prior, posterior_predictive=posterior_predictive, deterministics=deterministics, dims=dims,
            coords=coords,
        )  # fmt: skip


def _deterministics(
    posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position
) -> dict[str, jax.Array]:
    return posterior.deterministic_values(datum, position)


def _log_likelihood(
    posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position
) -> dict[str, jax.Array]:
    return posterior.pointwise_log_likelihood(datum, position)


def _log_prior(posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
    return posterior.pointwise_log_prior(datum, position)


def _predict(
    posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position, key: jax.Array
) -> dict[str, jax.Array]:
    return posterior.predict(key, datum, position)


def _prior(
    posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position, key: jax.Array
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    return posterior.draw_prior(key, datum)


@partial(jax.jit, static_argnums=0)
def _map_draws(
    function: Callable[..., Any], posterior: PowerPosterior, positions: Position, keys: jax.Array | None = None
) -> Any:
    """Run the model over draws, positions (D, N, ...), in chunks; results (D, N, ...)."""
    num_data = posterior.num_data

    def one(draw: tuple[Position, jax.Array | None]) -> Any:
        positions, keys = draw
        if keys is not None:
            keys = jax.vmap(partial(jax.random.fold_in, keys))(jnp.arange(num_data))
        over_data = jax.vmap(
            lambda datum, position, key: function(posterior, datum, position, *(() if key is None else (key,)))
        )
        return over_data(posterior.rows, positions, keys)

    # A draw is evaluated as a particle is, and so predicted; what is computed of each is kept, whatever its size.
    position = jax.tree.map(lambda x: x[0, 0], positions) or None
    at_once = batching.MEMORY_BUDGET // (num_data * batching.evaluation_bytes(posterior, position)[0])
    return lax.map(one, (positions, keys), batch_size=max(1, at_once))


@jax.jit
def values_of(posterior: PowerPosterior, positions: Position) -> dict[str, Any]:
    """Values of the latent sites at positions (C, S, N, ...)."""
    over_data = jax.vmap(posterior.values)
    over_draws = jax.vmap(over_data, in_axes=(None, 0))
    return jax.vmap(over_draws, in_axes=(None, 0))(posterior.rows, positions)
