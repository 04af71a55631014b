"""The model of sequences: its sites, its density written out, shared draws, and that it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import log_density

import kaem_ppl as kp
from kaem_ppl.inference import ImportanceMLE, fit
from kaem_ppl.inference.model.plate_model import read_plate_model
from kaem_ppl.models import SequenceGenerator, SequenceKAEM, Vocabulary
from kaem_ppl.models.data.vocabulary import END

PRIOR = {"basis": kp.RBF(6), "domain": (-3.0, 3.0), "reference": dist.Normal(0, 1)}
GENERATOR = SequenceGenerator(3, length=5, vocabulary_size=6, width=8, num_heads=2, num_layers=1)
MODEL = SequenceKAEM((3, 2), GENERATOR, **PRIOR)
TOKENS = jnp.array([[3, 4, 1, 0, 0], [5, 5, 3, 4, 1], [1, 0, 0, 0, 0]])


def sites(*args, **kwargs):
    with handlers.trace() as trace, handlers.seed(rng_seed=0):
        MODEL(*args, **kwargs)
    return {name: site["value"] for name, site in trace.items() if site["type"] in ("param", "sample")}


@pytest.fixture(scope="module")
def params():
    """Any parameters will do, and random numbers need no compilation."""
    shapes = jax.eval_shape(lambda: sites(size=1))
    shapes = {name: value for name, value in shapes.items() if name.endswith("$params")}
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32), shapes)


def test_sites():
    shapes = jax.eval_shape(lambda: sites(size=7))
    assert set(shapes) == {"prior$params", "generator$params", "z", "x"}
    assert shapes["z"].shape == (7, 3, 2)
    assert shapes["x"].shape == (7, 5)
    assert jax.eval_shape(lambda x: sites(x)["z"], TOKENS).shape == (3, 3, 2)


def test_an_adaptive_grid_is_a_site():
    def grid():
        with handlers.trace() as trace, handlers.seed(rng_seed=0):
            dataclasses.replace(MODEL, adaptive_grid=True)(TOKENS)
        return trace["prior$grid"]["value"]

    shapes = {name: leaf.shape for name, leaf in jax.eval_shape(grid).items()}
    assert shapes == {"grid": (3, 2, 6), "domain": (3, 2, 2)}


def test_the_joint_density_is_the_one_written_out(params):
    z = jax.random.normal(jax.random.key(1), (3, 3, 2))

    @jax.jit
    def parts(params, tokens, z):
        with handlers.substitute(data=params):
            logits = GENERATOR("generator")(z.sum(-1))
            log_prior = kp.kan_prior("prior", (3, 2), **PRIOR).log_prob(z).sum()
        return logits, log_prior, log_density(MODEL, (tokens,), {}, {**params, "z": z})[0]

    def expected(tokens):
        total = float(log_prior)
        for row, sequence in zip(np.asarray(logits, float), np.asarray(tokens), strict=True):
            for position, token in zip(row, sequence, strict=True):
                if token != 0:
                    total += position[token] - np.log(np.exp(position[1:]).sum())
        return total

    for tokens in (TOKENS, TOKENS.at[1].set(jnp.array([5, 1, 0, 0, 0]))):
        logits, log_prior, density = parts(params, tokens, z)
        np.testing.assert_allclose(density, expected(tokens), rtol=1e-5)


def test_data_share_their_prior_draws(params):
    assert read_plate_model(jax.random.key(0), MODEL, TOKENS, "data", params).draws_are_shared


@pytest.mark.slow
def test_a_few_epochs_on_text_help_and_what_is_generated_is_text():
    texts = ["the cat sat", "the dog sat", "a cat ran", "a dog ran"] * 8
    vocabulary = Vocabulary.learn(texts, 20)
    tokens = vocabulary.encode(texts, 12)
    generator = SequenceGenerator(2, 12, len(vocabulary), width=16, num_heads=2, num_layers=1)
    model = SequenceKAEM((2, 1), generator, **PRIOR)
    result = fit(
        jax.random.key(0),
        model,
        tokens,
        num_epochs=4,
        batch_size=8,
        strategy=ImportanceMLE(num_particles=50),
        progress_bar=False,
    )
    log_evidence = np.asarray(result.history["log_evidence"])
    assert np.all(np.isfinite(log_evidence))
    assert log_evidence[-1] > log_evidence[0] + 2
    drawn = Predictive(model, params=result.params, num_samples=1)(jax.random.key(1), size=50)["x"][0]
    assert drawn.min() == END
    assert all(set(text) <= {*"".join(texts), "\N{REPLACEMENT CHARACTER}"} for text in vocabulary.decode(drawn))
