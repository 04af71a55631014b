"""Training as a whole: it reaches the maximum likelihood, keeps constraints, stops early, and refuses wrong arguments."""

import csv
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import linen as nn
from numpyro.contrib.module import flax_module
from numpyro.distributions import constraints
from numpyro.infer import Predictive

from kaem_ppl.inference import AdaptiveGrid, ImportanceMLE, LangevinMLE, VariationalMLE, fit

from .small_models import QUICK, CountVisits, Pull, ppca, ppca_data


def test_reaches_the_maximum_likelihood():
    # Oracle: Tipping and Bishop (1999), the maximum of probabilistic principal component analysis from eigenvalues. The
    # tolerance of 0.01 nats per datum is the noise of Adam's last steps; no parameters can exceed the maximum, but for
    # rounding.
    x = ppca_data(300)
    result = fit(
        jax.random.key(1),
        ppca,
        x,
        strategy=ImportanceMLE(200, ess_threshold=0),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 80 * 3)),
        num_epochs=80,
        batch_size=100,
        progress_bar=False,
    )
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1]
    noise_variance = eigenvalues[1:].mean()
    maximum = -0.5 * (4 * np.log(2 * np.pi) + np.log(eigenvalues[0]) + 3 * np.log(noise_variance) + 4)
    weight, offset, noise = (result.params[name] for name in ("weight", "offset", "noise"))
    covariance = jnp.outer(weight, weight) + noise**2 * jnp.eye(4)
    reached = dist.MultivariateNormal(offset, covariance).log_prob(x).mean()
    assert maximum - 0.01 < reached < maximum + 1e-4
    # The history's own estimate, over 30 epochs of 300 data and 200 draws, lies low by the logarithm's bias at most.
    assert abs(result.history["log_evidence"][-30:].mean() - maximum) < 0.05


def test_own_draws_reach_the_maximum_likelihood():
    # Oracle: x = a c z + noise of 0.5 has variance (a c)^2 + 0.25; the maximum over a on a grid.
    def model(c, x):
        slope = numpyro.param("slope", 0.5, constraint=constraints.positive)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("x", dist.Normal(slope * c * z, 0.5), obs=x)

    c = jnp.linspace(0.5, 2, 40)
    x = 1.3 * c * jax.random.normal(jax.random.key(2), (40,)) + 0.5 * jax.random.normal(jax.random.key(3), (40,))
    result = fit(
        jax.random.key(4),
        model,
        {"c": c, "x": x},
        strategy=ImportanceMLE(300, ess_threshold=0),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 100)),
        num_epochs=100,
        progress_bar=False,
    )

    def log_likelihood(slope):
        return dist.Normal(0, jnp.sqrt((slope * c) ** 2 + 0.25)).log_prob(x).mean()

    maximum = jax.vmap(log_likelihood)(jnp.linspace(0.1, 3, 1000)).max()
    assert maximum - 0.005 < log_likelihood(result.params["slope"]) < maximum + 1e-4


def test_params_keep_their_constraints_and_serve_predictive():
    class Decoder(nn.Module):
        @nn.compact
        def __call__(self, z):
            return nn.Dense(4)(nn.tanh(nn.Dense(3)(z)))

    def model(x=None, size=None):
        mixture = numpyro.param("mixture", jnp.array([0.3, 0.7]), constraint=constraints.simplex)
        noise = numpyro.param("noise", 0.5, constraint=constraints.interval(0.4, 0.6))
        decode = flax_module("decoder", Decoder(), input_shape=(1, 2))
        with numpyro.plate("data", size if x is None else len(x)):
            z = numpyro.sample("z", dist.Normal(0, mixture).to_event(1))
            numpyro.sample("x", dist.Normal(decode(z), noise).to_event(1), obs=x)

    result = fit(jax.random.key(0), model, ppca_data(20), optimizer=optax.adam(0.1), **QUICK)
    assert 0.4 < result.params["noise"] < 0.6
    np.testing.assert_allclose(result.params["mixture"].sum(), 1, rtol=1e-6)
    assert set(result.params) == {"mixture", "noise", "decoder$params"}
    drawn = Predictive(model, params=result.params, num_samples=1)(jax.random.key(1), size=10)
    assert drawn["x"].shape == (1, 10, 4)


@pytest.mark.parametrize("strategy", [ImportanceMLE(), LangevinMLE()], ids=["importance", "Langevin"])
def test_a_model_without_latents_is_trained_by_its_likelihood(strategy):
    # Oracle: the mean and the standard deviation of the data, their density there, and the mode of the shared latent,
    # mean x variance of the prior / (that variance + variance of the data / n).
    def model(x, has_shared=False):
        loc = numpyro.sample("shift", dist.Normal(0, 0.1)) if has_shared else numpyro.param("loc", 0.5)
        scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", dist.Normal(loc, scale), obs=x)

    x = np.random.default_rng(0).normal(1.0, 2.0, 100).astype(np.float32)
    found = []
    for has_shared in (False, True):
        result = fit(
            jax.random.key(0), partial(model, has_shared=has_shared), x, strategy=strategy, num_epochs=300,
            optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 300)), progress_bar=False,
        )  # fmt: skip
        found.append(result.params)
    plain, shared = found
    np.testing.assert_allclose([plain["loc"], plain["scale"]], [x.mean(), x.std()], rtol=1e-4)
    exact = dist.Normal(x.mean(), x.std()).log_prob(x).mean()
    scale, shift = shared["scale"], shared["shift"]
    np.testing.assert_allclose(shift, x.mean() * 0.01 / (0.01 + scale**2 / len(x)), rtol=1e-3)
    np.testing.assert_allclose(scale**2, np.square(x - shift).mean(), rtol=1e-3)
    assert dist.Normal(plain["loc"], plain["scale"]).log_prob(x).mean() <= exact + 1e-5
    with pytest.raises(ValueError, match="guide would have nothing to draw"):
        fit(jax.random.key(0), model, x, strategy=VariationalMLE(lambda x: None), num_epochs=1, progress_bar=False)


