"""Whether steps are accepted at the ends of the posterior as they are in its middle."""

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from .findings import Findings
from .limits import SMALLEST_TAIL_ACCEPTANCE

if TYPE_CHECKING:
    from ..sampling.draws import Draws

# What counts as an end, the draws that it must have, how many are looked at in all, and how often a chance is taken for
# a fault.
_SHARE, _FEWEST, _MOST, _FALSE_ALARMS = 0.01, 20, 20_000, 0.005


def check_tails(report: Findings, draws: "Draws", stats: dict[str, np.ndarray]) -> None:
    """Compare the acceptance of steps that start among the lowest or highest draws of a coordinate with that of all steps.

    By detailed balance, a chain enters a region as rarely as it leaves it: one whose steps are rejected there comes seldom
    and stays long, or does not come at all in a run of this length, and R-hat and effective sizes see nothing of that.

    Args:
        report: what is found goes there.
        draws: of a kernel with a Metropolis step whose step size is adapted; of other samplers nothing is checked.
        stats: its `sample_stats`.
    """
    rates = stats.get("acceptance_rate")
    if rates is None or "swap_acceptance" in stats or getattr(draws.sampler, "target_acceptance", None) is None:
        return
    num_chains, num_draws = rates.shape[:2]
    if num_chains * (num_draws - 1) < _FEWEST / _SHARE / 5:
        return
    every = slice(None, -1, -(-num_chains * num_draws // _MOST))
    rates = np.asarray(rates[:, 1:][:, :: every.step], float)
    overall = rates.mean(axis=(0, 1))
    of_each = {name: np.asarray(position[:, every], float) for name, position in draws.positions.items()}
    of_each = {name: x for name, x in of_each.items() if x.size and x.shape[: rates.ndim] == rates.shape}
    if not of_each:
        return
    # One normal quantile for all ends, so that many coordinates do not make one of them low by chance.
    num_ends = 2 * sum(x[0, 0].size for x in of_each.values())
    quantile = NormalDist().inv_cdf(1 - _FALSE_ALARMS / num_ends)
    worst, words = np.inf, ""
    for name, x in of_each.items():
        coordinates = x.reshape(len(x) * x.shape[1], *x.shape[2 : rates.ndim], -1)
        accepted = np.broadcast_to(rates.reshape(*coordinates.shape[:-1], 1), coordinates.shape)
        number = max(_FEWEST, int(_SHARE * len(coordinates)))
        order = np.argpartition(coordinates, [number, len(coordinates) - number], axis=0)
        for end, rows in (("lowest", order[:number]), ("highest", order[-number:])):
            there = np.take_along_axis(accepted, rows, axis=0)
            all_of_them = np.maximum(overall[..., None], 1e-12)
            ratio, error = there.mean(0) / all_of_them, there.std(0) / number**0.5 / all_of_them
            ratio = np.where(ratio + quantile * error < 1, ratio + error, np.inf)
            if ratio.min() < worst:
                worst = float(ratio.min())
                place = np.unravel_index(int(ratio.argmin()), ratio.shape)
                words = (
                    f"Of the steps that start among the {end} {number} draws of {name!r}, {there.mean(0)[place]:.0%} are "
                    f"accepted, of all {overall[place[:-1]]:.0%}"
                )
    report.check(
        "acceptance in the tails",
        worst >= SMALLEST_TAIL_ACCEPTANCE,
        f"{words}: the step is too long there, so that such values are visited too rarely, for too long. Raise "
        "`target_acceptance`, reparameterise the model, or use `ParallelTempering` or `TemperedSMC`.",
    )
