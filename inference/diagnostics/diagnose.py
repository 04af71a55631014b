"""Convergence diagnostics: whether draws pass the thresholds of `limits`, and which fail."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..sampling.draws import Draws
from .exchange import check_exchange, describe_disagreement
from .findings import Findings, array_stats
from .limits import (
    LARGEST_DEVIATION_ERROR,
    LARGEST_MOVE_CORRELATION,
    LARGEST_PARETO_K,
    LARGEST_POPULATION_STD_ERROR,
    LARGEST_R_HAT,
    LARGEST_VARIANCE_BIAS,
    SMALLEST_BFMI,
    SMALLEST_DISAGREEMENT_P,
    SMALLEST_ESS_PER_CHAIN,
    disagreement_p,
)
from .missed_modes import check_missed_modes
from .spread import error_of_deviation
from .tails import check_tails

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        table: a row for each latent site with the worst of its elements: `r_hat` (rank-normalised, split), `ess_bulk`,
            `ess_tail`, `ess_per_second`, and `worst`, the element with the largest R-hat. Seconds are `Draws.seconds`, with
            those of compiling where there is no warm-up: compare weighted samplers by their second call.
        run: numbers that concern the run, by name, those that apply to the sampler: `divergences`, `bfmi`,
            `acceptance_rate`, `max_tree_depth_hits`, `swap_rate` (mean of each pair), `round_trips` (fewest of any chain
            and datum), `communication_barrier`, `recommended_num_temperatures`, `ess_per_temperature` (of the
            log-likelihood), `pareto_k`, `num_stages`, `move_correlation`, `log_evidence`, `variance_bias`, `missed_mass`
            (of the posterior beyond the reach of the draws, by prior draws; NaN where that was not looked at).
        warnings: what crossed a limit, in words, and what to do about it.
        checks: by name of a check, whether it was passed.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import diagnose, ImportanceSampling, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, sampler=ImportanceSampling(), progress_bar=False)
        >>> diagnosis = diagnose(draws)
        >>> diagnosis.table.index.tolist(), float(diagnosis.table["r_hat"].iloc[0]) < 1.01, sorted(diagnosis.checks)[:2]
        (['z'], True, ['Pareto k-hat', 'R-hat'])
    """

    table: "pandas.DataFrame"
    run: dict[str, Any]
    warnings: tuple[str, ...]
    checks: dict[str, bool]

    def __str__(self) -> str:
        numbers = [f"{name}: {_format(value)}" for name, value in self.run.items()]
        words = [f"! {warning}" for warning in self.warnings] or ["Nothing crossed a threshold."]
        return "\n".join(
            [self.table.to_string(float_format=lambda x: f"{x:.4g}"), "", *numbers, "", *words, say_passed(self.checks)]
        )


def say_passed(checks: dict[str, bool]) -> str:
    """Which checks were passed, and what none of them can see."""
    passed = [name for name, is_passed in checks.items() if is_passed]
    what = f"Passed: {', '.join(passed)}." if passed else "None of its checks was passed."
    return f"{what} No check can see a mode that no chain, particle or prior draw has reached."


def diagnose(draws: Draws, *, progress_bar: bool = True) -> Diagnosis:
    """Say whether draws can be trusted, and if not, why.

    Chains that agree are no proof: all of them may have missed the same mode. The model is run at up to 1,000 draws of the
    prior, which find such a mode where they fall into it.

    Args:
        draws: of `sample_posterior`.
        progress_bar: whether to show the progress of what takes longer than a second.

    Raises:
        TypeError: `draws` did not come from `sample_posterior`.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import diagnose, ImportanceSampling, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, sampler=ImportanceSampling(), progress_bar=False)
        >>> diagnosis = diagnose(draws)
        >>> diagnosis.warnings, all(diagnosis.checks.values())
        ((), True)
    """
    import pandas

    if not isinstance(draws, Draws):
        raise TypeError(
            f"`draws` must be what `sample_posterior` returned, got {type(draws).__name__}: pass the result itself rather "
            "than its `.samples`."
        )
    report = Findings()
    apart = describe_disagreement(draws)
    circular = {site.name for site in draws.posterior.latents if site.is_circular}
    rows = {
        name: _row(name, np.asarray(x), draws, report, apart, is_circular=name in circular)
        for name, x in draws.samples.items()
        if np.size(x)
    }
    if draws.num_chains == 1:
        report.warnings.append(
            "There is one chain: halves of it are compared, which hides a mode it never left. Use four."
        )
    stats = {name: np.asarray(value) for name, value in draws.sample_stats.items()}
    summary = {name: np.asarray(value) for name, value in draws.summary.items()}
    report.run["seconds"] = draws.seconds
    if "acceptance_rate" in stats:
        report.run["acceptance_rate"] = float(stats["acceptance_rate"].mean())
    _check_hamiltonian(report, stats, getattr(draws.sampler, "max_tree_depth", None))
    check_tails(report, draws, stats)
    sizes = np.array([row["ess_bulk"] for row in rows.values()])
    check_missed_modes(report, draws, stats, _least(sizes), progress_bar)
    if "swap_acceptance" in stats:
        check_exchange(report, stats, summary)
    _check_weights(report, summary)
    _check_bias(report, draws, summary)
    table = pandas.DataFrame.from_dict(rows, orient="index")
    return Diagnosis(table, report.run, tuple(report.warnings), report.checks)


