"""Each evidence method (tempering, nested sampling, importance sampling): its estimate and its own checks."""

from functools import singledispatch
from typing import Any

import jax
import numpy as np

from ..diagnostics.limits import (
    LARGEST_BRIDGE_STD_ERROR,
    LARGEST_MOVE_CORRELATION,
    LARGEST_PARETO_K,
    LARGEST_POPULATION_STD_ERROR,
    LARGEST_R_HAT_OF_MEAN,
    SMALLEST_ESS_OF_MEAN,
)
from ..model.power_posterior import PowerPosterior
from ..sampling.checks import check_likelihood
from ..sampling.draws import Draws
from ..sampling.importance.importance_sampling import ImportanceSampling
from ..sampling.run import Run
from ..sampling.sampler import problem_keys
from ..tempering.fitted_reference import from_reference
from ..tempering.parallel_tempering import ParallelTempering
from ..tempering.population import run_populations
from ..tempering.tempered_smc import TemperedSMC, log_evidence_std_error
from .annealed_importance import AnnealedImportanceSampling
from .bridge_sampling import BridgeSampling, check_draws, run_bridge
from .checks import (
    Check,
    MethodResult,
    check_agreement,
    check_kernel,
    check_number,
    check_prior_draws,
    check_sampler,
    r_hat_of_coordinates,
    r_hat_of_mean,
)
from .importance_evidence import NUM_BATCHES, WeightSummary, summarize, weigh_prior_draws, weigh_proposal_draws
from .log_bias import bias_of_log_estimate, bias_of_log_mean
from .nested_sampling import NestedSampling
from .thermodynamic import Estimate, linear_rule, steppingstone, thermodynamic_curve, thermodynamic_integration


@singledispatch
def estimate(
    method: Any,
    key: jax.Array,
    posterior: PowerPosterior,
    *,
    num_chains: int,
    num_samples: int,
    num_warmup: int,
    run: Run,
) -> MethodResult:
    """Estimate the evidence of every datum by a method; its arguments as those of `log_evidence`."""
    raise NotImplementedError


def is_method(value: Any) -> bool:
    """Whether a value is a method that `estimate` knows."""
    return hasattr(value, "coordinates") and estimate.dispatch(type(value)) is not estimate.dispatch(object)


