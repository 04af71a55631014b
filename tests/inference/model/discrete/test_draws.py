"""Draws of discrete latents given everything else, against their exact law."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import log_density

from kaem_ppl.inference import sample_posterior
from kaem_ppl.inference.model.power_posterior import read_power_posterior

from .models import SERIES, SMALL, hmm

NUM_DRAWS = 20_000


def forward_backward(y, transition, loc):
    """p(z_t = i, z_{t+1} = j | y), shape (T - 1, 3, 3), in NumPy; the chain starts at 0."""
    emissions = np.exp(-0.5 * (y[:, None] - loc) ** 2)
    alpha, beta = [transition[0] * emissions[0]], [np.ones(3)]
    for emission in emissions[1:]:
        alpha.append(alpha[-1] @ transition * emission)
    for emission in emissions[:0:-1]:
        beta.append(transition @ (emission * beta[-1]))
    beta = beta[::-1]
    joint = [alpha[t][:, None] * transition * (emissions[t + 1] * beta[t + 1]) for t in range(len(y) - 1)]
    return np.stack([x / x.sum() for x in joint])


@pytest.mark.parametrize("reverse", [pytest.param(False, marks=pytest.mark.slow), True], ids=["forward", "reversed"])
def test_chains_are_drawn_by_forward_filtering_backward_sampling(reverse):
    # 11 x 9 frequencies, 4.5 errors each: a false alarm in 1,500 runs.
    y = SERIES[:12]
    posterior = read_power_posterior(hmm, (y,), {"reverse": reverse})
    position = posterior.target(()).draw(jax.random.key(2))
    values = jax.tree.map(lambda x: np.asarray(x, np.float64), posterior.values((), position))
    draw = jax.jit(jax.vmap(lambda key: posterior.infer_discrete(key, (), position)["z"]))
    z = np.asarray(draw(jax.random.split(jax.random.key(0), NUM_DRAWS)))
    assert z.shape == (NUM_DRAWS, 12)
    y, z = (np.asarray(y, np.float64)[::-1], z[:, ::-1]) if reverse else (np.asarray(y, np.float64), z)
    exact = forward_backward(y, values["transition"], values["loc"])
    pairs = np.stack([[(z[:, :-1] == i) & (z[:, 1:] == j) for j in range(3)] for i in range(3)]).mean(2)
    error = np.sqrt(exact * (1 - exact) / NUM_DRAWS) + 1 / NUM_DRAWS
    assert (abs(np.moveaxis(pairs, -1, 0) - exact) < 4.5 * error).all()


NAMES = ["nested plates", "a chain from a latent start", "continuous latents of a class", "an event of three"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_joint_draws_have_the_moments_of_the_exact_law(name):
    # Means of all discrete values and of their products, at most 100 of them: a false alarm in 1,500 runs.
    example = SMALL[name]
    posterior = read_power_posterior(example.model, example.args, example.kwargs)
    position = posterior.target(()).draw(jax.random.key(2))
    values = posterior.values((), position)
    draw = jax.jit(jax.vmap(lambda key: posterior.infer_discrete(key, (), position)))
    draws = draw(jax.random.split(jax.random.key(0), NUM_DRAWS))
    first = jax.tree.map(lambda x: x[0], draws)
    flat, unravel = ravel_pytree(first)
    num_states = [3 if site == "start" or (site == "z" and name == NAMES[1]) else 2 for site in first]
    sizes = [np.full(np.size(x), n) for x, n in zip(first.values(), num_states, strict=True)]
    order = dict(zip(first, sizes, strict=True))
    joint = np.array(list(itertools.product(*(range(n) for n in np.concatenate([order[k] for k in sorted(order)])))))

    @jax.jit
    def log_joint(states):
        def at(state):
            return log_density(example.model, example.args, example.kwargs, values | unravel(state))[0]

        return jax.lax.map(at, states, batch_size=512)

    weights = np.asarray(jax.nn.softmax(log_joint(jnp.asarray(joint, flat.dtype))), np.float64)

    def products(states):
        pairs = states[:, :, None] * states[:, None, :]
        return np.concatenate([states, pairs.reshape(len(states), -1)], axis=1).astype(np.float64)

    exact = weights @ products(joint)
    spread = np.sqrt(np.maximum(weights @ products(joint) ** 2 - exact**2, 0) / NUM_DRAWS)
    found = products(np.asarray(jax.vmap(lambda x: ravel_pytree(x)[0])(draws))).mean(0)
    assert (abs(found - exact) < 4.5 * spread + 1e-4).all()


def model(x):
    loc = numpyro.sample("loc", dist.Normal(0, 2))
    with numpyro.plate("data", len(x)):
        c = numpyro.sample("c", dist.Bernoulli(0.3))
        mean = numpyro.deterministic("mean", loc * c)
        numpyro.sample("x", dist.Normal(mean, 0.5), obs=x)


@pytest.mark.slow
def test_draws_of_a_sampler_bring_the_discrete_sites():
    x = jnp.array([-0.1, 2.2, 1.8])
    draws = sample_posterior(
        jax.random.key(0), model, x, num_chains=2, num_samples=200, num_warmup=200, progress_bar=False
    )
    assert set(draws.samples) == {"loc"}
    c = draws.infer_discrete(jax.random.key(1))["c"]
    assert c.shape == draws.deterministics["mean"].shape == draws.predict(jax.random.key(2))["x"].shape == (2, 200, 3)
    # Oracle: log(0.7 N(x; 0, 0.5) + 0.3 N(x; loc, 0.5)), and the probability of the second.
    log_probs = [
        np.log(0.7) + np.asarray(dist.Normal(0, 0.5).log_prob(x)) + np.zeros((2, 200, 3)),
        np.log(0.3) + np.asarray(dist.Normal(draws.samples["loc"][..., None], 0.5).log_prob(x)),
    ]
    total = np.logaddexp(*log_probs)
    np.testing.assert_allclose(draws.log_likelihood["x"], total, rtol=1e-4, atol=1e-5)
    probability = np.exp(log_probs[1] - total)
    # Given the draws, a mean of independent Bernoulli numbers: 3 of them at 4.5 errors.
    error = np.sqrt((probability * (1 - probability)).mean((0, 1)) / 400)
    assert (abs(np.mean(c, axis=(0, 1)) - probability.mean((0, 1))) < 4.5 * error + 1e-6).all()
    prior, new = draws.draw_prior()
    assert prior["loc"].shape == (1, 200)
    assert new["x"].shape == (1, 200, 3)
