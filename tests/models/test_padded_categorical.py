"""The categorical distribution that does not look at padding, against the plain one with a mask."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import chisquare

from kaem_ppl.inference.model.pairwise import pairwise_log_prob
from kaem_ppl.models import PaddedCategorical

LOGITS = jnp.asarray(np.random.default_rng(0).normal(0, 3, (4, 6, 5)))
TOKENS = jnp.asarray(np.random.default_rng(1).integers(0, 5, (4, 6)))


def masked(logits, tokens, padding):
    without = jnp.delete(logits, padding, -1)
    place = jnp.where(tokens > padding, tokens - 1, tokens)
    return dist.Categorical(logits=without).mask(tokens != padding).log_prob(place % without.shape[-1])


@pytest.mark.parametrize("padding", [0, 2, 4])
def test_log_prob_and_gradient_are_those_of_a_masked_categorical(padding):
    log_prob = PaddedCategorical(LOGITS, padding).log_prob(TOKENS)
    np.testing.assert_allclose(log_prob, masked(LOGITS, TOKENS, padding), rtol=1e-5, atol=1e-6)
    assert (log_prob[padding == TOKENS] == 0).all()
    gradient = jax.grad(lambda logits: PaddedCategorical(logits, padding).log_prob(TOKENS).sum())(LOGITS)
    expected = jax.grad(lambda logits: masked(logits, TOKENS, padding).sum())(LOGITS)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_draws_follow_the_probabilities_and_never_pad():
    # Chi-squared test at a false-alarm rate of 1e-4.
    logits = jnp.array([0.5, 1.0, -1.0, 0.0])
    draws = PaddedCategorical(logits, 1).sample(jax.random.key(2), (20_000,))
    counts = np.bincount(draws, minlength=4)
    assert counts[1] == 0
    kept = np.array([0, 2, 3])
    expected = np.exp(logits[kept]).astype(float)
    assert chisquare(counts[kept], 20_000 * expected / expected.sum()).pvalue > 1e-4


def test_it_is_a_numpyro_distribution():
    fn = PaddedCategorical(LOGITS, 2, validate_args=True)
    assert fn.batch_shape == (4, 6)
    assert fn.to_event(1).log_prob(TOKENS).shape == (4,)
    assert fn.log_prob(jnp.zeros((3, 4, 6), int)).shape == (3, 4, 6)
    assert fn.sample(jax.random.key(0), (3,)).shape == (3, 4, 6)
    again = jax.jit(lambda fn: fn)(fn)
    np.testing.assert_allclose(again.log_prob(TOKENS), fn.log_prob(TOKENS), rtol=1e-6)


def test_every_datum_is_weighed_under_every_particle():
    # Particles run along the first axis: 4 of them, and 3 data of 6 tokens.
    tokens = jax.random.randint(jax.random.key(3), (3, 6), 0, 5)
    pairs = pairwise_log_prob(PaddedCategorical(LOGITS).to_event(1), tokens)
    expected = [[masked(logits, row, 0).sum() for logits in LOGITS] for row in tokens]
    np.testing.assert_allclose(pairs, np.array(expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("logits", "padding", "message"),
    [
        (jnp.zeros(1), 0, "at least two tokens"),
        (jnp.zeros(3), 3, "`padding` is 3"),
        (jnp.zeros(3), -1, "`padding` is -1"),
    ],
)
def test_arguments_are_checked(logits, padding, message):
    with pytest.raises(ValueError, match=message):
        PaddedCategorical(logits, padding)
