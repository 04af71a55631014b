"""Whether replicas of a tempered sampler cross between prior and posterior, and what follows for its chains."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..sampling.draws import Draws
from ..tempering.replica_exchange import count_round_trips
from .findings import Findings, array_stats
from .limits import SMALLEST_SWAP_RATE


def check_exchange(report: Findings, stats: dict[str, np.ndarray], summary: dict[str, np.ndarray]) -> None:
    """Facts and checks of replica exchange."""
    run = report.run
    acceptance = stats["swap_acceptance"].mean((0, 1))
    run["swap_rate"] = acceptance.reshape(-1, acceptance.shape[-1]).mean(0)
    trips, wanted, number = _facts(stats, summary)
    run["round_trips"] = trips
    run["communication_barrier"] = float(summary["communication_barrier"].max())
    run["recommended_num_temperatures"] = wanted
    run["ess_per_temperature"] = _ess_per_temperature(stats["tempered_log_likelihood"])
    report.check(
        "swap rates",
        bool(acceptance.min() >= SMALLEST_SWAP_RATE),
        f"A pair of temperatures swaps with probability {acceptance.min():.2g}: replicas hardly pass. The barrier "
        f"calls for {wanted} temperatures, and there are {number}.",
    )
    report.check(
        "round trips",
        trips > 0,
        "In some chain no replica went from the prior to the posterior and back, so modes may not have been exchanged. "
        f"{_advise(wanted, number)}",
    )


def describe_disagreement(draws: Draws) -> str:
    """Why chains may disagree and what to do, from what is known of these draws."""
    if "replica" not in draws.sample_stats:
        return f"Draw longer; if it stays, they sit in separate modes: {draws.sampler.advice}"
    trips, wanted, number = _facts(draws.sample_stats, draws.summary)
    if trips == 0:
        return f"In some chain no replica went from the prior to the posterior and back. {_advise(wanted, number)}"
    times = "one round trip" if trips == 1 else f"{trips:,} round trips"
    text = f"Replicas do cross, with {times} in the chain of fewest: draws are too few, modes not separate. Draw longer"
    return f"{text}; {wanted} temperatures in place of {number} bring more trips." if wanted > number else f"{text}."


def _advise(wanted: int, number: int) -> str:
    if wanted > number:
        return f"Give {wanted} temperatures, as the barrier calls for, in place of {number}."
    return f"Draw longer: the barrier calls for no more than the {number} temperatures that there are."


def _facts(stats: Mapping[str, Any], summary: Mapping[str, Any]) -> tuple[int, int, int]:
    """Round trips of the chain and datum of fewest, temperatures that the barrier calls for, and those there are."""
    index = np.asarray(stats["replica"])
    index = index.reshape(*index.shape[:2], -1, index.shape[-1])
    trips = [count_round_trips(index[c, :, n]).sum() for c in range(len(index)) for n in range(index.shape[2])]
    return int(min(trips)), int(np.max(summary["recommended_num_temperatures"])), index.shape[-1]


def _ess_per_temperature(log_likelihood: np.ndarray) -> np.ndarray:
    """Bulk effective size of the log-likelihood at each temperature, the smallest over data."""
    values = log_likelihood.reshape(*log_likelihood.shape[:2], -1, log_likelihood.shape[-1])
    if values.shape[1] < 4:
        return np.full(values.shape[-1], np.nan)
    # At the prior a likelihood may be 0.
    values = np.where(np.isfinite(values), values, np.finfo(np.float32).min)
    return np.asarray(array_stats().ess(values, chain_axis=0, draw_axis=1, method="bulk")).min(0)
