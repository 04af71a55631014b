import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive

from kaem_ppl.inference import (
    HMC,
    MALA,
    NUTS,
    PCNL,
    ULA,
    AdaptedLadder,
    EllipticalSlice,
    ImportanceSampling,
    ParallelTempering,
    TemperedSMC,
    sample_posterior,
)

X = jnp.array([[0.5, 1.0], [-1.0, 0.0], [2.0, 2.5]])


def rows(x=None, size=None):
    with numpyro.plate("data", size if x is None else len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        mean = numpyro.deterministic("mean", jnp.stack([z, z], -1))
        numpyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


def whole(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1))
    with numpyro.plate("row", 3, dim=-2), numpyro.plate("x", 2):
        numpyro.sample("value", dist.Normal(loc, 1.0), obs=x)
    numpyro.factor("nothing", 0.0 * loc)


def draw(model, sampler, **kwargs):
    return sample_posterior(
        jax.random.key(0), model, X, sampler=sampler, num_chains=2, num_samples=50, num_warmup=40, progress_bar=False,
        **kwargs,
    )  # fmt: skip


@pytest.fixture(scope="module")
def row_draws():
    return draw(rows, MALA(), plate="data")


def test_axes(row_draws):
    assert row_draws.samples["z"].shape == (2, 50, 3)
    assert row_draws.deterministics["mean"].shape == (2, 50, 3, 2)
    assert row_draws.sample_stats["acceptance_rate"].shape == (2, 50, 3)
    assert row_draws.summary["step_size"].shape == (2, 3)


def test_log_likelihood_is_that_of_each_datum(row_draws):
    # Oracle: the density by hand; and what the chain itself recorded.
    z = row_draws.samples["z"][..., None]
    exact = dist.Normal(z, 1.0).log_prob(X).sum(-1)
    np.testing.assert_allclose(row_draws.log_likelihood["x"], exact, rtol=1e-5)
    np.testing.assert_allclose(row_draws.sample_stats["log_likelihood"], exact, rtol=1e-5)
    np.testing.assert_allclose(row_draws.sample_stats["log_prior"], dist.Normal(0, 1).log_prob(z[..., 0]), rtol=1e-5)


def test_tree_with_a_plate(row_draws):
    tree = row_draws.to_arviz(prior=True, posterior_predictive=True)
    assert {*tree.children} == {
        "posterior", "sample_stats", "log_likelihood", "log_prior", "observed_data", "run_summary", "posterior_predictive",
        "prior", "prior_predictive",
    }  # fmt: skip
    assert tree["posterior"]["z"].dims == ("chain", "draw", "data")
    assert tree["posterior"]["mean"].dims == ("chain", "draw", "data", "mean_dim_1")
    assert tree["log_likelihood"]["x"].dims == ("chain", "draw", "data")
    assert tree["posterior_predictive"]["x"].shape == (2, 50, 3, 2)
    assert tree["prior"]["z"].shape == (1, 50, 3)
    np.testing.assert_array_equal(tree["observed_data"]["x"], X)
    np.testing.assert_array_equal(tree["observed_data"].coords["data"], [0, 1, 2])
    assert "mean" not in row_draws.to_arviz(deterministics=False)["posterior"]
    assert np.isfinite(arviz.loo(tree).elpd)
    assert len(arviz.summary(tree, var_names=["z"])) == 3


def test_new_observations_follow_the_model(row_draws):
    # Oracle: x - mean is standard normal: 300 x 2 residuals, mean within 4 / sqrt(600), a false alarm in 6e-5 of seeds.
    new = row_draws.predict(jax.random.key(5))["x"] - row_draws.deterministics["mean"]
    assert abs(float(new.mean())) < 4 / np.sqrt(new.size)
    assert abs(float(new.std()) - 1) < 4 / np.sqrt(2 * new.size)


def test_tree_without_a_plate_names_the_models_own():
    tree = draw(whole, MALA()).to_arviz()
    assert tree["posterior"]["loc"].dims == ("chain", "draw")
    assert tree["log_likelihood"]["value"].dims == ("chain", "draw", "row", "x")
    assert "nothing" not in tree["log_likelihood"]
    assert tree["observed_data"]["value"].dims == ("row", "x")


@pytest.mark.parametrize(
    "sampler",
    [
        MALA(),
        *(
            pytest.param(sampler, marks=pytest.mark.exhaustive)
            for sampler in (ULA(0.1), HMC(num_integration_steps=2), EllipticalSlice(), PCNL())
        ),
        pytest.param(NUTS(max_tree_depth=3), marks=pytest.mark.slow),
        pytest.param(ImportanceSampling(100), marks=pytest.mark.slow),
        pytest.param(ParallelTempering(ladder=AdaptedLadder(3)), marks=pytest.mark.exhaustive),
        pytest.param(TemperedSMC(num_particles=50, kernel=MALA()), marks=pytest.mark.exhaustive),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_round_trip_through_netcdf(sampler, tmp_path):
    pytest.importorskip("h5netcdf")
    import xarray

    tree = draw(rows, sampler, plate="data").to_arviz(prior=True, posterior_predictive=True)
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    with xarray.open_datatree(tmp_path / "draws.nc", engine="h5netcdf") as read:
        xarray.testing.assert_equal(read, tree)
        assert len(arviz.summary(read)) == 9


def test_numpyros_predictive_takes_the_draws(row_draws):
    flat = {"z": row_draws.samples["z"].reshape(100, 3)}
    assert Predictive(rows, flat)(jax.random.key(0), size=3)["x"].shape == (100, 3, 2)
