"""Two methods that fail in different ways on one model: whether their evidences and posterior means agree."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from kaem_ppl.arguments import as_key, check_kind, describe

from ..diagnostics.diagnose import Diagnosis, diagnose
from ..diagnostics.limits import SMALLEST_DISAGREEMENT_P, disagreement_p
from ..kernels.kernel import Kernel
from ..model.parameters import Params
from ..sampling.draws import Draws
from ..sampling.sample_posterior import sample_posterior
from ..sampling.sampler import Sampler
from ..tempering.tempered_smc import TemperedSMC
from .log_evidence import LogEvidence, log_evidence
from .methods import is_method
from .nested_sampling import NestedSampling
from .thermodynamic import std_error_of_mean

if TYPE_CHECKING:
    import pandas

# What single precision resolves of a sum of log-densities.
_SMALLEST_STD_ERROR = 1e-3


@dataclass(frozen=True, eq=False)
class CrossCheck:
    """What two methods say of one model; arrays (N,) with a plate of N data, () without.

    Attributes:
        evidences: by name of the method.
        draws: by name of the method, where it draws from the posterior.
        diagnoses: of the draws.
        difference: of the evidences, first less second, in nats.
        z_score: the difference in its standard errors.
        means: where both methods draw, a row for each latent site, at the element whose means differ most: `element`, the
            `mean` by either method, and `z_score`, the difference in its standard errors; else None.
        agree: whether the evidences differ no more than by chance, at a level of 1e-4.
        means_agree: whether all posterior means do, at the same level over all elements; None without `means`.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import cross_check, ImportanceSampling, TemperedSMC
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> methods = TemperedSMC(500), ImportanceSampling(10_000)
        >>> check = cross_check(jax.random.key(0), model, 2.0, methods=methods, progress_bar=False)
        >>> abs(float(check.difference)) < 0.2
        True
    """

    evidences: dict[str, LogEvidence]
    draws: dict[str, Draws]
    diagnoses: dict[str, Diagnosis]
    difference: np.ndarray
    z_score: np.ndarray
    means: "pandas.DataFrame | None"
    agree: np.ndarray
    means_agree: bool | None

    def __str__(self) -> str:
        lines = []
        for name, evidence in self.evidences.items():
            value, std_error = evidence.total()
            warnings = [*evidence.warnings, *(self.diagnoses[name].warnings if name in self.diagnoses else ())]
            lines += [f"{name}: log-evidence {value:.4f} +- {std_error:.4f}", *(f"  ! {words}" for words in warnings)]
            passed = [check for check, is_passed in self._checks(name).items() if is_passed]
            lines.append(f"  passed: {', '.join(passed) or 'no check'}")
            lines.append(f"  blind to {_blind_spot(evidence, self.draws.get(name))}")
        worst = np.abs(self.z_score).max()
        if self.difference.ndim:
            lines.append(f"Evidences differ by up to {worst:.2f} standard errors over {self.difference.size} data, ")
            where = np.flatnonzero(~self.agree)
            lines[-1] += f"which disagree at {where[:10].tolist()}." if where.size else "no more than by chance."
        else:
            lines.append(f"Evidences differ by {self.difference:+.4f} nats, {worst:.2f} standard errors: ")
            lines[-1] += "no more than by chance." if self.agree else "they DISAGREE, so at least one of them is wrong."
        if self.means is not None:
            lines += ["", self.means.to_string(float_format=lambda x: f"{x:.4g}")]
            lines.append(
                "Posterior means agree within their errors."
                if self.means_agree
                else "Posterior means DISAGREE, so at least one method's draws are wrong."
            )
        lines.append("What both are blind to, no comparison shows: a mode that neither has visited.")
        return "\n".join(lines)

    def _checks(self, name: str) -> dict[str, bool]:
        of_draws = self.diagnoses[name].checks if name in self.diagnoses else {}
        return {**{check: bool(np.all(x)) for check, x in self.evidences[name].checks.items()}, **of_draws}


def cross_check(
    key: jax.Array,
    model: Callable,
    *args: Any,
    params: Params | None = None,
    methods: tuple[Any, Any] = (TemperedSMC(), NestedSampling()),
    plate: str | None = None,
    num_chains: int = 4,
    num_samples: int = 1000,
    num_warmup: int = 1000,
    progress_bar: bool = True,
    **kwargs: Any,
) -> CrossCheck:
    """Run two methods that fail in different ways, and compare their evidences and posterior means.

    The default pair: `TemperedSMC` follows temperatures and gradients, and fails where a narrow mode outweighs a wide one
    only as the temperature nears 1, for no particle is then left near it; `NestedSampling` knows neither, orders the prior
    by likelihood, passes such a transition, and fails in many dimensions and where few live points are near a mode.

    Args:
        key: PRNG key, or an integer seed; the methods get keys of their own.
        model: NumPyro model with proper priors and continuous latents.
        *args: its positional arguments.
        params: constrained values of the model's `numpyro.param` sites.
        methods: two of those of `log_evidence`; or samplers, where a Markov kernel such as `NUTS()` gives its evidence by
            bridge sampling from its draws.
        plate: name of the plate that holds the data, where each datum is its own problem.
        num_chains: independent chains, populations or runs of each.
        num_samples: draws of each chain.
        num_warmup: steps before them.
        progress_bar: whether to show progress: a bar on a terminal, elsewhere a line every ten seconds.
        **kwargs: the model's keyword arguments.

    Raises:
        TypeError: a method is not one.
        ValueError: there are not two, or an argument or the model is not usable; the message says which and what to do.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import cross_check, ImportanceSampling, TemperedSMC
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> methods = TemperedSMC(500), ImportanceSampling(10_000)
        >>> check = cross_check(jax.random.key(0), model, 2.0, methods=methods, progress_bar=False)
        >>> bool(check.agree), check.means_agree
        (True, True)
    """
    key = as_key(key)
    check_kind(methods, (tuple, list), "methods", "two methods, such as `(TemperedSMC(), NestedSampling())`")
    methods = tuple(methods)
    if len(methods) != 2:
        raise ValueError(f"`methods` must be two methods, got {len(methods)}: {methods!r}.")
    for method in methods:
        if not isinstance(method, Sampler | Kernel) and not is_method(method):
            raise TypeError(f"`methods` must be methods of `log_evidence` or samplers, got {describe(method)}.")
    names = [type(method).__name__ for method in methods]
    if names[0] == names[1]:
        names = [f"{name} {number}" for number, name in enumerate(names, 1)]
    settings: dict[str, Any] = {"num_chains": num_chains, "num_samples": num_samples, "num_warmup": num_warmup}
    settings |= {"params": params, "plate": plate, "progress_bar": progress_bar, **kwargs}
    evidences, draws = {}, {}
    for number, (name, method) in enumerate(zip(names, methods, strict=True)):
        evidence_key, draws_key = jax.random.split(jax.random.fold_in(key, number))
        if isinstance(method, Sampler | Kernel):
            draws[name] = sample_posterior(draws_key, model, *args, sampler=method, **settings)
        by = {"draws": draws[name]} if isinstance(method, Kernel) else {"method": method}
        evidences[name] = log_evidence(evidence_key, model, *args, **by, **settings)
    first, second = evidences.values()
    difference = first.value - second.value
    std_error = np.maximum(np.hypot(first.std_error, second.std_error), _SMALLEST_STD_ERROR)
    p = disagreement_p(np.stack([difference, 0 * difference]), np.stack([std_error, 0 * std_error]))
    means, means_agree = _compare_means(draws) if len(draws) == 2 else (None, None)
    return CrossCheck(
        evidences,
        draws,
        {name: diagnose(x, progress_bar=progress_bar) for name, x in draws.items()},
        np.asarray(difference),
        np.asarray(difference / std_error),
        means,
        np.asarray(p >= SMALLEST_DISAGREEMENT_P),
        means_agree,
    )


def _compare_means(draws: dict[str, Draws]) -> tuple["pandas.DataFrame", bool]:
    """A row for each site at its worst element, and whether all elements agree."""
    import pandas

    rows, largest, number = {}, 0.0, 0
    names, (one, other) = list(draws), list(draws.values())
    for site in one.samples:
        x, y = (np.asarray(d.samples[site], float).reshape(d.num_chains, d.num_samples, -1) for d in (one, other))
        if not x.size:
            continue
        means = x.mean((0, 1)), y.mean((0, 1))
        std_error = np.hypot(std_error_of_mean(x), std_error_of_mean(y))
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.where(means[0] == means[1], 0.0, (means[0] - means[1]) / std_error)
        # What is not finite can't be compared, and is the worst.
        size = np.where(np.isnan(z), np.inf, np.abs(z))
        worst, number, largest = int(np.argmax(size)), number + z.size, max(largest, size.max())
        shape = one.samples[site].shape[2:]
        place = f"[{', '.join(str(i) for i in np.unravel_index(worst, shape))}]" if shape else ""
        rows[site] = {
            "element": f"{site}{place}",
            **{f"mean by {n}": m[worst] for n, m in zip(names, means, strict=True)},
        }
        rows[site]["z_score"] = z[worst]
    p = disagreement_p(np.array([largest, 0.0]), np.array([1.0, 0.0]))
    return pandas.DataFrame.from_dict(rows, orient="index"), bool(p * number >= SMALLEST_DISAGREEMENT_P)


def _blind_spot(evidence: LogEvidence, draws: Draws | None) -> str:
    return (evidence.method if hasattr(evidence.method, "blind_to") or draws is None else draws.sampler).blind_to
