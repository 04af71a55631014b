"""Compare models by their evidence: Bayes factors and posterior probabilities of models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .log_evidence import LogEvidence

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class EvidenceComparison:
    """What `compare_evidence` found.

    Attributes:
        table: a row for each model, best first: `log_evidence` of all data and its `std_error`, `log_bayes_factor` over
            the best model with its `log_bayes_factor_std_error`, posterior `probability`, and `is_trustworthy`.
        log_bayes_factors: of the model of the row over that of the column, in nats.
        std_errors: of them.
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
        prior_probabilities: of the models; equal if None.

    Raises:
        TypeError: a value is not the result of `log_evidence`.
        ValueError: there are fewer than two models, their numbers of data differ, or the prior probabilities are not
            positive or miss a model.
    """
    import pandas

    if len(evidences) < 2:
        raise ValueError(f"`evidences` must hold at least two models, got {list(evidences)}.")
    for name, evidence in evidences.items():
        if not isinstance(evidence, LogEvidence):
            raise TypeError(f"`evidences[{name!r}]` must come from `log_evidence`, got {type(evidence).__name__}.")
    sizes = {name: evidence.value.shape for name, evidence in evidences.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"`evidences` are of different numbers of data, {sizes}: compare models of the same data.")
    names = list(evidences)
    prior = dict.fromkeys(names, 1.0) if prior_probabilities is None else dict(prior_probabilities)
    if set(prior) != set(names) or not all(p > 0 for p in prior.values()):
        raise ValueError(f"`prior_probabilities` must give a positive number to each of {names}, got {prior}.")

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
