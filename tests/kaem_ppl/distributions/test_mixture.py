"""KANTiltedMixture against NumPyro's own mixture over KANTilted, and against quad."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import kaem_ppl as kp

from .. import members
from ..members import BASES, REFERENCES, density

SIZES = (None, 3, 10)
LOGITS = (0.3, -0.5, 0.9)


def _mixture(basis, reference):
    return kp.KANTiltedMixture(jnp.array(LOGITS), members.bank(basis, SIZES), REFERENCES[reference][0]())


def _weights():
    return np.exp(LOGITS) / np.exp(LOGITS).sum()


@pytest.mark.parametrize("reference", ["Normal", pytest.param("LogNormal", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(), pytest.param((5,), marks=pytest.mark.slow)])
def test_log_prob_equals_numpyros_mixture(reference, shape):
    # Oracle: MixtureSameFamily over KANTilted, which knows nothing of the collapsed table. Bar 1e-5.
    energy = BASES["RBF"](jax.random.key(0), (*shape, 4))
    logits = jax.random.normal(jax.random.key(1), (*shape, 4))
    pi_0 = REFERENCES[reference][0]()
    ours = kp.KANTiltedMixture(logits, energy, pi_0)
    theirs = dist.MixtureSameFamily(dist.Categorical(logits=logits), kp.KANTilted(energy, pi_0))
    assert ours.batch_shape == theirs.batch_shape == shape
    assert ours.log_normalizer.shape == (*shape, 4)
    z = jnp.linspace(0.05, 4.5, 13).reshape(-1, *(1,) * len(shape)) * jnp.ones(shape)
    np.testing.assert_allclose(ours.log_prob(z), theirs.log_prob(z), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_reference_with_a_batch():
    # Oracle: MixtureSameFamily, its reference expanded by hand.
    energy = BASES["RBF"](jax.random.key(0), (5, 4))
    logits = jax.random.normal(jax.random.key(1), (4,))
    loc = jnp.linspace(-1, 1, 5)
    ours = kp.KANTiltedMixture(logits, energy, dist.Normal(loc, 1.0))
    theirs = dist.MixtureSameFamily(
        dist.Categorical(logits=jnp.broadcast_to(logits, (5, 4))), kp.KANTilted(energy, dist.Normal(loc[:, None], 1.0))
    )
    assert ours.batch_shape == (5,)
    z = jax.random.normal(jax.random.key(2), (7, 5))
    np.testing.assert_allclose(ours.log_prob(z), theirs.log_prob(z), rtol=1e-5, atol=1e-5)
    u = jnp.linspace(1e-4, 1 - 1e-4, 51)[:, None] * jnp.ones(5)
    np.testing.assert_allclose(ours.cdf(ours.icdf(u)), u, atol=1e-6)
    # Oracle of the table: the CDF of the components, weighed.
    np.testing.assert_allclose(
        ours.cdf(z), jnp.sum(jax.nn.softmax(logits) * theirs.component_distribution.cdf(z[..., None]), -1), atol=2e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize(("basis", "reference"), [("RBF", "Normal"), ("BSpline1", "LogNormal")])
def test_cdf_moments_and_normalizers(basis, reference, precision):
    # Oracle: quad of each component, weighed; bars of the CDF.
    if precision == "float64" and basis != "RBF":
        pytest.skip("one pair in float64")
    bar = {"float32": 1e-6, "float64": 1e-10}[precision]
    d = _mixture(basis, reference)
    parts = [density(basis, reference, i, SIZES) for i in range(3)]
    np.testing.assert_allclose(d.log_normalizer, [p.log_z for p in parts], rtol=0, atol=10 * bar)
    assert np.all(np.asarray(d.log_normalizer_error) >= 0)
    z = np.asarray(jnp.array([0.05, 0.4, 1.0, 2.2, 3.0, 4.0]), float)
    z = z if reference == "LogNormal" else np.concatenate([[-4.2, -3.0, -1.3], z])
    exact = sum(w * p.tails(z)[0] for w, p in zip(_weights(), parts, strict=True))
    np.testing.assert_allclose(d.cdf(jnp.asarray(z)), exact, rtol=0, atol=10 * bar)
    upper = sum(w * p.tails(z)[1] for w, p in zip(_weights(), parts, strict=True))
    np.testing.assert_allclose(d.tails(jnp.asarray(z))[1][-1], upper[-1], rtol=20 * bar)
    u = jnp.asarray(np.concatenate([np.geomspace(1e-6, 0.4, 30), 1 - np.geomspace(1e-6, 0.4, 30)]))
    np.testing.assert_allclose(d.cdf(d.icdf(u)), u, rtol=0, atol=bar * (2 if precision == "float32" else 1))
    if precision == "float64":
        mean = sum(w * p.expectation(lambda z: z) for w, p in zip(_weights(), parts, strict=True))
        square = sum(w * p.expectation(np.square) for w, p in zip(_weights(), parts, strict=True))
        np.testing.assert_allclose(d.mean, mean, rtol=1e-8)
        np.testing.assert_allclose(d.variance, square - mean**2, rtol=1e-8)


@pytest.mark.slow
def test_sharp_components(x64):
    # Oracle: quad of each component, one of them at max|f| = 1000: the collapsed density needs panels of its own.
    sizes = (1000, 100, None)
    d = kp.KANTiltedMixture(jnp.array(LOGITS), members.bank("RBF", sizes), dist.Normal(0.0, 1.0))
    parts = [density("RBF", "Normal", i, sizes) for i in range(3)]
    z = np.array([-3.5, -1.0, 0.3, 1.2, 2.5])
    exact = sum(w * p.tails(z)[0] for w, p in zip(_weights(), parts, strict=True))
    np.testing.assert_allclose(d.cdf(jnp.asarray(z)), exact, rtol=0, atol=1e-9)
    u = jnp.linspace(1e-5, 1 - 1e-5, 101)
    np.testing.assert_allclose(d.cdf(d.icdf(u)), u, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_one_component_is_no_mixture():
    # Oracle: KANTilted of the same function.
    energy = BASES["RBF"](jax.random.key(0), (1,))
    mixture = kp.KANTiltedMixture(jnp.zeros(1), energy, dist.Normal(0.0, 1.0))
    single = kp.KANTilted(energy, dist.Normal(0.0, 1.0))
    z = jnp.linspace(-4, 4, 21)
    np.testing.assert_allclose(mixture.log_prob(z), single.log_prob(z[:, None])[:, 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mixture.cdf(z), single.cdf(z[:, None])[:, 0], atol=1e-6)


@pytest.mark.slow
def test_pytree_and_expand():
    d = _mixture("RBF", "Normal")
    z = jnp.linspace(-4, 4, 9)
    leaves, structure = jax.tree.flatten(d)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is kp.KANTiltedMixture
    np.testing.assert_array_equal(again.log_prob(z), d.log_prob(z))
    assert d.expand((6,)).sample(jax.random.key(0)).shape == (6,)
    np.testing.assert_array_equal(d.logits, jnp.array(LOGITS))


@pytest.mark.parametrize(
    ("make", "error", "name"),
    [
        (lambda f, r: kp.KANTiltedMixture(jnp.zeros(2), f, r), ValueError, "logits"),
        (lambda f, r: kp.KANTiltedMixture(jnp.zeros(()), f, r), ValueError, "logits"),
        (lambda f, r: kp.KANTiltedMixture(jnp.array([0.0, jnp.nan, 0]), f, r), ValueError, "logits"),
        (lambda f, r: kp.KANTiltedMixture(jnp.zeros(3), BASES["RBF"](jax.random.key(0)), r), ValueError, "energy"),
        (lambda f, r: kp.KANTiltedMixture(jnp.zeros(3), jnp.sin, r), TypeError, "energy"),
        (lambda f, r: kp.KANTiltedMixture(jnp.zeros(3), f, dist.Delta(0.0)), ValueError, "reference"),
        (lambda f, r: kp.KANTiltedMixture(jnp.zeros(3), f, jnp.sin), TypeError, "reference"),
    ],
)
def test_refused_arguments_are_named(make, error, name):
    with pytest.raises(error, match=name):
        make(BASES["RBF"](jax.random.key(0), (3,)), dist.Normal(0.0, 1.0))
