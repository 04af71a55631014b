"""Eight problems whose log-evidence is known in closed form or by quadrature, written for the unit cube.

Needs NumPy and SciPy alone, for the rivals' Python imports it too. Functions take the array module, `numpy` or `jax.numpy`,
so that each problem is written once for all rivals; `evidence_models.py` has the same problems as NumPyro models.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from scipy import integrate, optimize, special, stats


class Problem(NamedTuple):
    """A prior and a likelihood, and the evidence.

    Attributes:
        dimension: of the unit cube.
        transform: from a point of the unit cube, the array module and the normal quantile to latents, along the last axis.
        log_likelihood: from latents and the array module to nats.
        truth: computes the log-evidence, to 1e-3 nats or better.
        source: how `truth` does.
        data: what the likelihood holds, by name.
    """

    dimension: int
    transform: Callable[[Any, ModuleType, Callable], Any]
    log_likelihood: Callable[[Any, ModuleType], Any]
    truth: Callable[[], float]
    source: str
    data: dict[str, Any]


def uniform(low, high):
    """Transform to a uniform prior."""
    return lambda u, xp, ndtri: low + (high - low) * u


def normal(scale):
    """Transform to a normal prior around 0."""
    return lambda u, xp, ndtri: scale * ndtri(u)


def normal_log_density(x, scale, xp):
    """Of a normal around 0."""
    return -0.5 * (x / scale) ** 2 - xp.log(scale * np.sqrt(2 * np.pi))


def shells(dimension=10, centre=3.5, radius=2.0, width=0.1, edge=6.0):
    """Two thin spherical shells of a normal profile; the edge is 5 widths from each."""

    def log_likelihood(z, xp):
        shift = centre * xp.eye(dimension)[0]
        distances = (xp.sqrt(xp.sum((z - sign * shift) ** 2, -1)) for sign in (1, -1))
        return xp.logaddexp(*(normal_log_density(x - radius, width, xp) for x in distances))

    def truth():
        log_area = np.log(2) + dimension / 2 * np.log(np.pi) - special.gammaln(dimension / 2)
        profile = stats.norm(radius, width)
        radial = integrate.quad(lambda r: r ** (dimension - 1) * profile.pdf(r), 0, 4, points=[1.5, 2, 2.5])[0]
        return np.log(2) + log_area + np.log(radial) - dimension * np.log(2 * edge)

    return Problem(dimension, uniform(-edge, edge), log_likelihood, truth, "quadrature over the radius", {"edge": edge})


def eggbox():
    """Eighteen peaks of equal height, some cut by the edge."""

    def log_likelihood(z, xp):
        return (2 + xp.cos(z[..., 0] / 2) * xp.cos(z[..., 1] / 2)) ** 5

    def truth():
        node, weight = special.roots_legendre(1000)
        x = 5 * np.pi * (node + 1)
        grid = np.stack(np.meshgrid(x, x), -1)
        return special.logsumexp(log_likelihood(grid, np), b=np.outer(weight, weight) / 4)

    return Problem(2, uniform(0.0, 10 * np.pi), log_likelihood, truth, "Gauss-Legendre, 1000 nodes a side", {})


def linear(dimension=20, num_data=30):
    """Linear regression with known noise."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((num_data, dimension))
    y = x @ rng.standard_normal(dimension) + rng.standard_normal(num_data)

    def log_likelihood(z, xp):
        return xp.sum(normal_log_density(y - z @ x.T, 1.0, xp), -1)

    def truth():
        return stats.multivariate_normal(cov=np.eye(num_data) + x @ x.T).logpdf(y)

    return Problem(dimension, normal(1.0), log_likelihood, truth, "closed form", {"x": x, "y": y})


def beta_binomial(num_groups=10):
    """Counts of groups, each with a rate of its own under Beta(1, 3)."""
    rng = np.random.default_rng(2)
    total = rng.integers(5, 60, num_groups)
    y = rng.binomial(total, rng.beta(1, 3, num_groups))
    constant = float(np.sum(np.log(special.binom(total, y))))

    def transform(u, xp, ndtri):
        return 1 - (1 - u) ** (1 / 3)

    def log_likelihood(p, xp):
        # Where a rate rounds to 0, the logarithm is that of the smallest number above it.
        failures, tiny = total - y, 1e-30
        return constant + xp.sum(y * xp.log(xp.maximum(p, tiny)) + failures * xp.log1p(-p), -1)

    def truth():
        return np.sum(stats.betabinom.logpmf(y, total, 1, 3))

    return Problem(num_groups, transform, log_likelihood, truth, "closed form", {"total": total, "y": y})


