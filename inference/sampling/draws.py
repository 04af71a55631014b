"""The result of sampling: draws, statistics of each draw, prediction, and conversion to ArviZ."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints

from kaem_ppl.arguments import as_count, as_key
from kaem_ppl.printing import describe_arrays, to_html
from kaem_ppl.progress import Progress

from ..kernels.kernel import Kernel
from ..model.power_posterior import Position, PowerPosterior
from .chains import sample_chains
from .chains_state import ChainsState
from .map_draws import map_draws
from .run import Run
from .sampler import Sampler
from .storage.checkpoint import reopen_checkpoint
from .storage.records import values_of
from .storage.spool import DiskArray
from .storage.spooled_tree import read_spooled
from .to_arviz import convert

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False, repr=False)
class Draws:
    """Draws of C chains, S each; with a plate an axis of N data follows, without one it is absent.

    Attributes:
        samples: values of the continuous latent sites, arrays (C, S, [N], ...); `infer_discrete` draws discrete ones.
        sample_stats: of each draw, arrays (C, S, [N], ...), by the names that ArviZ uses: `lp` (log-density in the
            sampler's coordinates), `log_prior`, `log_likelihood`, `energy`, `acceptance_rate`, `step_size`, and its own.
        summary: of each chain as a whole, arrays (C, [N], ...), such as `step_size`, `temperatures`, `pareto_k` or
            `log_evidence`.
        dims: by name of a statistic or summary, names of its axes after those.
        sampler: what drew them.
        seconds: of drawing, warm-up left out; those of all calls after a stop. With those of compiling where there was no
            warm-up: of weighted samplers, such as `ImportanceSampling` and `TemperedSMC`, the first call of a process takes
            longer than the next, of the same shapes.
        posterior: what was drawn from.
        positions: the draws in the sampler's coordinates, (C, S, N, ...).
        key: the key the draws were made with.
        state: where Markov chains ended, for `sample_posterior(..., state=)`; None for other samplers.
        thinning: steps of a Markov chain from one draw to the next.
        folder: of the checkpoint in whose files spooled draws are: arrays that are read as they are indexed.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import ImportanceSampling, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, sampler=ImportanceSampling(100), progress_bar=False)
        >>> draws.samples["z"].shape, draws.to_arviz().posterior["z"].dims
        ((4, 1000), ('chain', 'draw'))
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
    state: ChainsState | None = None
    thinning: int = 1
    folder: Path | None = None

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
        """Values of the deterministic sites, arrays (C, S, [N], ...); the model is run for them when first asked.

        Discrete latents, on which they may depend, are drawn for each posterior draw.
        """
        if self.posterior.discrete is None:
            return self._run(_deterministics)
        return self._run(_deterministics, self._keys(jax.random.fold_in(self.key, 3)))

    @cached_property
    def log_likelihood(self) -> dict[str, jax.Array]:
        """Log-likelihood by observed site: of each datum with a plate, (C, S, N), else over its batch, (C, S, ...)."""
        return self._run(_log_likelihood)

    @cached_property
    def log_prior(self) -> dict[str, jax.Array]:
        """Log-prior by latent site: of each datum with a plate, (C, S, N), else over its batch, (C, S, ...)."""
        return self._run(_log_prior)

    @cached_property
    def supports(self) -> dict[str, constraints.Constraint]:
        """Support of each latent site, at the first draw of the first datum, on which its bounds may depend."""
        first = {name: jnp.asarray(x[0, 0, 0]) for name, x in self.positions.items()}
        return self.posterior.supports(tuple(row[0] for row in self.posterior.rows), first)

    def predict(self, key: jax.Array) -> dict[str, jax.Array]:
        """Draw new observations for each posterior draw, arrays (C, S, [N], ...).

        Args:
            key: PRNG key, or an integer seed.
        """
        return self._run(_predict, self._keys(key))

    def infer_discrete(self, key: jax.Array) -> dict[str, jax.Array]:
        """Draw the discrete latents for each posterior draw, from their exact joint law given it and the data.

        Chains of them, by `scan` or a loop, are drawn by forward filtering, backward sampling.

        Args:
            key: PRNG key, or an integer seed.

        Returns:
            By name of the site, arrays (C, S, [N], ...); inside `scan`, time is the first of the axes that follow.

        Raises:
            ValueError: the model has no discrete latent.
        """
        if self.posterior.discrete is None:
            raise ValueError("The model has no discrete latent site: there is nothing to draw beside `samples`.")
        return self._run(_infer_discrete, self._keys(key))

    def extend(self, num_samples: int, *, progress_bar: bool = True) -> "Draws":
        """Go on from where the chains ended; the same draws as one longer run would have made.

        Args:
            num_samples: more draws of each chain.
            progress_bar: whether to show progress.

        Returns:
            These draws and the new ones behind them; these stay as they are.

        Raises:
            ValueError: the sampler has no chains that could go on.
        """
        num_samples = as_count(num_samples, "num_samples", 1)
        if self.state is None:
            raise ValueError(
                f"{type(self.sampler).__name__} has no chains that could go on: draw again with a larger `num_samples`."
            )
        with ExitStack() as stack:
            progress = stack.enter_context(Progress("drawing", progress_bar))
            if self.folder is None:
                run, total = Run(progress, thinning=self.thinning, state=self.state), num_samples
            else:
                checkpoint = stack.enter_context(reopen_checkpoint(self.folder))
                run = Run(progress, checkpoint=checkpoint, thinning=self.thinning, spool=True)
                total = self.num_samples + num_samples
            new = draw(self.key, self.posterior, self.sampler, self.num_chains, total, 0, run)
        if self.folder is not None:
            return new

        def join(first: Any, second: Any) -> Any:
            return jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=1), first, second)

        stats = join(self.sample_stats, new.sample_stats)
        return replace(
            new, samples=join(self.samples, new.samples), sample_stats=stats,
            positions=join(self.positions, new.positions), summary=self._summarize_again(new.summary, stats),
        )  # fmt: skip

    def _summarize_again(self, summary: dict[str, jax.Array], stats: dict[str, jax.Array]) -> dict[str, jax.Array]:
        again = {} if isinstance(self.sampler, Kernel) else self.sampler.summarize_stats(stats)
        return {**summary, **again}

    def __repr__(self) -> str:
        of = "" if self.plate is None else f" for each of {self.posterior.num_data} {self.plate}"
        where = "" if self.folder is None else f", in {self.folder}"
        return "\n".join(
            [
                f"{self.num_chains} chains of {self.num_samples:,} draws{of} by {self.sampler!r}{where}",
                *describe_arrays(self.samples),
            ]
        )

    def _repr_html_(self) -> str:
        return to_html(repr(self))

    def impute(self, key: jax.Array) -> dict[str, jax.Array]:
        """Observations with their missing entries drawn for each posterior draw, arrays (C, S, [N], ...).

        Entries that are there stay as they are. Where entries depend on each other given the latents, as those of a
        `MultivariateNormal` do, the missing are drawn given the others too.

        Args:
            key: PRNG key, or an integer seed.
        """
        return self._run(_impute, self._keys(key))

    def draw_prior(self, num_draws: int | None = None) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Draw latents from the prior and observations given them, (1, num_draws, [N], ...), or as many as a chain has.

        Raises:
            ValueError: the prior can't be drawn from.
        """
        if not self.posterior.has_proper_prior:
            raise ValueError(
                "The prior of `model` is flat, scaled or masked in part, so it can't be drawn from: give the model a "
                "proper prior, or leave the prior out."
            )
        keys = jax.random.split(jax.random.fold_in(self.key, 2), num_draws or self.num_samples)
        results = map_draws(_prior, self.posterior, {}, keys)
        return jax.tree.map(lambda x: (x if self.plate is not None else x[:, 0])[None], results)

    def _keys(self, key: jax.Array) -> jax.Array:
        return jax.random.split(as_key(key), self.num_chains * self.num_samples)

    def _run(self, function: Callable[..., dict[str, jax.Array]], *keys: jax.Array) -> dict[str, jax.Array]:
        number = self.num_chains * self.num_samples
        positions = {name: x.reshape(number, *x.shape[2:]) for name, x in self.positions.items()}
        results = map_draws(function, self.posterior, positions, *keys)
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
        Of spooled draws there are `posterior`, `sample_stats` and `run_summary`, the first two read from their file as
        they are needed, and the arguments have no effect.

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
        if self.folder is not None:
            attributes = {"inference_library": "kaem_ppl", "sampler": repr(self.sampler), "sampling_time": self.seconds}
            return read_spooled(self.folder, self.num_samples, attributes, self.summary)
        return convert(
            self, prior=prior, posterior_predictive=posterior_predictive, deterministics=deterministics, dims=dims,
            coords=coords,
        )  # fmt: skip


def draw(
    key: jax.Array, posterior: PowerPosterior, sampler: Sampler | Kernel, num_chains: int, num_samples: int,
    num_warmup: int, run: Run,
) -> Draws:  # fmt: skip
    """Draw by any sampler; arguments as those of `Sampler.sample`."""
    settings: Any = {"num_chains": num_chains, "num_samples": num_samples, "num_warmup": num_warmup, "run": run}
    if isinstance(sampler, Kernel):
        output = sample_chains(key, posterior, sampler, **settings)
    else:
        output = sampler.sample(key, posterior, **settings)
    values = values_of(posterior, output.positions) if output.values is None else output.values
    stats, summary = output.stats, output.summary
    if posterior.plate is None:
        values, stats = ({name: _drop_data_axis(x) for name, x in tree.items()} for tree in (values, stats))
        summary = jax.tree.map(lambda x: x[:, 0], summary)
    folder = run.checkpoint.folder if run.spool and run.checkpoint is not None else None
    return Draws(
        values, stats, summary, output.dims, sampler, output.seconds, posterior, output.positions, key, output.state,
        run.thinning, folder,
    )  # fmt: skip


def _drop_data_axis(x: Any) -> Any:
    if isinstance(x, DiskArray):
        return x.without_data_axis()
    return jax.tree.map(lambda leaf: leaf[:, :, 0], x)


def _deterministics(
    posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position, key: jax.Array | None = None
) -> dict[str, jax.Array]:
    return posterior.deterministic_values(datum, position, key)


def _infer_discrete(
    posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position, key: jax.Array
) -> dict[str, jax.Array]:
    return posterior.infer_discrete(key, datum, position)


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


def _impute(
    posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position, key: jax.Array
) -> dict[str, jax.Array]:
    return posterior.impute(key, datum, position)


def _prior(
    posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position, key: jax.Array
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    return posterior.draw_prior(key, datum)
