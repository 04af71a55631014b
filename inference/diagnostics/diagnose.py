"""What a careful analyst looks at before believing draws: one table, one list of numbers, and warnings in words."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..sampling.draws import Draws
from ..sampling.importance_sampling import ImportanceSampling
from ..tempering.parallel_tempering import ParallelTempering
from ..tempering.replica_exchange import count_round_trips
from ..tempering.tempered_smc import TemperedSMC

if TYPE_CHECKING:
    import pandas

# Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021: R-hat below 1.01, and 100 effective draws of each chain.
_LARGEST_R_HAT, _SMALLEST_ESS_PER_CHAIN = 1.01, 100
# Vehtari, Simpson, Gelman, Yao and Gabry 2024.
_LARGEST_PARETO_K = 0.7
# Betancourt 2016.
_SMALLEST_BFMI = 0.3
_SMALLEST_SWAP_RATE = 0.1


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        table: a row for each latent site with the worst of its elements: `r_hat` (rank-normalised, split), `ess_bulk`,
            `ess_tail`, `ess_per_second`, and `worst`, the element with the largest R-hat. Where draws are resampled
            prior draws, effective sizes are those of the weights.
        run: numbers that concern the run, by name, those that apply to the sampler: `divergences`, `bfmi`,
            `acceptance_rate`, `max_tree_depth_hits`, `swap_rate` (mean of each pair), `round_trips` (fewest of any chain
            and datum), `communication_barrier`, `recommended_num_temperatures`, `ess_per_temperature` (of the
            log-likelihood), `pareto_k`, `num_stages`.
        warnings: what crossed a threshold, in words, and what to do about it.
    """

    table: "pandas.DataFrame"
    run: dict[str, Any]
    warnings: tuple[str, ...]

    def __str__(self):
        numbers = [f"{name}: {_format(value)}" for name, value in self.run.items()]
        words = [f"! {warning}" for warning in self.warnings] or ["Nothing crossed a threshold."]
        return "\n".join([self.table.to_string(float_format=lambda x: f"{x:.4g}"), "", *numbers, "", *words])


def diagnose(draws: Draws) -> Diagnosis:
    """Say whether draws can be believed, and if not, why.

    Chains that agree are no proof: all of them may have missed the same mode.

    Args:
        draws: of `sample_posterior`.
    """
    import pandas

    warnings: list[str] = []
    rows = {name: _row(name, np.asarray(x), draws, warnings) for name, x in draws.samples.items()}
    if draws.num_chains == 1:
        warnings.append("There is one chain: halves of it are compared, which hides a mode it never left. Use four.")
    run = _run_numbers(draws, warnings)
    return Diagnosis(pandas.DataFrame.from_dict(rows, orient="index"), run, tuple(warnings))


def _row(name, x, draws, warnings):
    from arviz_stats.base import array_stats

    if not np.isfinite(x).all():
        warnings.append(
            f"{name!r} has draws that are not finite. Check the model's scales, or work in x64: "
            "`jax.config.update('jax_enable_x64', True)`."
        )
    elements = x.reshape(*x.shape[:2], -1)
    numbers = {"r_hat": np.full(elements.shape[2], np.nan), "ess_bulk": None, "ess_tail": None}
    with np.errstate(invalid="ignore", divide="ignore"):
        if x.shape[1] >= 4:
            numbers["r_hat"] = array_stats.rhat(elements, chain_axis=0, draw_axis=1)
            numbers["ess_bulk"] = array_stats.ess(elements, chain_axis=0, draw_axis=1, method="bulk")
            numbers["ess_tail"] = array_stats.ess(elements, chain_axis=0, draw_axis=1, method="tail", prob=(0.05, 0.95))
    if isinstance(draws.sampler, ImportanceSampling):
        size = np.asarray(draws.summary["effective_sample_size"]).sum(0)
        numbers["ess_bulk"] = numbers["ess_tail"] = np.broadcast_to(size.min(), elements.shape[2])
    r_hat, bulk, tail = (np.full(elements.shape[2], np.nan) if v is None else np.asarray(v) for v in numbers.values())
    # NaN stands for an element that no chain has moved, which is the worst.
    worst = int(np.argmax(np.where(np.isnan(r_hat), np.inf, r_hat)))
    place = _place(worst, x.shape[2:])
    if np.isnan(r_hat[worst]):
        warnings.append(f"{name}{place} did not move, or has too few draws to be judged.")
    elif r_hat[worst] > _LARGEST_R_HAT:
        count = int((r_hat > _LARGEST_R_HAT).sum())
        warnings.append(
            f"R-hat of {name}{place} is {r_hat[worst]:.3f}, above {_LARGEST_R_HAT} ({count} of {len(r_hat)} elements): "
            f"chains disagree about it. Draw longer; if it stays, they sit in separate modes: {_advice(draws.sampler)}"
        )
    least = np.nanmin([np.nanmin(bulk), np.nanmin(tail)]) if np.isfinite([*bulk, *tail]).any() else np.nan
    wanted = _SMALLEST_ESS_PER_CHAIN * draws.num_chains
    if least < wanted:
        warnings.append(
            f"The effective sample size of {name!r} falls to {least:.0f}, below {wanted} ({_SMALLEST_ESS_PER_CHAIN} for "
            "each chain): means and quantiles are rough. Draw longer."
        )
    return {
        "r_hat": r_hat[worst],
        "ess_bulk": _least(bulk),
        "ess_tail": _least(tail),
        "ess_per_second": _least(bulk) / draws.seconds,
        "worst": f"{name}{place}",
    }


