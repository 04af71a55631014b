"""Calls that are wrong are refused in one sentence that names the argument; unusual ones that are clear are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import kaem_ppl as kp

NAN = float("nan")
_PRIOR = {"basis": kp.RBF(4), "domain": (-3, 3), "reference": dist.Normal(0, 1)}


def prior(name="p", shape=(2,), **kwargs):
    return handlers.seed(lambda: kp.kan_prior(name, shape, **{**_PRIOR, **kwargs}), 0)()


def generator(name="g", sizes=(3, 2), **kwargs):
    return handlers.seed(lambda: kp.kan_generator(name, sizes, **kwargs), 0)()


def bank(key=0, batch_shape=(2,), **kwargs):
    return kp.UnivariateKAN.init(key, batch_shape, **{"basis": kp.RBF(4), "domain": (-3, 3), **kwargs})


def tilted(**kwargs):
    return kp.KANTilted(**{"energy": bank(), "reference": dist.Normal(0, 1), **kwargs})


def mixture(**kwargs):
    return kp.KANTiltedMixture(**{"logits": jnp.zeros(2), "energy": bank(), "reference": dist.Normal(0, 1), **kwargs})


def refit(samples=np.zeros((5, 2)), **kwargs):  # noqa: B008 - is only read
    return bank().refit(samples, **kwargs)


def _with(name, make, *values, **fixed):
    """A case for each value of an argument."""
    return [(lambda value=value: make(**{name: value}, **fixed), name) for value in values]


_DOMAINS = (3, -3), (3, 3), 3, (0, float("inf")), (0, NAN), (1, 2, 3), ("a", "b"), None
WRONG = [
    *_with("num_grid", kp.RBF, 1, 2.5, "a", NAN, True),
    *_with("width", kp.RBF, -1, "a", NAN),
    *_with("coef_scale", kp.RBF, -1, "a"),
    *_with("degree", kp.BSpline, 0, 1.5),
    *_with("width", kp.BSpline, 1.0),
    *_with("num_frequencies", kp.Fourier, 0, 2.5),
    *_with("num_grid", kp.RSWAF, 1),
    *_with("name", prior, 3, None),
    *_with("shape", prior, (-1,), "a", (2.5,), None),
    *_with("basis", prior, kp.RBF, 20, "RBF"),
    *_with("domain", prior, *_DOMAINS),
    *_with("reference", prior, "Normal", dist.Normal, dist.Poisson(2.0)),
    *_with("num_components", prior, 0, 1.5),
    *_with("activation", prior, "silu"),
    *_with("name", generator, 3),
    *_with("sizes", generator, 3, (3,), (3, 0), (3, 2.5), "ab", (3, "a")),
    *_with("basis", generator, kp.RBF),
    *_with("domain", generator, (1, 0)),
    *_with("output", generator, "sigmoid"),
    *_with("activation", generator, "silu"),
    *_with("key", bank, None, "a", 1.5, jnp.zeros(3), jax.random.split(jax.random.key(0))),
    *_with("batch_shape", bank, (-2,), "a"),
    *_with("basis", bank, kp.RBF),
    *_with("domain", bank, (3, -3)),
    *_with("samples", refit, np.zeros((5, 3)), "abc", np.full((5, 2), NAN)),
    *_with("tolerance", refit, -1, "a"),
    *_with("domain", refit, (3, -3)),
    *_with("energy", tilted, None, dist.Normal(0, 1)),
    *_with("reference", tilted, dist.Normal, 0.0, dist.Normal(jnp.zeros(3), 1)),
    *_with("logits", mixture, jnp.zeros(3), "a", jnp.array([0.0, NAN])),
    *_with("key", tilted().sample, None, "a"),
    (lambda: tilted().sample(0, (-1,)), "sample_shape"),
    (lambda: generator()(jnp.zeros((5, 4))), "x"),
]


@pytest.mark.parametrize(("call", "name"), WRONG, ids=lambda x: x if isinstance(x, str) else "")
def test_wrong_calls_are_refused(call, name, assert_refused):
    assert_refused(call, name)


@pytest.mark.parametrize("shape", [3, [3], np.int64(3), (np.int64(3),), np.array([3])], ids=repr)
def test_a_shape_may_be_an_int_or_a_list(shape):
    assert bank(batch_shape=shape).batch_shape == (3,)
    assert prior(shape=shape).batch_shape == (3,)


@pytest.mark.parametrize("domain", [[-3, 3], np.array([-3, 3]), jnp.array([-3.0, 3.0])], ids=repr)
def test_a_domain_may_be_a_list_or_an_array(domain):
    np.testing.assert_array_equal(bank(domain=domain).domain, [-3, 3])


@pytest.mark.parametrize("key", [np.int64(3), jax.random.key(3), jax.random.PRNGKey(3)], ids=lambda x: type(x).__name__)
def test_keys_of_every_kind_are_one_key(key):
    # Oracle: the integer itself.
    np.testing.assert_array_equal(bank(key).coef, bank(3).coef)
    np.testing.assert_array_equal(tilted().sample(key, 2), tilted().sample(3, [2]))


def test_settings_of_numpys_types_are_those_of_pythons():
    assert hash(kp.RBF(np.int64(8), width=jnp.float32(1.0))) == hash(kp.RBF(8, width=1.0))
    assert generator(sizes=np.array([3, 2]))(jnp.zeros((5, 3))).shape == (5, 2)
    np.testing.assert_array_equal(mixture(logits=[0.0, 1.0]).logits, [0.0, 1.0])
