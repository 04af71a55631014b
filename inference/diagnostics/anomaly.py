"""How unusual new data are beside data that are known to be usual: p-values that are right whatever the model."""

import jax
import numpy as np
from jax.typing import ArrayLike

from kaem_ppl.arguments import as_key


def anomaly_p_values(usual: ArrayLike, scores: ArrayLike, key: ArrayLike | None = None) -> np.ndarray:
    """The probability that a usual datum has a score as low as each of these.

        p = (1 + number of usual scores at most as large) / (1 + number of usual scores)

    If a new datum is exchangeable with the usual ones, P(p <= a) <= a for every a, however wrong the model is that scores;
    with a key ties are broken at random, and p is exactly uniform.

    Args:
        usual: scores of data that the model was not trained on, such as `log_evidence(..., plate="data").value` of held-out
            data, larger being more usual; shape (n,).
        scores: of new data, by the same model and method; any shape.
        key: PRNG key or an integer seed, to randomise; None rounds up.

    Returns:
        Shape of `scores`.

    Raises:
        ValueError: `usual` is no vector of numbers, or a score is NaN.

    Source: conformal p-values, Vovk, Gammerman and Shafer 2005, eq. 2.20; of outliers, Bates et al., arXiv 2104.08279.

    Example:
        >>> from kaem_ppl.inference import anomaly_p_values
        >>> anomaly_p_values([1.0, 2.0, 3.0, 4.0], [0.5, 3.5]).tolist()
        [0.2, 0.8]
    """
    known, new = np.asarray(usual, float), np.asarray(scores, float)
    if known.ndim != 1 or not len(known):
        raise ValueError(f"`usual` must be scores of shape (n,), n at least 1, got {known.shape}.")
    for name, x in (("usual", known), ("scores", new)):
        if np.isnan(x).any():
            raise ValueError(f"`{name}` holds NaN: leave out data whose score is not defined.")
    ordered = np.sort(known)
    below, at_most = (np.searchsorted(ordered, new, side=side) for side in ("left", "right"))
    if key is None:
        return (1 + at_most) / (1 + len(known))
    uniform = np.asarray(jax.random.uniform(as_key(key), new.shape), float)
    return (below + uniform * (1 + at_most - below)) / (1 + len(known))
