"""Bounds of the log-evidence of simulated data from both sides, by annealed importance sampling there and back."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpyro import handlers

from kaem_ppl.arguments import as_count, as_key, check_kind
from kaem_ppl.compilation import jit_outermost
from kaem_ppl.progress import Progress

from ..model.parameters import Params
from ..model.power_posterior import Position, PowerPosterior, read_power_posterior
from ..sampling.batching import over_problems
from ..sampling.checks import check_prior
from ..sampling.run import Run
from ..sampling.sampler import problem_keys
from .annealed_importance import AnnealedImportanceSampling


class LogEvidenceBounds(NamedTuple):
    """Stochastic bounds of the log-evidence of simulated data, in nats, shape (N,) with a plate and () without.

    Attributes:
        lower: mean over chains of log mean weight of the forward run; below the log-evidence on average.
        lower_std_error: of `lower`, from the spread between chains.
        upper: mean over chains of -log mean 1/weight of the reverse run; above the log-evidence on average.
        upper_std_error: of `upper`, given the exact draw that the chains start from.
        observations: the simulated data by name of the observed site.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import AnnealedImportanceSampling, bound_log_evidence
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> method = AnnealedImportanceSampling(16)
        >>> bounds = bound_log_evidence(jax.random.key(0), model, 0.0, method=method, num_chains=4, progress_bar=False)
        >>> exact = dist.Normal(0, 2**0.5).log_prob(bounds.observations["y"])
        >>> bool(abs(exact - bounds.lower) < 0.3), bool(abs(exact - bounds.upper) < 0.3)
        (True, True)
    """

    lower: np.ndarray
    lower_std_error: np.ndarray
    upper: np.ndarray
    upper_std_error: np.ndarray
    observations: dict[str, jax.Array]


def bound_log_evidence(
    key: jax.Array,
    model: Callable,
    *args: Any,
    params: Params | None = None,
    method: AnnealedImportanceSampling = AnnealedImportanceSampling(),  # noqa: B008 - a frozen value
    plate: str | None = None,
    num_chains: int = 8,
    progress_bar: bool = True,
    **kwargs: Any,
) -> LogEvidenceBounds:
    """Simulate data from a model and bracket their log-evidence from both sides (Grosse et al. 2015).

    Latents and data are drawn from the model together, so the latents are an exact posterior draw given the data: the
    start of a reverse run, whose weights bound the log-evidence from above as the forward run's bound it from below. A
    small gap says that the method, with these settings, measures the evidence of data that are like the model's.

    Args:
        key: PRNG key.
        model: NumPyro model.
        *args: its positional arguments; the values of the observed sites are replaced.
        params: constrained values of the model's `numpyro.param` sites.
        method: how to anneal. More temperatures bring the bounds together, and so do more particles.
        plate: name of the plate whose rows are problems of their own.
        num_chains: independent bounds that are averaged, at least two; their spread is the standard error.
        progress_bar: whether to show progress: a bar on a terminal, elsewhere a line every ten seconds.
        **kwargs: the model's keyword arguments.

    Raises:
        TypeError: `method` is not annealed importance sampling.
        ValueError: an argument or the model is not usable; the message says which and what to do.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import AnnealedImportanceSampling, bound_log_evidence
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> method = AnnealedImportanceSampling(16)
        >>> bounds = bound_log_evidence(jax.random.key(0), model, 0.0, method=method, num_chains=4, progress_bar=False)
        >>> bool(bounds.upper - bounds.lower < 0.5)
        True
    """
    check_kind(method, AnnealedImportanceSampling, "method", "an `AnnealedImportanceSampling()`")
    key, num_chains = as_key(key), as_count(num_chains, "num_chains", 2)
    read = partial(read_power_posterior, params=params, plate=plate, coordinates=method.coordinates)
    posterior = read(model, args, kwargs)
    check_prior(posterior, "bound_log_evidence")
    simulate_key, forward_key, reverse_key = jax.random.split(key, 3)
    positions, observations = _simulate(posterior, problem_keys(simulate_key, 1, posterior.num_data)[0])
    axes = {site.name: site.plate_axis for site in posterior.observed if site.plate_axis is not None}

    def simulated(observations: dict[str, ArrayLike], *args: Any, **kwargs: Any) -> Any:
        if plate is not None:
            observations = {name: jnp.moveaxis(x, 0, axes[name]) for name, x in observations.items()}
        with handlers.condition(data=observations):
            return model(*args, **kwargs)

    given = observations if plate is not None else jax.tree.map(lambda x: x[0], observations)
    posterior = read(simulated, (given, *args), kwargs)
    with Progress("compiling the pilot", progress_bar) as progress:
        settings: dict[str, Any] = {"num_chains": num_chains, "run": Run(progress)}
        forward = method.forward(forward_key, posterior, **settings).log_weights.astype(float)
        reverse = np.asarray(method.reverse(reverse_key, posterior, positions, **settings), float)
    num_particles = np.log(method.num_particles)
    lower = np.logaddexp.reduce(forward, axis=-1) - num_particles
    upper = num_particles - np.logaddexp.reduce(-reverse, axis=-1)
    numbers = [f(x) for x in (lower, upper) for f in (lambda x: x.mean(0), _spread)]
    numbers = [np.asarray(x if plate is not None else x[0]) for x in numbers]
    return LogEvidenceBounds(*numbers, given)


def _spread(x: np.ndarray) -> np.ndarray:
    return x.std(0, ddof=1) / np.sqrt(len(x))


@jit_outermost
def _simulate(posterior: PowerPosterior, keys: jax.Array) -> tuple[Position, dict[str, jax.Array]]:
    """Positions from the prior and observations given them, (N, ...)."""

    def simulate(key: jax.Array, datum: tuple[jax.Array, ...]) -> tuple[Position, dict[str, jax.Array]]:
        draw_key, predict_key = jax.random.split(key)
        position = posterior.target(datum).draw(draw_key)
        return position, posterior.predict(predict_key, datum, position)

    return jax.tree.map(lambda x: x[0], over_problems(simulate, posterior, keys[None]))