def test_initial_params_are_where_training_starts():
    given = {"noise": jnp.array(0.9), "offset": jnp.ones(4)}
    arguments = QUICK | {"strategy": CountVisits(), "optimizer": optax.sgd(0.0)}
    result = fit(jax.random.key(0), ppca, ppca_data(20), params=given, **arguments)
    np.testing.assert_allclose(result.params["noise"], 0.9, rtol=1e-6)
    np.testing.assert_array_equal(result.params["offset"], jnp.ones(4))
    np.testing.assert_allclose(result.params["weight"], [0.5, 0.1, -0.2, 0.3])
    # The caller's arrays survive the donation of buffers.
    assert given["offset"].sum() == 4


def test_stops_early_at_the_best_evaluation():
    # Oracle: evaluations written down beforehand, the best of them the second, after epoch 4.
    seen, values = [], iter([1.0, 5.0, 4.0, 3.0, 9.0])

    def evaluate(key, params):
        seen.append(params["offset"])
        return next(values)

    result = fit(
        jax.random.key(0), ppca, ppca_data(20), strategy=Pull(), num_epochs=20, progress_bar=False, evaluate=evaluate,
        evaluate_every=2, patience=2,
    )  # fmt: skip
    np.testing.assert_array_equal(result.history["epoch"], range(1, 9))
    np.testing.assert_array_equal(result.history["evaluation"], [np.nan, 1, np.nan, 5, np.nan, 4, np.nan, 3])
    np.testing.assert_array_equal(result.params["offset"], seen[1])
    assert not np.array_equal(result.params["offset"], seen[-1])


def test_history(tmp_path):
    history = fit(jax.random.key(0), ppca, ppca_data(20), **(QUICK | {"num_epochs": 3})).history
    assert list(history) == ["epoch", "effective_sample_size", "log_evidence", "loss"]
    assert all(type(column) is np.ndarray and column.shape == (3,) for column in history.values())
    history.write_csv(tmp_path / "history.csv")
    with open(tmp_path / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [np.float32(row["loss"]) for row in rows] == history["loss"].tolist()


def without_params(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x[:, 0])


def with_mutable_state(x):
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, z):
            return nn.BatchNorm(use_running_average=False)(nn.Dense(4)(z))

    decode = flax_module("decoder", Normalised(), input_shape=(1, 2), mutable=["batch_stats"])
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("x", dist.Normal(decode(z), 1).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 21}, ValueError, "`batch_size` must be between 1 and the 20 data, got 21"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be between 1 and the 20 data, got 0"),
        ({"num_epochs": 0}, ValueError, "`num_epochs`"),
        ({"optimizer": 0.1}, TypeError, "`optimizer` must be an Optax"),
        ({"optimizer": {"noise": 0.1}}, TypeError, "`optimizer` must be an Optax"),
        ({"optimizer": {"noise": optax.sgd(1.0)}}, ValueError, r"lacks \['offset', 'weight'\], and has \[\]"),
        ({"patience": 3}, ValueError, "`evaluate` is missing"),
        ({"evaluate": max, "patience": 0}, ValueError, "`patience` must be a whole number of at least 1"),
        ({"evaluate_every": 0}, ValueError, "`evaluate_every` must be a whole number of at least 1"),
        ({"callback_every": 0}, ValueError, "`callback_every` must be a whole number of at least 1"),
        ({"grids": AdaptiveGrid()}, ValueError, "`grids` is given, but the model has no grid"),
        ({"state": (1.0,)}, ValueError, "`state` is not a state of this training"),
        ({"params": {"wait": 1.0}}, ValueError, r"`params` names \['wait'\], but the model's parameters are"),
        ({"plate": "rows"}, ValueError, r"the model's plates are \['data'\]"),
        ({"model": without_params}, ValueError, "no `numpyro.param` site"),
        ({"model": with_mutable_state}, ValueError, r"changes the state 'decoder\$state' where it is evaluated"),
        ({"training_kwargs": {"is_training": True}}, TypeError, "neither the model nor a guide has an argument"),
    ],
)
def test_refuses(arguments, error, message):
    arguments = {"key": jax.random.key(0), "model": ppca, "data": ppca_data(20), **QUICK, **arguments}
    with pytest.raises(error, match=message):
        fit(**arguments)


@pytest.mark.parametrize("progress_bar", [False, True])
def test_progress_only_on_request(capfd, monkeypatch, progress_bar):
    monkeypatch.setattr("kaem_ppl.progress.FIRST_LINE_SECONDS", 0.0)
    fit(jax.random.key(0), ppca, ppca_data(20), strategy=CountVisits(), num_epochs=3, progress_bar=progress_bar)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("kaem-ppl: ") == bool(captured.err) == progress_bar
