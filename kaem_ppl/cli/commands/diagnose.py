"""`kaem diagnose`: posterior draws of a few held-out data, and their convergence diagnostics."""

from pathlib import Path

import jax

from ...inference import HMC, MALA, NUTS, AdaptedLadder, Kernel, ParallelTempering, Sampler, sample_posterior
from ...inference import diagnose as diagnose_draws
from ...inference.diagnostics.plots import plot_posterior_over_prior, plot_replica_trace, plot_swap_rates
from ...progress import Progress
from ..errors import CommandError
from ..messages import print_result
from ..storage.saved_run import SavedRun, first_held_out

# Of thousands of latents at every temperature longer trajectories would take hours.
TEMPERING = ParallelTempering(HMC(shortest_step=1, max_integration_steps=8))
SAMPLERS: dict[str, Sampler | Kernel] = {"mala": MALA(), "nuts": NUTS(), "tempering": TEMPERING}


def diagnose(
    run: SavedRun,
    key: jax.Array,
    sampler: str,
    num_data: int,
    num_chains: int,
    num_samples: int,
    num_temperatures: int | None,
    folder: Path,
    unfinished: Path,
) -> None:
    """Write `diagnosis.txt`, `draws.nc` (ArviZ) and figures.

    Args:
        run: whose posterior.
        key: PRNG key.
        sampler: name in `SAMPLERS`.
        num_data: number of held-out data, the first ones.
        num_chains: for each datum.
        num_samples: draws of each chain, and steps of warm-up before.
        num_temperatures: of tempering; None takes its default.
        folder: to write into.
        unfinished: where the chains keep their state until then.

    Raises:
        CommandError: there are fewer data, or the model has no latents.
    """
    if run.config.model.kind == "diffusion":
        raise CommandError(f"{run.folder.path} is a diffusion, which has no latents to draw given data.")
    chosen = with_temperatures(SAMPLERS[sampler], num_temperatures)
    draws = sample_posterior(
        key, run.model, x=first_held_out(run, num_data), params=run.params, sampler=chosen, plate="data",
        num_chains=num_chains, num_samples=num_samples, num_warmup=num_samples, checkpoint=unfinished,
    )  # fmt: skip
    # Minutes, where there are thousands of latents.
    Progress.innermost().begin("computing convergence diagnostics")
    found = str(diagnose_draws(draws))
    print_result(found)
    (folder / "diagnosis.txt").write_text(found + "\n", encoding="utf-8")
    Progress.innermost().begin("writing draws and figures")
    draws.to_arviz(deterministics=False).to_netcdf(folder / "draws.nc")
    plot_posterior_over_prior(draws).savefig(folder / "posterior.png", dpi=150)
    if sampler == "tempering":
        plot_swap_rates(draws).savefig(folder / "swap_rates.png", dpi=150)
        plot_replica_trace(draws).savefig(folder / "replica_trace.png", dpi=150)


def with_temperatures[T](method: T, num_temperatures: int | None) -> T | ParallelTempering:
    """A method, with this number of temperatures of an adapted ladder where it has some."""
    if num_temperatures is None or not isinstance(method, ParallelTempering):
        return method
    return ParallelTempering(method.kernel, AdaptedLadder(num_temperatures))
