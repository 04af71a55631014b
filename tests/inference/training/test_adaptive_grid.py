"""Adaptive grids: refits follow the draws, keep the density, and are compiled once."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers

import kaem_ppl as kp
from kaem_ppl.inference import (
    AdaptiveGrid,
    ImportanceMLE,
    ImportanceSampling,
    LangevinMLE,
    fit,
    log_evidence,
    sample_posterior,
)
from kaem_ppl.inference.model.training_model import read_training_model

REFERENCE = dist.Normal(0, 1)


def make_model(num_components=None, reference=REFERENCE, domain=(-4, 4)):
    def model(x=None, size=None):
        prior = kp.kan_prior(
            "prior", (2,), basis=kp.RBF(12), domain=domain, reference=reference, num_components=num_components,
            adaptive_grid=True,
        )  # fmt: skip
        with numpyro.plate("data", size if x is None else len(x)):
            z = numpyro.sample("z", prior.to_event(1))
            numpyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=x)

    return model


def params_of(model, data):
    with handlers.trace() as sites, handlers.seed(rng_seed=0):
        model(data)
    params = {name: site["value"] for name, site in sites.items() if site["type"] == "param"}
    coef = params["prior$params"]["coef"]
    params["prior$params"]["coef"] = 0.5 * jax.random.normal(jax.random.key(1), coef.shape)
    return params


@pytest.mark.slow
@pytest.mark.parametrize("num_components", [None, 3])
def test_a_refit_follows_the_draws_and_keeps_the_density(num_components):
    # Oracle: the prior before the refit, where the draws are; and the draws' own range.
    model, data = make_model(num_components), jnp.zeros((3, 2))
    params = params_of(model, data)
    plate_model = read_training_model(jax.random.key(0), model, data, "data", params)
    z = jax.random.normal(jax.random.key(2), (500, 2)) * jnp.array([0.5, 0.8]) + jnp.array([0.4, -0.6])
    grids = AdaptiveGrid(margin=0.1)
    changed, new_grids = jax.jit(lambda: grids.refit(plate_model, params, data, {"z": z}))()
    domain, grid = new_grids["prior$grid"]["domain"], new_grids["prior$grid"]["grid"]
    assert {key: value.shape for key, value in new_grids["prior$grid"].items()} == {
        key: value.shape for key, value in params["prior$grid"].items()
    }
    domain, grid = (x if num_components is None else x[:, 0] for x in (domain, grid))
    low, high = z.min(0), z.max(0)
    margin = 0.1 * (high - low)
    np.testing.assert_allclose(domain, np.stack([low - margin, high + margin], -1), rtol=1e-5)
    assert (jnp.diff(grid, axis=-1) > 0).all()

    def log_ratio(params):
        with handlers.substitute(data=params):
            prior = handlers.trace(handlers.seed(model, 0)).get_trace(data)["z"]["fn"].base_dist
        points = jnp.linspace(low, high, 50)
        values = prior.base_dist.log_prob(points) if isinstance(prior, dist.ExpandedDistribution) else None
        return prior.log_prob(points[:, None])[:, 0] if values is None else values

    before, after = log_ratio(params), log_ratio({**params, **changed, **new_grids})
    # Up to the normaliser, which loses what the function was outside the new domain.
    difference = after - before
    assert jnp.abs(difference - difference.mean(0)).max() < 0.02


@pytest.mark.slow
def test_the_domain_stays_in_the_support():
    model, data = make_model(reference=dist.Uniform(-4, 4)), jnp.zeros((3, 2))
    params = params_of(model, data)
    plate_model = read_training_model(jax.random.key(0), model, data, "data", params)
    z = jax.random.uniform(jax.random.key(2), (500, 2), minval=-4.0, maxval=1.0)
    _, new_grids = jax.jit(lambda: AdaptiveGrid().refit(plate_model, params, data, {"z": z}))()
    domain = new_grids["prior$grid"]["domain"]
    np.testing.assert_array_equal(domain[:, 0], -4)
    assert (domain[:, 1] < 2.5).all()


@pytest.mark.slow
def test_a_moved_grid_has_an_exact_normalizer():
    # Oracle: the trapezoid rule on a fine grid. Domain and grid are traced, as in training.
    model, data = make_model(), jnp.zeros((3, 2))
    params = params_of(model, data)
    params["prior$grid"] = {
        "grid": jnp.stack([jnp.linspace(-1, 2, 12), jnp.linspace(-3, 0.5, 12)]),
        "domain": jnp.array([[-1.0, 2.0], [-3.0, 0.5]]),
    }

    @jax.jit
    def log_prob(params, z):
        with handlers.substitute(data=params):
            prior = kp.kan_prior(
                "prior", (2,), basis=kp.RBF(12), domain=(-4, 4), reference=REFERENCE, adaptive_grid=True
            )
        return prior.log_prob(z)

    z = jnp.linspace(-9, 9, 20_001)[:, None]
    mass = np.trapezoid(np.exp(np.asarray(log_prob(params, z), float)), np.asarray(z[:, 0], float), axis=0)
    np.testing.assert_allclose(mass, 1, atol=2e-5)


@pytest.mark.exhaustive
def test_training_compiles_each_function_once(tmp_path):
    # Oracle: JAX's own count of compilations: epochs 3, 4 and 6 refit, after the refit of epoch 2 has compiled all; every
    # epoch is evaluated and saved. A checkpoint goes on to the same evaluations by the programs that are there.
    pytest.importorskip("orbax.checkpoint")
    from kaem_ppl.cli.storage.checkpoints import Checkpoint, Checkpoints, Place

    checkpoints, compiled = Checkpoints(tmp_path, num_kept=6), []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, fun_name=None, **__: (
            compiled.append(fun_name) if event.endswith("backend_compile_duration") else None
        )
    )
    model, x = make_model(), jnp.array([1.0, -1.0]) + 0.5 * jax.random.normal(jax.random.key(0), (60, 2))
    counts, states = [], []

    def note(state, row):
        states.append(jax.device_get(state))
        checkpoints.save(Checkpoint(Place(int(state.epoch)), state, [], ""))
        counts.append(len(compiled))

    def evaluate(key, params):
        method = ImportanceSampling(100)
        return log_evidence(
            key, model, x[:6], params=params, method=method, plate="data", num_chains=1, progress_bar=False
        ).value.mean()

    settings = {
        "strategy": ImportanceMLE(200, ess_threshold=0), "optimizer": optax.adam(0.02), "num_epochs": 6,
        "grids": AdaptiveGrid(first=2, growth=1.5, num_data=60), "evaluate": evaluate, "callback": note,
        "progress_bar": False,
    }  # fmt: skip
    result = fit(jax.random.key(0), model, x, **settings)
    assert counts[2] == counts[5]
    saved = checkpoints.load(Place(3)).state
    resumed = fit(jax.random.key(0), model, x, state=saved, **settings)
    of_training = [f"jit({name})" for name in ("shuffle", "_run_steps", "_epoch_means", "_choose_rows", "_refit")]
    assert [compiled.count(name) for name in of_training] == [1] * len(of_training)
    np.testing.assert_array_equal(resumed.history["evaluation"], result.history["evaluation"][3:])
    domains = [state.buffers["prior$grid"]["domain"] for state in states[:6]]
    moved = [not np.array_equal(old, new) for old, new in itertools.pairwise(domains)]
    assert moved == [True, True, True, False, True]
    # The posterior of data around (1, -1) is where the grids go; the optimiser counts on.
    assert (
        result.params["prior$grid"]["domain"][0].mean() > 0.3 > -0.3 > result.params["prior$grid"]["domain"][1].mean()
    )
    assert states[5].optimizer_state[0].count == 6
    assert np.isfinite(result.history["loss"]).all()
    draws = sample_posterior(
        jax.random.key(1), model, x[:3], params=result.params, plate="data", num_chains=1, num_samples=5,
        num_warmup=5, progress_bar=False,
    )  # fmt: skip
    assert np.isfinite(draws.samples["z"]).all()


@pytest.mark.exhaustive
def test_chains_give_the_draws_of_a_refit():
    # Oracle: the data themselves, of which the latents are close copies.
    x = jnp.array([1.0, -1.0]) + 0.5 * jax.random.normal(jax.random.key(0), (200, 2))
    result = fit(
        jax.random.key(0), make_model(), x, strategy=LangevinMLE(num_steps=10), optimizer=optax.adam(0.02), num_epochs=8,
        batch_size=100, grids=AdaptiveGrid(), progress_bar=False,
    )  # fmt: skip
    domain = result.params["prior$grid"]["domain"]
    assert (domain[:, 0] < x.mean(0)).all()
    assert (domain[:, 1] > x.mean(0)).all()
    assert (domain[:, 1] - domain[:, 0] < 6).all()


def test_epochs_that_are_due():
    grids = AdaptiveGrid(first=2, growth=1.5)
    assert [epoch for epoch in range(1, 25) if grids.is_due(epoch)] == [2, 3, 4, 6, 9, 13, 19]
    assert [epoch for epoch in range(1, 20) if AdaptiveGrid().is_due(epoch)] == [1, 2, 4, 8, 16]


def test_refuses():
    for name, value in {"first": 0, "growth": 1.0, "num_data": 1, "margin": -0.1}.items():
        with pytest.raises(ValueError, match=f"`{name}`"):
            AdaptiveGrid(**{name: value})

    def squared(x):
        prior = kp.kan_prior("prior", (2,), basis=kp.RBF(8), domain=(-3, 3), reference=REFERENCE, adaptive_grid=True)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
            numpyro.sample("x", dist.Normal(z**2 + prior.energy.coef.mean(), 0.3).to_event(1), obs=x)

    with pytest.raises(ValueError, match=r"grids \['prior\$grid'\] belong to no latent site"):
        fit(jax.random.key(0), squared, jnp.zeros((4, 2)), num_epochs=1, grids=AdaptiveGrid(), progress_bar=False)
    bank = kp.UnivariateKAN.init(jax.random.key(0), (2,), basis=kp.RBF(8), domain=(-3, 3))
    with pytest.raises(ValueError, match=r"domain of shape \(3, 2\): expected \(2,\) or \(2, 2\)"):
        bank.refit(jnp.zeros((5, 2)), domain=jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match="expected increasing pairs"):
        bank.refit(jnp.zeros((5, 2)), domain=jnp.zeros((2, 2)))
