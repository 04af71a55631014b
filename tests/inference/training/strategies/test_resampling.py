"""Resampling: whole numbers of copies, unbiased, and of small variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.smc import resampling as blackjax_resampling

from kaem_ppl.inference import residual_resampling, stratified_resampling, systematic_resampling

RESAMPLERS = {
    "residual": residual_resampling,
    "stratified": stratified_resampling,
    "systematic": systematic_resampling,
}
WEIGHTS = {
    "spread": jax.nn.softmax(jax.random.normal(jax.random.key(0), (50,))),
    "peaked": jax.nn.softmax(4 * jax.random.normal(jax.random.key(1), (50,))),
    "equal": jnp.full(50, 1 / 50),
    "one": jnp.zeros(50).at[17].set(1.0),
}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", RESAMPLERS)
def test_unbiased(name, weights):
    # Oracle: E[copies] = S w. 50 means of 20,000 draws, each within 5 standard errors: a false alarm in 3e-5 of
    # seeds for one case. The slack of 2e-4 is the float32 rounding of a cumulative sum of 50.
    w = WEIGHTS[weights]
    copies = RESAMPLERS[name](jax.random.key(2), jnp.broadcast_to(w, (20_000, 50)))
    std_error = copies.std(0) / np.sqrt(len(copies))
    assert (jnp.abs(copies.mean(0) - 50 * w) <= 5 * std_error + 2e-4).all()


@pytest.mark.parametrize("name", RESAMPLERS)
def test_copies_are_whole_and_sum_to_the_number_of_particles(name):
    weights = jax.nn.softmax(5 * jax.random.normal(jax.random.key(3), (30, 2000)))
    copies = RESAMPLERS[name](jax.random.key(4), weights)
    assert (copies >= 0).all()
    assert (copies == jnp.round(copies)).all()
    assert (copies.sum(-1) == 2000).all()


def test_residual_keeps_the_whole_part():
    weights = jax.nn.softmax(3 * jax.random.normal(jax.random.key(5), (30, 200)))
    assert (residual_resampling(jax.random.key(6), weights) >= jnp.floor(200 * weights)).all()


def test_systematic_rounds_down_or_up():
    weights = jax.nn.softmax(3 * jax.random.normal(jax.random.key(5), (30, 200)))
    # The slack is the float32 rounding of a cumulative sum of 200.
    assert (jnp.abs(systematic_resampling(jax.random.key(6), weights) - 200 * weights) < 1 + 2e-4).all()


@pytest.mark.parametrize("name", ["systematic", "stratified"])
def test_agrees_with_blackjax(name, monkeypatch):
    # Oracle: BlackJAX's indices, counted, for the same uniforms.
    weights = WEIGHTS["spread"]
    uniforms = jax.random.uniform(jax.random.key(8), (50,))
    monkeypatch.setattr(
        jax.random, "uniform", lambda key, shape, *_: uniforms[: np.prod(shape, dtype=int)].reshape(shape)
    )
    indices = getattr(blackjax_resampling, name)(jax.random.key(9), weights, 50)
    np.testing.assert_array_equal(
        RESAMPLERS[name](jax.random.key(9), weights), jnp.bincount(indices, length=50).astype(weights.dtype)
    )


@pytest.mark.parametrize("name", RESAMPLERS)
def test_vmaps_and_keeps_nan_visible(name):
    weights = jnp.stack([WEIGHTS["spread"], jnp.full(50, jnp.nan)])
    copies = jax.jit(jax.vmap(RESAMPLERS[name]))(jax.random.split(jax.random.key(10)), weights)
    assert copies[0].sum() == 50
    assert jnp.isnan(copies[1]).any()


@pytest.mark.parametrize("name", RESAMPLERS)
@pytest.mark.parametrize("weights", [[-0.2, 0.7, 0.5], [jnp.nan, 0.5, 0.5], [0.2, 0.2, 0.2]])
def test_what_are_not_weights_is_refused(name, weights):
    weights = jnp.array(weights)
    with pytest.raises(ValueError, match="`weights` must be non-negative and sum to one"):
        RESAMPLERS[name](jax.random.key(0), weights)
    # Compiled, values are unknown: NaN instead of copies.
    assert jnp.isnan(jax.jit(RESAMPLERS[name])(jax.random.key(0), weights)).any()
