"""Tilted densities by NumPy and SciPy in float64: the design's formulas written out again, integrated by `quad`."""

import itertools
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy import integrate, interpolate


def spacing(grid):
    """Distance to the neighbours, the mean of both sides inside; the grid spacing h where the grid is uniform."""
    gaps = np.diff(grid)
    return np.concatenate([gaps[:1], (gaps[1:] + gaps[:-1]) / 2, gaps[-1:]])


def features(basis, z, grid, width):
    """Shape (M, F), by the formulas of the design."""
    z, grid, width = (np.asarray(x, np.float64) for x in (z, grid, width))
    name = type(basis).__name__
    if name == "BSpline":
        k = basis.degree
        before = grid[0] - np.arange(k, 0, -1) * (grid[1] - grid[0])
        after = grid[-1] + np.arange(1, k + 1) * (grid[-1] - grid[-2])
        knots = np.concatenate([before, grid, after])
        return interpolate.BSpline(knots, np.eye(len(knots) - k - 1), k)(z)
    if name == "Chebyshev":
        return np.polynomial.chebyshev.chebvander(np.tanh(z) / width, basis.degree)
    if name == "Fourier":
        phase = 2 * np.pi * width * np.arange(basis.num_frequencies + 1) * z[:, None]
        return np.concatenate([np.cos(phase), np.sin(phase)], axis=-1)
    relative = spacing(grid) / ((grid[-1] - grid[0]) / (len(grid) - 1))
    if name == "RBF":
        return np.exp(-(((z[:, None] - grid) / (width * spacing(grid))) ** 2) / 2)
    if name == "RSWAF":
        return 1 - np.tanh((z[:, None] - grid) / (width * relative)) ** 2
    if name == "Morlet":
        s = (z[:, None] - grid) / (width * relative)
        return np.exp(-(s**2) / 2) * np.cos(5 * s)
    raise NotImplementedError(name)


def _silu(z):
    return z / (1 + np.exp(-z))


def _own(x, index, ndim):
    """The entry of one function in an array that the bank may share."""
    x = np.asarray(x, np.float64)
    return x[index] if x.ndim > ndim else x


def energy(bank, index):
    """One function of a bank with one batch axis, of numbers or arrays."""
    coef, base, spline = (np.asarray(x, np.float64)[index] for x in (bank.coef, bank.base_weight, bank.spline_weight))
    grid, width = _own(bank.grid, index, 1), _own(bank.width, index, 0)
    a, b = _own(bank.domain, index, 1)

    def f(z):
        z = np.clip(np.asarray(z, np.float64), a, b)
        flat = z.reshape(-1)
        values = base * _silu(flat) + spline * features(bank.basis, flat, grid, width) @ coef
        return values.reshape(z.shape)

    return f


