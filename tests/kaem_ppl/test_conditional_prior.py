"""Priors with a context: each datum has its class's density, integrated once for the class, and learns it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import kaem_ppl as kp

LABELS = jnp.array([2, 0, 1, 2, 2])


def prior(name="prior", **arguments):
    settings = {"basis": kp.RBF(8), "domain": (-3, 3), "reference": dist.Normal(0, 1)}
    return kp.kan_prior(name, (4,), **settings | arguments)


@pytest.mark.slow
@pytest.mark.parametrize("num_components", [pytest.param(None, marks=pytest.mark.exhaustive), 3])
def test_each_datum_has_the_density_of_its_class(num_components):
    def model(labels):
        found = prior(context=labels, num_contexts=3, num_components=num_components)
        numpyro.deterministic("z", 0.0)
        return found

    seeded = numpyro.handlers.seed(model, jax.random.key(0))
    trace = numpyro.handlers.trace(seeded).get_trace(LABELS)
    params = jax.tree.map(lambda x: 5 * x, trace["prior$params"]["value"])
    z = jax.random.normal(jax.random.key(1), (5, 4))

    def log_prob(params):
        return numpyro.handlers.substitute(model, {"prior$params": params})(LABELS).log_prob(z).sum()

    def by_hand(params):
        total = 0.0
        for label, row in zip(LABELS.tolist(), z, strict=True):
            own = jax.tree.map(lambda x, i=label: x[i], params)
            alone = numpyro.handlers.substitute(lambda: prior(num_components=num_components), {"prior$params": own})()
            total = total + alone.log_prob(row).sum()
        return total

    found = numpyro.handlers.substitute(model, {"prior$params": params})(LABELS)
    assert found.batch_shape == (5, 4)
    assert found.sample(jax.random.key(2), (7,)).shape == (7, 5, 4)
    value, gradient = jax.jit(jax.value_and_grad(log_prob))(params)
    expected, by_class = jax.jit(jax.value_and_grad(by_hand))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(by_class), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"context": LABELS}, "num_contexts"),
        ({"num_contexts": 3}, "num_contexts"),
        ({"context": LABELS, "num_contexts": 2}, "context"),
        ({"context": LABELS - 1, "num_contexts": 3}, "context"),
        ({"context": jnp.ones(3), "num_contexts": 3}, "context"),
        ({"context": LABELS, "num_contexts": 3, "reference": dist.Normal(jnp.zeros((5, 4)), 1.0)}, "reference"),
    ],
)
def test_wrong_contexts_are_refused(arguments, name, assert_refused):
    seeded = numpyro.handlers.seed(lambda: prior(**arguments), jax.random.key(0))
    assert_refused(seeded, name)
