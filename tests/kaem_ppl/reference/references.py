"""Univariate continuous distributions of NumPyro and SciPy's of the same law: the list that the laws of tails run over."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import transforms as T  # noqa: N812
from scipy import optimize, special, stats


class Law:
    """A law by its log masses and density in float64, where SciPy has no distribution of it."""

    def __init__(self, support, logpdf, logcdf, logsf, ppf=None, isf=None):
        self._support, self.logpdf, self.logcdf, self.logsf = support, logpdf, logcdf, logsf
        self._ppf, self._isf = ppf, isf

    def support(self):
        return self._support

    def pdf(self, x):
        return np.exp(self.logpdf(x))

    def _invert(self, function, target):
        low, high = self._support
        low, high = max(low, -1e3), min(high, 1e3)
        solve = lambda q: optimize.brentq(lambda x: function(x) - q, low, high, xtol=1e-30, rtol=1e-14, maxiter=3000)  # noqa: E731
        return np.vectorize(solve)(target)

    def ppf(self, q):
        return self._ppf(q) if self._ppf else self._invert(self.logcdf, np.log(q))

    def isf(self, q):
        return self._isf(q) if self._isf else self._invert(self.logsf, np.log(q))


def mapped(base, forward, backward, log_slope, rises=True):
    """The law of forward(y), y of a frozen SciPy distribution; log_slope is log |d backward / dx|."""
    below, above = (base.logcdf, base.logsf) if rises else (base.logsf, base.logcdf)
    ppf, isf = (base.ppf, base.isf) if rises else (base.isf, base.ppf)
    ends = sorted(float(forward(np.float64(x))) for x in base.support())
    return Law(
        tuple(ends),
        lambda x: base.logpdf(backward(x)) + log_slope(x),
        lambda x: below(backward(x)),
        lambda x: above(backward(x)),
        lambda q: forward(ppf(q)),
        lambda q: forward(isf(q)),
    )


def mixture(weights, parts):
    log_weights = np.log(weights)[:, None]

    def total(method):
        def value(x):
            parts_at = np.stack([getattr(part, method)(np.ravel(x)) for part in parts])
            return special.logsumexp(log_weights + parts_at, axis=0).reshape(np.shape(x))

        return value

    support = min(p.support()[0] for p in parts), max(p.support()[1] for p in parts)

    def inverse(method, name):
        def invert(q):
            def one(q):
                ends = [getattr(part, name)(q) for part in parts]
                low, high = min(ends) - 1e-9, max(ends) + 1e-9
                excess = lambda x: float(total(method)(np.float64(x)) - np.log(q))  # noqa: E731
                return optimize.brentq(excess, low, high, xtol=1e-15, rtol=1e-14)

            return np.vectorize(one)(q)

        return invert

    law = Law(
        support, total("logpdf"), total("logcdf"), total("logsf"), inverse("logcdf", "ppf"), inverse("logsf", "isf")
    )
    law.is_searched = True
    return law


def folded(base):
    """|y|, y of a frozen SciPy distribution."""

    def logcdf(x):
        x = np.asarray(x)
        # A short interval's mass by the density in its middle has more digits than a difference.
        return np.log(np.where(x < 1e-5, 2 * x * base.pdf(0), base.cdf(x) - base.cdf(-x)))

    return Law(
        (0.0, np.inf),
        lambda x: np.logaddexp(base.logpdf(x), base.logpdf(-np.asarray(x))),
        logcdf,
        lambda x: np.logaddexp(base.logsf(x), base.logcdf(-np.asarray(x))),
    )


def truncated(base, low, high, kink=0.0):
    """A frozen SciPy distribution between low and high; masses by Gauss-Legendre sums of its density, but tails."""
    nodes, weights = np.polynomial.legendre.leggauss(60)

    def smooth(a, b):
        edges = a[..., None] + (b - a)[..., None] * np.linspace(0, 1, 41)
        half = 0.5 * np.diff(edges)[..., None]
        return np.sum(base.pdf((edges[..., :-1, None] + half) + half * nodes) * weights * half, axis=(-2, -1))

    def mass(a, b):
        a, b = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float))
        middle = np.clip(kink, a, b)
        return smooth(a, middle) + smooth(middle, b)

    total = mass(low, high) if np.isfinite([low, high]).all() else base.cdf(high) - base.cdf(low)
    return Law(
        (low, high),
        lambda x: base.logpdf(x) - np.log(total),
        lambda x: base.logcdf(x) - np.log(total) if np.isinf(low) else np.log(mass(low, x) / total),
        lambda x: base.logsf(x) - np.log(total) if np.isinf(high) else np.log(mass(x, high) / total),
    )


def _dagum(concentration, sharpness, scale):
    base = stats.burr(sharpness, concentration, scale=scale)
    log_g = lambda x: np.log(np.log1p((np.asarray(x) / scale) ** -sharpness))  # noqa: E731
    return Law(
        (0.0, np.inf),
        base.logpdf,
        lambda x: -concentration * np.exp(log_g(x)),
        lambda x: np.log(-np.expm1(-concentration * np.exp(log_g(x)))),
        base.ppf,
        lambda q: scale * np.expm1(-np.log1p(-q) / concentration) ** (-1 / sharpness),
    )


def _asymmetric_laplace(loc, scale, kappa):
    left, right = scale * kappa, scale / kappa
    total = left + right

    def logcdf(x):
        y = np.asarray(x) - loc
        return np.where(
            y < 0, np.log(left / total) + y / left, np.log1p(-right / total * np.exp(-np.maximum(y, 0) / right))
        )

    def logsf(x):
        y = np.asarray(x) - loc
        return np.where(
            y >= 0, np.log(right / total) - y / right, np.log1p(-left / total * np.exp(np.minimum(y, 0) / left))
        )

    def ppf(q):
        return loc + np.where(
            q < left / total, left * np.log(q * total / left), -right * np.log((1 - q) * total / right)
        )

    def isf(q):
        return loc + np.where(
            q < right / total, -right * np.log(q * total / right), left * np.log((1 - q) * total / left)
        )

    logpdf = lambda x: np.where(np.asarray(x) < loc, (x - loc) / left, -(x - loc) / right) - np.log(total)  # noqa: E731
    return Law((-np.inf, np.inf), logpdf, logcdf, logsf, ppf, isf)


def _power_law(a, low, high):
    a = a + 1
    length = np.log(high / low)
    norm = np.log(np.expm1(a * length) / a)
    return Law(
        (low, high),
        lambda x: (a - 1) * np.log(x / low) - np.log(low) - norm,
        lambda x: np.log(np.expm1(a * np.log(np.asarray(x) / low)) / a) - norm,
        lambda x: np.log(-np.expm1(a * np.log(np.asarray(x) / high)) / -np.expm1(-a * length)),
        lambda q: low * np.exp(np.log1p(q * np.expm1(a * length)) / a),
        lambda q: high * np.exp(np.log1p(q * np.expm1(-a * length)) / a),
    )


def _kumaraswamy(a, b):
    return Law(
        (0.0, 1.0),
        lambda x: np.log(a * b) + (a - 1) * np.log(x) + (b - 1) * np.log1p(-(np.asarray(x) ** a)),
        lambda x: np.log(-np.expm1(b * np.log1p(-(np.asarray(x) ** a)))),
        lambda x: b * np.log1p(-(np.asarray(x) ** a)),
        lambda q: (-np.expm1(np.log1p(-q) / b)) ** (1 / a),
        lambda q: np.exp(np.log1p(-(q ** (1 / b))) / a),
    )


def _soft_laplace(loc, scale):
    base = stats.hypsecant(loc, scale)
    y = lambda x: (np.asarray(x) - loc) / scale  # noqa: E731
    quantile = lambda q: np.log(np.tan(np.pi / 2 * q))  # noqa: E731
    return Law(
        (-np.inf, np.inf),
        base.logpdf,
        lambda x: np.log(2 / np.pi * np.arctan(np.exp(y(x)))),
        lambda x: np.log(2 / np.pi * np.arctan(np.exp(-y(x)))),
        lambda q: loc + scale * quantile(q),
        lambda q: loc - scale * quantile(q),
    )


class Tilted:
    """exp(f) times a law, f rising linearly by `rise` nats over a domain and constant outside it, by sums over panels.

    Panels end at quantiles of masses from a half down to 1e-300, on both sides.
    """

    def __init__(self, law, domain, rise):
        a, b = domain
        # Laws inverted by a search here have light tails.
        depth = 80 if getattr(law, "is_searched", False) or (isinstance(law, Law) and law._ppf is None) else 690
        log_masses = -np.concatenate([[np.log(2)], np.arange(1, depth, 1.5)])
        with np.errstate(all="ignore"):
            ends = np.concatenate([law.ppf(np.exp(log_masses)), law.isf(np.exp(log_masses)), [a, b], KINKS])
        low, high = law.support()
        ends = np.unique(ends[(ends > low) & (ends < high) & np.isfinite(ends)])
        nodes, weights = np.polynomial.legendre.leggauss(40)
        half = 0.5 * np.diff(ends)[:, None]
        self.z = ((ends[:-1, None] + half) + half * nodes).ravel()
        self.log_pi_0 = np.asarray(law.logpdf(self.z))
        f = rise * (np.clip(self.z, a, b) - a) / (b - a)
        with np.errstate(divide="ignore"):
            terms = np.log((half * weights).ravel()) + f + self.log_pi_0
        self.log_z = special.logsumexp(terms)
        self.weight, self.log_density = np.exp(terms - self.log_z), f + self.log_pi_0 - self.log_z

    def moments(self):
        """Mean, variance and entropy."""
        mean = self.weight @ self.z
        some = self.weight > 0
        entropy = -(self.weight[some] @ self.log_density[some])
        return mean, self.weight @ (self.z - mean) ** 2, entropy


# Where some law of the list is not smooth.
KINKS = (0.0, 0.5)


class Shifted(dist.Normal):
    """A user's class that says loc 0 and is N(3, 1)."""

    def __init__(self):
        super().__init__(0.0, 1.0)

    def log_prob(self, value):
        return dist.Normal(3.0, 1.0).log_prob(value)

    def cdf(self, value):
        return dist.Normal(3.0, 1.0).cdf(value)

    def icdf(self, q):
        return dist.Normal(3.0, 1.0).icdf(q)