def quad(function, points):
    """Integrals over the gaps between points and their error estimates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", integrate.IntegrationWarning)
        parts = [
            integrate.quad(function, low, high, epsabs=0, epsrel=1e-13, limit=200, full_output=1)[:2]
            for low, high in itertools.pairwise(points)
        ]
    return np.asarray(parts).reshape(-1, 2).T


@dataclass(frozen=True)
class Density:
    """exp(f) pi_0 / Z, with f constant outside [a, b] and pi_0 a frozen SciPy distribution."""

    f: Any
    domain: tuple[float, float]
    reference: Any
    kinks: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, bank, index, reference):
        kinks = _own(bank.grid, index, 1) if type(bank.basis).__name__ == "BSpline" else np.zeros(0)
        return cls(energy(bank, index), tuple(_own(bank.domain, index, 1)), reference, kinks)

    @cached_property
    def interval(self):
        low, high = self.reference.support()
        return max(low, self.domain[0]), min(high, self.domain[1])

    @cached_property
    def scan(self):
        low, high = self.interval
        z = np.linspace(low, high, 40_001)
        with np.errstate(divide="ignore"):
            return z, self.f(z) + self.reference.logpdf(z)

    @cached_property
    def peak(self):
        return self.scan[1].max()

    @cached_property
    def points(self):
        """Ends of the pieces that `quad` integrates: equal ones, kinks, ever narrower ones around the highest point."""
        low, high = self.interval
        z, log_density = self.scan
        top = z[np.argmax(log_density)]
        steps = (high - low) / 20 * 2.0 ** -np.arange(14)
        points = np.concatenate([np.linspace(low, high, 31), self.kinks, top - steps, top + steps])
        return np.unique(np.clip(points, low, high))

    def relative(self, z):
        """The density on the scale of its highest value."""
        return np.exp(self.f(z) + self.reference.logpdf(z) - self.peak)

    @cached_property
    def outside(self):
        """Mass on either side of the domain, on the same scale, by SciPy's own tails."""
        a, b = self.domain
        left = np.exp(self.f(a) - self.peak + self.reference.logcdf(a))
        right = np.exp(self.f(b) - self.peak + self.reference.logsf(b))
        return left, right

    @cached_property
    def _total(self):
        values, errors = quad(self.relative, self.points)
        total = values.sum() + sum(self.outside)
        return total, errors.sum() / total

    @property
    def log_z(self):
        return self.peak + np.log(self._total[0])

    @property
    def error(self):
        """The oracle's own error of log Z: `quad`'s estimate, and eight units of rounding of the largest energy."""
        return self._total[1] + 8 * np.finfo(float).eps * (1 + abs(self.peak))

    def log_prob(self, z):
        return self.f(z) + self.reference.logpdf(z) - self.log_z

    def tails(self, z):
        """P(below) and P(above) for increasing z, each summed from its own end."""
        z = np.asarray(z, np.float64)
        a, b = self.domain
        low, high = self.interval
        inner = np.clip(z, low, high)
        points = np.union1d(self.points, inner)
        parts = quad(self.relative, points)[0]
        left, right = self.outside
        below = left + np.concatenate([[0], np.cumsum(parts)])
        above = right + np.concatenate([np.cumsum(parts[::-1])[::-1], [0]])
        total = left + parts.sum() + right
        where = np.searchsorted(points, inner)
        below, above = below[where] / total, above[where] / total
        left = np.exp(self.f(a) - self.peak + self.reference.logcdf(z)) / total
        right = np.exp(self.f(b) - self.peak + self.reference.logsf(z)) / total
        return (
            np.where(z < low, left, np.where(z > high, 1 - right, below)),
            np.where(z > high, right, np.where(z < low, 1 - left, above)),
        )

    def expectation(self, function):
        """E[function(z)] over the whole support, by `quad`."""
        inner = quad(lambda z: function(z) * self.relative(z), self.points)[0].sum()
        support_low, support_high = self.reference.support()
        low, high = self.interval
        if support_low < low:
            inner += quad(lambda z: function(z) * self.relative(z), [-np.inf, 2 * low - high, low])[0].sum()
        if support_high > high:
            # Decades first: a heavy tail is long.
            points = [high, 2 * high, 8 * high, 32 * high, np.inf] if np.isinf(support_high) else [high, support_high]
            inner += quad(lambda z: function(z) * self.relative(z), points)[0].sum()
        return inner / self._total[0]

    def smooth_cdf(self, cells=4000):
        """A fast CDF for millions of points: eight-point Gauss sums on cells of the domain, cubic Hermite between."""
        low, high = self.interval
        edges = np.unique(np.concatenate([np.linspace(low, high, cells + 1), self.points]))
        nodes, weights = np.polynomial.legendre.leggauss(8)
        half = np.diff(edges)[:, None] / 2
        parts = (self.relative((edges[:-1, None] + half) + half * nodes) * half) @ weights
        left, right = self.outside
        total = left + parts.sum() + right
        below = (left + np.concatenate([[0], np.cumsum(parts)])) / total
        inner = interpolate.CubicHermiteSpline(edges, below, self.relative(edges) / total)

        def cdf(z):
            a, b = self.domain
            outer_left = np.exp(self.f(a) - self.peak) * self.reference.cdf(z) / total
            outer_right = np.exp(self.f(b) - self.peak) * self.reference.sf(z) / total
            return np.where(z < low, outer_left, np.where(z > high, 1 - outer_right, inner(np.clip(z, low, high))))

        return cdf
