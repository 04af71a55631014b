"""Nested sampling: its integral on exact shrinkages, and the whole of it against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import norm

from kaem_ppl.inference import NestedSampling, diagnose, log_evidence, sample_posterior
from kaem_ppl.inference.evidence.nested_draws import NestedPoints, integrate, order_relatives, resample


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
    value, std_error, information = np.array([numbers[:3] for numbers in found]).T
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


@pytest.mark.exhaustive
def test_far_modes():
    # Oracle: the closed form of two modes of 25 and 75 % at 53 of their standard deviations from each other, in ten
    # coordinates. The mean of eight runs within 4 of its errors, by their spread (a false alarm in 5e-3 of seeds, 7
    # degrees of freedom), and the errors stated on average at least half of that spread.
    centres, scale, weights = np.stack([np.full(10, -2.53), np.full(10, 2.53)]), 0.3, np.array([0.25, 0.75])

    def model():
        z = numpyro.sample("z", dist.Normal(0, 5).expand([10]).to_event(1))
        of_modes = dist.Normal(jnp.asarray(centres), scale).log_prob(z).sum(-1)
        numpyro.factor("modes", jax.nn.logsumexp(jnp.log(weights) + of_modes))

    exact = np.logaddexp.reduce(np.log(weights) + norm(0, np.hypot(5, scale)).logpdf(centres).sum(-1))
    found = [
        log_evidence(jax.random.key(seed), model, method=NestedSampling(), progress_bar=False) for seed in range(8)
    ]
    errors = np.array([evidence.value for evidence in found]) - exact
    assert abs(errors.mean()) < 4 * errors.std(ddof=1) / np.sqrt(8)
    assert np.mean([evidence.std_error for evidence in found]) > 0.5 * errors.std(ddof=1)


def test_relatives_stand_together():
    # 0, 1 and 2 are draws of the prior; 3 comes from 1, 4 from 0, 5 from 3, 6 from 1.
    parents = np.array([-1, -1, -1, 1, 0, 3, 1])
    numbers = np.array([6, 0, 5, 2, 4, 3, 5])
    assert numbers[order_relatives(numbers, parents)].tolist() == [0, 4, 3, 5, 5, 6, 2]


def test_draws_follow_the_weights():
    # Oracle: the weights, by systematic resampling to one draw. Two iterations delete two of four points, but the
    # second was after the end; points are what their numbers are.
    weights = np.array([0.1, 0.0, 0.3, 0.2, 0.25, 0.15])
    points = NestedPoints(
        {(0, 0): weights},
        {"z": np.array([[0.0, 1.0], [8.0, 9.0]])[:, None, None]},
        {"z": np.array([[[4.0, 5.0, 2.0, 3.0]]])},
        np.array([True, False])[:, None, None],
        np.array([[0, 1], [8, 9]])[:, None, None],
        np.array([[[4, 5, 2, 3]]]),
        np.array([[2, 3], [2, 3]])[:, None, None],
    )
    draws, size = resample(points, 200)
    values, counts = np.unique(draws["z"][0, :, 0], return_counts=True)
    by_number = dict(zip([0.0, 1.0, 4.0, 5.0, 2.0, 3.0], weights, strict=True))
    assert values.tolist() == [0.0, 2.0, 3.0, 4.0, 5.0]
    assert (np.abs(counts - [200 * by_number[value] for value in values]) <= 1).all()
    # 4 comes from 2, and 5 from 3.
    firsts = draws["z"][0, :, 0][np.sort(np.unique(draws["z"][0, :, 0], return_index=True)[1])]
    assert firsts.tolist() == [0.0, 2.0, 4.0, 3.0, 5.0]
    assert np.isclose(size, 1 / np.square(weights).sum())


@pytest.mark.slow
def test_posterior_draws_and_their_effective_sizes():
    # Oracle: the conjugate posterior N(0.8, 0.2) of 40 equal data. Means and variances over the data within 4 standard
    # errors (a false alarm in 3e-4 of seeds); and ArviZ's effective sizes do not promise more than the spread of the means
    # over data shows: the ratio has a relative error of sqrt(2 / 40), so that 1.9 is 4 of its errors above 1. Measured over
    # 100 data: 0.7 to 0.9.
    from arviz_stats.base.array import array_stats

    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
            numpyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    draws = sample_posterior(
        jax.random.key(0), model, jnp.ones((40, 2)), plate="data", sampler=NestedSampling(50), num_chains=2,
        num_samples=400, progress_bar=False,
    )  # fmt: skip
    z = np.asarray(draws.samples["z"], float)
    for values, exact in ((z, 0.8), (np.square(z - 0.8), 0.2)):
        error = values.mean((0, 1)) - exact
        assert (np.abs(error.mean(0)) < 4 * error.std(0, ddof=1) / np.sqrt(40)).all()
        shown = values.var((0, 1)).mean(0) / np.square(error).mean(0)
        claimed = np.asarray(array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean")).mean(0)
        assert (claimed < 1.9 * shown).all()
        assert (claimed > 0.3 * shown).all()
    exact = 2 * dist.Normal(0, 1.25**0.5).log_prob(1.0)
    np.testing.assert_allclose(np.asarray(draws.summary["log_evidence"]).mean(), exact, atol=0.1)
    assert "effective sample size" in diagnose(draws).checks
    np.testing.assert_allclose(draws.sample_stats["log_prior"], dist.Normal(0, 1).log_prob(z).sum(-1), atol=1e-4)
