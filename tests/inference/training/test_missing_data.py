"""Training on incomplete rows, against the maximum of the likelihood of the entries that are there."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import kaem_ppl as kp
from kaem_ppl.inference import (
    MALA,
    ImportanceMLE,
    ImportanceSampling,
    LangevinMLE,
    PathwiseImportanceMLE,
    ThermodynamicMLE,
    VariationalMLE,
    fit,
    log_evidence,
    sample_posterior,
)
from kaem_ppl.models import load_digits

_X = np.random.default_rng(0).normal([1.0, -2.0, 0.5], 1.0, (30, 3))
_INCOMPLETE = np.where(np.random.default_rng(1).random((30, 3)) < 0.3, np.nan, _X).astype(np.float32)


def offsets(x):
    offset = numpyro.param("offset", jnp.zeros(3))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(offset + 0.01 * z[:, None], 1.0).to_event(1), obs=x)


def guide(x):
    loc = numpyro.param("loc", jnp.zeros(3))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(jnp.nan_to_num(x) @ loc, 1.0))


_STRATEGIES = [
    ImportanceMLE(20),
    LangevinMLE(MALA(), num_steps=2),
    pytest.param(PathwiseImportanceMLE(20), marks=pytest.mark.slow),
    pytest.param(ThermodynamicMLE(num_steps=2), marks=pytest.mark.slow),
    pytest.param(VariationalMLE(guide), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("strategy", _STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_learns_from_the_entries_that_are_there(strategy):
    # Oracle: latents hardly matter, so that the likelihood is greatest at the mean of each column's observed entries. Their
    # noise of 0.01 and the last steps' leave less than a tenth of the tolerance; zeros in place of NaN would miss by 0.3.
    result = fit(
        jax.random.key(0), offsets, _INCOMPLETE, strategy=strategy, num_epochs=150, progress_bar=False, missing="nan",
        optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 150)),
    )  # fmt: skip
    np.testing.assert_allclose(result.params["offset"], np.nanmean(_INCOMPLETE, 0), atol=0.05)


def digit_model(x=None, size=None):
    prior = kp.kan_prior("prior", (5,), basis=kp.RBF(8), domain=(-3, 3), reference=dist.Normal(0, 1))
    decode = kp.kan_generator("decoder", (5, 64))
    with numpyro.plate("data", size if x is None else len(x)):
        z = numpyro.sample("z", prior.to_event(1))
        numpyro.sample("x", dist.Normal(decode(z), 0.3).to_event(1), obs=x)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ImportanceMLE ended")
def test_digits_with_a_fifth_of_their_pixels_hidden_train_as_whole_ones_do():
    """Within one nat for each image's observed pixels, on held-out digits; hidden pixels are nearer than their means are.

    Both bars are wide of what was measured, differences of at most 0.5 nats and ratios of at most 0.8.
    """
    images = load_digits().images
    train, held_out = images[:500], images[1400:1500]
    rng = np.random.default_rng(0)
    hidden, hidden_of_held_out = (rng.random(x.shape) < 0.2 for x in (train, held_out))
    incomplete, of_held_out = (
        np.where(mask, np.nan, x).astype(np.float32) for mask, x in ((hidden, train), (hidden_of_held_out, held_out))
    )

    def learn(data):
        return fit(
            jax.random.key(0), digit_model, data, strategy=ImportanceMLE(50), optimizer=optax.adam(2e-2), num_epochs=20,
            batch_size=100, progress_bar=False, missing="nan",
        ).params  # fmt: skip

    def nats(params):
        # Of the same entries for both, those that are there.
        evidence = log_evidence(
            jax.random.key(1), digit_model, of_held_out, params=params, method=ImportanceSampling(2000), num_chains=1,
            plate="data", missing="nan", progress_bar=False,
        )  # fmt: skip
        return evidence.value.mean()

    params = learn(incomplete)
    assert nats(params) > nats(learn(train)) - 1

    draws = sample_posterior(
        jax.random.key(2), digit_model, of_held_out, params=params, sampler=ImportanceSampling(2000), num_chains=1,
        num_samples=100, plate="data", missing="nan", progress_bar=False,
    )  # fmt: skip
    imputed = np.asarray(draws.impute(jax.random.key(3))["x"])[0]
    there = ~hidden_of_held_out
    assert (imputed[:, there] == of_held_out[there]).all()

    def rmse(guess):
        return np.sqrt(np.mean(np.square((guess - held_out)[hidden_of_held_out])))

    assert rmse(imputed.mean(0)) < 0.85 * rmse(np.broadcast_to(np.nanmean(incomplete, 0), held_out.shape))
