"""`kaem diagnose`: posterior draws of a few held-out data, and whether they can be believed."""

import jax

from ..inference import MALA, NUTS, ParallelTempering, Sampler, sample_posterior
from ..inference import diagnose as judge
from ..inference.diagnostics.plots import plot_posterior_over_prior, plot_replica_trace, plot_swap_rates
from .messages import say
from .saved_run import SavedRun

SAMPLERS: dict[str, Sampler] = {"mala": MALA(), "nuts": NUTS(), "tempering": ParallelTempering()}


def diagnose(
    run: SavedRun, key: jax.Array, sampler: str, num_data: int, num_chains: int, num_samples: int, progress_bar: bool
) -> None:
    """Write `diagnosis.txt`, `draws.nc` (ArviZ) and figures.

    Args:
        run: whose posterior.
        key: PRNG key.
        sampler: name in `SAMPLERS`.
        num_data: the first so many of the held-out data.
        num_chains: for each datum.
        num_samples: draws of each chain, and steps of warm-up before.
        progress_bar: whether to show steps.
    """
    draws = sample_posterior(
        key, run.model, x=run.data.values[:num_data], params=run.params, sampler=SAMPLERS[sampler], plate="data",
        num_chains=num_chains, num_samples=num_samples, num_warmup=num_samples, progress_bar=progress_bar,
    )  # fmt: skip
    found = str(judge(draws))
    run.folder.write("diagnosis.txt", found + "\n")
    draws.to_arviz(deterministics=False).to_netcdf(run.folder.path / "draws.nc")
    plots = run.folder.plots
    plot_posterior_over_prior(draws).savefig(plots / "posterior.png", dpi=150)
    if sampler == "tempering":
        plot_swap_rates(draws).savefig(plots / "swap_rates.png", dpi=150)
        plot_replica_trace(draws).savefig(plots / "replica_trace.png", dpi=150)
    say(found)
