"""Baselines: their densities written out, the Langevin prior and the encoders against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import Trace_ELBO
from numpyro.infer.util import log_density
from scipy.signal import correlate2d
from scipy.stats import multivariate_normal

from kaem_ppl.models import ConvEncoder, GaussianModel, LatentEBM, MLPEncoder, MLPGenerator, sample_langevin_prior

GENERATOR = MLPGenerator((2, 4, 3))
EBM = LatentEBM(2, MLPGenerator((2, 5, 1), jnp.tanh), GENERATOR, scale=0.3)


def parameters(model, *args, **kwargs):
    """Random numbers in the shapes of the model's own."""

    def own():
        with handlers.trace() as trace, handlers.seed(rng_seed=0):
            model(*args, **kwargs)
        return {name: site["value"] for name, site in trace.items() if site["type"] == "param"}

    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape, np.float32), jax.eval_shape(own))


def shape_of(encoder, x):
    """Shapes of loc and scale; nothing is computed."""
    return [part.shape for part in jax.eval_shape(lambda: handlers.seed(encoder, 0)("e")(x))]


def test_the_joint_density_of_a_latent_ebm_is_the_one_written_out():
    params = parameters(EBM, size=1)
    assert set(params) == {"energy$params", "generator$params"}
    z = jax.random.normal(jax.random.key(1), (6, 2))
    x = jax.random.normal(jax.random.key(2), (6, 3))
    first, second = (params["energy$params"][f"layer_{index}"] for index in range(2))
    tilt = (jnp.tanh(z @ first["weight"] + first["bias"]) @ second["weight"] + second["bias"])[:, 0]
    log_prior = tilt + dist.Normal(0, 1).log_prob(z).sum(-1)

    @jax.jit
    def parts(params, x, z):
        with handlers.substitute(data=params):
            mean = GENERATOR("generator")(z)
        return mean, EBM.log_prior(params, z), log_density(EBM, (x,), {}, {**params, "z": z})[0]

    mean, actual, density = parts(params, x, z)
    np.testing.assert_allclose(actual, log_prior, rtol=1e-5)
    np.testing.assert_allclose(density, log_prior.sum() + dist.Normal(mean, 0.3).log_prob(x).sum(), rtol=1e-5)


def test_the_langevin_prior_is_that_of_its_recursion():
    # A linear energy w.z makes p(z) = Normal(w, I), and k steps e from Normal(0, I) give a Gaussian of mean
    # (1 - (1 - e)^k) w and variance v_k, where v_{k+1} = (1 - e)^2 v_k + 2 e and v_0 = 1.
    # 4 averages of 20,000 chains within 4.5 standard errors: false alarms in 3 of 100,000 seeds.
    model = LatentEBM(2, MLPGenerator((2, 1)), GENERATOR, scale=0.3)
    w = jnp.array([1.5, -0.5])
    params = {"energy$params": {"layer_0": {"weight": w[:, None], "bias": jnp.zeros(1)}}}
    num_draws, num_steps, step_size = 20_000, 9, 0.1
    z = sample_langevin_prior(
        jax.random.key(0), model, params, num_draws=num_draws, num_steps=num_steps, step_size=step_size
    )
    variance = 1.0
    for _ in range(num_steps):
        variance = (1 - step_size) ** 2 * variance + 2 * step_size
    mean = (1 - (1 - step_size) ** num_steps) * w
    assert (abs(z.mean(0) - mean) < 4.5 * np.sqrt(variance / num_draws)).all()
    assert (abs(z.var(0) - variance) < 4.5 * variance * np.sqrt(2 / num_draws)).all()


def test_a_langevin_prior_compiles_once():
    params = parameters(EBM, size=1)
    before = sample_langevin_prior._cache_size()
    for seed in range(3):
        sample_langevin_prior(jax.random.key(seed), EBM, params, num_draws=4, num_steps=2, step_size=0.1 + seed)
    assert sample_langevin_prior._cache_size() == before + 1


