"""Calls that are wrong are refused in one sentence that names the argument; unusual ones that are clear are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import kaem_ppl as kp
from kaem_ppl.models import (
    AmortizedGuide,
    Bfloat16Generator,
    CelebA,
    ConvEncoder,
    ConvGenerator,
    Dataset,
    DigitsImages,
    GaussianModel,
    KANGenerator,
    LatentEBM,
    MixtureKAEM,
    MLPEncoder,
    MLPGenerator,
    ProductKAEM,
    SequenceGenerator,
    SequenceKAEM,
    Standardized,
    fetch_dataset,
    load_dataset,
    split_dataset,
    split_digits,
    subset,
)

MLP = MLPGenerator((2, 3))
DATA = Dataset(np.zeros((9, 2)))


def _with(name, make, *values, **fixed):
    """A case for each value of an argument."""
    return [(lambda value=value: make(**{name: value, **fixed}), name) for value in values]


def _kaem(kind):
    def make(**kwargs):
        settings = {"shape": (2, 3), "generator": MLP, "basis": kp.RBF(4), "domain": (-3, 3)}
        scale = {} if kind is SequenceKAEM else {"scale": 0.1}
        return kind(**{**settings, "reference": dist.Normal(0, 1), **scale, **kwargs})

    return make


def run(model, *args, **kwargs):
    return handlers.seed(model, 0)(*args, **kwargs)


product, mixture, sequence = map(_kaem, (ProductKAEM, MixtureKAEM, SequenceKAEM))
WRONG = [
    *(
        case
        for make in (product, mixture, sequence)
        for case in (
            *_with("shape", make, (2,), 3, (2, 0), "a"),
            *_with("generator", make, MLPGenerator, "mlp", None),
            *_with("basis", make, kp.RBF),
            *_with("domain", make, (3, -3)),
            *_with("reference", make, dist.Normal),
        )
    ),
    *_with("scale", product, -0.1, "a", 0),
    *_with("padding", sequence, -1, 0.5),
    (lambda: run(product()), "x"),
    (lambda: run(product(), size=-1), "size"),
    (lambda: run(product(), size=1.5), "size"),
    (lambda: run(product(), "abc"), "x"),
    (lambda: run(product(), jnp.zeros((0, 3))), "x"),
    (lambda: run(product(), jnp.zeros((4, 7))), "x"),
    (lambda: run(product(generator=MLPGenerator((5, 3))), size=2), "x"),
    *_with("sizes", MLPGenerator, 3, (3,), (3, -1), "ab"),
    *_with("activation", MLPGenerator, "relu", sizes=(3, 2)),
    *_with("output", MLPGenerator, "sigmoid", sizes=(3, 2)),
    *_with("sizes", KANGenerator, (3,)),
    *_with("basis", KANGenerator, kp.RBF, sizes=(3, 2)),
    *_with("domain", KANGenerator, (3, -3), sizes=(3, 2)),
    *_with("num_inputs", ConvGenerator, 0, 1.5, shape=(8, 8, 1)),
    *_with("shape", ConvGenerator, (8, 8), 8, (8, 8, 0), (8, 8, 1.5), num_inputs=3),
    *_with("channels", ConvGenerator, (), (0,), num_inputs=3, shape=(8, 8, 1)),
    *_with("length", SequenceGenerator, 0, 3.5, "a", num_inputs=2, vocabulary_size=4),
    *_with("width", SequenceGenerator, 9, num_inputs=2, length=3, vocabulary_size=4),
    *_with("std", Standardized, 0.0, -1, generator=MLP, mean=0.0),
    *_with("generator", Standardized, "g", MLPGenerator, mean=0.0, std=1.0),
    *_with("generator", Bfloat16Generator, "g"),
    *_with("sizes", MLPEncoder, (3,), 3),
    *_with("shape", ConvEncoder, (8, 8), num_latents=2),
    *_with("num_latents", ConvEncoder, 0, 1.5, shape=(8, 8, 1)),
    *_with("encoder", AmortizedGuide, "e", MLPEncoder, shape=(2,), support=dist.constraints.real),
    *_with("shape", AmortizedGuide, -1, encoder=MLPEncoder((4, 2)), support=dist.constraints.real),
    *_with("support", AmortizedGuide, "real", encoder=MLPEncoder((4, 2)), shape=(2,)),
    *_with("num_latents", LatentEBM, 0, energy=MLP, generator=MLP, scale=0.1),
    *_with("energy", LatentEBM, "e", num_latents=2, generator=MLP, scale=0.1),
    *_with("num_latents", GaussianModel, 0, 2.5, generator=MLP, scale=0.1),
    *_with("scale", GaussianModel, 0, num_latents=2, generator=MLP),
    *_with("source", load_dataset, "MNISTT", 3, None, CelebA),
    *_with("split", load_dataset, "training", 0, source="DIGITS"),
    *_with("source", fetch_dataset, "X", 3),
    *_with("seed", split_digits, "a", -1, 1.5),
    *_with("sizes", split_dataset, [-1], [10], [1.5], dataset=DATA),
    *_with("dataset", split_dataset, jnp.zeros(3), sizes=[1]),
    *_with("num_data", subset, -1, "a", 2.5, dataset=DATA),
    *_with("size", CelebA, 0, "a", 1.5),
]


@pytest.mark.parametrize(("call", "name"), WRONG, ids=lambda x: x if isinstance(x, str) else "")
def test_wrong_calls_are_refused(call, name, assert_refused):
    assert_refused(call, name)


def test_lists_are_tuples():
    # What is static must have a hash.
    for one, other in (
        (MLPGenerator([3, 2]), MLPGenerator((3, 2))),
        (KANGenerator([3, np.int64(2)], domain=[-1, 1]), KANGenerator((3, 2), domain=(-1.0, 1.0))),
        (ConvGenerator(3, [8, 8, 1], channels=[4]), ConvGenerator(3, (8, 8, 1), channels=(4,))),
        (ConvEncoder([8, 8, 1], 2, channels=4), ConvEncoder((8, 8, 1), 2, channels=(4,))),
        (MLPEncoder([3, 2]), MLPEncoder((3, 2))),
    ):
        assert hash(one) == hash(other)
        assert one == other


def test_unusual_calls_are_taken():
    assert run(product(shape=[2, 3], domain=[-3, 3]), size=np.int64(2)).shape == (2, 3)
    guide = AmortizedGuide(MLPEncoder([4, 2]), 2, dist.constraints.real)
    run(guide, jnp.zeros((3, 4)))
    assert len(subset(DATA, np.int64(5))) == 5
    assert [len(part) for part in split_dataset(DATA, (np.int64(5), 2))] == [5, 2]
    assert len(load_dataset(DigitsImages(), "test")) == 297
    traced = jax.eval_shape(lambda scale: run(product(scale=scale), size=2), jnp.array(0.1))
    assert traced.shape == (2, 3)
