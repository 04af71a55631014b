"""The diffusion baseline against closed forms: of a mixture of two normal laws its network is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro import handlers
from scipy import stats

from kaem_ppl.inference import VariationalMLE, fit
from kaem_ppl.models import ConvDenoiser, Diffusion, MLPDenoiser, sample_diffusion

WEIGHTS, MEANS, STD = np.array([0.3, 0.7]), np.array([-1.2, 0.8]), 0.25


def exact(name):
    """E[v | y_t, t]: the posterior of the clean value is a mixture of two normal laws."""

    def predict(y, time):
        a, s = jnp.cos(jnp.pi * time / 2)[:, None], jnp.sin(jnp.pi * time / 2)[:, None]
        variance = jnp.square(a * STD) + jnp.square(s)
        away = y - a * MEANS
        share = jax.nn.softmax(jnp.log(WEIGHTS) - jnp.square(away) / (2 * variance), -1)
        clean = (share * (MEANS + a * STD**2 / variance * away)).sum(-1, keepdims=True)
        noise = (share * s / variance * away).sum(-1, keepdims=True)
        return a * noise - s * clean

    return predict


def cdf(x):
    return (WEIGHTS * stats.norm.cdf((np.asarray(x)[..., None] - MEANS) / STD)).sum(-1)


def draw_mixture(rng, number):
    return MEANS[rng.choice(2, number, p=WEIGHTS)] + STD * rng.normal(size=number)


@pytest.mark.parametrize("is_stochastic", [False, True])
def test_steps_by_the_exact_network_draw_from_the_law_itself(is_stochastic):
    # Steps of 1/300: 2,000 draws are too few to see their error. A test at 0.001 each.
    model = Diffusion(exact, (1,), 0.0, 1.0, num_steps=300)
    x = sample_diffusion(jax.random.key(0), model, {}, num_draws=2000, is_stochastic=is_stochastic)
    assert stats.kstest(np.asarray(x)[:, 0], cdf).pvalue > 1e-3


@pytest.mark.slow
def test_two_modes_are_learnt():
    # The trained network against the exact one, root mean square over y_t and t: 0.05 of 0.41 at this seed, 0.1 allowed.
    rng = np.random.default_rng(0)
    data = draw_mixture(rng, 2000).astype(np.float32)[:, None]
    model = Diffusion(MLPDenoiser((1, 64, 64, 1)), (1,), 0.0, 1.0)
    rate = optax.cosine_decay_schedule(3e-3, 1000)
    trained = fit(
        0, model, data, strategy=VariationalMLE(model.guide), optimizer=optax.adam(rate), num_epochs=100, batch_size=200,
        progress_bar=False,
    )  # fmt: skip
    time = rng.uniform(size=4000).astype(np.float32)
    a, s = np.cos(np.pi * time / 2), np.sin(np.pi * time / 2)
    y = jnp.asarray(a * draw_mixture(rng, 4000) + s * rng.normal(size=4000), jnp.float32)[:, None]
    with handlers.substitute(data=trained.params):
        error = model.denoiser("denoiser")(y, jnp.asarray(time)) - exact("")(y, jnp.asarray(time))
    assert np.sqrt(np.square(error).mean()) < 0.1
    # Both modes, in their shares: 0.3 +- 0.007 by 4,000 draws, and what the network lacks.
    x = sample_diffusion(jax.random.key(1), model, trained.params, num_draws=4000)
    assert (x < -0.2).mean() == pytest.approx(cdf(-0.2), abs=0.05)
    # Without data the model generates: `mean`, which the command line reads, and predictive draws.
    with handlers.trace() as sites, handlers.substitute(data=trained.params), handlers.seed(rng_seed=0):
        model(size=5)
    assert sites["mean"]["value"].shape == (5, 1)


@pytest.mark.parametrize("shape", [(28, 28, 1), (7, 10, 3)])
def test_a_convolutional_denoiser_returns_maps_of_its_images_shape(shape):
    denoiser = ConvDenoiser(shape, (4, 6, 8))

    def run():
        with handlers.seed(rng_seed=0):
            return denoiser("d")(jnp.zeros((2, *shape)), jnp.zeros(2))

    assert jax.eval_shape(run).shape == (2, *shape)


def test_what_is_no_diffusion_is_refused():
    with pytest.raises(TypeError, match="`denoiser` must be a network"):
        Diffusion(MLPDenoiser, (2,))
    with pytest.raises(ValueError, match="`std` must be"):
        Diffusion(exact, (1,), std=0)
    with pytest.raises(ValueError, match="`sizes` must begin and end alike"):
        MLPDenoiser((2, 8, 3))
    with pytest.raises(ValueError, match=r"expected data of shape \(1,\) each"), handlers.seed(rng_seed=0):
        Diffusion(exact, (1,))(jnp.zeros((3, 2)))
