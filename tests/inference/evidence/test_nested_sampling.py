"""Nested sampling: its integral on exact shrinkages, and the whole of it against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

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
@pytest.mark.parametrize("below", [-np.inf, -2.0], ids=["impossible", "two plateaus"])
def test_ties_do_no_harm(below):
    # Half of the prior has one likelihood, and half another or none. Within 4 standard errors: a false alarm in 6e-5 of
    # seeds.
    def model():
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.factor("half", jnp.where(z > 0, 0.0, below))

    evidence = log_evidence(jax.random.key(0), model, method=NestedSampling(200), progress_bar=False)
    assert evidence.is_trustworthy
    assert abs(evidence.value - np.log(0.5 + 0.5 * np.exp(below))) < 4 * evidence.std_error
    assert evidence.std_error < 0.1
