"""Simulation-based calibration: ranks of what data were made from, among posterior draws given the data."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpyro import handlers
from numpyro.diagnostics import effective_sample_size

from kaem_ppl.arguments import as_count, as_key, check_kind
from kaem_ppl.progress import Progress

from ..kernels.hamiltonian import NUTS
from ..kernels.kernel import Kernel
from ..model.coordinates import Coordinates
from ..model.parameters import Params
from ..model.power_posterior import Position, PowerPosterior, read_power_posterior
from ..sampling.chains import sample_chains
from ..sampling.checks import check_prior
from ..sampling.draws import values_of
from ..sampling.run import Run
from ..sampling.sampler import Sampler
from .limits import SMALLEST_CALIBRATION_P
from .uniformity import chi_squared_p, ecdf_p

if TYPE_CHECKING:
    import pandas
    import xarray

_LOG_LIKELIHOOD = "log_likelihood"
# Ranks among fewer draws say little.
_FEWEST_RANKS = 10


@dataclass(frozen=True, eq=False)
class Calibration:
    """What `simulation_based_calibration` found, over M simulations.

    Attributes:
        ranks: by name of a latent site, and of `log_likelihood`, how many of the thinned draws are below the value that the
            data were made from, whole numbers from 0 to `num_draws`, arrays (M, ...).
        num_draws: by name, the draws left by thinning, arrays (...).
        probabilities: by name, ranks as numbers in (0, 1), spread evenly within a rank at random: uniform where the sampler
            is calibrated; arrays (M, ...).
        table: a row for each scalar: `mean` of the probabilities, 0.5 where calibrated; `chi_squared_p` and `ecdf_p`, of
            tests that they are uniform; `num_draws`; and `thinning`.
        smallest_p: of the table, times the number of tests.
        is_calibrated: whether that is not below the level of 0.01.
        num_simulations: M.
        sampler: what is judged.
        seconds: wall time, compilation included.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import ImportanceSampling, simulation_based_calibration
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> options = {"num_simulations": 40, "num_samples": 50, "progress_bar": False}
        >>> options["sampler"] = ImportanceSampling(500)
        >>> calibration = simulation_based_calibration(jax.random.key(0), model, 0.0, **options)  # 0.0: the shape counts
        >>> calibration.ranks["z"].shape, calibration.smallest_p > 0.001
        ((40,), True)
    """

    ranks: dict[str, np.ndarray]
    num_draws: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    table: "pandas.DataFrame"
    smallest_p: float
    is_calibrated: bool
    num_simulations: int
    sampler: Sampler | Kernel
    seconds: float

    def __repr__(self) -> str:
        verdict = (
            "Ranks are uniform as far as these simulations can tell."
            if self.is_calibrated
            else "Ranks are NOT uniform: a mean below 0.5 is a posterior too high, above 0.5 one too low; an excess of the "
            "lowest and highest ranks is a posterior too narrow, of middle ones too wide. See `.plot()`."
        )
        return "\n".join(
            [
                f"{type(self.sampler).__name__}, {self.num_simulations} simulations in {self.seconds:.0f} s",
                self.table.to_string(float_format=lambda x: f"{x:.3g}"),
                f"smallest p-value times the number of tests: {min(self.smallest_p, 1.0):.3g}",
                verdict,
            ]
        )

    def to_arviz(self) -> "xarray.DataTree":
        """A tree with the group `prior_sbc`, the probabilities over the dimension `sample`, as ArviZ's plots read it."""
        import xarray
        from arviz_base import dict_to_dataset

        dataset = dict_to_dataset(self.probabilities, sample_dims=["sample"])
        return xarray.DataTree.from_dict({"prior_sbc": dataset})

    def plot(self, **settings: Any) -> Any:
        """ArviZ's plot of the empirical distribution functions of the ranks, less the uniform one, with a test of its own.

        Args:
            **settings: of `arviz_plots.plot_ecdf_pit`.

        Returns:
            ArviZ's `PlotCollection`.
        """
        import arviz_plots

        return arviz_plots.plot_ecdf_pit(self.to_arviz(), sample_dims=["sample"], **settings)


