"""Errors before sampling starts: priors that cannot be drawn from, and likelihoods that are 0 everywhere."""

import numpy as np

from ..model.arguments import argument_names, is_array
from ..model.power_posterior import PowerPosterior


def check_prior(posterior: PowerPosterior, sampler: str) -> None:
    """Refuse a posterior whose prior can't be drawn from.

    Raises:
        ValueError: it can't.
    """
    if not posterior.has_proper_prior:
        raise ValueError(
            f"{sampler} starts from draws of the prior, but the prior of `model` is flat, scaled or masked in part: "
            "give proper priors, or choose `NUTS()` or another Markov kernel."
        )


def check_likelihood(is_good: np.ndarray, num_draws: int, posterior: PowerPosterior) -> None:
    """Refuse data whose likelihood is 0 at every draw of the prior.

    Args:
        is_good: whether it is not, shape (C, N).
        num_draws: draws that were made, for the message.
        posterior: the model.

    Raises:
        ValueError: it is.
    """
    bad = np.flatnonzero(~is_good.all(0))
    if len(bad):
        raise ValueError(
            f"The likelihood is 0 at every one of {num_draws} prior draws{say_data(bad, posterior)}: "
            + (
                say_nan(posterior)
                or "check that the arguments lie in the likelihood's support, and if the prior is only far too wide, "
                "narrow it."
            )
        )


def say_data(bad: np.ndarray, posterior: PowerPosterior) -> str:
    """Which data are meant, by number; nothing without a plate."""
    if posterior.plate is None:
        return ""
    return f" for data {bad[:10].tolist()}{' and others' if len(bad) > 10 else ''}"


def say_nan(posterior: PowerPosterior) -> str:
    """Which arguments of the model hold NaN, and what to do; nothing where none does."""
    rows, shared = iter(posterior.rows), iter(posterior.shared)
    found = []
    for name, (kind, fixed) in zip(
        argument_names(posterior.layout, posterior.model.function), posterior.layout.leaves, strict=True
    ):
        value = fixed.value if fixed is not None else next(rows if kind == "row" else shared)
        if is_array(value) and np.issubdtype(value.dtype, np.inexact) and np.isnan(np.asarray(value)).any():
            found.append(name)
    if not found:
        return ""
    return (
        f"{' and '.join(found)} hold{'s' if len(found) == 1 else ''} NaN, so drop those data, or put a number there and "
        "mask them by `numpyro.handlers.mask`."
    )
