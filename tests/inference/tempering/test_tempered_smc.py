"""Tempered SMC: slow moves told from modes, and effective sizes that are honest."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from arviz_stats.base.array import array_stats

from kaem_ppl.inference import TemperedSMC, diagnose, sample_posterior
from kaem_ppl.inference.tempering.decorrelation import has_settled


def test_slow_moves_are_told_from_modes():
    # 1 - c before and after doubling: c = 0.99 and its square; and a part of 0.8 of the variance between modes.
    assert not has_settled(np.array([0.01]), np.array([1 - 0.99**2]), 1.6).any()
    assert has_settled(np.array([0.199]), np.array([0.2]), 1.6).all()
    assert not has_settled(np.array([0.0]), np.array([0.0]), 1.6).any()


@pytest.mark.slow
def test_weights_of_far_modes_have_an_honest_effective_size():
    # Oracle: the spread of the share of draws in one of two equal modes over 40 seeds; a ratio of standard deviations
    # within a factor of 1.6 of what ArviZ's effective size says (chi-squared, 39 degrees of freedom: a false alarm in 1e-4
    # of seeds).
    def model():
        z = numpyro.sample("z", dist.Normal(0, 10))
        numpyro.factor("modes", jnp.logaddexp(-0.5 * ((z - 10) / 0.1) ** 2, -0.5 * ((z + 10) / 0.1) ** 2))

    shares, stated = [], []
    for seed in range(40):
        draws = sample_posterior(
            jax.random.key(seed), model, sampler=TemperedSMC(200), num_chains=1, num_samples=200, progress_bar=False
        )
        above = np.asarray(draws.samples["z"] > 0, float)
        shares.append(above.mean())
        stated.append(array_stats.ess(above, chain_axis=0, draw_axis=1, method="mean"))
    std_error = np.sqrt(0.25 / np.median(stated))
    assert 1 / 1.6 < np.std(shares, ddof=1) / std_error < 1.6


def test_populations_that_disagree_are_named():
    def model(x):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 0.1), obs=x)

    sampler = TemperedSMC(100, num_mutation_steps=1)
    draws = sample_posterior(jax.random.key(0), model, 1.0, sampler=sampler, num_samples=100, progress_bar=False)
    wrong = draws.summary | {"log_evidence": jnp.array([-1.0, -5.0, -1.0, -1.0])}
    assert diagnose(draws).checks["agreement of populations"]
    diagnosis = diagnose(type(draws)(**{**draws.__dict__, "summary": wrong}))
    assert not diagnosis.checks["agreement of populations"]
    assert any("Populations disagree" in words for words in diagnosis.warnings)
