"""Laws that every learning strategy obeys, on a Kolmogorov-Arnold energy model small enough to integrate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

import kaem_ppl as kp
from kaem_ppl.inference import (
    MALA,
    ULA,
    AdaptedLadder,
    ImportanceMLE,
    LangevinMLE,
    PathwiseImportanceMLE,
    PowerLadder,
    ThermodynamicMLE,
    VariationalMLE,
    fit,
)
from kaem_ppl.inference.model.training_model import read_training_model

PRIOR = {"basis": kp.RBF(6), "domain": (-2.5, 2.5), "reference": dist.Normal(0, 1)}
NOISE = 0.6
PARAMS = {
    "prior$params": {
        "coef": jax.random.normal(jax.random.key(3), (2, 6)),
        "base_weight": jnp.array([0.2, -0.1]),
        "spline_weight": jnp.array([1.0, 0.9]),
    },
    "weight": jnp.array([[1.0, 0.3], [-0.4, 0.8]]),
}
DATUM = jnp.array([0.7, -0.5])
TEMPERATURES = np.linspace(0, 1, 8) ** 2


def decode(z, weight):
    return jnp.sin(z @ weight.T) + 0.5 * z


def model(x=None, size=None):
    prior = kp.kan_prior("prior", (2,), **PRIOR)
    weight = numpyro.param("weight", jnp.eye(2))
    with numpyro.plate("data", size if x is None else len(x)):
        z = numpyro.sample("z", prior.to_event(1))
        numpyro.sample("x", dist.Normal(decode(z, weight), NOISE).to_event(1), obs=x)


def normal_guide(x):
    loc = numpyro.param("loc", jnp.array([0.3, -0.2]))
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))


def on_a_grid(params):
    """Log-masses of the prior and log-likelihoods on a grid of both latents: no normaliser of the library enters."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = np.linspace(-7, 7, 9)
    centres, half = 0.5 * (edges[1:] + edges[:-1])[:, None], 0.5 * np.diff(edges)[:, None]
    z, weights = (jnp.asarray(x.ravel(), jnp.float32) for x in (centres + half * nodes, half * weights))
    bank = kp.UnivariateKAN.init(jax.random.key(0), (2,), basis=PRIOR["basis"], domain=PRIOR["domain"])
    bank = dataclasses.replace(bank, **params["prior$params"])
    log_mass = jax.nn.log_softmax(bank(z[:, None]) - 0.5 * z[:, None] ** 2 + jnp.log(weights)[:, None], axis=0)
    pairs = jnp.stack(jnp.meshgrid(z, z, indexing="ij"), axis=-1)
    log_likelihood = dist.Normal(decode(pairs, params["weight"]), NOISE).log_prob(DATUM).sum(-1)
    return log_mass[:, None, 0] + log_mass[None, :, 1], log_likelihood


def log_evidence(params):
    log_mass, log_likelihood = on_a_grid(params)
    return jax.nn.logsumexp(log_mass + log_likelihood)


def trapezoid(params):
    """The thermodynamic integral on the ladder, every expectation exact."""
    log_mass, log_likelihood = on_a_grid(params)
    means = jnp.stack(
        [(jax.nn.softmax((log_mass + t * log_likelihood).ravel()) * log_likelihood.ravel()).sum() for t in TEMPERATURES]
    )
    return (np.diff(TEMPERATURES) * 0.5 * (means[1:] + means[:-1])).sum()


# Copies of one datum in a batch, the strategy, what it estimates without bias (up to what is said below), and that bias.
GRADIENTS = {
    "importance": (1, ImportanceMLE(4096, ess_threshold=0), log_evidence, 0.0),
    "pathwise": (1, PathwiseImportanceMLE(4096), log_evidence, 0.0),
    "variational": (1, VariationalMLE(normal_guide, 4096), log_evidence, 0.0),
    "mala": (64, LangevinMLE(MALA(0.15), 200, persistent=False), log_evidence, 0.0),
    # The variance is too large by a factor 1 / (1 - step / (2 variance)): one per cent, for variances near 0.25.
    "ula": (64, LangevinMLE(ULA(0.005), 300, persistent=False), log_evidence, 0.01),
    "fisher": (64, ThermodynamicMLE(MALA(0.15), PowerLadder(4, 2.0), 50, persistent=False), log_evidence, 0.0),
    # Covariances over 200 sweeps of a chain, the first of them not yet in equilibrium.
    "thermodynamic": (
        64,
        ThermodynamicMLE(MALA(0.15), PowerLadder(8, 2.0), 200, objective="thermodynamic", persistent=False),
        trapezoid,
        0.01,
    ),
    "steppingstone": (
        64,
        ThermodynamicMLE(MALA(0.15), PowerLadder(8, 2.0), 200, objective="steppingstone", persistent=False),
        log_evidence,
        0.01,
    ),
}


