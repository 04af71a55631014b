"""The log-evidence of any NumPyro model with continuous latents, whole or for each datum, by any of several methods."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from numpyro.diagnostics import split_gelman_rubin

from ..kernels.langevin import ULA
from ..model.parameters import Params
from ..model.power_posterior import PowerPosterior, read_power_posterior
from ..sampling.importance_sampling import ImportanceSampling
from ..sampling.psis import pareto_k
from ..sampling.sampler import problem_keys
from ..tempering.parallel_tempering import ParallelTempering
from ..tempering.tempered_smc import TemperedSMC, climb, log_evidence_std_error
from .annealed_importance import AnnealedImportanceSampling
from .nested_sampling import NestedSampling, check_likelihood
from .thermodynamic import (
    LARGEST_PARETO_K,
    Curve,
    Estimate,
    linear_rule,
    steppingstone,
    thermodynamic_curve,
    thermodynamic_integration,
)

if TYPE_CHECKING:
    import xarray

# Draws whose average can be believed, and how far chains may disagree: at few draws R-hat scatters by some hundredths.
_SMALLEST_ESS, _LARGEST_R_HAT = 100, 1.05
# A population whose log-evidence is uncertain by half a nat descends from about four draws of the prior.
_LARGEST_STD_ERROR = 0.5
_LARGEST_DISAGREEMENT = 4.0


@dataclass(frozen=True, eq=False)
class LogEvidence:
    """A log-evidence in nats with its standard error; arrays (N,) with a plate of N data, () without.

    Attributes:
        value: log p(x), natural logarithm.
        std_error: of `value`. Errors of different data are independent.
        is_trustworthy: whether nothing that the method can check about itself speaks against `value`.
        warnings: what does, in words, and what to do about it.
        estimates: by name, all that the same run yields, each with its own error and trust; `value` is the first one.
        curve: mean log-likelihood against temperature, where the method measures it; else None.
        summary: numbers that describe the run, by name, such as `pareto_k` or `num_stages`.
        method: what estimated it.
        plate: name of the plate whose rows are problems of their own.
        seconds: wall time, compilation included.
    """

    value: np.ndarray
    std_error: np.ndarray
    is_trustworthy: np.ndarray
    warnings: tuple[str, ...]
    estimates: dict[str, Estimate]
    curve: Curve | None
    summary: dict[str, np.ndarray]
    method: Any
    plate: str | None
    seconds: float

    def total(self) -> tuple[float, float]:
        """Log-evidence of all data together, and its standard error: the sum over the plate."""
        return float(self.value.sum()), float(np.sqrt(np.square(self.std_error).sum()))

    def to_arviz(self) -> "xarray.DataTree":
        """Convert to a tree with the group `log_evidence`, which ArviZ and xarray read and `.to_netcdf` writes.

        To keep it beside draws: `tree["log_evidence"] = evidence.to_arviz()["log_evidence"]`.
        """
        import xarray

        data = () if self.plate is None else (self.plate,)
        names = list(self.estimates)
        stacked = Estimate(*(np.stack(x) for x in zip(*self.estimates.values(), strict=True)))
        variables = {
            "value": (data, self.value),
            "std_error": (data, self.std_error),
            "is_trustworthy": (data, self.is_trustworthy),
            **{f"estimate_{name}": (("estimator", *data), x) for name, x in stacked._asdict().items()},
            **{name: (data, x) for name, x in self.summary.items()},
        }
        if self.curve is not None:
            names_of_axes = (*data, "temperature")
            variables |= {
                "temperatures": (names_of_axes, self.curve.temperatures),
                "mean_log_likelihood": (names_of_axes, self.curve.mean),
                "mean_log_likelihood_std_error": (names_of_axes, self.curve.std_error),
                "curve_lower": (data, self.curve.lower),
                "curve_upper": (data, self.curve.upper),
            }
        attributes = {
            "inference_library": "kaem_ppl",
            "method": repr(self.method),
            "sampling_time": self.seconds,
            "warnings": "\n".join(self.warnings),
        }
        dataset = xarray.Dataset(variables, coords={"estimator": names}, attrs=attributes)
        return xarray.DataTree.from_dict({"log_evidence": dataset})

    def __str__(self):
        value, std_error = self.total()
        what = "log-evidence" if self.plate is None else f"log-evidence of all {len(self.value)} data"
        numbers = [
            f"{name}: {x.value.sum():.4f} +- {np.sqrt(np.square(x.std_error).sum()):.4f}"
            + ("" if np.all(x.is_trustworthy) else ", not to be trusted")
            for name, x in self.estimates.items()
        ]
        words = [f"! {warning}" for warning in self.warnings] or ["Nothing crossed a threshold."]
        return "\n".join([f"{what}: {value:.4f} +- {std_error:.4f}", *numbers, "", *words])


def log_evidence(
    key: jax.Array,
    model: Callable,
    *args: Any,
    params: Params | None = None,
    method: Any = TemperedSMC(),  # noqa: B008 - a frozen value
    plate: str | None = None,
    num_chains: int = 4,
    num_samples: int = 1000,
    num_warmup: int = 1000,
    progress_bar: bool = True,
    **kwargs: Any,
) -> LogEvidence:
    """Estimate the marginal likelihood, log p(x) = log integral of p(z) p(x | z) dz.

    Without `plate` the model is one problem: the evidence of all its observed sites. With it each row of the plate is a
    problem of its own, as in `sample_posterior`, and all of them are estimated at once.

    Methods:
    - `ParallelTempering`: steppingstone, the value, and thermodynamic integration from one run, with the curve.
    - `TemperedSMC`: the normalising constant of a particle system, unbiased before the logarithm.
    - `AnnealedImportanceSampling`: weights of independent particles, unbiased before the logarithm.
    - `ImportanceSampling`: prior draws; trusted up to a Pareto k-hat of 0.7.
    - `NestedSampling`: reads no gradient and no temperature.

    Args:
        key: PRNG key.
        model: NumPyro model with proper priors and continuous latents.
        *args: its positional arguments.
        params: constrained values of the model's `numpyro.param` sites.
        method: how to estimate.
        plate: name of the plate that holds the data, where each datum is its own problem.
        num_chains: independent chains, populations or runs for each problem, which are averaged.
        num_samples: draws of each chain of `ParallelTempering`, at least 4; other methods hold their own sizes.
        num_warmup: steps before them.
        progress_bar: whether to show progress, with tqdm.
        **kwargs: the model's keyword arguments.

    Raises:
        TypeError: `method` is not one of these.
        ValueError: an argument or the model is not usable, a prior is improper, a ladder does not start at 0, or the
            likelihood is 0 at every prior draw; the message says which and what to do.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import ImportanceSampling, log_evidence
        >>> def model(x):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> evidence = log_evidence(
        ...     jax.random.key(0), model, jnp.array(1.0), method=ImportanceSampling(1000), progress_bar=False
        ... )
        >>> exact = dist.Normal(0, jnp.sqrt(2)).log_prob(1.0)
        >>> bool(abs(evidence.value - exact) < 4 * evidence.std_error)
        True
    """
    for name, value, least in (
        ("num_chains", num_chains, 1), ("num_samples", num_samples, 4), ("num_warmup", num_warmup, 0),
    ):  # fmt: skip
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")
    if not hasattr(method, "coordinates") or estimate.dispatch(type(method)) is estimate.dispatch(object):
        raise TypeError(
            f"`method` must be one of `ParallelTempering()`, `TemperedSMC()`, `AnnealedImportanceSampling()`, "
            f"`ImportanceSampling()` and `NestedSampling()`, got {method!r}."
        )
    started = time.perf_counter()
    posterior = read_power_posterior(model, args, kwargs, params=params, plate=plate, coordinates=method.coordinates)
    if not posterior.has_proper_prior:
        raise ValueError(
            "The prior of this model is flat, scaled or masked in part, so its evidence is not defined: it would change "
            "with the constant that such a prior leaves open. Give every latent a proper prior."
        )
    found = estimate(
        method, key, posterior, num_chains=num_chains, num_samples=num_samples, num_warmup=num_warmup,
        progress_bar=progress_bar,
    )  # fmt: skip
    trust, warnings = _judge(found, posterior)
    estimates, curve, summary = found.estimates, found.curve, found.summary
    name, (value, std_error, own) = next(iter(estimates.items()))
    trust = trust & own
    estimates = {**estimates, name: Estimate(value, std_error, trust)}
    if plate is None:
        one = jax.tree.map(lambda x: np.asarray(x)[0], (value, std_error, trust, estimates, curve, summary))
        value, std_error, trust, estimates, curve, summary = one
    return LogEvidence(
        value, std_error, trust, warnings, estimates, curve, summary, method, plate, time.perf_counter() - started
    )


class Found(NamedTuple):
    """What a method found for N data.

    Attributes:
        estimates: by name, the first one being the method's own.
        curve: None where it is not measured.
        summary: by name, arrays (N,).
        complaints: what speaks against the method's value: where, shape (N,), and a sentence to say about it.
    """

    estimates: dict[str, Estimate]
    curve: Curve | None
    summary: dict[str, np.ndarray]
    complaints: tuple[tuple[np.ndarray, str], ...]


@singledispatch
def estimate(method, key, posterior, *, num_chains, num_samples, num_warmup, progress_bar) -> Found:
    """Estimate the evidence of every datum by a method; its arguments as those of `log_evidence`."""
    raise NotImplementedError


@estimate.register
def _(method: ParallelTempering, key, posterior: PowerPosterior, **settings) -> Found:
    if not method.ladder.starts_at_prior:
        raise ValueError(
            f"The ladder of ParallelTempering must start at 0, the prior, to give an evidence; it starts at "
            f"{method.ladder.temperatures[0]}."
        )
    output = method.sample(key, posterior, **settings)
    l = np.asarray(output.stats["tempered_log_likelihood"], float)
    # Chains of a datum share its ladder. An adapted one ends at 0 and 1 exactly.
    temperatures = np.asarray(output.summary["temperatures"], float)[0]
    curve = thermodynamic_curve(l, temperatures)
    estimates = {
        "steppingstone": steppingstone(l, temperatures),
        "thermodynamic_integration": thermodynamic_integration(l, temperatures),
    }
    rule = method.ladder.quadrature_weights()
    if rule is not None:
        estimates["simpson"] = linear_rule(l, rule)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.where(curve.std_error > 0, l.var((0, 1)) / np.square(curve.std_error), np.inf).min(-1)
    r_hat = _r_hat(l)
    complaints = (
        (
            ~estimates["steppingstone"].is_trustworthy,
            "the weights of some step of the ladder have a Pareto k-hat above 0.7. Give more temperatures, or an "
            "`AdaptedLadder`.",
        ),
        (
            size < _SMALLEST_ESS,
            f"the log-likelihood has fewer than {_SMALLEST_ESS} effective draws at some temperature. Draw longer.",
        ),
        (
            r_hat > _LARGEST_R_HAT,
            f"chains disagree about the log-likelihood, R-hat above {_LARGEST_R_HAT}. Draw longer.",
        ),
        _complain_of_bias(method.kernel, posterior),
    )
    # The first is of steppingstone alone, the others of all estimates.
    bad = np.any([is_bad for is_bad, _ in complaints[1:]], axis=0)
    estimates = {name: x._replace(is_trustworthy=x.is_trustworthy & ~bad) for name, x in estimates.items()}
    summary = {
        "effective_sample_size": size,
        "r_hat": r_hat,
        "communication_barrier": np.asarray(output.summary["communication_barrier"]).mean(0),
    }
    return Found(estimates, curve, summary, complaints)


@estimate.register
def _(method: TemperedSMC, key, posterior: PowerPosterior, *, num_chains, progress_bar, **_) -> Found:
    # Beyond the numbers of chains: the pilot shares no key with the populations that follow it.
    pilot_keys = problem_keys(jax.random.fold_in(key, 2**31), 1, posterior.num_data)
    plan = climb(method, posterior, pilot_keys, progress_bar)[1]
    populations, _ = climb(method, posterior, problem_keys(key, num_chains, posterior.num_data), progress_bar, plan)
    values = np.asarray(populations.log_evidence, float)
    std_errors = np.asarray(log_evidence_std_error(populations.ancestors), float)
    check_likelihood(np.isfinite(values), method.num_particles, posterior)
    result = _average(values, std_errors)
    claimed = np.sqrt(np.square(std_errors).mean(0))
    worst = std_errors.max(0)
    complaints = [
        (
            worst > _LARGEST_STD_ERROR,
            "the particles of some population descend from a handful of prior draws. Take more particles, more mutation "
            "steps, or a higher `target_ess`.",
        ),
        _complain_of_bias(method.kernel, posterior),
    ]
    if len(values) > 1:
        complaints.append(
            (
                values.std(0, ddof=1) > _LARGEST_DISAGREEMENT * claimed + 1e-3,
                "populations disagree by more than their standard errors. Take more particles or more mutation steps.",
            )
        )
    summary = {"num_stages": np.asarray(populations.num_stages).max(0), "largest_std_error": worst}
    return Found({"tempered_smc": result}, None, summary, tuple(complaints))


@estimate.register
def _(method: ImportanceSampling, key, posterior: PowerPosterior, **settings) -> Found:
    output = method.sample(key, posterior, **{**settings, "num_samples": 1})
    summary = {name: np.asarray(x, float) for name, x in output.summary.items()}
    values, k = summary["log_evidence"], summary["pareto_k"].max(0)
    check_likelihood(np.isfinite(values), method.num_particles, posterior)
    size = summary["effective_sample_size"]
    result = _average(values, np.sqrt(np.maximum(1 / size - 1 / method.num_particles, 0)))
    complaint = (
        ~(k <= LARGEST_PARETO_K),
        f"Pareto k-hat is above {LARGEST_PARETO_K}: a few prior draws carry all the weight, and neither the value nor its "
        "standard error can be believed. Use `TemperedSMC` or `ParallelTempering`.",
    )
    return Found(
        {"importance_sampling": result}, None, {"pareto_k": k, "effective_sample_size": size.sum(0)}, (complaint,)
    )


@estimate.register
def _(method: AnnealedImportanceSampling, key, posterior: PowerPosterior, *, num_chains, progress_bar, **_) -> Found:
    weights = np.asarray(method.forward(key, posterior, num_chains=num_chains, progress_bar=progress_bar), float)
    # Chains are but more particles: (C, N, P) to (1, C P, N).
    flat = np.moveaxis(weights, 2, 1).reshape(1, -1, weights.shape[1])
    check_likelihood(np.isfinite(flat).any(1), flat.shape[1], posterior)
    log_sum = np.logaddexp.reduce(flat[0], axis=0)
    size = np.exp(2 * log_sum - np.logaddexp.reduce(2 * flat[0], axis=0))
    value, std_error = log_sum - np.log(flat.shape[1]), np.sqrt(np.maximum(1 / size - 1 / flat.shape[1], 0))
    k = pareto_k(flat)
    result = Estimate(value, std_error, np.isfinite(std_error))
    complaint = (
        ~(k <= LARGEST_PARETO_K),
        f"Pareto k-hat of the weights is above {LARGEST_PARETO_K}: a few particles carry all the weight. Give more "
        "temperatures or more steps.",
    )
    return Found(
        {"annealed_importance_sampling": result}, None, {"pareto_k": k, "effective_sample_size": size}, (complaint,)
    )


@estimate.register
def _(method: NestedSampling, key, posterior: PowerPosterior, *, num_chains, progress_bar, **_) -> Found:
    run = method.run(key, posterior, num_chains=num_chains, progress_bar=progress_bar)
    # The logarithm of the prior mass is what is simulated: runs are averaged there.
    value = run.log_evidence.mean(0)
    std_error = np.sqrt(np.square(run.std_error).sum(0)) / num_chains
    complaints = [
        (
            run.plateau.max(0) > 0,
            "the likelihood is 0 at some prior draws: points of equal likelihood have no order, so the shrinkage of the "
            "prior mass is not known. Use `TemperedSMC`.",
        )
    ]
    if num_chains > 1:
        complaints.append(
            (
                run.log_evidence.std(0, ddof=1) > _LARGEST_DISAGREEMENT * run.std_error.mean(0),
                "runs disagree by more than their standard errors: replacements stay close to the points they start from. "
                "Raise `num_slice_steps`.",
            )
        )
    summary = {"information": run.information.mean(0), "num_iterations": run.num_iterations.max(0)}
    return Found({"nested_sampling": Estimate(value, std_error, np.isfinite(value))}, None, summary, tuple(complaints))


def _complain_of_bias(kernel, posterior):
    return (
        np.full(posterior.num_data, isinstance(kernel, ULA)),
        "the kernel is ULA, whose draws have a bias of the order of its step that no standard error shows. Use `MALA`.",
    )


def _average(values, std_errors):
    """The mean of evidences that are unbiased before the logarithm, (C, N), and its error by the delta method."""
    total = np.logaddexp.reduce(values, axis=0)
    shares = np.exp(values - total)
    std_error = np.sqrt(np.square(shares * std_errors).sum(0))
    return Estimate(total - np.log(len(values)), std_error, np.isfinite(std_error))


def _r_hat(l):
    """Largest over the temperatures above 0, (C, S, N, R) to (N,); where nothing moves, 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        r_hat = split_gelman_rubin(l[..., 1:])
    return np.where(np.isfinite(r_hat), r_hat, 1.0).max(-1)


def _judge(found, posterior):
    trust, warnings = np.ones(posterior.num_data, bool), []
    for is_bad, words in found.complaints:
        trust &= ~is_bad
        if is_bad.any():
            where = ""
            if posterior.plate is not None:
                numbers = np.flatnonzero(is_bad)
                where = f"For {len(numbers)} of {len(is_bad)} data, {numbers[:5].tolist()}"
                where += " and others, " if len(numbers) > 5 else ", "
            warnings.append((where + words)[:1].upper() + (where + words)[1:])
    return trust, tuple(warnings)
