"""Plots of evidence: the thermodynamic curve, bidirectional bounds, and estimators side by side."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kaem_ppl.plot_style import CONTRAST, MAIN, NEUTRAL, plain_axes

from .evidence_bounds import LogEvidenceBounds
from .log_evidence import LogEvidence


def plot_thermodynamic_curve(evidence: LogEvidence, *, datum: int = 0) -> Figure:
    """Mean log-likelihood against temperature; the area under the curve is the log-evidence.

    The steps are the Riemann sums that bracket the area. Bars are two standard errors. The vertical axis shows the curve,
    from where it has left the steep part near the prior; what lies below is named, and the area is filled where zero, to
    which it reaches, is in the picture.

    Args:
        evidence: of `log_evidence` by `ParallelTempering`.
        datum: which datum, with a plate.

    Returns:
        The figure; save it with `figure.savefig(path)`.

    Raises:
        ValueError: the method measured no curve.
        IndexError: there is no such datum.
    """
    if evidence.curve is None:
        raise ValueError(
            f"`evidence` comes from {type(evidence.method).__name__}, which measures no curve: use `ParallelTempering`."
        )
    curve = evidence.curve if evidence.plate is None else type(evidence.curve)(*(x[datum] for x in evidence.curve))
    area = evidence.estimates["thermodynamic_integration"]
    value, std_error = (np.asarray(x)[() if evidence.plate is None else datum] for x in area[:2])

    figure = Figure(figsize=(5.8, 3.6), layout="constrained")
    panel = figure.subplots()
    t, mean = curve.temperatures, curve.mean
    panel.errorbar(t, mean, 2 * curve.std_error, color=MAIN, marker="o", markersize=3.5, linewidth=1.4)
    # Near the prior the curve may fall by thousands of nats on a sliver of the axis.
    shown = mean[t >= 0.02] if (t >= 0.02).sum() > 1 else mean
    span = max(np.ptp(shown), 1e-3)
    low, high = min(shown.min() - 0.5 * span, mean[-1] - span), mean.max() + 0.15 * span
    if low - 1.5 * span < 0 < high + 1.5 * span:
        low, high = min(low, 0.0), max(high, 0.0)
    label = f"area {value:.2f} ± {std_error:.2f}"
    if low <= 0 <= high:
        panel.fill_between(t, mean, 0, color=MAIN, alpha=0.15, linewidth=0, label=label)
        panel.axhline(0, color=NEUTRAL, linewidth=0.6)
    else:
        panel.plot([], [], " ", label=f"{label}, down to 0" if low > 0 else f"{label}, up to 0")
    panel.stairs(mean[:-1], t, baseline=None, color=NEUTRAL, linewidth=0.9, label=f"lower sum {curve.lower:.2f}")
    panel.stairs(
        mean[1:], t, baseline=None, color=NEUTRAL, linewidth=0.9, linestyle="--", label=f"upper sum {curve.upper:.2f}"
    )
    notes = [] if evidence.plate is None else [f"datum {datum} of {len(np.atleast_1d(evidence.value))}"]
    notes += [f"{mean[0]:.4g} nats at temperature 0"] if mean.min() < low else []
    panel.set_title("; ".join(notes), fontsize=9, loc="left")
    panel.set_ylim(low, high)
    panel.set_xlim(0, 1)
    panel.set_xlabel("temperature (exponent of the likelihood)")
    panel.set_ylabel("mean log-likelihood (nats)")
    plain_axes(panel)
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    return figure


def plot_bounds(bounds: LogEvidenceBounds) -> Figure:
    """The sandwich: for each datum the stochastic lower and upper bound, two standard errors on either side.

    Data are ordered by the middle of their bounds.

    Args:
        bounds: of `bound_log_evidence`.

    Returns:
        The figure.
    """
    lower, lower_error, upper, upper_error = (np.atleast_1d(x) for x in bounds[:4])
    order = np.argsort(lower + upper)
    middle = 0.5 * (lower + upper)[order]

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    panel = figure.subplots()
    place = np.arange(len(order))
    parts = ((upper, upper_error, CONTRAST, "upper, reverse"), (lower, lower_error, MAIN, "lower, forward"))
    for bound, error, color, label in parts:
        panel.errorbar(
            place, bound[order] - middle, 2 * error[order], color=color, marker="o", markersize=3, linestyle="none",
            elinewidth=0.8, label=label,
        )  # fmt: skip
    panel.axhline(0, color=NEUTRAL, linewidth=0.6)
    panel.set_xlabel("datum, by log-evidence")
    panel.set_ylabel("bound, from the middle (nats)")
    panel.set_title(f"mean gap {np.mean(upper - lower):.2f} nats", fontsize=10)
    plain_axes(panel)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def plot_estimates(evidences: Mapping[str, LogEvidence], *, exact: float | None = None) -> Figure:
    """Estimators side by side, each with bars of two standard errors; hollow where it does not trust itself.

    Those that trust themselves come first, and of these the most precise. With a plate the log-evidences of the data are
    added.

    Args:
        evidences: by name; all estimates of each are shown.
        exact: the true log-evidence, where it is known.

    Returns:
        The figure.

    Raises:
        ValueError: there are none.
    """
    if not evidences:
        raise ValueError("`evidences` is empty: give at least one result of `log_evidence` by name.")
    rows = []
    for name, evidence in evidences.items():
        for estimator, found in evidence.estimates.items():
            label = name if len(evidence.estimates) == 1 else f"{name}: {estimator.replace('_', ' ')}"
            trust = bool(np.all(found.is_trustworthy))
            rows.append((label, *evidence.total(estimator), trust))

    rows.sort(key=lambda row: (not row[3], row[2]))
    figure = Figure(figsize=(6.4, 1.2 + 0.32 * len(rows)), layout="constrained")
    panel = figure.subplots()
    for place, (_, value, std_error, trust) in enumerate(rows):
        panel.errorbar(
            value, place, xerr=2 * std_error, color=MAIN, marker="o", markersize=5, linewidth=1.4,
            markerfacecolor=MAIN if trust else "white",
        )  # fmt: skip
    if exact is not None:
        panel.axvline(exact, color=CONTRAST, linewidth=1, label="exact")
    for is_trusted, label in ((True, "passes its checks"), (False, "fails a check")):
        if any(row[3] == is_trusted for row in rows):
            face = MAIN if is_trusted else "white"
            panel.plot([], [], "o", color=MAIN, markersize=5, markerfacecolor=face, label=label)
    panel.plot([], [], color=MAIN, linewidth=1.4, label="two standard errors")
    figure.legend(loc="outside upper right", ncols=4, frameon=False, fontsize=8)
    panel.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    numbers = {len(np.atleast_1d(evidence.value)) for evidence in evidences.values() if evidence.plate is not None}
    of_data = f" of {numbers.pop()} data together" if len(numbers) == 1 else ""
    panel.set_xlabel(f"log-evidence{of_data} (nats)")
    panel.locator_params(axis="x", nbins=5)
    plain_axes(panel)
    return figure