# The others run through what these do.
IN_CI = ("importance", "variational", "mala")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in IN_CI else pytest.mark.exhaustive) for n in GRADIENTS]
)
def test_gradient_is_that_of_the_log_evidence(name):
    # Oracle: quadrature on a grid of both latents, differentiated. 64 estimates, from 4,096 draws in all by the Markov
    # chains and 4,096 each by the others; the mean of each of 20 coordinates within 4 standard errors: a false alarm in
    # 0.3 % of seeds (Student's t, 63 degrees of freedom). Biases are fractions of the gradient's length.
    num_copies, strategy, oracle, bias = GRADIENTS[name]
    data = jnp.broadcast_to(DATUM, (num_copies, 2))
    plate_model = read_training_model(jax.random.key(0), model, data, "data", PARAMS)
    given = {"loc": jnp.array([0.3, -0.2]), "scale": jnp.ones(2)} if name == "variational" else {}
    state = strategy.init(jax.random.key(1), plate_model, PARAMS | given, data)

    def loss(params, key):
        return strategy.loss(key, plate_model, params | given, state, data)[0]

    # Eight at a time, for memory.
    estimate = jax.jit(lambda keys: jax.lax.map(lambda key: jax.grad(loss)(PARAMS, key), keys, batch_size=8))
    estimates = estimate(jax.random.split(jax.random.key(2), 64))
    exact = jax.grad(lambda params: -oracle(params))(PARAMS)
    length = jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(exact)))
    for (path, values), expected in zip(jax.tree.leaves_with_path(estimates), jax.tree.leaves(exact), strict=True):
        std_error = values.std(0, ddof=1) / np.sqrt(len(values))
        off = jnp.abs(values.mean(0) - expected)
        assert (off < 4 * std_error + bias * length).all(), (jax.tree_util.keystr(path), off / std_error, off / length)


@pytest.mark.slow
def test_the_ladder_itself_errs_little():
    # What separates the thermodynamic objective's own gradient from that of the log-evidence: the trapezoid rule.
    exact, ladder = (jax.tree.leaves(jax.grad(function)(PARAMS)) for function in (log_evidence, trapezoid))
    length = np.sqrt(sum(np.square(leaf).sum() for leaf in exact))
    assert max(np.abs(a - b).max() for a, b in zip(exact, ladder, strict=True)) < 0.03 * length


# Two modes, at -1.5 and 1.5, the left one the higher: 0.55 to 0.45, with a density between them of 3 % of the peak.
TRUE_LOG_DENSITY = np.logaddexp(
    np.log(0.55) - 0.5 * ((np.linspace(-3, 3, 601) + 1.5) / 0.5) ** 2,
    np.log(0.45) - 0.5 * ((np.linspace(-3, 3, 601) - 1.5) / 0.5) ** 2,
)
MODES = {"basis": kp.RBF(12), "domain": (-3, 3), "reference": dist.Uniform(-3, 3)}


def one_latent(x=None, size=None):
    prior = kp.kan_prior("prior", (1,), **MODES)
    with numpyro.plate("data", size if x is None else len(x)):
        z = numpyro.sample("z", prior.to_event(1))
        numpyro.sample("x", dist.Normal(z * jnp.array([1.0, -0.5]), 0.2).to_event(1), obs=x)


def encoder(x):
    slope = numpyro.param("slope", jnp.zeros((2, 1)))
    scale = numpyro.param("scale", 0.5, constraint=constraints.positive)
    with numpyro.plate("data", len(x)):
        base = dist.Normal(x @ slope, scale)
        to_interval = dist.biject_to(constraints.interval(-3, 3))
        numpyro.sample("z", dist.TransformedDistribution(base, to_interval).to_event(1))


RECOVERIES = {
    "importance": ImportanceMLE(400, ess_threshold=0),
    "pathwise": PathwiseImportanceMLE(400),
    # In the coordinates of the chains variances are near 0.025, so the step's own bias of them is six per cent.
    "langevin, fresh": LangevinMLE(ULA(0.003), 100, persistent=False),
    "langevin, persistent": LangevinMLE(MALA(), 5),
    "fisher, adapted": ThermodynamicMLE(MALA(), AdaptedLadder(4), 5),
    # Chains near the prior seldom change modes: 20 sweeps miss too much of the covariance between them, and leave 0.07.
    "thermodynamic": ThermodynamicMLE(MALA(), PowerLadder(8, 3.0), 60, objective="thermodynamic"),
    "steppingstone": ThermodynamicMLE(MALA(), PowerLadder(8, 3.0), 20, objective="steppingstone"),
    "variational": VariationalMLE(encoder, 50),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", RECOVERIES)
def test_recovers_two_separated_modes(name):
    # Oracle: the density that 10,000 data were generated from, on a grid. Climbing their exact likelihood leaves 0.02.
    z = np.linspace(-3, 3, 601)
    mass = np.exp(TRUE_LOG_DENSITY) / np.exp(TRUE_LOG_DENSITY).sum()
    drawn = z[np.random.default_rng(0).choice(len(z), 10_000, p=mass)]
    noise = 0.2 * np.random.default_rng(1).normal(size=(10_000, 2))
    x = jnp.asarray(drawn[:, None] * np.array([1.0, -0.5]) + noise, jnp.float32)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 30 * 20))
    result = fit(
        jax.random.key(0), one_latent, x, strategy=RECOVERIES[name], optimizer=optimizer, num_epochs=30,
        batch_size=500, progress_bar=False,
    )  # fmt: skip
    bank = kp.UnivariateKAN.init(jax.random.key(0), (1,), basis=MODES["basis"], domain=MODES["domain"])
    energy = dataclasses.replace(bank, **result.params["prior$params"])(jnp.asarray(z)[:, None])[:, 0]
    total_variation = 0.5 * np.abs(jax.nn.softmax(energy) - mass).sum()
    assert total_variation < 0.05, total_variation