def _row(
    name: str, x: np.ndarray, draws: Draws, report: Findings, apart: str, *, is_circular: bool = False
) -> dict[str, Any]:
    stats = array_stats()

    report.check(
        "finite draws",
        bool(np.isfinite(x).all()),
        f"{name!r} has draws that are not finite. Check the model's scales, or work in x64: "
        "`jax.config.update('jax_enable_x64', True)`.",
    )
    elements = x.reshape(*x.shape[:2], -1)
    if is_circular:
        # Angles near -pi and near pi are neighbours. Of both numbers the worse one counts.
        elements = np.stack([np.cos(elements), np.sin(elements)], -1).reshape(*x.shape[:2], -1)
    r_hat, bulk, tail = (np.full(elements.shape[2], np.nan) for _ in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        if x.shape[1] >= 4:
            # ArviZ compares chains; the halves of one are two.
            half = x.shape[1] // 2
            chains = elements if len(elements) > 1 else np.concatenate([elements[:, :half], elements[:, -half:]])
        if x.shape[1] >= 4 and chains.shape[1] >= 4:
            r_hat = np.asarray(stats.rhat(chains, chain_axis=0, draw_axis=1))
        if x.shape[1] >= 4:
            bulk = np.asarray(stats.ess(elements, chain_axis=0, draw_axis=1, method="bulk"))
            tail = np.asarray(stats.ess(elements, chain_axis=0, draw_axis=1, method="tail", prob=(0.05, 0.95)))
    if is_circular:
        r_hat = r_hat.reshape(-1, 2).max(-1)
        bulk, tail = bulk.reshape(-1, 2).min(-1), tail.reshape(-1, 2).min(-1)
    if "effective_sample_size" in draws.summary:
        # Draws that were resampled by weight are worth no more than the weights.
        size = np.asarray(draws.summary["effective_sample_size"]).sum(0).min()
        bulk, tail = np.fmin(bulk, size), np.fmin(tail, size)
    # NaN stands for an element that no chain has moved, which is the worst.
    worst = int(np.argmax(np.where(np.isnan(r_hat), np.inf, r_hat)))
    place = _place(worst, x.shape[2:])
    count = int((~(r_hat <= LARGEST_R_HAT)).sum())
    report.check(
        "R-hat",
        count == 0,
        f"{name}{place} did not move, or has too few draws for its diagnostics."
        if np.isnan(r_hat[worst])
        else f"R-hat of {name}{place} is {r_hat[worst]:.3f}, above {LARGEST_R_HAT} ({count} of {len(r_hat)} elements): "
        f"chains disagree about it. {apart}",
    )
    least = _least(np.concatenate([bulk, tail]))
    wanted = SMALLEST_ESS_PER_CHAIN * draws.num_chains
    report.check(
        "effective sample size",
        not least < wanted,
        f"The effective sample size of {name!r} falls to {least:.0f}, below {wanted} ({SMALLEST_ESS_PER_CHAIN} for "
        "each chain): means and quantiles are rough. Draw longer.",
    )
    if np.issubdtype(x.dtype, np.floating) and not is_circular:
        # Where an effective size is unknown or a draw is infinite, other checks say so.
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.nan_to_num(error_of_deviation(elements, np.fmin(bulk, tail)), nan=0.0, posinf=0.0)
        worst_error = int(np.argmax(error))
        report.check(
            "standard deviation",
            error[worst_error] <= LARGEST_DEVIATION_ERROR,
            f"The standard deviation of {name}{_place(worst_error, x.shape[2:])} is known to {error[worst_error]:.0%} "
            f"only, above {LARGEST_DEVIATION_ERROR:.0%}: few values far out carry it, so that its mean and the error of "
            "its mean are rough. Draw longer, or report quantiles.",
        )
    return {
        "r_hat": r_hat[worst],
        "ess_bulk": _least(np.asarray(bulk)),
        "ess_tail": _least(np.asarray(tail)),
        "ess_per_second": _least(bulk) / draws.seconds,
        "worst": f"{name}{place}",
    }


def _least(x: np.ndarray) -> float:
    return float(np.nanmin(x)) if np.isfinite(x).any() else np.nan


def _place(index: int, shape: tuple[int, ...]) -> str:
    return f"[{', '.join(str(i) for i in np.unravel_index(index, shape))}]" if shape else ""


def _check_hamiltonian(report: Findings, stats: dict[str, np.ndarray], largest_depth: int | None) -> None:
    if "diverging" in stats:
        number = report.run["divergences"] = int(stats["diverging"].sum())
        report.check(
            "divergences",
            number == 0,
            f"{number} of {stats['diverging'].size} steps diverged: the step is too long for the narrowest "
            "part of the posterior, which is then visited too rarely. Raise `target_acceptance` or take a smaller "
            "`step_size`, or reparameterise the model, for example by `LocScaleReparam` or `InverseTransformReparam`.",
            is_cause=True,
        )
    if "diverging" in stats and "energy" in stats and stats["energy"].shape[1] >= 4 and "n_steps" in stats:
        energy = np.moveaxis(stats["energy"].reshape(*stats["energy"].shape[:2], -1), 2, 0)
        bfmi = report.run["bfmi"] = float(np.min(array_stats().bfmi(energy)))
        report.check(
            "BFMI",
            bfmi >= SMALLEST_BFMI,
            f"BFMI is {bfmi:.2g}, below {SMALLEST_BFMI}: momenta hardly change the energy, so heavy tails are "
            "explored slowly. Reparameterise the model, or draw longer.",
        )
    if "tree_depth" in stats and largest_depth is not None:
        number = report.run["max_tree_depth_hits"] = int((stats["tree_depth"] >= largest_depth).sum())
        report.check(
            "tree depth",
            number == 0,
            f"{number} trajectories reached `max_tree_depth`: they were cut before they turned. "
            "Raise it, or rescale the model.",
        )


def _check_weights(report: Findings, summary: dict[str, np.ndarray]) -> None:
    """Facts of samplers that weigh particles."""
    run = report.run
    if "pareto_k" in summary:
        k = run["pareto_k"] = float(summary["pareto_k"].max())
        share = float((~(summary["pareto_k"] <= LARGEST_PARETO_K)).mean())
        report.check(
            "Pareto k-hat",
            share == 0,
            f"Pareto k-hat is {k:.2g}, above {LARGEST_PARETO_K} (in {share:.0%} of chains and data): a "
            "few draws carry all the weight, and more of them hardly help. Use `TemperedSMC` or a Markov kernel.",
        )
    if "num_stages" in summary:
        run["num_stages"] = int(summary["num_stages"].max())
    if "move_correlation" in summary:
        correlation = run["move_correlation"] = float(summary["move_correlation"].max())
        report.check(
            "moves of particles",
            correlation <= LARGEST_MOVE_CORRELATION,
            f"At some temperature the particles keep a correlation of {correlation:.2g} with where they were before their "
            f"moves, above {LARGEST_MOVE_CORRELATION}: they do not follow the posterior yet. Raise `max_mutation_steps` or "
            "`num_mutation_steps`, or reparameterise the model.",
        )
    if "log_evidence" in summary:
        run["log_evidence"] = summary["log_evidence"].mean(0)
    if "log_evidence_std_error" in summary:
        values, errors = summary["log_evidence"].astype(float), summary["log_evidence_std_error"].astype(float)
        report.check(
            "agreement of populations",
            bool((disagreement_p(values, errors) >= SMALLEST_DISAGREEMENT_P).all()),
            f"Populations disagree about the log-evidence by more than their standard errors (it spreads by "
            f"{np.ptp(values, axis=0).max():.2g} nats): they have not found the same posterior. Take more particles or "
            "more mutation steps.",
        )
    if "log_evidence_std_error" in summary and "move_correlation" in summary:
        errors = summary["log_evidence_std_error"].astype(float)
        report.check(
            "ancestry",
            bool((errors <= LARGEST_POPULATION_STD_ERROR).all()),
            "The particles of some population descend from a handful of prior draws. Take more particles, or a higher "
            "`target_ess`.",
        )


def _check_bias(report: Findings, draws: Draws, summary: dict[str, np.ndarray]) -> None:
    """What an unadjusted sampler adds to the variance, where it is one.

    For a normal posterior of variance v the Euler scheme of step eta has the variance s = v / (1 - eta / (2 v)), so that
    v = (s + sqrt(s^2 - 2 s eta)) / 2.
    """
    if draws.sampler.is_exact:
        return
    bias = np.inf
    if "step_size" in summary:
        step_size = float(summary["step_size"].max())
        spread = [np.asarray(x, float).reshape(-1, *x.shape[2:]).var(0).ravel() for x in draws.positions.values()]
        s = np.concatenate(spread)
        root = np.square(s) - 2 * s * step_size
        if (root > 0).all():
            bias = float(np.max(2 * s / (s + np.sqrt(root)) - 1))
    report.run["variance_bias"] = bias
    report.check(
        "bias of the sampler",
        bias <= LARGEST_VARIANCE_BIAS,
        f"The sampler is not corrected by a Metropolis step: were the posterior normal, its draws would have a variance up "
        f"to {bias:.1%} too large, which no other number here shows. Take a smaller `step_size`, or `MALA`.",
    )


def _format(value: Any) -> str:
    return np.array2string(np.asarray(value), precision=3, threshold=12) if np.ndim(value) else f"{value:.4g}"
