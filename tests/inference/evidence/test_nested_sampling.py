"""Nested sampling: its integral on exact shrinkages, and the whole of it against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from kaem_ppl.inference import NestedSampling, log_evidence
from kaem_ppl.inference.evidence.nested_sampling import integrate


def test_the_integral_of_exact_shrinkages():
    # Oracle: L = exp(-k X) over prior mass X has evidence (1 - e^-k) / k. Live points are uniform on the mass that is
    # left, exactly, so 100 runs have errors of the standard size: their mean within 4 of its errors, and the claims
    # within 20 % of their spread (measured to 7 %).
    k, num_live, num_delete = 50.0, 100, 10
    found = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        live, dead = rng.uniform(size=num_live), []
        while live.max() > 1e-3:
            order = np.argsort(-live)
            dead.append(live[order[:num_delete]])
            live = np.concatenate([live[order[num_delete:]], rng.uniform(size=num_delete) * dead[-1].min()])
        found.append(integrate(rng, -k * np.concatenate(dead), -k * live, num_delete))
    value, std_error, information = np.array(found).T
    exact = np.log(-np.expm1(-k) / k)
    assert abs(value.mean() - exact) < 4 * value.std() / 10 + 0.005
    assert np.isclose(std_error.mean(), value.std(ddof=1), rtol=0.2)
    # The divergence is log(k) - 1 up to e^-k.
    assert np.isclose(information.mean(), np.log(k) - 1, atol=0.1)


@pytest.mark.parametrize("settings", [{"num_live": 10}, {"num_slice_steps": 0}, {"remaining": 1.0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}`"):
        NestedSampling(**settings)


@pytest.mark.slow
def test_two_latents(linear_gaussian):
    # Six data within 4 standard errors: a false alarm in 4e-4 of seeds.
    one = linear_gaussian
    evidence = log_evidence(
        jax.random.key(0), one.model, one.x, params=one.params, plate="data", method=NestedSampling(200), num_chains=2,
        progress_bar=False,
    )  # fmt: skip
    exact = one.log_evidence(one.params, one.x)
    assert (np.abs(evidence.value - exact) < 4 * evidence.std_error).all()
    assert (evidence.std_error < 0.15).all()


@pytest.mark.slow
def test_a_plateau_is_named():
    # Half of the prior has likelihood 0.
    def model(x):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.factor("half", jnp.where(z > 0, 0.0, -jnp.inf))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)

    evidence = log_evidence(jax.random.key(0), model, 0.5, method=NestedSampling(100), num_chains=1, progress_bar=False)
    assert not evidence.is_trustworthy
    assert any("likelihood is 0 at some prior draws" in words for words in evidence.warnings)
    exact = st.norm.logpdf(0.5, scale=2**0.5) + st.norm.logcdf(0.25 / 0.5**0.5)
    assert abs(evidence.value - exact) < 1
