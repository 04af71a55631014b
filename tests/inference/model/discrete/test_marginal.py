"""Discrete latents summed out, against densities marginalised by hand, and against NumPyro's at every joint state."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer.util import log_density

from kaem_ppl.inference.model.coordinates import Whitened
from kaem_ppl.inference.model.discrete.support import describe_discrete_site
from kaem_ppl.inference.model.power_posterior import read_power_posterior

from .models import (
    CHOICES,
    CLUSTERED,
    COUNTS,
    COVARIATES,
    FAST,
    FEW,
    SERIES,
    SMALL,
    Example,
    gaussian_mixture,
    hmm,
    hmm_loop,
    latent_class_regression,
    random_effects_by_class,
    zero_inflated,
)


def read(example, **settings):
    return read_power_posterior(example.model, example.args, example.kwargs, **settings)


def exact_mixture(values, x):
    log_probs = jnp.log(values["weights"]) + dist.Normal(values["loc"], 1).log_prob(x[:, None])
    return logsumexp(log_probs, axis=1).sum()


def exact_zero_inflated(values, counts):
    gate = jnp.log(values["gate"]), jnp.log1p(-values["gate"])
    log_probs = [g + dist.Poisson(rate).log_prob(counts) for g, rate in zip(gate, (1e-6, values["rate"]), strict=True)]
    return jnp.logaddexp(*log_probs).sum()


def exact_hmm(values, y):
    log_transition = jnp.log(values["transition"])
    emissions = dist.Normal(values["loc"], 1).log_prob(y[:, None])

    def forward(alpha, emission):
        return logsumexp(alpha[:, None] + log_transition, axis=0) + emission, None

    return logsumexp(jax.lax.scan(forward, log_transition[0] + emissions[0], emissions[1:])[0])


def exact_regression(values, covariates, choices):
    logits = jnp.einsum("np,gpk->gnk", covariates, values["coefficients"])
    log_probs = dist.Categorical(logits=logits).log_prob(choices)
    return jnp.logaddexp(jnp.log1p(-values["share"]) + log_probs[0], jnp.log(values["share"]) + log_probs[1]).sum()


BY_HAND = {
    "mixture": (Example(gaussian_mixture, (CLUSTERED,)), exact_mixture),
    "zero inflated": (Example(zero_inflated, (COUNTS,)), exact_zero_inflated),
    "HMM of length 500": (Example(hmm, (SERIES,)), exact_hmm),
    "HMM as a loop": (Example(hmm_loop, (SERIES[:6],)), exact_hmm),
    "latent class": (Example(latent_class_regression, (COVARIATES, CHOICES)), exact_regression),
}


# The fast tests leave out what is like another of them.
LIKE_ANOTHER = ("zero inflated", "HMM as a loop", "latent class")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LIKE_ANOTHER)) for name in BY_HAND]
)
def test_likelihood_and_its_gradient_are_those_marginalised_by_hand(name):
    example, exact = BY_HAND[name]
    posterior = read(example)
    target = posterior.target(())

    @jax.jit
    def both(key):
        position = target.draw(key)
        ours = jax.value_and_grad(target.log_likelihood)(position)
        return ours, jax.value_and_grad(lambda at: exact(posterior.values((), at), *example.args))(position)

    (ours, gradient), (expected, exact_gradient) = both(jax.random.key(1))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    for site, value in exact_gradient.items():
        np.testing.assert_allclose(gradient[site], value, rtol=1e-3, atol=1e-4 * abs(value).max())


def joint_states(posterior, example, values):
    """By site, all joint states of the discrete sites, stacked along the first axis."""
    model = handlers.seed(handlers.substitute(example.model, data=values), 0)
    trace = handlers.trace(model).get_trace(*example.args, **example.kwargs)
    shapes = {site.name: jnp.shape(trace[site.name]["value"]) for site in posterior.discrete.sites}

    def support(name):
        fn = trace[name]["fn"]
        while not hasattr(fn, "enumerate_support") or isinstance(fn, dist.Independent | dist.ExpandedDistribution):
            fn = fn.base_dist
        return np.unique(fn.enumerate_support(expand=False))

    options = {name: itertools.product(support(name), repeat=int(np.prod(shape))) for name, shape in shapes.items()}
    joint = list(itertools.product(*options.values()))
    return {
        name: jnp.array([state[number] for state in joint]).reshape(-1, *shape)
        for number, (name, shape) in enumerate(shapes.items())
    }


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
)
def test_density_is_the_sum_of_numpyros_over_all_joint_states(name):
    example = SMALL[name]
    posterior = read(example)
    target = posterior.target(())
    position = target.draw(jax.random.key(3))
    values = posterior.values((), position)
    states = joint_states(posterior, example, values)

    @jax.jit
    def evaluate(position, values, states):
        def at(state):
            return log_density(example.model, example.args, example.kwargs, values | state)[0]

        density, likelihood = target.log_prior(position), target.log_likelihood(position)
        # The Jacobian is a difference of two densities of the same model.
        model = handlers.seed(handlers.substitute(example.model, data=values), 0)
        sites = handlers.trace(model).get_trace(*example.args, **example.kwargs)
        jacobian = sum(
            numpyro.distributions.biject_to(sites[site.name]["fn"].support)
            .log_abs_det_jacobian(position[site.name], values[site.name])
            .sum()
            for site in posterior.latents
        )
        return density + likelihood - jacobian, logsumexp(jax.lax.map(at, states, batch_size=512))

    ours, exact = evaluate(position, values, states)
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-5)


def test_a_prior_that_depends_on_a_class_is_its_mixture():
    # Oracle: the two-component mixture, written by hand. The likelihood is what is left, so that it can be tempered.
    posterior = read(Example(random_effects_by_class, (FEW,)))
    target = posterior.target(())
    position = target.draw(jax.random.key(0))
    loc, log_scale = position["loc"], position["scale"]
    mixed = jnp.logaddexp(
        jnp.log(0.7) + dist.Normal(loc[0], 0.5).log_prob(log_scale),
        jnp.log(0.3) + dist.Normal(loc[1], 0.5).log_prob(log_scale),
    )
    expected = dist.Normal(0, 1).log_prob(loc).sum() + mixed.sum()
    np.testing.assert_allclose(target.log_prior(position), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="prior of latent site 'scale' depends on the discrete latent sites"):
        read(Example(random_effects_by_class, (FEW,)), coordinates=Whitened())


def poisson(x):
    rate = numpyro.sample("rate", dist.Gamma(1, 1))
    n = numpyro.sample("n", dist.Poisson(rate))
    numpyro.sample("x", dist.Normal(n, 1), obs=x[0])


def too_many_states(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1))
    c = numpyro.sample("c", dist.Bernoulli(0.5).expand([20]).to_event(1))
    numpyro.sample("x", dist.Normal(loc + c.sum(), 1), obs=x[0])


def too_many_at_once(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1))
    total = sum(numpyro.sample(f"c{n}", dist.Bernoulli(0.5)) for n in range(20))
    numpyro.sample("x", dist.Normal(loc + total, 1), obs=x[0])


def outside_of_plate(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1))
    with numpyro.plate("data", len(x)):
        c = numpyro.sample("c", dist.Bernoulli(0.5))
    numpyro.sample("total", dist.Normal(loc + c.sum(), 1), obs=x.sum())


def neighbours_in_plate(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1))
    with numpyro.plate("data", len(x)):
        c = numpyro.sample("c", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(loc + 3 * c + jnp.roll(c, 1), 1), obs=x)


def counts_in_scan(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1))

    def step(total, x):
        total = total + numpyro.sample("c", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(loc + total, 1), obs=x)
        return total, None

    scan(step, 0, jnp.tile(x, 6))


def observed_after_scan(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1))

    def step(z, _):
        z = numpyro.sample("z", dist.Bernoulli(0.3 + 0.4 * z))
        return z, z

    _, z = scan(step, 0, x)
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(loc + z, 1), obs=x)


def in_branch(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1))
    c = cond(
        x[0] > 0,
        lambda _: numpyro.sample("c", dist.Bernoulli(0.5)),
        lambda _: numpyro.sample("c", dist.Bernoulli(0.7)),
        None,
    )
    numpyro.sample("x", dist.Normal(loc + c, 1), obs=x)


def different_plates(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1))
    with numpyro.plate("rows", 3, dim=-2):
        row = numpyro.sample("row", dist.Bernoulli(0.5))
    with numpyro.plate("columns", 2, dim=-1):
        column = numpyro.sample("column", dist.Bernoulli(0.5))
    with numpyro.plate("rows", 3, dim=-2), numpyro.plate("columns", 2, dim=-1):
        numpyro.sample("x", dist.Normal(loc + row * column, 1), obs=jnp.outer(x, x[:2]))


def only_discrete(x):
    c = numpyro.sample("c", dist.Bernoulli(0.5))
    numpyro.sample("x", dist.Normal(c, 1), obs=x)


REFUSED = {
    poisson: "Latent site 'n' is discrete with infinitely many values",
    too_many_states: r"'c' has 20 elements of 2 values .* 2\^20 joint states",
    too_many_at_once: r"sites \['c0', .* 131,072 joint states",
    outside_of_plate: "Site 'total' stands outside of plate 'data' and depends on the discrete latent site 'c'",
    neighbours_in_plate: r"site 'x' is .* each element of the discrete latent sites \['c'\] is summed out by itself",
    counts_in_scan: r"depends on discrete latent sites \['c'\] of all steps before",
    observed_after_scan: r"Site 'x' stands outside of a `scan` and depends on the discrete latent sites \['z'\]",
    in_branch: "Discrete latent site 'c' stands inside `cond`",
    different_plates: r"sites \['column', 'row'\] stand in different plates",
    only_discrete: r"All latent sites of `model`, \['c'\], are discrete",
}


@pytest.mark.parametrize("model", REFUSED, ids=lambda model: model.__name__)
def test_refuses_by_name(model):
    with pytest.raises(ValueError, match=REFUSED[model]):
        read(Example(model, (FEW,)))


def test_bounds_that_differ_are_refused():
    site = {
        "name": "n",
        "fn": dist.Binomial(jnp.array([2, 3]), 0.5),
        "kwargs": {},
        "cond_indep_stack": [],
    }
    with pytest.raises(ValueError, match=r"values of discrete latent site 'n' .* are not known"):
        describe_discrete_site(site)
