"""Draws from the posterior of any NumPyro model by any of the samplers."""

from collections.abc import Callable
from typing import Any

import jax

from ..kernels.hamiltonian import NUTS
from ..kernels.kernel import Kernel
from ..model.parameters import Params
from ..model.power_posterior import read_power_posterior
from .chains import sample_chains
from .draws import Draws, values_of
from .sampler import Sampler


def sample_posterior(
    key: jax.Array,
    model: Callable,
    *args: Any,
    params: Params | None = None,
    sampler: Sampler | Kernel = NUTS(),  # noqa: B008 - a frozen value
    num_chains: int = 4,
    num_samples: int = 1000,
    num_warmup: int = 1000,
    plate: str | None = None,
    progress_bar: bool = True,
    **kwargs: Any,
) -> Draws:
    """Draw from the posterior of a NumPyro model with continuous latents.

    Without `plate` the model is one problem: the joint posterior of all its latents. With it each row of the plate is a
    problem of its own, and all rows are sampled at once: the model is run on one row at a time, and those arrays among
    `args` and `kwargs` whose leading axis has the plate's size are cut into rows.

    Args:
        key: PRNG key; the result depends on nothing else that is random, and the draws of chain c of datum n on nothing
            but the key, c and n.
        model: NumPyro model, called as `model(*args, **kwargs)`.
        *args: its positional arguments.
        params: constrained values of the model's `numpyro.param` sites.
        sampler: how to draw; a Markov kernel such as `NUTS()` draws by chains of its own.
        num_chains: independent chains for each problem.
        num_samples: draws of each chain.
        num_warmup: steps before them, in which a sampler tunes itself; `ImportanceSampling`, `TemperedSMC`
            and `NestedSampling` need none and take none.
        plate: name of the plate that holds the data, where each datum is its own problem.
        progress_bar: whether to show progress, with tqdm.
        **kwargs: the model's keyword arguments.

    Raises:
        ValueError: an argument or the model is not usable; the message says which and what to do.
        TypeError: `sampler` is not a sampler.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import MALA, sample_posterior
        >>> def model(x):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> draws = sample_posterior(
        ...     jax.random.key(0), model, jnp.array(1.0), sampler=MALA(), num_samples=100, progress_bar=False
        ... )
        >>> draws.samples["z"].shape
        (4, 100)
    """
    if not isinstance(sampler, Sampler | Kernel):
        raise TypeError(f"`sampler` must be a sampler such as `NUTS()` or `ParallelTempering()`, got {sampler!r}.")
    counts = {"num_chains": (num_chains, 1), "num_samples": (num_samples, 1), "num_warmup": (num_warmup, 0)}
    for name, (value, least) in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")
    posterior = read_power_posterior(model, args, kwargs, params=params, plate=plate, coordinates=sampler.coordinates)
    settings = {"num_chains": num_chains, "num_samples": num_samples, "num_warmup": num_warmup}
    if isinstance(sampler, Kernel):
        output = sample_chains(key, posterior, sampler, progress_bar=progress_bar, **settings)
    else:
        output = sampler.sample(key, posterior, progress_bar=progress_bar, **settings)
    samples, stats, summary = values_of(posterior, output.positions), output.stats, output.summary
    if plate is None:
        samples, stats = (jax.tree.map(lambda x: x[:, :, 0], tree) for tree in (samples, stats))
        summary = jax.tree.map(lambda x: x[:, 0], summary)
    return Draws(samples, stats, summary, output.dims, sampler, output.seconds, posterior, output.positions, key)
