"""In which order variables stand in a D-vine, and how strongly pairs of them depend."""

import numpy as np

# Draws of which Kendall's tau is computed, in time that grows by their square.
_MOST_DRAWS = 1000


def kendall_tau(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    """Kendall's tau of weighted draws (N,) of two variables, of at most a thousand of them, evenly spaced."""
    kept = np.unique(np.linspace(0, len(first) - 1, _MOST_DRAWS).astype(int))
    x, y, w = first[kept], second[kept], weights[kept]
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    total = w.sum() ** 2 - np.sum(w**2)
    return float(w @ signs @ w / total)


def dependence(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each two variables the largest correlation of any combinations a x + b x^2 of each, shape (d, d).

    Of a Gaussian pair it is the absolute correlation, which orders pairs as Kendall's tau does. It is large for a banana
    too, whose tau is 0.

    Args:
        scores: normal scores, shape (N, d).
        weights: of the draws, sum 1, shape (N,).
    """
    number = scores.shape[1]
    powers = np.stack([scores, scores**2], axis=-1).reshape(len(scores), -1)
    powers = powers - weights @ powers
    covariance = ((powers * weights[:, None]).T @ powers).reshape(number, 2, number, 2).transpose(0, 2, 1, 3)
    roots = [np.linalg.cholesky(covariance[i, i] + 1e-12 * np.eye(2)) for i in range(number)]
    found = np.zeros((number, number))
    for i in range(number):
        for j in range(i):
            half = np.linalg.solve(roots[i], covariance[i, j])
            found[i, j] = found[j, i] = np.linalg.norm(np.linalg.solve(roots[j], half.T), 2)
    return found


def greedy_path(strengths: np.ndarray) -> tuple[int, ...]:
    """The order of the variables: from the strongest pair, at either end the variable that depends most on the end."""
    number = len(strengths)
    if number < 3:
        return tuple(range(number))
    allowed = np.where(np.eye(number, dtype=bool), -1.0, strengths)
    path = sorted(int(i) for i in np.unravel_index(np.argmax(allowed), allowed.shape))
    while len(path) < number:
        rest = [i for i in range(number) if i not in path]
        at_start, at_end = (max(rest, key=lambda i, end=end: strengths[i, end]) for end in (path[0], path[-1]))
        if strengths[at_start, path[0]] > strengths[at_end, path[-1]]:
            path.insert(0, at_start)
        else:
            path.append(at_end)
    return tuple(path)