def test_the_exact_encoder_of_a_linear_model_makes_the_bound_the_evidence():
    # Orthogonal columns: z given x is Normal with independent coordinates, so a linear encoder can be exact.
    scale, weight = 0.5, np.array([[0.6, 0.8, 0.0], [-1.6, 1.2, 0.0]])
    model = GaussianModel(2, MLPGenerator((2, 3)), scale)
    encoder = MLPEncoder((3, 2))
    precision = 1 + np.square(weight).sum(1) / scale**2
    variance = 1 / precision
    params = {
        "generator$params": {"layer_0": {"weight": jnp.asarray(weight, float), "bias": jnp.zeros(3)}},
        "encoder$params": {
            "layer_0": {
                "weight": jnp.concatenate([weight.T * variance / scale**2, np.zeros((3, 2))], 1),
                # The inverse of softplus.
                "bias": jnp.concatenate([np.zeros(2), np.log(np.expm1(np.sqrt(variance)))]),
            }
        },
    }

    def guide(x):
        loc, scale = encoder("encoder")(x)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    x = jax.random.normal(jax.random.key(1), (5, 3))
    loss = Trace_ELBO().loss(jax.random.key(2), params, model, guide, x)
    evidence = multivariate_normal(np.zeros(3), weight.T @ weight + scale**2 * np.eye(3)).logpdf(x).sum()
    np.testing.assert_allclose(-loss, evidence, rtol=1e-5)


def test_a_convolutional_encoder_is_strided_convolutions_and_a_linear_layer():
    encoder = ConvEncoder((6, 8, 2), num_latents=3, channels=(4,), activation=jnp.tanh)
    params = parameters(encoder, "e")
    layers = params["e$params"]
    x = jax.random.normal(jax.random.key(1), (5, 6, 8, 2))
    # Kernel 4, stride 2: one pixel of padding before and after.
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    maps = np.zeros((5, 3, 4, 4))
    for image, channel, out in np.ndindex(5, 2, 4):
        kernel = layers["layer_0"]["kernel"][:, :, channel, out]
        maps[image, :, :, out] += correlate2d(padded[image, :, :, channel], kernel, "valid")[::2, ::2]
    hidden = np.tanh(maps + layers["layer_0"]["bias"]).reshape(5, -1)
    outputs = hidden @ np.asarray(layers["end"]["kernel"]) + layers["end"]["bias"]

    @jax.jit
    def encode(layers, x):
        with handlers.substitute(data={"e$params": layers}):
            return encoder("e")(x)

    loc, scale = encode(layers, x)
    np.testing.assert_allclose(loc, outputs[:, :3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scale, np.log1p(np.exp(outputs[:, 3:])), rtol=1e-4)


@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 5, 3)])
def test_sizes_that_do_not_halve_are_encoded(shape):
    assert shape_of(ConvEncoder(shape, 4, (2, 3)), jnp.zeros((7, *shape))) == [(7, 4), (7, 4)]


def test_an_mlp_encoder_flattens_images():
    encode = handlers.seed(MLPEncoder((12, 5, 2)), 0)("e")
    x = jax.random.normal(jax.random.key(0), (3, 2, 6))
    for image_wise, flat in zip(encode(x), encode(x.reshape(3, 12)), strict=True):
        np.testing.assert_array_equal(image_wise, flat)
        assert flat.shape == (3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shape_of(MLPEncoder((12, 2)), jnp.zeros((3, 10))), "expected 12 numbers"),
        (lambda: shape_of(ConvEncoder((4, 4, 1), 2), jnp.zeros((3, 4, 4))), r"\(num_data, 4, 4, 1\)"),
        (lambda: ConvEncoder((4, 4), 2), "`shape`"),
        (lambda: ConvEncoder((4, 4, 1), 0), "`num_latents`"),
        (lambda: ConvEncoder((4, 4, 1), 2, ()), "`channels`"),
    ],
)
def test_arguments_are_checked(call, message):
    with pytest.raises(ValueError, match=message):
        call()
