"""Draws of every sampler as ArviZ reads them: the analyses of a workflow run on them, and names are what users gave."""

import arviz
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from kaem_ppl.inference import (
    HMC,
    MALA,
    NUTS,
    PCNL,
    ULA,
    EllipticalSlice,
    GivenLadder,
    ImportanceSampling,
    ParallelTempering,
    TemperedSMC,
    diagnose,
    sample_posterior,
)

T = jnp.linspace(-1, 1, 6)
Y = jnp.array([0.1, -0.4, 0.7, 0.9, 0.3, 1.4])


def line(t, y):
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    weights = numpyro.sample("weights", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("time", len(t)):
        mean = numpyro.deterministic("mean", weights[0] + weights[1] ** 2 + slope * t)
        numpyro.sample("y", dist.Normal(mean, 0.5), obs=y)


def draw(sampler, model=line, args=(T, Y), **kwargs):
    return sample_posterior(
        0, model, *args, sampler=sampler, num_chains=2, num_samples=60, num_warmup=60, progress_bar=False, **kwargs
    )


@pytest.fixture(scope="module")
def draws():
    return draw(MALA())


def _slow(*samplers):
    return [pytest.param(sampler, marks=pytest.mark.slow) for sampler in samplers]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "sampler",
    [
        NUTS(max_tree_depth=3),
        ImportanceSampling(500),
        *_slow(
            TemperedSMC(num_particles=100, kernel=MALA(), ladder=GivenLadder((0, 0.1, 1))),
            HMC(num_integration_steps=3), ParallelTempering(MALA(), GivenLadder((0, 0.1, 1))),
        ),
        *(
            pytest.param(sampler, marks=pytest.mark.exhaustive)
            for sampler in (ULA(0.01), MALA(), EllipticalSlice(), PCNL())
        ),
    ],
    ids=lambda sampler: type(sampler).__name__,
)  # fmt: skip
def test_a_workflow_runs_on_draws_of_every_sampler(sampler):
    matplotlib.use("Agg")
    tree = draw(sampler).to_arviz(posterior_predictive=True)
    arviz.rcParams["plot.backend"] = "matplotlib"
    assert np.isfinite(arviz.summary(tree, var_names=["slope", "weights"], fmt="xarray")["slope"]).all()
    loo = arviz.loo(tree)
    assert np.isfinite(loo.elpd)
    assert loo.n_data_points == len(Y)
    assert len(arviz.compare({"one": tree, "again": tree})) == 2
    table = arviz.psense_summary(tree, var_names=["slope", "weights"])
    assert len(table) == 3
    assert np.isfinite(table[["prior", "likelihood"]].to_numpy(float)).all()
    for plot in (arviz.plot_ppc_dist, arviz.plot_forest, arviz.plot_pair):
        kwargs = {} if plot is arviz.plot_ppc_dist else {"var_names": ["slope", "weights"]}
        assert plot(tree, **kwargs).viz is not None
    matplotlib.pyplot.close("all")


def test_log_prior_is_that_of_the_values(draws):
    # Oracle: the densities by hand.
    tree = draws.to_arviz()
    assert tree["log_prior"]["slope"].dims == ("chain", "draw")
    np.testing.assert_allclose(
        tree["log_prior"]["slope"], dist.Normal(0, 1).log_prob(draws.samples["slope"]), rtol=1e-5
    )
    exact = dist.Normal(0, 1).log_prob(draws.samples["weights"]).sum(-1)
    np.testing.assert_allclose(tree["log_prior"]["weights"], exact, rtol=1e-5)


@pytest.mark.parametrize("sampler", [ImportanceSampling(50), pytest.param(EllipticalSlice(), marks=pytest.mark.slow)])
def test_log_prior_is_that_of_the_values_in_any_coordinates(sampler):
    # Oracle: the density by hand, of the value itself whatever a sampler moves in.
    def model(y):
        with numpyro.plate("data", len(y)):
            scale = numpyro.sample("scale", dist.LogNormal(0, 1))
            numpyro.sample("y", dist.Normal(0, scale), obs=y)

    found = draw(sampler, model, (Y,), plate="data")
    exact = dist.LogNormal(0, 1).log_prob(found.samples["scale"])
    np.testing.assert_allclose(found.log_prior["scale"], exact, rtol=2e-4, atol=1e-4)
    assert found.to_arviz()["log_prior"]["scale"].dims == ("chain", "draw", "data")


def test_weights_of_importance_sampling_are_kept():
    # Oracle: weights are likelihoods over their sum, but for the largest tenth or so, which are smoothed.
    def model(y):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(z, 3), obs=y)

    found = draw(ImportanceSampling(500), model, (1.0,))
    log_weight = found.to_arviz()["sample_stats"]["log_weight"].to_numpy()
    assert log_weight.shape == (2, 60)
    excess = log_weight - np.asarray(found.sample_stats["log_likelihood"])
    is_likelihood = np.abs(excess - np.median(excess, axis=1, keepdims=True)) < 1e-4
    assert (is_likelihood.mean(1) > 0.6).all()
    assert ((log_weight > np.log(1e-4)) & (log_weight < np.log(0.01))).all()


def test_names_and_labels_of_axes(draws):
    tree = draws.to_arviz(
        posterior_predictive=True,
        dims={"weights": ["feature"]},
        coords={"feature": ["a", "b"], "time": np.asarray(T)},
    )
    assert tree["posterior"]["weights"].dims == ("chain", "draw", "feature")
    assert tree["posterior"]["mean"].dims == ("chain", "draw", "time")
    assert list(tree["posterior"].coords["feature"].to_numpy()) == ["a", "b"]
    for group in ("observed_data", "log_likelihood", "posterior_predictive"):
        np.testing.assert_array_equal(tree[group].coords["time"], T)
    renamed = draws.to_arviz(dims={"y": ["hour"]})
    assert renamed["observed_data"]["y"].dims == ("hour",)


def test_arguments_that_are_not_observed_are_constant_data(draws):
    tree = draws.to_arviz()
    assert set(tree["constant_data"].data_vars) == {"t"}
    np.testing.assert_array_equal(tree["constant_data"]["t"], T)


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"dims": {"slop": ["a"]}}, "dims"),
        ({"dims": {"weights": ["a", "b"]}}, "dims"),
        ({"dims": {"weights": "ab"}}, "dims"),
        ({"coords": {"feature": ["a", "b"]}}, "coords"),
        ({"coords": {"time": [1, 2]}}, "coords"),
    ],
)
def test_names_that_do_not_fit_are_refused(draws, kwargs, name):
    with pytest.raises(ValueError, match=f"`{name}"):
        draws.to_arviz(**kwargs)


@pytest.mark.slow
def test_sites_with_a_slash_and_without_elements(tmp_path):
    def model(y):
        with handlers.scope(prefix="outer"):
            z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("nothing", dist.Normal(0, 1).expand([0]).to_event(1))
        with numpyro.plate("time", len(y)):
            numpyro.sample("y", dist.Normal(z, 1), obs=y)

    found = draw(MALA(), model, (Y,))
    tree = found.to_arviz(prior=True, posterior_predictive=True)
    assert set(tree["posterior"].data_vars) == {"outer.z"}
    assert set(tree["prior"].data_vars) == {"outer.z"}
    assert list(arviz.summary(tree).index) == ["outer.z"]
    assert set(diagnose(found).table.index) == {"outer/z"}
    assert found.samples["nothing"].shape == (2, 60, 0)
    pytest.importorskip("h5netcdf")
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    assert jax.tree.leaves(tree["posterior"]["outer.z"].shape) == [2, 60]