def simulation_based_calibration(
    key: jax.Array,
    model: Callable,
    *args: Any,
    params: Params | None = None,
    sampler: Sampler | Kernel = NUTS(),  # noqa: B008 - a frozen value
    num_simulations: int = 200,
    num_samples: int = 500,
    num_warmup: int = 500,
    progress_bar: bool = True,
    **kwargs: Any,
) -> Calibration:
    """Check a sampler, for one model, on data that the model makes (Talts et al. 2018).

    Latents are drawn from the prior and data given them; the sampler draws from the posterior given these data; the rank
    of the latents among its draws is uniform if it is right. All simulations run at once, as data of one plate do, so
    programs are compiled once. Draws are thinned, scalar by scalar, to as many as are effectively independent in three
    quarters of the simulations. Beside the latents the log-likelihood is ranked, which notices a posterior that ignores the
    data (Modrák et al. 2023).

    Two tests of each scalar: chi-squared, of counts in equal bins; and the largest deviation of the empirical
    distribution function in terms of its pointwise law (Säilynoja, Bürkner and Vehtari 2022), its law simulated.

    Args:
        key: PRNG key, or an integer seed.
        model: NumPyro model with a proper prior, whose observed sites can be drawn.
        *args: its positional arguments; observed values are replaced by simulated ones, and only their shapes matter.
        params: constrained values of the model's `numpyro.param` sites.
        sampler: to be checked; a Markov kernel draws by one chain for each simulation.
        num_simulations: M, at least 20.
        num_samples: draws of each simulation before thinning.
        num_warmup: steps before them.
        progress_bar: whether to show progress: a bar on a terminal, elsewhere a line every ten seconds.
        **kwargs: the model's keyword arguments.

    Raises:
        TypeError: `sampler` is not a sampler.
        ValueError: an argument or the model is not usable, as with a `numpyro.factor`, which can't be simulated; or the
            draws of most simulations are so dependent that fewer than ten are left.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import ImportanceSampling, simulation_based_calibration
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> options = {"num_simulations": 40, "num_samples": 50, "progress_bar": False}
        >>> options["sampler"] = ImportanceSampling(500)
        >>> calibration = simulation_based_calibration(jax.random.key(0), model, 0.0, **options)  # 0.0: the shape counts
        >>> calibration.is_calibrated
        True
    """
    key = as_key(key)
    check_kind(sampler, (Sampler, Kernel), "sampler", "a sampler such as `NUTS()` or `TemperedSMC()`")
    num_simulations = as_count(num_simulations, "num_simulations", 20)
    num_samples, num_warmup = as_count(num_samples, "num_samples", 20), as_count(num_warmup, "num_warmup", 0)
    started = time.perf_counter()
    simulate_key, sample_key = jax.random.split(key)
    with Progress("simulating data", progress_bar) as progress:
        posterior, positions = _simulate(
            simulate_key, model, args, kwargs, params=params, coordinates=sampler.coordinates, number=num_simulations
        )
        settings: Any = {"num_chains": 1, "num_samples": num_samples, "num_warmup": num_warmup, "run": Run(progress)}
        if isinstance(sampler, Kernel):
            output = sample_chains(sample_key, posterior, sampler, **settings)
        else:
            output = sampler.sample(sample_key, posterior, **settings)
    lifted = jax.tree.map(lambda x: x[None, None], positions)
    drawn = {**values_of(posterior, output.positions), _LOG_LIKELIHOOD: output.stats["log_likelihood"]}
    truth = {**values_of(posterior, lifted), _LOG_LIKELIHOOD: _log_likelihood(posterior, positions)[None, None]}
    ranks, num_draws, probabilities, rows = {}, {}, {}, {}
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    for name, x in drawn.items():
        x, true = np.asarray(x, float)[0], np.asarray(truth[name], float)[0, 0]
        shape = true.shape[1:]
        found = [_rank(rng, a, b) for a, b in zip(_columns(x, 2), _columns(true, 1), strict=True)]
        rank, number, u = (np.stack(parts, axis=-1) for parts in zip(*found, strict=True))
        ranks[name], probabilities[name] = (y.reshape((num_simulations, *shape)) for y in (rank, u))
        num_draws[name] = number.reshape(shape)
        for place, (_, number, u) in zip(np.ndindex(*shape), found, strict=True):
            label = f"{name}[{', '.join(map(str, place))}]" if place else name
            rows[label] = {"mean": u.mean(), "num_draws": number, "thinning": -(-num_samples // number), "u": u}
    table, smallest = _judge(rng, rows)
    is_calibrated = smallest >= SMALLEST_CALIBRATION_P
    seconds = time.perf_counter() - started
    return Calibration(
        ranks, num_draws, probabilities, table, smallest, is_calibrated, num_simulations, sampler, seconds
    )


def _simulate(
    key: jax.Array,
    model: Callable,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    params: Params | None,
    coordinates: Coordinates,
    number: int,
) -> tuple[PowerPosterior, Position]:
    """A posterior whose data are simulations, each with observations of its own, and the positions they came from."""
    posterior = read_power_posterior(model, args, kwargs, params=params, coordinates=coordinates)
    check_prior(posterior, "Simulation-based calibration")
    positions, observations = _draw_joint(posterior, jax.random.split(key, number))
    missing = sorted({site.name for site in posterior.observed} - set(observations))
    if missing:
        raise ValueError(
            f"The model has the factors {missing}, which can't be simulated. Write them as distributions of observed sites."
        )

    def simulated(observations: dict[str, jax.Array], *args: Any, **kwargs: Any) -> Any:
        with handlers.condition(data={name: x[0] for name, x in observations.items()}):
            return model(*args, **kwargs)

    one = jax.tree.map(lambda x: x[:1], observations)
    read = read_power_posterior(simulated, (one, *args), kwargs, params=params, coordinates=coordinates)
    count, layout = len(observations), read.layout
    if any(kind != "shared" for kind, _ in layout.leaves[:count]):
        raise ValueError("The model looks at the values of its observations in Python, so they can't be replaced.")
    leaves = (*((("row", None),) * count), *layout.leaves[count:])
    # What was one observation for all is now a row for each simulation.
    return replace(
        read,
        layout=replace(layout, leaves=leaves),
        rows=tuple(jax.tree.leaves(observations)),
        shared=read.shared[count:],
    ), positions


@jax.jit
def _draw_joint(posterior: PowerPosterior, keys: jax.Array) -> tuple[Position, dict[str, jax.Array]]:
    return jax.vmap(lambda key: posterior.draw_joint(key, ()))(keys)


@jax.jit
def _log_likelihood(posterior: PowerPosterior, positions: Position) -> jax.Array:
    return jax.vmap(lambda datum, position: posterior.target(datum).log_likelihood(position))(posterior.rows, positions)


def _columns(x: np.ndarray, num_axes: int) -> np.ndarray:
    """Scalars first: (..., rest) to (size of the rest, ...)."""
    return np.moveaxis(x.reshape(*x.shape[:num_axes], -1), -1, 0)


def _rank(rng: np.random.Generator, x: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """Ranks of true values (M,) among draws (S, M), thinned; how many are left; and the ranks as numbers in (0, 1)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        size = effective_sample_size(np.where(np.isfinite(x), x, 0.0)[None])
    # What a chain never left has no effective size: one draw.
    size = np.where(np.isfinite(size) & (x.std(0) > 0), size, 1.0)
    number = int(np.clip(np.quantile(size, 0.25), 1, len(x)))
    thinned = x[:: -(-len(x) // number)]
    if len(thinned) < _FEWEST_RANKS:
        raise ValueError(
            f"A quarter of the simulations have fewer than {_FEWEST_RANKS} effectively independent draws of some scalar. "
            "Raise `num_samples` or `num_warmup`."
        )
    # Draws that equal the true value, as where it is discrete, share it at random.
    below, equal = (thinned < true).sum(0), (thinned == true).sum(0)
    rank = below + np.floor(rng.uniform(size=len(true)) * (equal + 1)).astype(int)
    return rank, len(thinned), (rank + rng.uniform(size=len(true))) / (len(thinned) + 1)


def _judge(rng: np.random.Generator, rows: dict[str, dict[str, Any]]) -> tuple["pandas.DataFrame", float]:
    """The table of the scalars, and its smallest p-value times the number of tests."""
    import pandas

    u = np.stack([row.pop("u") for row in rows.values()])
    chi_squared, ecdf = chi_squared_p(u), ecdf_p(rng, u)
    for row, *p in zip(rows.values(), chi_squared, ecdf, strict=True):
        row |= dict(zip(("chi_squared_p", "ecdf_p"), p, strict=True))
    smallest = float(min(chi_squared.min(), ecdf.min())) * 2 * len(rows)
    return pandas.DataFrame.from_dict(rows, orient="index"), smallest
