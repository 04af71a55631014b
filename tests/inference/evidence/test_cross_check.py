"""Two methods on one model: that they agree where both are right, and that it is said where one is wrong."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from kaem_ppl.inference import EllipticalSlice, ImportanceSampling, cross_check
from kaem_ppl.inference.evidence.cross_check import _compare_means

QUICK = {"num_chains": 2, "num_samples": 500, "num_warmup": 10, "progress_bar": False}


def model(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)


@pytest.mark.slow
def test_two_methods_that_agree():
    # Oracle: the closed form. Agreement is refused at a level of 1e-4 for each of three comparisons.
    x = jnp.array([0.5, -1.0])
    found = cross_check(
        jax.random.key(0), model, x, plate="data", methods=(ImportanceSampling(2000), EllipticalSlice()), **QUICK
    )
    for evidence in found.evidences.values():
        assert (np.abs(evidence.value - st.norm.logpdf(x, scale=2**0.5)) < 4 * evidence.std_error).all()
    assert found.agree.all()
    assert found.means_agree
    np.testing.assert_allclose(found.means.loc["z", "mean by EllipticalSlice"], found.means.loc["z"].iloc[1], atol=0.15)
    values = [evidence.value for evidence in found.evidences.values()]
    np.testing.assert_allclose(found.difference, values[0] - values[1])
    words = str(found)
    assert "EllipticalSlice: log-evidence" in words
    assert "Posterior means agree within their errors." in words
    assert "blind to modes apart from those that its chains started near" in words
    assert words.endswith("a mode that neither has visited.")


def test_a_mode_that_one_method_misses():
    # A spike that 200 draws of the prior do not meet, and 20,000 do: it holds 200 / 201 of the evidence.
    def spike():
        z = numpyro.sample("z", dist.Uniform(-0.5, 0.5).expand([2]).to_event(1))
        slab = dist.Normal(-0.2, 0.1).log_prob(z).sum()
        numpyro.factor("two", jnp.logaddexp(slab, np.log(200.0) + dist.Normal(0.3, 0.005).log_prob(z).sum()))

    found = cross_check(
        jax.random.key(1), spike, methods=(ImportanceSampling(20), ImportanceSampling(20_000)),
        num_chains=2, num_samples=100, progress_bar=False,
    )  # fmt: skip
    assert not found.agree
    assert abs(found.z_score) > 4
    assert list(found.evidences) == ["ImportanceSampling 1", "ImportanceSampling 2"]
    assert "they DISAGREE" in str(found)


def test_means_that_differ():
    # Oracle: by hand. Independent draws, 2,000 of each: the means differ by 0.2, 6.3 of their errors in one element.
    def made(shift):
        z = np.random.default_rng(int(10 * shift)).normal(size=(2, 1000, 3)) + np.array([0.0, shift, 0.0])
        return SimpleNamespace(samples={"z": z}, num_chains=2, num_samples=1000)

    table, agree = _compare_means({"one": made(0.0), "other": made(0.2)})
    assert not agree
    assert table.loc["z", "element"] == "z[1]"
    assert -10 < table.loc["z", "z_score"] < -4
    assert _compare_means({"one": made(0.0), "other": made(0.0)})[1]


def test_refuses():
    with pytest.raises(ValueError, match="`methods` must be two methods, got 1"):
        cross_check(jax.random.key(0), model, jnp.zeros(2), methods=(ImportanceSampling(),))


@pytest.mark.exhaustive
def test_the_default_pair_sees_what_tempering_is_blind_to():
    # Oracle: the closed form, log 101 up to 1e-6 (Skilling 2006, sec. 8): a spike a tenth as wide as the slab, off its
    # centre, holds 100 / 101 of the evidence. Tempering never finds it; nested sampling does.
    def spike_and_slab():
        z = numpyro.sample("z", dist.Uniform(-0.5, 0.5).expand([5]).to_event(1))
        spike = np.log(100.0) + dist.Normal(0.031, 0.01).log_prob(z).sum()
        numpyro.factor("two", jnp.logaddexp(spike, dist.Normal(0.0, 0.1).log_prob(z).sum()))

    found = cross_check(jax.random.key(0), spike_and_slab, progress_bar=False)
    nested = found.evidences["NestedSampling"]
    assert abs(nested.value - np.log(101)) < 4 * nested.std_error
    assert not found.agree
