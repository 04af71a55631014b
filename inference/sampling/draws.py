"""Posterior draws: what was drawn, what is known of each draw, and the way to ArviZ."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..kernels.kernel import Kernel
from ..model.power_posterior import Position, PowerPosterior
from ..model.sites import Site
from .sampler import Sampler

if TYPE_CHECKING:
    import xarray

# Rows that pass through the model at once when it is run again over the draws.
_ROWS_AT_ONCE = 10_000


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

    def predict(self, key: jax.Array) -> dict[str, jax.Array]:
        """Draw new observations for each posterior draw, arrays (C, S, [N], ...)."""
        return self._run(_predict, jax.random.split(key, self.num_chains * self.num_samples))

    def draw_prior(self) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Draw latents from the prior and observations given them, (1, S, [N], ...), as many draws as a chain has.

        Raises:
            ValueError: the prior can't be drawn from.
        """
        if not self.posterior.has_proper_prior:
            raise ValueError(
                "The prior is flat, scaled or masked in part, so it can't be drawn from. Give the model a proper prior, or "
                "leave the prior out."
            )
        keys = jax.random.split(jax.random.fold_in(self.key, 2), self.num_samples)
        results = map_draws(_prior, self.posterior, {}, keys)
        return jax.tree.map(lambda x: (x if self.plate is not None else x[:, 0])[None], results)

    def _run(self, function: Callable[..., dict[str, jax.Array]], *keys: jax.Array) -> dict[str, jax.Array]:
        positions = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), self.positions)
        results = map_draws(function, self.posterior, positions, *keys)
        split = jax.tree.map(lambda x: x.reshape(self.num_chains, self.num_samples, *x.shape[1:]), results)
        return split if self.plate is not None else jax.tree.map(lambda x: x[:, :, 0], split)

    def to_arviz(
        self, *, prior: bool = False, posterior_predictive: bool = False, deterministics: bool = True
    ) -> "xarray.DataTree":
        """Convert to what ArviZ reads.

        Groups: `posterior`, `sample_stats`, `log_likelihood`, `observed_data` and `run_summary`. The data plate and the
        plates inside are named dimensions.

        Args:
            prior: whether to add the groups `prior` and `prior_predictive`, as many draws as a chain has.
            posterior_predictive: whether to add the group `posterior_predictive`.
            deterministics: whether deterministic sites belong to the posterior. Leave them out where they are large,
                such as the mean of an image.

        Returns:
            A tree that `.to_netcdf` writes, given h5netcdf or netCDF4.
        """
        import xarray
        from arviz_base import dict_to_dataset

        posterior = self.posterior
        latents = posterior.latents + (posterior.deterministics if deterministics else ())
        values = {**self.samples, **(self.deterministics if deterministics and posterior.deterministics else {})}
        taken = {*values, *(site.name for site in posterior.observed), *self.sample_stats, *self.summary}

        def name_of(plate: str) -> str:
            # A dimension with the name of a variable would be taken for its coordinates.
            return f"{plate}_plate" if plate in taken else plate

        data_dim = [] if self.plate is None else [name_of(self.plate)]
        coords = {data_dim[0]: np.arange(posterior.num_data)} if data_dim else {}

        def dataset(
            variables: Mapping[str, Any],
            dims: Mapping[str, Sequence[str | None]],
            sample_dims: tuple[str, ...] = ("chain", "draw"),
        ) -> "xarray.Dataset":
            arrays = {name: np.asarray(value) for name, value in variables.items()}
            filled: dict[Hashable, Sequence[Hashable]] = {
                name: _fill_dims(name, [*data_dim, *dims.get(name, [])], x.ndim - len(sample_dims))
                for name, x in arrays.items()
            }
            kept: dict[Any, Any] = {
                dim: values for dim, values in coords.items() if any(dim in d for d in filled.values())
            }
            return dict_to_dataset(arrays, dims=filled, coords=kept, sample_dims=list(sample_dims))

        def site_dims(sites: Iterable[Site]) -> dict[str, list[str | None]]:
            return {site.name: [dim and name_of(dim) for dim in site.dims] for site in sites}

        observed = posterior.observations()
        factors = set(self.log_likelihood) - set(observed)
        pointwise = {k: v for k, v in self.log_likelihood.items() if k not in factors} or self.log_likelihood
        groups = {
            "posterior": dataset(values, site_dims(latents)),
            "sample_stats": dataset(self.sample_stats, self.dims),
            "log_likelihood": dataset(pointwise, site_dims(posterior.observed) if self.plate is None else {}),
            "observed_data": dataset(observed, site_dims(posterior.observed), ()),
            "run_summary": dataset(self.summary, self.dims, ("chain",)),
        }
        if posterior_predictive:
            new = self.predict(jax.random.fold_in(self.key, 1))
            groups["posterior_predictive"] = dataset(new, site_dims(posterior.observed))
        if prior:
            latent_draws, new = self.draw_prior()
            groups["prior"] = dataset(latent_draws, site_dims(posterior.latents))
            groups["prior_predictive"] = dataset(new, site_dims(posterior.observed))
        attributes = {
            "inference_library": "kaem_ppl",
            "sampler": repr(self.sampler),
            "sampling_time": self.seconds,
        }
        for group in ("posterior", "sample_stats"):
            groups[group].attrs.update(attributes)
        return xarray.DataTree.from_dict(groups)


def _fill_dims(name: str, dims: Sequence[str | None], num_axes: int) -> list[str]:
    """Names for all axes, where a plate has not named them."""
    known = [*dims, *(None for _ in range(num_axes - len(dims)))]
    return [known[axis] or f"{name}_dim_{axis}" for axis in range(num_axes)]


def _deterministics(
    posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position
) -> dict[str, jax.Array]:
    return posterior.deterministic_values(datum, position)


def _log_likelihood(
    posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position
) -> dict[str, jax.Array]:
    return posterior.pointwise_log_likelihood(datum, position)


def _predict(
    posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position, key: jax.Array
) -> dict[str, jax.Array]:
    return posterior.predict(key, datum, position)


def _prior(
    posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position, key: jax.Array
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    return posterior.draw_prior(key, datum)


@partial(jax.jit, static_argnums=0)
def map_draws(
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

    return lax.map(one, (positions, keys), batch_size=max(1, _ROWS_AT_ONCE // num_data))


@jax.jit
def values_of(posterior: PowerPosterior, positions: Position) -> dict[str, Any]:
    """Values of the latent sites at positions (C, S, N, ...)."""
    over_data = jax.vmap(posterior.values)
    over_draws = jax.vmap(over_data, in_axes=(None, 0))
    return jax.vmap(over_draws, in_axes=(None, 0))(posterior.rows, positions)