@estimate.register
def _(method: ParallelTempering, key: jax.Array, posterior: PowerPosterior, **settings: Any) -> MethodResult:
    if not method.ladder.starts_at_prior:
        raise ValueError(
            f"`ladder` must start at 0, the prior, where ParallelTempering is to give an evidence, got "
            f"{method.ladder.temperatures[0]} first."
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
    if rule is not None and len(rule) == temperatures.shape[-1]:
        estimates["simpson"] = linear_rule(l, rule)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.where(curve.std_error > 0, l.var((0, 1)) / np.square(curve.std_error), np.inf).min(-1)
    r_hat = r_hat_of_mean(l)
    position = [np.asarray(x).reshape(*x.shape[:3], -1) for x in output.positions.values()]
    moves = np.any([x.min(1) < x.max(1) for x in position for x in np.moveaxis(x, -1, 0)], axis=0).all(0)
    common = (
        Check(
            "chains that move",
            ~moves,
            "some chain never moved: no step was accepted, so its draws have no spread to tell an error by. Take a smaller "
            "`step_size`, or let warm-up find it.",
        ),
        Check(
            "effective draws at each temperature",
            size < SMALLEST_ESS_OF_MEAN,
            f"the log-likelihood has fewer than {SMALLEST_ESS_OF_MEAN} effective draws at some temperature. Draw longer.",
        ),
        Check(
            "R-hat at each temperature",
            r_hat > LARGEST_R_HAT_OF_MEAN,
            f"chains disagree about the log-likelihood at some temperature, R-hat above {LARGEST_R_HAT_OF_MEAN}. Draw "
            "longer.",
        ),
        check_kernel(method.kernel, posterior),
    )
    own = Check(
        "Pareto k-hat of each step",
        ~estimates["steppingstone"].is_trustworthy,
        f"the weights of some step of the ladder have a Pareto k-hat above {LARGEST_PARETO_K}. Give more temperatures, or "
        "an `AdaptedLadder`.",
    )
    bad = np.any([check.failed for check in common], axis=0)
    estimates = {name: x._replace(is_trustworthy=x.is_trustworthy & ~bad) for name, x in estimates.items()}
    summary = {
        "effective_sample_size": size,
        "r_hat": r_hat,
        "communication_barrier": np.asarray(output.summary["communication_barrier"]).mean(0),
        "num_temperatures": np.full(posterior.num_data, temperatures.shape[-1]),
    }
    return MethodResult(estimates, curve, summary, (own, *common))


@estimate.register
def _(
    method: TemperedSMC, key: jax.Array, posterior: PowerPosterior, *, num_chains: int, run: Run, **_: Any
) -> MethodResult:
    posterior = from_reference(posterior, method.reference, method.coordinates, "TemperedSMC")
    # Beyond the numbers of chains: the pilot shares no key with the populations that follow its schedule.
    pilot_keys = problem_keys(jax.random.fold_in(key, 2**31), 1, posterior.num_data)
    keys = problem_keys(key, num_chains, posterior.num_data)
    schedule = run_populations(method, posterior, pilot_keys, run, name="the pilot")[1]
    populations, stages = run_populations(method, posterior, keys, run, schedule)
    values = np.asarray(populations.log_evidence, float)
    std_errors = np.asarray(log_evidence_std_error(populations), float)
    check_likelihood(np.isfinite(values), method.num_particles, posterior)
    worst, correlation = std_errors.max(0), np.asarray(stages.correlation).max((0, 2))
    checks = (
        Check(
            "ancestry of particles",
            ~(worst <= LARGEST_POPULATION_STD_ERROR),
            "the particles of some population descend from a handful of prior draws. Take more particles, or a higher "
            "`target_ess`.",
        ),
        Check(
            "moves of particles",
            ~(correlation <= LARGEST_MOVE_CORRELATION),
            f"at some temperature the particles keep a correlation above {LARGEST_MOVE_CORRELATION} with where they were "
            "before their moves. Raise `max_mutation_steps`, or reparameterise the model.",
        ),
        check_agreement(values, std_errors, "populations", "Take more particles or more mutation steps."),
        check_number(method.num_particles * num_chains, posterior),
        check_kernel(method.kernel, posterior),
    )
    summary = {
        "num_stages": np.asarray(populations.num_stages).max(0),
        "largest_std_error": worst,
        "move_correlation": correlation,
    }
    found = _average(values, std_errors)
    if method.num_particles == 1:
        # A particle by itself has no relatives to tell its error by.
        found = found._replace(std_error=np.full_like(found.value, np.nan), is_trustworthy=np.zeros(worst.shape, bool))
    return MethodResult({"tempered_smc": found}, None, summary, checks)


@estimate.register
def _(
    method: ImportanceSampling,
    key: jax.Array,
    posterior: PowerPosterior,
    *,
    num_chains: int,
    run: Run,
    **_: Any,
) -> MethodResult:
    # Chains are but more draws.
    number = method.num_particles * num_chains
    if method.proposal is None:
        found = weigh_prior_draws(key, posterior, number, run)
    else:
        found = weigh_proposal_draws(key, posterior, method.proposal, number, run)
    check_likelihood(np.isfinite(found.value)[None], number, posterior)
    check = Check(
        "Pareto k-hat",
        ~(found.pareto_k <= LARGEST_PARETO_K),
        f"Pareto k-hat is above {LARGEST_PARETO_K}: a few draws carry all the weight, and neither the value nor its "
        "standard error can be trusted. Use `TemperedSMC` or `ParallelTempering`.",
    )
    return _of_weights("importance_sampling", found, (check,))


@estimate.register
def _(method: BridgeSampling, key: jax.Array, posterior: PowerPosterior, *, draws: Draws, **_: Any) -> MethodResult:
    check_draws(draws, posterior)
    found = run_bridge(key, posterior, draws)
    value = np.logaddexp(*found.values) - np.log(2)
    std_error = np.sqrt(np.square(found.std_errors).sum(0)) / 2
    r_hat = r_hat_of_coordinates(draws)
    checks = (
        Check(
            "effective draws of the bridge",
            ~(found.effective_sample_size >= SMALLEST_ESS_OF_MEAN),
            f"the bridge has fewer than {SMALLEST_ESS_OF_MEAN} effective draws of the posterior on one side. Draw longer.",
        ),
        Check(
            "R-hat of coordinates",
            ~(r_hat <= LARGEST_R_HAT_OF_MEAN),
            f"chains disagree about some coordinate, R-hat above {LARGEST_R_HAT_OF_MEAN}: they sit in separate modes, or "
            "are too short. Use `TemperedSMC` or `ParallelTempering`, or draw longer.",
        ),
        Check(
            "overlap with the proposal",
            ~(found.std_errors.max(0) <= LARGEST_BRIDGE_STD_ERROR),
            f"the standard error from one half of the draws is above {LARGEST_BRIDGE_STD_ERROR}: the posterior is far from "
            "normal, as where it has several modes, or has too many coordinates for the draws. Draw longer, or use "
            "`TemperedSMC`.",
        ),
        check_agreement(found.values, found.std_errors, "halves of the draws", "Draw longer."),
        check_prior_draws(key, posterior, draws.num_chains * draws.num_samples, value, std_error),
        check_sampler(draws.sampler, posterior),
    )
    summary = {
        "effective_sample_size": found.effective_sample_size,
        "r_hat": r_hat,
        "largest_std_error": found.std_errors.max(0),
    }
    # The bias is that of a quotient of means, of either sign, and of the order of half the variance.
    common_error = -bias_of_log_estimate(std_error)
    estimate = Estimate(value, std_error, np.isfinite(value + std_error), common_error=common_error)
    return MethodResult({"bridge_sampling": estimate}, None, summary, checks)


@estimate.register
def _(
    method: AnnealedImportanceSampling,
    key: jax.Array,
    posterior: PowerPosterior,
    *,
    num_chains: int,
    run: Run,
    **_: Any,
) -> MethodResult:
    annealed = method.forward(key, posterior, num_chains=num_chains, run=run)
    weights = annealed.log_weights.astype(float)
    # Chains are but more particles: (C, N, P) to (1, C P, N).
    flat = np.moveaxis(weights, 2, 1).reshape(1, -1, weights.shape[1])
    check_likelihood(np.isfinite(flat).any(1), flat.shape[1], posterior)
    batches = [x.T for x in np.array_split(flat[0], min(NUM_BATCHES, flat.shape[1]))]
    found = summarize(iter(batches), flat.shape[1], are_shared=False)
    # Particles that start at the same draw count as one, and all of a chain share its estimate of how many draws may start.
    copies = method.num_particles / annealed.num_different.min(0)
    variance = np.square(found.std_error) * copies + annealed.share_variance.mean(0) / num_chains
    found = found._replace(std_error=np.sqrt(variance))
    if flat.shape[1] == 1:
        # One weight has no spread to judge it by.
        found = found._replace(std_error=np.full_like(found.std_error, np.nan))
    check = Check(
        "Pareto k-hat",
        ~(found.pareto_k <= LARGEST_PARETO_K),
        f"Pareto k-hat of the weights is above {LARGEST_PARETO_K}: a few particles carry all the weight. Give more "
        "temperatures or more steps.",
    )
    return _of_weights("annealed_importance_sampling", found, (check, check_number(flat.shape[1], posterior)))


@estimate.register
def _(
    method: NestedSampling, key: jax.Array, posterior: PowerPosterior, *, num_chains: int, run: Run, **_: Any
) -> MethodResult:
    found = method.run(key, posterior, num_chains=num_chains, run=run)
    # The logarithm of the prior mass is what is simulated: runs are averaged there.
    value = found.log_evidence.mean(0)
    claimed = np.sqrt(np.square(found.std_error).sum(0)) / num_chains
    # Modes get their live points by chance, which no shrinkage shows; runs that differ do.
    spread = found.log_evidence.std(0, ddof=1) / np.sqrt(num_chains) if num_chains > 1 else claimed
    std_error = np.maximum(claimed, spread)
    advice = "Replacements stay close to the points they start from: raise `num_slice_steps`."
    checks = (check_agreement(found.log_evidence, found.std_error, "runs", advice),)
    summary = {"information": found.information.mean(0), "num_iterations": found.num_iterations.max(0)}
    estimates = {"nested_sampling": Estimate(value, std_error, np.isfinite(value))}
    return MethodResult(estimates, None, summary, checks)


def _of_weights(name: str, found: WeightSummary, checks: tuple[Check, ...]) -> MethodResult:
    """An estimate that is the mean of independent weights."""
    few = Check(
        "effective draws of the weights",
        ~(found.std_error <= LARGEST_POPULATION_STD_ERROR),
        f"the standard error is above {LARGEST_POPULATION_STD_ERROR} nats, so that about four draws carry all the weight "
        "and it is no measure of the error. Use `TemperedSMC` or `ParallelTempering`.",
    )
    checks = (*checks, few)
    summary = {"pareto_k": found.pareto_k, "effective_sample_size": found.effective_sample_size}
    estimate, std_error_of_sum = Estimate(found.value, found.std_error, np.isfinite(found.std_error)), None
    if found.log_bias is not None:
        bias, common_error, std_error_of_sum = found.log_bias
        estimate = estimate._replace(bias=bias, common_error=common_error)
    return MethodResult({name: estimate}, None, summary, checks, std_error_of_sum)


def _average(values: np.ndarray, std_errors: np.ndarray) -> Estimate:
    """The mean of evidences that are unbiased before the logarithm, (C, N), and its error by the delta method."""
    total = np.logaddexp.reduce(values, axis=0)
    shares = np.exp(values - total)
    std_error = np.sqrt(np.square(shares * std_errors).sum(0))
    bias = bias_of_log_estimate(std_error)
    if len(values) > 1:
        found = bias_of_log_mean(values - total, np.ones(len(values)), std_error, are_shared=False)
        common_error = found.common_error
    else:
        # There is no second estimate of the bias: half of it is taken for its error.
        common_error = 0.5 * bias
    return Estimate(total - np.log(len(values)), std_error, np.isfinite(std_error), bias, common_error)