def logistic(num_data=60, scale=2.5):
    """Logistic regression, an intercept and two slopes."""
    rng = np.random.default_rng(3)
    x = np.column_stack([np.ones(num_data), rng.standard_normal((num_data, 2))])
    y = rng.binomial(1, special.expit(x @ [0.5, 1.5, -1.0]))
    sign = 2.0 * y - 1

    def log_likelihood(z, xp):
        return -xp.sum(xp.logaddexp(0.0, -sign * (z @ x.T)), -1)

    def log_joint(z):
        return log_likelihood(z, np) + np.sum(stats.norm.logpdf(z, 0, scale), -1)

    def truth():
        found = optimize.minimize(lambda z: -log_joint(z), np.zeros(3), method="BFGS")
        rate = special.expit(x @ found.x)
        precision = x.T @ (x * (rate * (1 - rate))[:, None]) + np.eye(3) / scale**2
        root = np.linalg.cholesky(np.linalg.inv(precision))
        step = 0.25
        axis = np.arange(-9, 9 + step / 2, step)
        grid = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
        return special.logsumexp(log_joint(found.x + grid @ root.T)) + 3 * np.log(step) + np.log(np.diag(root)).sum()

    return Problem(
        3, normal(scale), log_likelihood, truth, "trapezoids in three dimensions", {"x": x, "y": y, "scale": scale}
    )


def schools():
    """Eight means around a common one, not centred, with the numbers of Rubin (1981)."""
    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def transform(u, xp, ndtri):
        tau = 5 * xp.tan(np.pi / 2 * u[..., 1:2])
        return xp.concatenate([5 * ndtri(u[..., :1]), tau, ndtri(u[..., 2:])], -1)

    def log_likelihood(z, xp):
        mean = z[..., :1] + z[..., 1:2] * z[..., 2:]
        return xp.sum(normal_log_density(y - mean, sigma, xp), -1)

    def truth():
        def density(u):
            tau = 5 * np.tan(np.pi / 2 * u)
            return stats.multivariate_normal(cov=25 + np.diag(sigma**2 + tau**2)).pdf(y)

        return np.log(integrate.quad(density, 0, 1, epsabs=0, epsrel=1e-8)[0])

    source = "means integrated in closed form, quadrature over tau"
    return Problem(10, transform, log_likelihood, truth, source, {"y": y, "sigma": sigma})


def two_modes(dimension=5, scale=3.0):
    """Two normals of unlike widths and equal weights in the likelihood, nine of the larger widths from 0."""
    centre, widths = 2.0, (0.3, 0.5)

    def log_likelihood(z, xp):
        parts = (
            xp.sum(normal_log_density(z - sign * centre, width, xp), -1)
            for sign, width in zip((1, -1), widths, strict=True)
        )
        return xp.logaddexp(*parts) - np.log(2)

    def truth():
        parts = [dimension * stats.norm.logpdf(centre, 0, np.hypot(scale, width)) for width in widths]
        return np.logaddexp(*parts) - np.log(2)

    return Problem(dimension, normal(scale), log_likelihood, truth, "closed form", {"scale": scale})


def rosenbrock(dimension=4, edge=5.0):
    """Rosenbrock's curved valley."""

    def log_likelihood(z, xp):
        valley = 100 * (z[..., 1:] - z[..., :-1] ** 2) ** 2
        return -xp.sum(valley + (1 - z[..., :-1]) ** 2, -1)

    def truth():
        # Each coordinate depends on the one before alone: the last in closed form, the others by a matrix of transitions.
        node, weight = special.roots_legendre(2000)
        x, weight = edge * node, edge * weight
        own = np.exp(-((1 - x) ** 2))
        last = [np.sqrt(200) * (end - x**2) for end in (-edge, edge)]
        value = own * np.sqrt(np.pi / 100) * (special.ndtr(last[1]) - special.ndtr(last[0]))
        transition = np.exp(-100 * (x - x[:, None] ** 2) ** 2) * weight
        for _ in range(dimension - 2):
            value = own * (transition @ value)
        return np.log(weight @ value) - dimension * np.log(2 * edge)

    source = "Gauss-Legendre, coordinate by coordinate"
    return Problem(dimension, uniform(-edge, edge), log_likelihood, truth, source, {"edge": edge})


PROBLEMS = {
    "Gaussian shells, 10": shells,
    "eggbox, 2": eggbox,
    "linear regression, 20": linear,
    "beta-binomial, 10": beta_binomial,
    "logistic regression, 3": logistic,
    "eight schools, 10": schools,
    "two modes, 5": two_modes,
    "Rosenbrock, 4": rosenbrock,
}
