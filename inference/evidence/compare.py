"""Compare models by their evidence: Bayes factors and posterior probabilities of models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kaem_ppl.arguments import as_number, check_kind

from .log_evidence import LogEvidence

if TYPE_CHECKING:
    import pandas

# By which a sum of probabilities may miss 1, as numbers with a few digits do.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class EvidenceComparison:
    """What `compare_evidence` found.

    Attributes:
        table: a row for each model, best first: `log_evidence` of all data and its `std_error`, `log_bayes_factor` over
            the best model with its `log_bayes_factor_std_error`, posterior `probability`, and `is_trustworthy`.
        log_bayes_factors: of the model of the row over that of the column, in nats.
        std_errors: of them.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import ImportanceSampling, compare_evidence, log_evidence
        >>> def make(scale):
        ...     def model(y):
        ...         z = numpyro.sample("z", dist.Normal(0, scale))
        ...         numpyro.sample("y", dist.Normal(z, 1), obs=y)
        ...     return model
        >>> method = ImportanceSampling(10_000)
        >>> evidences = {
        ...     name: log_evidence(jax.random.key(0), make(scale), 2.0, method=method, progress_bar=False)
        ...     for name, scale in (("narrow", 0.5), ("wide", 2.0))
        ... }
        >>> comparison = compare_evidence(evidences)
        >>> round(float(comparison.log_bayes_factors.loc["wide", "narrow"]), 1)  # exactly: 0.51
        0.5
    """

    table: "pandas.DataFrame"
    log_bayes_factors: "pandas.DataFrame"
    std_errors: "pandas.DataFrame"

    def __str__(self) -> str:
        return self.table.to_string(float_format=lambda x: f"{x:.4g}")


def compare_evidence(
    evidences: Mapping[str, LogEvidence], *, prior_probabilities: Mapping[str, float] | None = None
) -> EvidenceComparison:
    """Compare models of the same data by their evidence (Kass and Raftery 1995).

    With a plate the log-evidences of the data are added: this is the evidence of all of them under fixed parameters.

    Args:
        evidences: by name of the model, at least two.
        prior_probabilities: of the models, summing to 1; equal if None.

    Raises:
        TypeError: a value is not the result of `log_evidence`.
        ValueError: there are fewer than two models, their numbers of data differ, or the prior probabilities are not
            positive, do not sum to 1, or miss a model.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import ImportanceSampling, compare_evidence, log_evidence
        >>> def make(scale):
        ...     def model(y):
        ...         z = numpyro.sample("z", dist.Normal(0, scale))
        ...         numpyro.sample("y", dist.Normal(z, 1), obs=y)
        ...     return model
        >>> method = ImportanceSampling(10_000)
        >>> evidences = {
        ...     name: log_evidence(jax.random.key(0), make(scale), 2.0, method=method, progress_bar=False)
        ...     for name, scale in (("narrow", 0.5), ("wide", 2.0))
        ... }
        >>> comparison = compare_evidence(evidences)
        >>> list(comparison.table.index)  # best first
        ['wide', 'narrow']
    """
    import pandas

    check_kind(evidences, Mapping, "evidences", "a dictionary of results of `log_evidence` by name of the model")
    if len(evidences) < 2:
        raise ValueError(f"`evidences` must hold at least two models, got {list(evidences)}.")
    for name, evidence in evidences.items():
        check_kind(evidence, LogEvidence, f"evidences[{name!r}]", "what `log_evidence` returned")
    sizes = {name: evidence.value.shape for name, evidence in evidences.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"`evidences` are of different numbers of data, {sizes}: compare models of the same data.")
    names = list(evidences)
    given = dict.fromkeys(names, 1 / len(names)) if prior_probabilities is None else prior_probabilities
    check_kind(given, Mapping, "prior_probabilities", "a dictionary of numbers by name of the model")
    if set(given) != set(names):
        raise ValueError(f"`prior_probabilities` must name each of {names} once, got {list(given)}.")
    prior = {name: as_number(given[name], f"prior_probabilities[{name!r}]", above=0) for name in names}
    if abs(sum(prior.values()) - 1) > _ROUNDING:
        raise ValueError(f"`prior_probabilities` must sum to 1, got {prior}, whose sum is {sum(prior.values()):g}.")

    value, std_error = np.array([evidences[name].total() for name in names]).T
    log_joint = value + np.log([prior[name] for name in names])
    table = pandas.DataFrame(
        {
            "log_evidence": value,
            "std_error": std_error,
            "log_bayes_factor": value - value.max(),
            "log_bayes_factor_std_error": _std_errors(std_error)[np.argmax(value)],
            "probability": np.exp(log_joint - np.logaddexp.reduce(log_joint)),
            "is_trustworthy": [bool(np.all(evidences[name].is_trustworthy)) for name in names],
        },
        index=names,
    )
    factors = pandas.DataFrame(value[:, None] - value, index=names, columns=names)
    errors = pandas.DataFrame(_std_errors(std_error), index=names, columns=names)
    return EvidenceComparison(table.sort_values("log_evidence", ascending=False), factors, errors)


def _std_errors(std_error: np.ndarray) -> np.ndarray:
    """Of differences between independent estimates; 0 from a model to itself."""
    squares = np.square(std_error)
    return np.sqrt(squares[:, None] + squares) * (1 - np.eye(len(squares)))
