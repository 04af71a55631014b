"""Models with discrete latents, small enough that all their joint states can be listed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 200)
CLUSTERED = jnp.asarray(RNG.normal(3.0 * LABELS, 1.0), jnp.float32)
COUNTS = jnp.asarray(np.where(RNG.random(50) < 0.4, 0, RNG.poisson(3.0, 50)))
SERIES = jnp.asarray(RNG.normal(2.0 * RNG.integers(0, 3, 500), 1.0), jnp.float32)
COVARIATES = jnp.asarray(RNG.normal(size=(40, 2)), jnp.float32)
CHOICES = jnp.asarray(RNG.integers(0, 3, 40))
FEW = jnp.array([-1.2, 0.4, 2.1])
PAIRS = jnp.array([[0.3, -1.0], [2.2, 1.4], [1.9, 0.2]])


class Example(NamedTuple):
    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = {}


def gaussian_mixture(x, num_components=3):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(num_components)))
    with numpyro.plate("components", num_components):
        loc = numpyro.sample("loc", dist.Normal(0, 5))
    with numpyro.plate("data", len(x)):
        c = numpyro.sample("c", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[c], 1), obs=x)


def zero_inflated(counts):
    gate = numpyro.sample("gate", dist.Beta(1, 1))
    rate = numpyro.sample("rate", dist.Gamma(2, 1))
    with numpyro.plate("data", len(counts)):
        is_zero = numpyro.sample("is_zero", dist.Bernoulli(gate))
        numpyro.sample("counts", dist.Poisson(jnp.where(is_zero == 1, 1e-6, rate)), obs=counts)


def hmm(y, reverse=False):
    transition = numpyro.sample("transition", dist.Dirichlet(jnp.ones((3, 3))).to_event(1))
    loc = numpyro.sample("loc", dist.Normal(0, 3).expand([3]).to_event(1))

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(transition[z]))
        numpyro.sample("y", dist.Normal(loc[z], 1), obs=y)
        return z, None

    scan(step, 0, y, reverse=reverse)


def hmm_loop(y):
    transition = numpyro.sample("transition", dist.Dirichlet(jnp.ones((3, 3))).to_event(1))
    loc = numpyro.sample("loc", dist.Normal(0, 3).expand([3]).to_event(1))
    z = 0
    for t, value in enumerate(y):
        z = numpyro.sample(f"z_{t}", dist.Categorical(transition[z]))
        numpyro.sample(f"y_{t}", dist.Normal(loc[z], 1), obs=value)


def latent_class_regression(covariates, choices):
    share = numpyro.sample("share", dist.Beta(2, 2))
    coefficients = numpyro.sample("coefficients", dist.Normal(0, 1).expand([2, 2, 3]).to_event(3))
    with numpyro.plate("people", len(covariates)):
        group = numpyro.sample("group", dist.Bernoulli(share))
        logits = (covariates[:, :, None] * coefficients[group]).sum(-2)
        numpyro.sample("choices", dist.Categorical(logits=logits), obs=choices)


def nested_plates(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1).expand([2]).to_event(1))
    kind = numpyro.sample("kind", dist.Bernoulli(0.4))
    with numpyro.plate("rows", len(x), dim=-2):
        row = numpyro.sample("row", dist.Categorical(jnp.array([[0.2, 0.8], [0.7, 0.3]])[kind]))
        with numpyro.plate("columns", x.shape[1], dim=-1):
            flip = numpyro.sample("flip", dist.Bernoulli(0.3 + 0.2 * row))
            numpyro.sample("x", dist.Normal(loc[row] + flip, 1 + kind), obs=x)


def event_of_switches(y):
    slope = numpyro.sample("slope", dist.Normal(0, 1).expand([3]).to_event(1))
    switches = numpyro.sample("switches", dist.Bernoulli(jnp.array([0.2, 0.5, 0.7])).to_event(1))
    numpyro.sample("y", dist.Normal((slope * switches).sum(), 1).expand([3]).to_event(1), obs=y)


def counts_of_trials(y):
    rate = numpyro.sample("rate", dist.Beta(2, 2))
    n = numpyro.sample("n", dist.DiscreteUniform(1, 3))
    hits = numpyro.sample("hits", dist.Binomial(4, rate))
    extra = numpyro.sample("extra", dist.BetaBinomial(1.0, 2.0, 2))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(n + hits - extra, 1), obs=y)


def grade(y):
    effect = numpyro.sample("effect", dist.Normal(0, 1))
    level = numpyro.sample("level", dist.OrderedLogistic(effect, jnp.array([-1.0, 0.5])))
    numpyro.factor("bonus", 0.3 * level * effect)
    numpyro.sample("y", dist.Normal(level, 1).expand([3]).to_event(1), obs=y)


def second_order(y, lengths):
    stay = numpyro.sample("stay", dist.Beta(2, 1))

    def step(carry, y):
        before, last, t = carry
        with numpyro.plate("sequences", y.shape[0]), handlers.mask(mask=t < lengths):
            p = jnp.where(before == last, stay, 0.3)
            z = numpyro.sample("z", dist.Bernoulli(jnp.where(last == 1, p, 1 - p)))
            numpyro.sample("y", dist.Normal(z, 1), obs=y)
        return (last, z, t + 1), None

    zeros = jnp.zeros(y.shape[1], int)
    scan(step, (zeros, zeros, 0), y)


def chain_from_latent_start(y):
    loc = numpyro.sample("loc", dist.Normal(0, 1))
    kind = numpyro.sample("kind", dist.Bernoulli(0.4))
    start = numpyro.sample("start", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
    rows = jnp.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(rows[z]))
        w = numpyro.sample("w", dist.Bernoulli(0.2 + 0.3 * (z == 1)))
        numpyro.sample("y", dist.Normal(loc * z + w + kind, 1), obs=y)
        return z, z

    scan(step, start, y)


def switching_level(y):
    drift = numpyro.sample("drift", dist.Normal(0, 1))

    def step(carry, y):
        z, level = carry
        z = numpyro.sample("z", dist.Bernoulli(0.3 + 0.4 * z))
        level = numpyro.sample("level", dist.Normal(level + z * drift, 0.5))
        numpyro.sample("y", dist.Normal(level, 1), obs=y)
        return (z, level), None

    scan(step, (0, 0.0), y)


def random_effects_by_class(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("data", len(x)):
        c = numpyro.sample("c", dist.Bernoulli(0.3))
        scale = numpyro.sample("scale", dist.LogNormal(loc[c], 0.5))
        numpyro.sample("x", dist.Normal(c, scale), obs=x)


def masked_class(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("data", len(x)), handlers.mask(mask=jnp.array([True, False, True])):
        c = numpyro.sample("c", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(loc[c], 1), obs=x)


def missing_labels(x, labels, is_known):
    loc = numpyro.sample("loc", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("data", len(x)):
        c = numpyro.sample("c", dist.Bernoulli(0.3), obs=labels, obs_mask=is_known)
        numpyro.sample("x", dist.Normal(loc[c], 1), obs=x)


# Few enough joint states to add them all up. A run of the fast tests takes those that differ most.
FAST = ("nested plates", "an event of three", "second order, masked", "continuous latents in a chain", "labels missing")
SMALL = {
    "nested plates": Example(nested_plates, (PAIRS,)),
    "an event of three": Example(event_of_switches, (FEW,)),
    "counts": Example(counts_of_trials, (FEW,)),
    "an ordered level and a factor": Example(grade, (FEW,)),
    "second order, masked": Example(second_order, (PAIRS.T[:, :2].repeat(2, 0), jnp.array([4, 2]))),
    "a chain from a latent start": Example(chain_from_latent_start, (FEW,)),
    "a chain in reverse": Example(hmm, (FEW,), {"reverse": True}),
    "a chain as a loop": Example(hmm_loop, (FEW,)),
    "continuous latents in a chain": Example(switching_level, (FEW,)),
    "continuous latents of a class": Example(random_effects_by_class, (FEW,)),
    "masked": Example(masked_class, (FEW,)),
    "labels missing": Example(missing_labels, (FEW, jnp.array([0, 1, 1]), jnp.array([True, False, True]))),
}
