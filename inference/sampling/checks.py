"""Errors before sampling starts: priors that cannot be drawn from, and likelihoods that are 0 everywhere."""

import numpy as np

from ..model.power_posterior import PowerPosterior


def check_prior(posterior: PowerPosterior, sampler: str) -> None:
    """Refuse a posterior whose prior can't be drawn from.

    Raises:
        ValueError: it can't.
    """
    if not posterior.has_proper_prior:
        raise ValueError(
            f"{sampler} starts from draws of the prior, but the prior of this model is flat, scaled or masked in part. "
            "Give proper priors, or choose `NUTS()` or another Markov kernel."
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
        which = (
            "" if posterior.plate is None else f" for data {bad[:10].tolist()}{' and others' if len(bad) > 10 else ''}"
        )
        raise ValueError(
            f"The likelihood is 0 at every one of {num_draws} prior draws{which}. Check that the arguments hold no NaN and "
            "lie in the likelihood's support; if the prior is only far too wide, narrow it."
        )
