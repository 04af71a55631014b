"""The log-evidence of any NumPyro model, whole or for each datum, by any of several methods."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from kaem_ppl.arguments import as_count, as_key, check_callable, check_kind, describe
from kaem_ppl.printing import to_html
from kaem_ppl.progress import Progress

from ..diagnostics.diagnose import say_passed
from ..model.hierarchy.posterior import HierarchicalPosterior, read_posterior
from ..model.missing.masking import Missing
from ..model.parameters import Params
from ..model.power_posterior import PowerPosterior
from ..sampling.draws import Draws
from ..sampling.run import Report, Run
from ..sampling.storage.checkpoint import open_checkpoint
from ..tempering.tempered_smc import TemperedSMC
from .bridge_sampling import BridgeSampling
from .checks import MethodResult
from .log_bias import add_up
from .methods import estimate, is_method
from .thermodynamic import Curve, Estimate

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False, repr=False)
class LogEvidence:
    """A log-evidence in nats with its standard error; arrays (N,) with a plate of N data, () without.

    Attributes:
        value: log p(x), natural logarithm.
        std_error: of `value`. Errors of different data are independent, but by `ImportanceSampling` where data share
            draws. The mean of `value` is lower than log p(x) by about half the square of it, as of any logarithm of an
            estimate: little for one datum, but it adds up over many, so `total()` takes it out.
        is_trustworthy: whether nothing that the method can check about itself speaks against `value`.
        warnings: what does, in words, and what to do about it.
        estimates: by name, all that the same run yields, each with its own error and trust; `value` is the first one.
        curve: mean log-likelihood against temperature, where the method measures it; else None.
        summary: numbers that describe the run, by name, such as `pareto_k` or `num_stages`.
        method: what estimated it.
        plate: name of the plate whose rows are problems of their own.
        seconds: wall time of the call that returned, compilation included; after a stop it leaves out what was done before.
        checks: by name of a check of `value`, whether it was passed.
        std_error_of_sum: of the sum of `value` over the data by chance; None where it follows from `std_error`.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import ImportanceSampling, log_evidence
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> evidence = log_evidence(jax.random.key(0), model, 2.0, method=ImportanceSampling(10_000), progress_bar=False)
        >>> value, std_error = evidence.total()
        >>> round(value, 1), std_error < 0.1, bool(evidence.is_trustworthy)  # exactly: -2.27
        (-2.3, True, True)
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
    checks: dict[str, np.ndarray] = field(default_factory=dict)
    std_error_of_sum: float | None = None

    def total(self, estimate: str | None = None) -> tuple[float, float]:
        """Log-evidence of all data together, and its standard error: the sum over the plate.

        With a plate the bias of each datum's logarithm is taken out, by the jackknife where there are batches to leave
        out, and what is not known of it is part of the error; so is an error of discretisation.

        Args:
            estimate: which of `estimates`; None is the method's own.
        """
        own = next(iter(self.estimates))
        found = self.estimates[own if estimate is None else estimate]
        if self.plate is None:
            return float(found.value), float(found.std_error)
        by_chance = self.std_error_of_sum if estimate in (None, own) else None
        return add_up(found.value, found.std_error, found.bias, found.common_error, by_chance)

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

    def __str__(self) -> str:
        value, std_error = self.total()
        what = "log-evidence" if self.plate is None else f"log-evidence of all {len(self.value)} data"
        lines = [
            f"{what}: {value:.4f} +- {std_error:.4f}",
            f"{next(iter(self.estimates))}, {self._trust(self.is_trustworthy)}",
        ]
        for name, x in list(self.estimates.items())[1:]:
            total, error = self.total(name)
            lines.append(f"beside it, {name}: {total:.4f} +- {error:.4f}, {self._trust(x.is_trustworthy)}")
        words = [f"! {warning}" for warning in self.warnings]
        if not words and all(np.all(x.is_trustworthy) for x in self.estimates.values()):
            words = ["Nothing crossed a threshold."]
        return "\n".join([*lines, "", *words, say_passed({name: bool(np.all(x)) for name, x in self.checks.items()})])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return to_html(str(self))

    def _trust(self, is_trustworthy: np.ndarray) -> str:
        if np.all(is_trustworthy):
            return "its checks passed"
        where = "" if self.plate is None else f" for {int(np.sum(~is_trustworthy))} of {len(self.value)} data"
        return f"not to be trusted{where}: a check of its own failed"


