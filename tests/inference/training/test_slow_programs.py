"""Convolutions that XLA for CPU runs slowly inside a loop are found, and kept out of loops without changing a number."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro import handlers

import kaem_ppl as kp
from kaem_ppl.compilation import is_slow_in_loops
from kaem_ppl.inference import MALA, ULA, LangevinMLE, PowerLadder, ThermodynamicMLE, fit, sample_posterior
from kaem_ppl.inference.model.power_posterior import read_power_posterior
from kaem_ppl.inference.training.strategies.persistent_chains import is_slow_kernel
from kaem_ppl.models import ConvEncoder, ConvGenerator, MixtureKAEM
from kaem_ppl.models.convolutions import downsample, upsample

X = jnp.array([0.5, -1.0, 2.0])


def make_model(convolve):
    def model(x):
        weight = numpyro.param("weight", 0.8)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("x", dist.Normal(weight * convolve(z), 1), obs=x)

    return model


# A convolution by a kernel of one, channels before space, changes nothing but what XLA makes of it.
plain = make_model(lambda z: z)
convolved = make_model(lambda z: lax.conv(z[:, None, None], jnp.ones((1, 1, 1)), (1,), "SAME")[:, 0, 0])


def is_slow(function, *args):
    return is_slow_in_loops(jax.make_jaxpr(function)(*args))


def initial(program):
    with handlers.trace() as sites, handlers.seed(rng_seed=0):
        program()
    return {name: site["value"] for name, site in sites.items() if site["type"] == "param"}


def total(convolve):
    return lambda x, kernel: jnp.sum(convolve(x, kernel))


def by_lax(x, kernel):
    return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("convolve", [downsample, upsample, by_lax])
def test_layouts_are_told_apart(convolve):
    # Oracle: what XLA is slow at was measured, see `is_slow_in_loops`. The last of these gradients took 20 times longer.
    arrays, scalar = (jnp.zeros((2, 4, 6, 3)), jnp.zeros((4, 4, 3, 5))), total(convolve)
    assert not is_slow(convolve, *arrays)
    for argnum in (0, 1):
        gradient = jax.grad(scalar, argnum)
        assert is_slow(gradient, *arrays) is (convolve is by_lax)
        looped = lambda x, kernel, gradient=gradient: lax.map(lambda x: gradient(x[None], kernel), x)  # noqa: E731
        assert is_slow(looped, *arrays) is (convolve is by_lax)


@pytest.mark.slow
def test_the_convolutions_of_models_are_fast_in_loops():
    generator, encoder = ConvGenerator(3, (6, 8, 2), (4, 2)), ConvEncoder((6, 8, 2), 3, (2, 4))
    model = MixtureKAEM((3, 2), generator, kp.RBF(5), (-2.0, 2.0), dist.Normal(0, 1), 0.3)
    x = jnp.zeros((2, 6, 8, 2))
    params = initial(lambda: model(x))
    posterior = read_power_posterior(model, (x,), {}, params=params, plate="data")
    assert not is_slow_kernel(MALA(), posterior, {"z": jnp.zeros((1, 3))})

    def encode(params):
        with handlers.substitute(data=params):
            loc, scale = encoder("encoder")(x)
        return jnp.sum(loc + scale)

    assert not is_slow(jax.grad(encode), initial(lambda: encoder("encoder")))


@pytest.mark.slow
def test_a_slow_convolution_is_not_scanned():
    settings = {"sampler": MALA(), "num_chains": 2, "num_samples": 12, "num_warmup": 20, "plate": "data"}
    draws = []
    for model, expected in ((plain, False), (convolved, True)):
        posterior = read_power_posterior(model, (X,), {}, params={"weight": 0.8}, plate="data")
        assert is_slow_kernel(MALA(), posterior, {"z": jnp.zeros(1)}) is expected
        draws.append(
            sample_posterior(jax.random.key(0), model, X, params={"weight": 0.8}, progress_bar=False, **settings)
        )
    np.testing.assert_allclose(*(d.samples["z"] for d in draws), atol=1e-4)


@pytest.mark.parametrize(
    "strategy",
    [
        LangevinMLE(ULA(0.1), 3),
        LangevinMLE(ULA(0.1), 3, persistent=False),
        pytest.param(ThermodynamicMLE(ULA(0.1), PowerLadder(3), 3, objective="thermodynamic"), marks=pytest.mark.slow),
    ],
    ids=["persistent", "fresh", "thermodynamic"],
)
def test_training_with_a_slow_convolution_unrolls_to_the_same_numbers(strategy):
    weights = [
        fit(
            jax.random.key(0), model, X, strategy=strategy, num_epochs=3, batch_size=2, progress_bar=False
        ).params["weight"]
        for model in (plain, convolved)
    ]  # fmt: skip
    assert weights[0] != 0.8
    np.testing.assert_allclose(*weights, rtol=1e-5)
