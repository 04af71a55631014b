"""Plots of a sampler: swap rates along a ladder, the path of a replica, and the posterior over the prior."""

import numpy as np
from matplotlib.figure import Figure

from kaem_ppl.plot_style import CYCLE, MAIN, NEUTRAL, plain_axes

from ..sampling.draws import Draws

# Of a prior, over all data, for a curve without noise.
_PRIOR_DRAWS = 20_000


def plot_swap_rates(draws: Draws) -> Figure:
    """How often neighbours on a ladder would swap, against the temperature between them.

    A line is the mean over chains and data, the band spans all of them. A ladder does its work where the line is level; a
    dip is a temperature at which replicas queue.

    Args:
        draws: of `ParallelTempering`.

    Returns:
        The figure; save it with `figure.savefig(path)`.

    Raises:
        ValueError: the draws are not from a ladder.
    """
    _check_tempered(draws)
    rates = 1 - np.asarray(draws.summary["rejection_rate"])
    temperatures = np.asarray(draws.summary["temperatures"])
    rates, temperatures = (x.reshape(-1, x.shape[-1]) for x in (rates, temperatures))
    between = 0.5 * (temperatures[:, 1:] + temperatures[:, :-1]).mean(0)
    barrier = np.asarray(draws.summary["communication_barrier"])
    wanted = int(np.asarray(draws.summary["recommended_num_temperatures"]).max())

    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    panel = figure.subplots()
    panel.fill_between(between, rates.min(0), rates.max(0), color=MAIN, alpha=0.2, linewidth=0)
    panel.plot(between, rates.mean(0), color=MAIN, marker="o", markersize=4, linewidth=1.4)
    for temperature in temperatures.mean(0):
        panel.axvline(temperature, color=NEUTRAL, linewidth=0.6, alpha=0.5, zorder=0)
    # Ladders crowd towards the prior; between 0 and the first step the axis is linear.
    panel.set_xscale("symlog", linthresh=max(temperatures.mean(0)[1], 1e-6))
    # At most five labels, so that none covers another.
    lowest = int(np.ceil(np.log10(max(temperatures.mean(0)[1], 1e-6))))
    decades = np.arange(0, lowest - 1, -max(1, -(-(1 - lowest) // 4)))
    panel.set_xticks([0, *10.0 ** decades[::-1]])
    panel.set_xlim(0, 1.05)
    panel.set_ylim(0, 1.02)
    panel.set_xlabel("temperature (exponent of the likelihood)")
    panel.set_ylabel("swap rate between neighbours")
    panel.set_title(f"communication barrier {barrier.max():.2f}, calls for {wanted} temperatures", fontsize=10)
    plain_axes(panel)
    return figure


def plot_replica_trace(
    draws: Draws, *, chain: int = 0, datum: int = 0, max_replicas: int = 3, max_steps: int = 500
) -> Figure:
    """Where replicas stand on the ladder, step after step.

    Lines that run from bottom to top and back bring independent starts to the posterior.

    Args:
        draws: of `ParallelTempering`.
        chain: which chain.
        datum: which datum, with a plate.
        max_replicas: how many replicas are shown, spread over the ladder.
        max_steps: how many of the first steps are shown.

    Returns:
        The figure.

    Raises:
        ValueError: the draws are not from a ladder.
        IndexError: there is no such chain or datum.
    """
    _check_tempered(draws)
    replica = np.asarray(draws.sample_stats["replica"])[chain, :max_steps]
    replica = replica if draws.plate is None else replica[:, datum]
    # The inverse permutation says where each replica stands.
    place = np.argsort(replica, axis=-1)
    num_replicas = place.shape[1]
    shown = np.unique(np.linspace(0, num_replicas - 1, min(max_replicas, num_replicas)).astype(int))

    figure = Figure(figsize=(7.0, 1.0 + 1.3 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for number, panel in zip(shown, panels, strict=True):
        color = CYCLE[int(number) % len(CYCLE)]
        panel.plot(place[:, number], color=color, linewidth=0.9, drawstyle="steps-post")
        panel.set_title(f"replica {number}", fontsize=9, loc="left")
        panel.set_ylim(-0.3, num_replicas - 0.7)
        panel.set_yticks([0, num_replicas - 1], ["prior" if _starts_at_prior(draws) else "hottest", "posterior"])
        panel.tick_params(labelsize=8)
        plain_axes(panel)
    panels[-1].set_xlabel("step")
    figure.supylabel("place on the ladder", fontsize=10)
    return figure


def plot_posterior_over_prior(draws: Draws, *, num_columns: int = 4, max_panels: int = 16) -> Figure:
    """The draws of each latent, of all data together, over its prior: does the aggregated posterior fill it?

    Data are stacked, each in its own colour where they are few, so that posteriors that differ are told apart.

    For a model that fits, data drawn from it have posteriors that add up to the prior. Where they leave a part of it
    empty, samples from the prior there look like nothing in the data.

    Args:
        draws: of any sampler; the prior must be one that can be drawn from.
        num_columns: panels in a row.
        max_panels: latents shown, the first ones where there are more.

    Returns:
        The figure.

    Raises:
        ValueError: the prior can't be drawn from.
    """
    num_data = 1 if draws.plate is None else next(iter(draws.samples.values())).shape[2]
    prior = draws.draw_prior(max(draws.num_samples, -(-_PRIOR_DRAWS // num_data)))[0]
    num_axes = 2 if draws.plate is None else 3
    columns = []
    for site, posterior in draws.samples.items():
        shape = posterior.shape[num_axes:]
        size = int(np.prod(shape))
        # By latent and datum.
        by_datum = np.asarray(posterior).reshape(-1, num_data, size).transpose(2, 1, 0)
        names = [f"{site}[{', '.join(map(str, index))}]" if shape else site for index in np.ndindex(shape)]
        columns += list(zip(names, by_datum, np.asarray(prior[site]).reshape(-1, size).T, strict=True))
    num_in_all, columns = len(columns), columns[:max_panels]

    num_columns = min(num_columns, len(columns))
    num_rows = -(-len(columns) // num_columns)
    figure = Figure(figsize=(2.4 * num_columns + 0.4, 1.8 * num_rows + 0.7), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for panel, (name, posterior, prior_draws) in zip(panels, columns, strict=False):
        # A heavy tail would leave nothing but a spike.
        ends = np.array([np.quantile(x, [0.002, 0.998]) for x in (posterior, prior_draws)])
        low, high = ends[:, 0].min(), ends[:, 1].max()
        bins = np.linspace(low, high, 41) if high > low else 10
        first = panel is panels[0]
        is_few = 1 < num_data <= len(CYCLE)
        parts = list(posterior) if is_few else [posterior.ravel()]
        labels = [f"posterior of datum {index}" for index in range(num_data)] if is_few else ["posterior, all data"]
        panel.hist(
            parts, bins, density=True, stacked=True, color=list(CYCLE[: len(parts)]), alpha=0.5,
            label=labels if first else None,
        )  # fmt: skip
        panel.hist(prior_draws, bins, density=True, histtype="step", color="black", label="prior" if first else None)
        panel.set_title(name, fontsize=9)
        panel.tick_params(labelsize=8)
        plain_axes(panel)
    for panel in panels[len(columns) :]:
        panel.set_visible(False)
    shown = "" if len(columns) == num_in_all else f" (the first {len(columns)} of {num_in_all:,} latents)"
    figure.supxlabel("latent value" + shown, fontsize=10)
    figure.supylabel("density", fontsize=10)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def _starts_at_prior(draws: Draws) -> bool:
    return float(np.asarray(draws.summary["temperatures"])[..., 0].max()) == 0


def _check_tempered(draws: Draws) -> None:
    if "replica" not in draws.sample_stats:
        raise ValueError(
            f"`draws` come from {type(draws.sampler).__name__}, which has no ladder: pass draws of `ParallelTempering`."
        )