def log_evidence(
    key: jax.Array,
    model: Callable,
    *args: Any,
    params: Params | None = None,
    method: Any = None,
    plate: str | None = None,
    draws: Draws | None = None,
    num_chains: int = 4,
    num_samples: int = 1000,
    num_warmup: int = 1000,
    checkpoint: str | PathLike | None = None,
    callback: Callable[[Report], object] | None = None,
    progress_bar: bool = True,
    missing: Missing = None,
    **kwargs: Any,
) -> LogEvidence:
    """Estimate the marginal likelihood, log p(x) = log integral of p(z) p(x | z) dz.

    Without `plate` the model is one problem: the evidence of all its observed sites. With it each row of the plate is a
    problem of its own, as in `sample_posterior`, and all of them are estimated at once. Where latents stand outside the
    plate too, the data are not independent: it is the one evidence of all of them, globals and locals integrated, by the
    method on the joint posterior, as without `plate`; unless `params` holds values of the globals.

    What each method measures:

    - `ParallelTempering`: steppingstone, the value, and thermodynamic integration from one run, with the curve.
    - `TemperedSMC`: the normalising constant of a particle system, unbiased before the logarithm.
    - `AnnealedImportanceSampling`: weights of independent particles, unbiased before the logarithm.
    - `ImportanceSampling`: prior draws, which all data share where the model allows it, so that thousands of data take
      hundreds of thousands of draws; trusted up to a Pareto k-hat of 0.7.
    - `NestedSampling`: reads no gradient and no temperature.
    - `BridgeSampling`: from `draws` of the posterior that exist already.

    Args:
        key: PRNG key, or an integer seed.
        model: NumPyro model with proper priors; discrete latents are summed out.
        *args: its positional arguments.
        params: constrained values of the model's `numpyro.param` sites.
        method: how to estimate; None takes `BridgeSampling()` where there are `draws`, and `TemperedSMC()` else.
        plate: name of a plate with latents of its own in each row, where each row is its own problem, such as the images
            of a KAEM. Leave it out where all latents belong to all data, as in a regression: it is refused there.
        draws: of `sample_posterior` for the same model and arguments, by any sampler, for `BridgeSampling`.
        num_chains: independent chains, populations or runs for each problem, which are averaged.
        num_samples: draws of each chain of `ParallelTempering`, at least 4; other methods hold their own sizes.
        num_warmup: steps before them.
        checkpoint: a folder, where the state is written while the method runs: after every temperature of `TemperedSMC`,
            every second at most of `NestedSampling` and `ParallelTempering`. The same call after a stop, whatever stopped
            it, goes on from there and has the same result.
        callback: is called after every piece of work with a `Report`.
        progress_bar: whether to show progress: a bar on a terminal, elsewhere a line every ten seconds.
        missing: "nan" where NaN among the observations stands for missing entries, which are no part of the likelihood;
            None where there are none. Entries that are independent given the latents drop out one by one, those of a
            `MultivariateNormal` by its marginal law; of another joint law all or none must be missing.
        **kwargs: the model's keyword arguments.

    Raises:
        TypeError: `method` is not one of these.
        ValueError: an argument or the model is not usable, a prior is improper, a ladder does not start at 0, or the
            likelihood is 0 at every prior draw; the method can't go on after a stop, and a checkpoint is given, or its
            folder belongs to another call; the message says which and what to do.
        OSError: the checkpoint can't be written.

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
    key = as_key(key)
    num_chains, num_samples = as_count(num_chains, "num_chains", 1), as_count(num_samples, "num_samples", 4)
    num_warmup = as_count(num_warmup, "num_warmup", 0)
    if method is None:
        method = TemperedSMC() if draws is None else BridgeSampling()
    if not is_method(method):
        raise TypeError(
            f"`method` must be one of `ParallelTempering()`, `TemperedSMC()`, `AnnealedImportanceSampling()`, "
            f"`ImportanceSampling()`, `NestedSampling()` and, with `draws`, `BridgeSampling()`, got {describe(method)}."
        )
    reads_draws = isinstance(method, BridgeSampling)
    if draws is not None:
        check_kind(draws, Draws, "draws", "what `sample_posterior` returned, or None")
    if reads_draws and draws is None:
        raise ValueError(
            "`draws` are missing: `BridgeSampling` reads posterior draws, as `sample_posterior` returns them."
        )
    if draws is not None and not reads_draws:
        raise ValueError(
            f"`draws` were given, but {type(method).__name__} makes its own: leave them out, or take `BridgeSampling()`."
        )
    if checkpoint is not None and not getattr(method, "keeps_state", False):
        raise ValueError(f"{type(method).__name__} can't go on after a stop: leave `checkpoint` out.")
    if callback is not None:
        check_callable(callback, "callback", "a function of one argument, a `Report`")
    started = time.perf_counter()
    # An evidence is the same in all coordinates; draws have theirs.
    coordinates = method.coordinates if draws is None else draws.posterior.coordinates
    with Progress("reading the model", progress_bar) as progress:
        posterior = read_posterior(
            model, args, kwargs, params=params, plate=plate, coordinates=coordinates, missing=missing
        )
        if draws is not None and isinstance(posterior, HierarchicalPosterior):
            posterior = posterior.written_in(coordinates)
        _check_prior(posterior)
        settings = {"num_chains": num_chains, "num_warmup": num_warmup, "num_samples": num_samples}
        with open_checkpoint(checkpoint, "log_evidence", key, posterior, {"method": method, **settings}) as kept:
            given = {} if draws is None else {"draws": draws}
            found = estimate(method, key, posterior, **settings, **given, run=Run(progress, callback, kept))
    trust, warnings = _apply_checks(found, posterior)
    shape = (posterior.num_data,)
    estimates = {
        name: Estimate(*(np.broadcast_to(x, shape) for x in estimate)) for name, estimate in found.estimates.items()
    }
    curve, summary = found.curve, found.summary
    checks = {check.name: ~check.failed for check in found.checks}
    name, own = next(iter(estimates.items()))
    value, std_error, trust = own.value, own.std_error, trust & own.is_trustworthy
    estimates = {**estimates, name: own._replace(is_trustworthy=trust)}
    plate = posterior.plate
    if plate is None:
        one = jax.tree.map(lambda x: np.asarray(x)[0], (value, std_error, trust, checks, estimates, curve, summary))
        value, std_error, trust, checks, estimates, curve, summary = one
    return LogEvidence(
        value,
        std_error,
        trust,
        warnings,
        estimates,
        curve,
        summary,
        method,
        plate,
        time.perf_counter() - started,
        checks,
        found.std_error_of_sum,
    )


def _check_prior(posterior: PowerPosterior) -> None:
    if not posterior.has_proper_prior:
        raise ValueError(
            "The prior of `model` is flat, scaled or masked in part, so its evidence is not defined, as it would change "
            "with the constant that such a prior leaves open: give every latent a proper prior."
        )


def _apply_checks(found: MethodResult, posterior: PowerPosterior) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which data passed all checks, shape (N,), and what is said of those that did not."""
    trust, warnings = np.ones(posterior.num_data, bool), []
    for check in found.checks:
        trust &= ~check.failed
        if check.failed.any():
            where = ""
            if posterior.plate is not None:
                numbers = np.flatnonzero(check.failed)
                where = f"For {len(numbers)} of {len(check.failed)} data, {numbers[:5].tolist()}"
                where += " and others, " if len(numbers) > 5 else ", "
            sentence = where + check.warning
            warnings.append(sentence[:1].upper() + sentence[1:])
    return trust, tuple(warnings)