class Sech2(dist.Distribution):
    """A user's class with a density and nothing else, of a scale far from 1: logistic."""

    support = dist.constraints.real

    def __init__(self):
        super().__init__((), ())

    def log_prob(self, value):
        y = (value - 1000.0) / 0.5
        return -jnp.abs(y) - 2 * jnp.log1p(jnp.exp(-jnp.abs(y))) - jnp.log(0.5)


# Made by a call, for their arrays take the precision of the moment.
CLOSED = {
    "Normal": (lambda: dist.Normal(0.5, 2.0), stats.norm(0.5, 2.0)),
    "LogNormal": (lambda: dist.LogNormal(0.1, 0.7), stats.lognorm(s=0.7, scale=np.exp(0.1))),
    "Uniform": (lambda: dist.Uniform(-1.0, 4.0), stats.uniform(-1, 5)),
    "LogUniform": (lambda: dist.LogUniform(0.1, 20.0), stats.loguniform(0.1, 20.0)),
    "Cauchy": (lambda: dist.Cauchy(0.5, 2.0), stats.cauchy(0.5, 2.0)),
    "HalfCauchy": (lambda: dist.HalfCauchy(2.0), stats.halfcauchy(scale=2.0)),
    "HalfNormal": (lambda: dist.HalfNormal(2.0), stats.halfnorm(scale=2.0)),
    "Laplace": (lambda: dist.Laplace(0.5, 2.0), stats.laplace(0.5, 2.0)),
    "AsymmetricLaplace": (lambda: dist.AsymmetricLaplace(0.5, 2.0, 1.5), _asymmetric_laplace(0.5, 2.0, 1.5)),
    "AsymmetricLaplaceQuantile": (
        lambda: dist.AsymmetricLaplaceQuantile(0.5, 1.0, 0.3),
        _asymmetric_laplace(0.5, np.sqrt(3 / 7) / 0.3, np.sqrt(3 / 7)),
    ),
    "SoftLaplace": (lambda: dist.SoftLaplace(0.5, 2.0), _soft_laplace(0.5, 2.0)),
    "Logistic": (lambda: dist.Logistic(0.5, 2.0), stats.logistic(0.5, 2.0)),
    "Gumbel": (lambda: dist.Gumbel(0.5, 1.5), stats.gumbel_r(0.5, 1.5)),
    "Exponential": (lambda: dist.Exponential(1.5), stats.expon(scale=1 / 1.5)),
    "Weibull": (lambda: dist.Weibull(2.0, 1.5), stats.weibull_min(1.5, scale=2.0)),
    "Gompertz": (lambda: dist.Gompertz(0.7, 1.5), stats.gompertz(0.7, scale=1 / 1.5)),
    "Pareto": (lambda: dist.Pareto(1.5, 3.0), stats.pareto(3.0, scale=1.5)),
    "LowerTruncatedPowerLaw": (lambda: dist.LowerTruncatedPowerLaw(-4.0, 1.5), stats.pareto(3.0, scale=1.5)),
    "DoublyTruncatedPowerLaw": (lambda: dist.DoublyTruncatedPowerLaw(-1.5, 0.5, 10.0), _power_law(-1.5, 0.5, 10.0)),
    "Kumaraswamy": (lambda: dist.Kumaraswamy(2.0, 3.0), _kumaraswamy(2.0, 3.0)),
    "Levy": (lambda: dist.Levy(0.5, 2.0), stats.levy(0.5, 2.0)),
    "Dagum": (lambda: dist.Dagum(0.8, 4.0, 1.5), _dagum(0.8, 4.0, 1.5)),
    "RelaxedBernoulli": (
        lambda: dist.RelaxedBernoulliLogits(jnp.array(2.0), jnp.array(0.6)),
        mapped(
            stats.logistic(0.3, 0.5),
            special.expit,
            special.logit,
            lambda x: -np.log(x) - np.log1p(-np.asarray(x)),
        ),
    ),
}
BY_QUADRATURE = {
    "Gamma": (lambda: dist.Gamma(2.5, 1.5), stats.gamma(2.5, scale=1 / 1.5)),
    "Gamma, singular": (lambda: dist.Gamma(0.5, 1.5), stats.gamma(0.5, scale=1 / 1.5)),
    "Chi2": (lambda: dist.Chi2(5.0), stats.chi2(5.0)),
    "InverseGamma": (lambda: dist.InverseGamma(5.0, 2.0), stats.invgamma(5.0, scale=2.0)),
    "Beta": (lambda: dist.Beta(2.0, 3.0), stats.beta(2.0, 3.0)),
    "BetaProportion": (lambda: dist.BetaProportion(0.4, 6.0), stats.beta(2.4, 3.6)),
    "StudentT": (lambda: dist.StudentT(4.0, 0.5, 2.0), stats.t(4.0, 0.5, 2.0)),
    "TruncatedNormal": (lambda: dist.TruncatedNormal(0.0, 1.0, low=-2.0, high=4.0), stats.truncnorm(-2, 4)),
    "LeftTruncated": (lambda: dist.TruncatedNormal(0.0, 1.0, low=-1.0), stats.truncnorm(-1, np.inf)),
    "RightTruncated": (
        lambda: dist.RightTruncatedDistribution(dist.Laplace(0.0, 1.0), high=1.5),
        truncated(stats.laplace(), -np.inf, 1.5),
    ),
    "TruncatedCauchy": (
        lambda: dist.TruncatedCauchy(0.0, 1.0, low=-1.0, high=5.0),
        truncated(stats.cauchy(), -1.0, 5.0),
    ),
    "Folded": (lambda: dist.FoldedDistribution(dist.Normal(0.7, 1.0)), folded(stats.norm(0.7))),
    "VonMises": (lambda: dist.VonMises(0.0, 2.0), truncated(stats.vonmises(2.0), -np.pi, np.pi)),
    "Mixture": (
        lambda: dist.MixtureSameFamily(
            dist.Categorical(jnp.array([0.3, 0.7])), dist.Normal(jnp.array([-2.0, 1.5]), jnp.array([0.5, 1.0]))
        ),
        mixture([0.3, 0.7], [stats.norm(-2.0, 0.5), stats.norm(1.5, 1.0)]),
    ),
    "MixtureGeneral": (
        lambda: dist.MixtureGeneral(
            dist.Categorical(jnp.array([0.4, 0.6])), [dist.StudentT(5.0, -1.0, 0.5), dist.Normal(2.0, 1.0)]
        ),
        mixture([0.4, 0.6], [stats.t(5.0, -1.0, 0.5), stats.norm(2.0, 1.0)]),
    ),
    "Decreasing": (
        lambda: dist.TransformedDistribution(dist.Gamma(2.0, 1.0), T.AffineTransform(2.0, -3.0)),
        mapped(stats.gamma(2.0), lambda y: 2 - 3 * y, lambda x: (2 - x) / 3, lambda x: -np.log(3.0), rises=False),
    ),
    "Composed": (
        lambda: dist.TransformedDistribution(
            dist.StudentT(40.0, 0.0, 1.0), [T.AffineTransform(0.5, 0.4), T.SoftplusTransform()]
        ),
        mapped(
            stats.t(40.0, 0.5, 0.4),
            lambda y: np.logaddexp(0, y),
            lambda x: x + np.log(-np.expm1(-np.asarray(x))),
            lambda x: -np.log(-np.expm1(-np.asarray(x))),
        ),
    ),
    "Shifted": (Shifted, stats.norm(3.0, 1.0)),
    "Sech2": (Sech2, stats.logistic(1000.0, 0.5)),
}
REFERENCES = CLOSED | BY_QUADRATURE
