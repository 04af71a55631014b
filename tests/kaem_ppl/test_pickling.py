"""Banks, distributions and posterior draws survive pickle, cloudpickle and deepcopy."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import kaem_ppl as kp
from kaem_ppl.distributions.tabulated import tabulate_prior
from kaem_ppl.network import KANetwork
from kaem_ppl.pickling import ImportedFunction, to_picklable

from .members import BASES, bank

cloudpickle = pytest.importorskip("cloudpickle")

WAYS = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "cloudpickle": lambda x: cloudpickle.loads(cloudpickle.dumps(x)),
    "deepcopy": copy.deepcopy,
}


def _is_same(a, b):
    """Law: the same arrays in an equal structure of equal hash, so that what was compiled for one serves the other."""
    leaves, structure = jax.tree.flatten(a)
    others, other_structure = jax.tree.flatten(b)
    assert structure == other_structure
    assert hash(structure) == hash(other_structure)
    jax.tree.map(np.testing.assert_array_equal, leaves, others)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("basis", BASES)
def test_banks(basis, way):
    energy = BASES[basis](jax.random.key(0), (2,))
    again = WAYS[way](energy)
    _is_same(energy, again)
    assert again.activation is energy.activation


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_integrated", [pytest.param(False, marks=pytest.mark.slow), True])
def test_distributions(way, is_integrated):
    energy = bank("RBF")
    for d in (
        kp.KANTilted(energy, dist.Normal(0.0, 1.0)),
        kp.KANTiltedMixture(jnp.zeros(3), energy, dist.TruncatedNormal(0.0, 1.0, low=-2.0)),
    ):
        if is_integrated:
            d.log_prob(0.3)
        again = WAYS[way](d)
        _is_same(d, again)
        np.testing.assert_array_equal(d.log_prob(0.3), again.log_prob(0.3))


@pytest.mark.parametrize("way", WAYS)
def test_a_network_and_a_tabulated_prior(way):
    for x in (
        KANetwork.init(jax.random.key(0), (2, 3, 4), basis=kp.RBF(5), domain=(-3, 3)),
        KANetwork(KANetwork.init(jax.random.key(0), (2, 3), basis=kp.RBF(5), domain=(-3, 3)).layers, jax.nn.sigmoid),
        tabulate_prior("z", kp.KANTilted(bank("RBF"), dist.Normal(0.0, 1.0))),
    ):
        _is_same(x, WAYS[way](x))


@pytest.mark.parametrize("activation", [lambda z: z**2, jax.jit(lambda z: z**2)])
def test_a_function_without_a_name_by_cloudpickle(activation):
    energy = kp.UnivariateKAN.init(jax.random.key(0), basis=kp.RBF(5), domain=(-3, 3), activation=activation)
    for way in ("cloudpickle", "deepcopy"):
        np.testing.assert_array_equal(WAYS[way](energy)(0.5), energy(0.5))


def test_functions_are_stored_by_their_public_name():
    assert to_picklable(jax.nn.silu) == ImportedFunction("jax.nn", "silu")
    assert to_picklable(jnp.tanh).load() is jnp.tanh
    own = lambda z: z  # noqa: E731
    assert to_picklable(own) is own
