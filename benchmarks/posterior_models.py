"""Twelve NumPyro models on simulated data, of the kinds that posterior samplers are compared on, and a small KAEM."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan

import kaem_ppl as kp


class Problem(NamedTuple):
    """A model and its arguments."""

    model: Callable[..., None]
    args: tuple[Any, ...]


def eight_groups(y, sigma):
    """Eight means around a common one, not centred."""
    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("groups", len(y)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu + tau * z, sigma), obs=y)


def logistic(x, y):
    """Logistic regression."""
    weights = numpyro.sample("weights", dist.Normal(0, 2).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)


def linear(x, y):
    """Linear regression, predictors correlated and of unlike scales."""
    weights = numpyro.sample("weights", dist.Normal(0, 10).expand([x.shape[1]]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(5))
    numpyro.sample("y", dist.Normal(x @ weights, sigma), obs=y)


def varying_slopes(group, x, y, num_groups):
    """Intercepts and slopes of groups."""
    mean = numpyro.sample("mean", dist.Normal(0, 2).expand([2]).to_event(1))
    spread = numpyro.sample("spread", dist.HalfNormal(1).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("groups", num_groups):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
    intercept, slope = (mean + spread * z).T
    numpyro.sample("y", dist.Normal(intercept[group] + slope[group] * x, sigma), obs=y)


def volatility(returns):
    """Stochastic volatility: a random walk of log standard deviations."""
    step = numpyro.sample("step", dist.Exponential(20.0))
    with numpyro.plate("time", len(returns)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(0, jnp.exp(step * jnp.cumsum(z))), obs=returns)


def gaussian_process(x, y):
    """Length and sizes of a Gaussian process, its values integrated out."""
    length, size = numpyro.sample("length", dist.InverseGamma(5, 5)), numpyro.sample("size", dist.HalfNormal(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1))
    covariance = size**2 * jnp.exp(-((x[:, None] - x) ** 2) / (2 * length**2))
    covariance += (noise**2 + 1e-5) * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), covariance), obs=y)


def item_response(person, item, y, num_persons, num_items):
    """Abilities, difficulties and discriminations."""
    with numpyro.plate("persons", num_persons):
        ability = numpyro.sample("ability", dist.Normal(0, 1))
    with numpyro.plate("items", num_items):
        difficulty = numpyro.sample("difficulty", dist.Normal(0, 2))
        discrimination = numpyro.sample("discrimination", dist.LogNormal(0, 0.5))
    numpyro.sample("y", dist.Bernoulli(logits=discrimination[item] * (ability[person] - difficulty[item])), obs=y)


def counts(x, y):
    """Negative binomial regression."""
    weights = numpyro.sample("weights", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    concentration = numpyro.sample("concentration", dist.Gamma(2, 0.5))
    numpyro.sample("y", dist.NegativeBinomial2(jnp.exp(x @ weights), concentration), obs=y)


def two_normals(y):
    """A mixture of two normals with ordered means."""
    share = numpyro.sample("share", dist.Beta(5, 5))
    means = numpyro.sample("means", dist.TransformedDistribution(
        dist.Normal(0, 2).expand([2]).to_event(1), dist.transforms.OrderedTransform()))  # fmt: skip
    scales = numpyro.sample("scales", dist.HalfNormal(2).expand([2]).to_event(1))
    parts = dist.Normal(means, scales)
    numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(jnp.stack([share, 1 - share])), parts), obs=y)


def autoregression(y):
    """An autoregression of order two."""
    constant = numpyro.sample("constant", dist.Normal(0, 5))
    weights = numpyro.sample("weights", dist.Normal(0, 1).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    mean = constant + weights[0] * y[1:-1] + weights[1] * y[:-2]
    numpyro.sample("y", dist.Normal(mean, sigma), obs=y[2:])


def smoothing(y):
    """Exponential smoothing of level and trend, step by step."""
    level_rate, trend_rate = numpyro.sample("rates", dist.Beta(2, 2).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    start = numpyro.sample("start", dist.Normal(0, 2).expand([2]).to_event(1))

    def step(state, y):
        level, trend = state
        numpyro.sample("y", dist.Normal(level + trend, sigma), obs=y)
        new = level_rate * y + (1 - level_rate) * (level + trend)
        return (new, trend_rate * (new - level) + (1 - trend_rate) * trend), None

    scan(step, (start[0], start[1]), y)


def sparse(x, y):
    """Linear regression with a regularised horseshoe, not centred."""
    tau = numpyro.sample("tau", dist.HalfCauchy(0.1))
    slab = numpyro.sample("slab", dist.InverseGamma(2, 8))
    with numpyro.plate("predictors", x.shape[1]):
        local, z = numpyro.sample("local", dist.HalfCauchy(1)), numpyro.sample("z", dist.Normal(0, 1))
    width = jnp.sqrt(slab * local**2 / (slab + tau**2 * local**2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(x @ (z * tau * width), sigma), obs=y)


def make_posteriors() -> dict[str, Problem]:
    """Twelve posteriors by name, data simulated by NumPy from seed 0."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal
    x = normal((500, 10))
    mixed = normal((200, 6)) @ (np.eye(6) + 0.8 * np.ones((6, 6))) * np.geomspace(0.1, 10, 6)
    group, slope_x = rng.integers(0, 40, 600), normal(600)
    effects = np.array([1.0, -0.5]) + np.array([0.6, 0.3]) * normal((40, 2))
    time = np.sort(rng.uniform(-2, 2, 40))
    person, item = (a.ravel() for a in np.meshgrid(np.arange(60), np.arange(12)))
    ability, difficulty = normal(60), np.linspace(-2, 2, 12)
    rate = np.exp(x[:, :4] @ np.array([0.5, -0.3, 0.2, 0.0]))
    series = np.zeros(202)
    for t in range(2, 202):
        series[t] = 0.5 + 0.6 * series[t - 1] - 0.2 * series[t - 2] + 0.7 * normal()
    trend = np.cumsum(0.1 + 0.2 * normal(100)) + 0.3 * normal(100)
    wide = normal((100, 30))
    chosen = np.where(np.arange(30) < 3, [3.0, -2.0, 1.5] + [0.0] * 27, 0.0)
    schools = (
        np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
        np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
    )
    problems = {
        "eight groups": (eight_groups, *schools),
        "logistic": (logistic, x, rng.binomial(1, 1 / (1 + np.exp(-x @ np.linspace(-1, 1, 10))))),
        "correlated linear": (linear, mixed, mixed @ np.ones(6) + 2 * normal(200)),
        "varying slopes": (
            varying_slopes, group, slope_x,
            effects[group, 0] + effects[group, 1] * slope_x + 0.5 * normal(600), 40,
        ),
        "stochastic volatility": (volatility, np.exp(np.cumsum(0.15 * normal(200))) * normal(200)),
        "Gaussian process": (gaussian_process, time, np.sin(2 * time) + 0.2 * normal(40)),
        "item response": (
            item_response, person, item,
            rng.binomial(1, 1 / (1 + np.exp(-(ability[person] - difficulty[item])))), 60, 12,
        ),
        "counts": (counts, x[:, :4], rng.negative_binomial(3, 3 / (3 + rate))),
        "two normals": (two_normals, np.concatenate([normal(150) - 1.5, 0.7 * normal(100) + 1.5])),
        "autoregression": (autoregression, series),
        "exponential smoothing": (smoothing, trend),
        "horseshoe": (sparse, wide, wide @ chosen + 0.5 * normal(100)),
    }  # fmt: skip
    return {name: Problem(model, tuple(_float32(a) for a in args)) for name, (model, *args) in problems.items()}


def _float32(value):
    """Arrays in JAX's own precision; integers stay what they are."""
    if isinstance(value, int):
        return value
    return jnp.asarray(value, jnp.int32 if np.issubdtype(value.dtype, np.integer) else jnp.float32)


def small_kaem(x):
    """A KAEM of four latents and 16 outputs, each datum with latents of its own."""
    prior = kp.kan_prior("prior", (4,), basis=kp.RBF(20), domain=(-3, 3), reference=dist.Normal(0, 1))
    decode = kp.kan_generator("decoder", (4, 9, 16), output=jax.nn.sigmoid)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", prior.to_event(1))
        numpyro.sample("x", dist.Normal(decode(z), 0.2).to_event(1), obs=x)
