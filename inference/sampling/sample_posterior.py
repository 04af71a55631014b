"""`sample_posterior`: posterior draws of any NumPyro model by any sampler."""

from collections.abc import Callable
from os import PathLike
from typing import Any

import jax

from kaem_ppl.arguments import as_count, as_key, check_callable, check_kind
from kaem_ppl.progress import Progress

from ..kernels.hamiltonian import NUTS
from ..kernels.kernel import Kernel
from ..model.hierarchy.posterior import HierarchicalPosterior, read_posterior
from ..model.missing.masking import Missing
from ..model.parameters import Params
from .blocks import Blocks
from .chains_state import ChainsState
from .draws import Draws, draw
from .run import Report, Run
from .sampler import Sampler
from .stopping import Until
from .storage.checkpoint import open_checkpoint


def sample_posterior(
    key: jax.Array,
    model: Callable,
    *args: Any,
    params: Params | None = None,
    sampler: Sampler | Kernel | None = None,
    num_chains: int = 4,
    num_samples: int = 1000,
    num_warmup: int = 1000,
    plate: str | None = None,
    thinning: int = 1,
    stop: Until | None = None,
    state: ChainsState | None = None,
    checkpoint: str | PathLike | None = None,
    spool: bool = False,
    callback: Callable[[Report], object] | None = None,
    progress_bar: bool = True,
    missing: Missing = None,
    **kwargs: Any,
) -> Draws:
    """Draw from the posterior of a NumPyro model.

    Discrete latents with finitely many values are summed out exactly, whether they are marked for enumeration or not, and
    the continuous ones are sampled; `Draws.infer_discrete` draws the discrete ones afterwards.

    Without `plate` the model is one problem: the joint posterior of all its latents. With it each row of the plate is a
    problem of its own, and all rows are sampled at once: the model is run on one row at a time, and those arrays among
    `args` and `kwargs` whose leading axis has the plate's size are cut into rows.

    Where latents stand outside the plate too, the globals, it is the joint posterior of globals and locals, moved in
    blocks: see `Blocks`, which a Markov kernel as `sampler` stands for on both sides. Other samplers take the joint
    posterior as one problem. Draws then have NumPyro's own shapes, and the plate is an axis of the local sites.

    Args:
        key: PRNG key, or an integer seed; the result depends on nothing else that is random, and the draws of chain c of
            datum n on nothing but the key, c and n.
        model: NumPyro model, called as `model(*args, **kwargs)`.
        *args: its positional arguments.
        params: constrained values of the model's `numpyro.param` sites, or what `fit` returned.
        sampler: how to draw; a Markov kernel such as `NUTS()` draws by chains of its own. None is `NUTS()`, and `Blocks()`
            where latents stand outside the plate.
        num_chains: independent chains for each problem.
        num_samples: draws of each chain; with `stop` those after which it is first asked.
        num_warmup: steps before them, in which a sampler tunes itself; `ImportanceSampling`, `TemperedSMC`
            and `NestedSampling` need none and take none.
        plate: name of a plate with latents of its own in each row, where each row is its own problem, such as the images
            of a KAEM. Leave it out where all latents belong to all data, as in a regression: it is refused there.
        thinning: steps of a Markov chain from one draw that is kept to the next.
        stop: when to stop drawing, such as `Until(ess=400)`, instead of a number of draws.
        state: `draws.state` of an earlier call with the same model, data, sampler and `num_chains`: chains go on from
            there without a warm-up, by the key of that call; two times 500 draws are the same as 1,000.
        checkpoint: a folder, where the state and the draws are written while they are made. The same call after a stop,
            whatever stopped it, goes on from there and has the same result; with a larger `num_samples` it adds draws.
            `TemperedSMC` keeps its state after every temperature. Of Markov chains `draws.nc` is written at the end: it has
            the draws by chain and draw, in the groups `posterior` (values of the latent sites), `sample_stats` and
            `positions` (the sampler's coordinates), and points to blocks beside it, which hold the numbers, so that it is
            moved with its folder. ArviZ and xarray open it.
        spool: whether `draws.samples` and the rest are these files, read as they are indexed, so that memory does not grow
            with their number. Without, the same files are written, and the draws are held in memory as well.
        callback: is called after every piece of work, some steps or a temperature, with a `Report`.
        progress_bar: whether to show progress: a bar on a terminal, elsewhere a line every ten seconds.
        missing: "nan" where NaN among the observations stands for missing entries, which are no part of the likelihood;
            None where there are none. Entries that are independent given the latents drop out one by one, those of a
            `MultivariateNormal` by its marginal law; of another joint law all or none must be missing.
        **kwargs: the model's keyword arguments.

    Raises:
        ValueError: an argument or the model is not usable, or the folder of the checkpoint belongs to another call; the
            message says which and what to do.
        TypeError: an argument is of the wrong kind, such as a `sampler` that is none.
        OSError: the checkpoint can't be written, as on a full disk; what was written before is kept.

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
    key = as_key(key)
    if sampler is not None:
        check_kind(
            sampler, (Sampler, Kernel), "sampler", "a sampler such as `NUTS()` or `ParallelTempering()`, or None"
        )
    num_chains, num_samples = as_count(num_chains, "num_chains", 1), as_count(num_samples, "num_samples", 1)
    num_warmup, thinning = as_count(num_warmup, "num_warmup", 0), as_count(thinning, "thinning", 1)
    _check_long_run(NUTS() if sampler is None else sampler, thinning, stop, state, checkpoint, spool, callback)
    coordinates = NUTS.coordinates if sampler is None else sampler.coordinates
    with Progress("reading the model", progress_bar) as progress:
        posterior = read_posterior(
            model, args, kwargs, params=params, plate=plate, coordinates=coordinates, missing=missing
        )
        if isinstance(posterior, HierarchicalPosterior):
            sampler = Blocks() if sampler is None else sampler
            sampler = Blocks(sampler, sampler) if isinstance(sampler, Kernel) else sampler
            posterior = posterior.written_in(sampler.coordinates)
        sampler = NUTS() if sampler is None else sampler
        settings = {"sampler": sampler, "num_chains": num_chains, "num_warmup": num_warmup, "thinning": thinning}
        if not _has_chains(sampler):
            settings["num_samples"] = num_samples
        with open_checkpoint(checkpoint, "sample_posterior", key, posterior, settings) as kept:
            run = Run(progress, callback, kept, thinning, stop, state, spool)
            return draw(key, posterior, sampler, num_chains, num_samples, num_warmup, run)


def _has_chains(sampler: Sampler | Kernel) -> bool:
    return isinstance(sampler, Kernel) or sampler.has_chains


def _check_long_run(
    sampler: Sampler | Kernel,
    thinning: int,
    stop: Until | None,
    state: ChainsState | None,
    checkpoint: str | PathLike | None,
    spool: bool,
    callback: Callable | None,
) -> None:
    if stop is not None and not isinstance(stop, Until):
        raise TypeError(f"`stop` must be an `Until`, such as `Until(ess=400)`, got {stop!r}.")
    if state is not None and not isinstance(state, ChainsState):
        raise TypeError(f"`state` must be the `state` of draws of Markov chains, got {type(state).__name__}.")
    if not isinstance(spool, bool):
        raise TypeError(f"`spool` must be True or False, got {spool!r}.")
    if callback is not None:
        check_callable(callback, "callback", "a function of one argument, a `Report`")
    if spool and checkpoint is None:
        raise ValueError("`spool` keeps draws in the folder of a `checkpoint`, which is missing. Give a folder.")
    if state is not None and checkpoint is not None:
        raise ValueError("`state` and `checkpoint` both say where to go on. Give one of them.")
    if isinstance(sampler, Kernel) or sampler.has_chains:
        return
    for name, is_given in {"thinning": thinning != 1, "stop": stop, "state": state, "spool": spool}.items():
        if is_given:
            raise ValueError(f"`{name}` is for Markov chains, and {type(sampler).__name__} has none: leave it out.")
    if checkpoint is not None and not sampler.keeps_state:
        raise ValueError(f"{type(sampler).__name__} can't go on after a stop: leave `checkpoint` out.")