def _advice(sampler):
    if isinstance(sampler, ParallelTempering):
        return "give more temperatures."
    if isinstance(sampler, TemperedSMC):
        return "give more particles, or more mutation steps."
    return "try `ParallelTempering` or `TemperedSMC`."


def _least(x):
    return np.nanmin(x) if np.isfinite(x).any() else np.nan


def _place(index, shape):
    return f"[{', '.join(str(i) for i in np.unravel_index(index, shape))}]" if shape else ""


def _run_numbers(draws, warnings):
    stats = {name: np.asarray(value) for name, value in draws.sample_stats.items()}
    summary = {name: np.asarray(value) for name, value in draws.summary.items()}
    run = {"seconds": draws.seconds}
    if "acceptance_rate" in stats:
        run["acceptance_rate"] = float(stats["acceptance_rate"].mean())
    _add_hamiltonian(run, stats, draws.sampler, warnings)
    if isinstance(draws.sampler, ParallelTempering):
        _add_tempering(run, stats, summary, draws, warnings)
    if "pareto_k" in summary:
        run["pareto_k"] = float(summary["pareto_k"].max())
        if run["pareto_k"] > _LARGEST_PARETO_K:
            share = float((summary["pareto_k"] > _LARGEST_PARETO_K).mean())
            warnings.append(
                f"Pareto k-hat is {run['pareto_k']:.2g}, above {_LARGEST_PARETO_K} (in {share:.0%} of chains and data): a "
                "few prior draws carry all the weight, and more of them hardly help. Use `TemperedSMC` or a Markov kernel."
            )
    if "num_stages" in summary:
        run["num_stages"] = int(summary["num_stages"].max())
    if "log_evidence" in summary:
        run["log_evidence"] = summary["log_evidence"].mean(0)
    return run


def _add_hamiltonian(run, stats, sampler, warnings):
    from arviz_stats.base import array_stats

    if "diverging" in stats:
        run["divergences"] = int(stats["diverging"].sum())
        if run["divergences"]:
            warnings.append(
                f"{run['divergences']} of {stats['diverging'].size} steps diverged: the step is too long for the narrowest "
                "part of the posterior, which is then visited too rarely. Raise `target_acceptance` or take a smaller "
                "`step_size`, or reparameterise the model, for example by `LocScaleReparam` or `InverseTransformReparam`."
            )
    if "diverging" in stats and "energy" in stats and stats["energy"].shape[1] >= 4 and "n_steps" in stats:
        energy = np.moveaxis(stats["energy"].reshape(*stats["energy"].shape[:2], -1), 2, 0)
        run["bfmi"] = float(np.min(array_stats.bfmi(energy)))
        if run["bfmi"] < _SMALLEST_BFMI:
            warnings.append(
                f"BFMI is {run['bfmi']:.2g}, below {_SMALLEST_BFMI}: momenta hardly change the energy, so heavy tails are "
                "explored slowly. Reparameterise the model, or draw longer."
            )
    if "tree_depth" in stats and hasattr(sampler, "max_tree_depth"):
        run["max_tree_depth_hits"] = int((stats["tree_depth"] >= sampler.max_tree_depth).sum())
        if run["max_tree_depth_hits"]:
            warnings.append(
                f"{run['max_tree_depth_hits']} trajectories reached `max_tree_depth`: they were cut before they turned. "
                "Raise it, or rescale the model."
            )


def _add_tempering(run, stats, summary, draws, warnings):
    acceptance = stats["swap_acceptance"].mean((0, 1))
    run["swap_rate"] = acceptance.reshape(-1, acceptance.shape[-1]).mean(0)
    index = stats["replica"].reshape(*stats["replica"].shape[:2], -1, stats["replica"].shape[-1])
    trips = np.array(
        [[count_round_trips(index[c, :, n]).sum() for n in range(index.shape[2])] for c in range(len(index))]
    )
    run["round_trips"] = int(trips.min())
    run["communication_barrier"] = float(summary["communication_barrier"].max())
    run["recommended_num_temperatures"] = int(summary["recommended_num_temperatures"].max())
    run["ess_per_temperature"] = _ess_per_temperature(stats["tempered_log_likelihood"])
    if acceptance.min() < _SMALLEST_SWAP_RATE:
        warnings.append(
            f"A pair of temperatures swaps with probability {acceptance.min():.2g}: replicas hardly pass. The barrier "
            f"calls for {run['recommended_num_temperatures']} temperatures, and there are {draws.sampler.num_temperatures}."
        )
    if run["round_trips"] == 0:
        warnings.append(
            "In some chain no replica went from the prior to the posterior and back, so modes may not have been exchanged. "
            "Draw longer, or give more temperatures."
        )


def _ess_per_temperature(log_likelihood):
    """Bulk effective size of the log-likelihood at each temperature, the smallest over data."""
    from arviz_stats.base import array_stats

    values = log_likelihood.reshape(*log_likelihood.shape[:2], -1, log_likelihood.shape[-1])
    if values.shape[1] < 4:
        return np.full(values.shape[-1], np.nan)
    # At the prior a likelihood may be 0.
    values = np.where(np.isfinite(values), values, np.finfo(np.float32).min)
    return np.asarray(array_stats.ess(values, chain_axis=0, draw_axis=1, method="bulk")).min(0)


def _format(value):
    return np.array2string(np.asarray(value), precision=3, threshold=12) if np.ndim(value) else f"{value:.4g}"
