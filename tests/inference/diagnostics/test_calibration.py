"""Simulation-based calibration: a right sampler passes, a biased one is caught, and the tests keep their level."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from kaem_ppl.inference import MALA, NUTS, ULA, EllipticalSlice, TemperedSMC, simulation_based_calibration
from kaem_ppl.inference.diagnostics.uniformity import chi_squared_p, ecdf_p

SETTINGS = {"num_simulations": 200, "num_samples": 200, "num_warmup": 20, "progress_bar": False}


def model(size, x):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    slope = numpyro.sample("slope", dist.Normal(0, 1).expand([2]).to_event(1))
    mean = mu + slope[0] * jnp.linspace(-1, 1, size)
    numpyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


def test_p_values_are_uniform_where_the_null_holds():
    # Oracle: Kolmogorov-Smirnov of 100 p-values at 1e-4; the chi-squared ones are nearly continuous at 200 numbers.
    rng = np.random.default_rng(0)
    u = rng.uniform(size=(100, 200))
    assert st.kstest(ecdf_p(rng, u), "uniform").pvalue > 1e-4
    p = chi_squared_p(u)
    assert st.kstest(p, "uniform").pvalue > 1e-4
    counts = np.stack([np.histogram(row, 20, (0, 1))[0] for row in u])
    np.testing.assert_allclose(p, st.chisquare(counts, axis=1).pvalue)


def test_p_values_see_what_is_not_uniform():
    # Ranks of a posterior too narrow by a third, and of one too high by two fifths of its standard deviation.
    rng = np.random.default_rng(1)
    z = rng.normal(size=400)
    for u in (st.norm.cdf(z / 0.7), st.norm.cdf(z - 0.4)):
        assert ecdf_p(rng, u[None])[0] < 1e-2


def test_a_conjugate_model_is_calibrated():
    # A false alarm in 1 % of seeds. The site "slope[1]" meets its prior: it is no part of the mean.
    found = simulation_based_calibration(
        jax.random.key(0), model, 5, jnp.zeros(5), sampler=EllipticalSlice(), **SETTINGS
    )
    assert found.is_calibrated, found
    assert set(found.table.index) == {"mu", "slope[0]", "slope[1]", "log_likelihood"}
    assert found.ranks["slope"].shape == (200, 2)
    assert found.num_draws["slope"].shape == (2,)
    assert (found.ranks["mu"] <= found.num_draws["mu"]).all()
    assert "uniform as far as" in repr(found)
    tree = found.to_arviz()
    assert tree["prior_sbc"]["slope"].dims == ("sample", "slope_dim_0")
    assert found.plot(backend="none") is not None


@pytest.mark.exhaustive
def test_discrete_latents_are_drawn_from_the_prior():
    # A datum far from most of the prior: were states drawn given it, simulated data would follow another law, and ranks of
    # the mean would crowd at one end. A false alarm in 1 % of seeds.
    def mixture(x):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        with numpyro.plate("data", 3):
            state = numpyro.sample("state", dist.Bernoulli(0.1))
            numpyro.sample("x", dist.Normal(mu + 5 * state, 1), obs=x)

    found = simulation_based_calibration(jax.random.key(1), mixture, jnp.full(3, 5.0), sampler=NUTS(), **SETTINGS)
    assert found.is_calibrated, found


def test_a_biased_sampler_is_caught():
    # The unadjusted Langevin scheme at this step makes variances up to a third too large.
    found = simulation_based_calibration(
        jax.random.key(0), model, 5, jnp.zeros(5), sampler=ULA(0.15), **(SETTINGS | {"num_samples": 500})
    )
    assert not found.is_calibrated
    assert found.table.loc["mu", "ecdf_p"] < 0.01 or found.table.loc["log_likelihood", "ecdf_p"] < 0.01
    assert "NOT uniform" in repr(found)


def factor(x):
    z = numpyro.sample("z", dist.Normal(0, 1))
    numpyro.factor("x", -0.5 * (x - z) ** 2)


def flat(x):
    z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
    numpyro.sample("x", dist.Normal(z, 1), obs=x)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (factor, {}, r"has the factors \['x'\]"),
        (flat, {}, "starts from draws of the prior"),
        (flat, {"num_simulations": 5}, "`num_simulations` must be a whole number of at least 20"),
    ],
)
def test_refuses(model, settings, message):
    with pytest.raises(ValueError, match=message):
        simulation_based_calibration(jax.random.key(0), model, jnp.array(0.0), sampler=MALA(), **(SETTINGS | settings))


def test_refuses_what_is_no_sampler():
    with pytest.raises(TypeError, match="`sampler` must be a sampler"):
        simulation_based_calibration(jax.random.key(0), flat, jnp.array(0.0), sampler="nuts")


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(NUTS(), marks=pytest.mark.exhaustive),
        MALA(),
        pytest.param(TemperedSMC(300), marks=pytest.mark.exhaustive),
    ],
    ids=lambda x: type(x).__name__,
)
def test_samplers_are_calibrated(sampler):
    # A false alarm in 1 % of seeds for each.
    settings = {"num_simulations": 300, "num_samples": 500, "num_warmup": 500, "progress_bar": False}
    found = simulation_based_calibration(jax.random.key(1), model, 5, jnp.zeros(5), sampler=sampler, **settings)
    assert found.is_calibrated, found
