"""How often a user's model runs to be read: three times at most, whatever is asked of it."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import kaem_ppl as kp
from kaem_ppl.inference import (
    ImportanceMLE,
    ImportanceSampling,
    LangevinMLE,
    PathwiseImportanceMLE,
    TemperedSMC,
    ThermodynamicMLE,
    VariationalMLE,
    fit,
    log_evidence,
    sample_posterior,
)
from kaem_ppl.inference.model import check, parameters, reader

X = jax.random.uniform(jax.random.key(0), (12, 3))


class CountedModel:
    """A learnt prior and a linear decoder; it counts its runs, and those of them that read it."""

    def __init__(self, monkeypatch):
        self.num_runs = self.num_reading = self._depth = 0
        for module, name in ((reader, "read_model"), (reader, "read_rows_model"), (parameters, "read_parameters")):
            self._count_within(monkeypatch, module, name)

    def _count_within(self, monkeypatch, module, name):
        original = getattr(module, name)

        def counted(*args, **kwargs):
            self._depth += 1
            try:
                return original(*args, **kwargs)
            finally:
                self._depth -= 1

        for user in ("parameters", "plate_model", "power_posterior", "training_model"):
            module = __import__(f"kaem_ppl.inference.model.{user}", fromlist=[name])
            if hasattr(module, name):
                monkeypatch.setattr(module, name, counted)

    def __call__(self, x):
        self.num_runs += 1
        self.num_reading += self._depth > 0
        prior = kp.kan_prior("prior", (2,), basis=kp.RBF(6), domain=(-2, 2), reference=dist.Normal(0, 1))
        weight = numpyro.param("weight", jnp.ones((2, 3)))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", prior.to_event(1))
            numpyro.sample("x", dist.Normal(z @ weight, 0.5).to_event(1), obs=x)


def guide(x):
    weight = numpyro.param("guide_weight", jnp.zeros((3, 2)))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x @ weight, 1).to_event(1))


@pytest.fixture
def model(monkeypatch):
    return CountedModel(monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [
        ImportanceMLE(10),
        LangevinMLE(num_steps=2),
        PathwiseImportanceMLE(10),
        ThermodynamicMLE(num_steps=2),
        VariationalMLE(guide),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_fit(model, strategy):
    optimizer = optax.sgd(1e-3)
    result = fit(jax.random.key(0), model, X, num_epochs=1, strategy=strategy, optimizer=optimizer, progress_bar=False)
    assert jnp.isfinite(result.history["loss"]).all()
    assert 0 < model.num_reading <= 3


def params_of(model):
    values = parameters.read_parameters(jax.random.key(0), model, X).values
    model.num_runs = model.num_reading = 0
    return values


@pytest.mark.slow
@pytest.mark.parametrize("plate", [None, "data"])
def test_sample_posterior(model, plate):
    params = params_of(model)
    sample_posterior(
        jax.random.key(0), model, X, params=params, plate=plate, num_samples=5, num_warmup=5, progress_bar=False
    )
    assert 0 < model.num_reading <= 3


@pytest.mark.parametrize(
    "method",
    [ImportanceSampling(100), pytest.param(TemperedSMC(20), marks=pytest.mark.slow)],
    ids=lambda method: type(method).__name__,
)
def test_log_evidence(model, method):
    params = params_of(model)
    log_evidence(jax.random.key(0), model, X, params=params, method=method, plate="data", progress_bar=False)
    assert 0 < model.num_reading <= 3


@pytest.mark.parametrize(("cost", "num_points"), [(1e3, 12), (4e8, 5), (1e12, 3)])
def test_a_costly_density_is_compared_at_fewer_points(monkeypatch, cost, num_points):
    points = []

    def compiled(comparison):
        def compare(arrays, rows, shared, given, key):
            points.append(key)
            return {"y": (jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))}

        return compare, cost

    monkeypatch.setattr(check, "_compiled", compiled)
    assert check.find_difference(None, [], [], [], {}, has_discrete=True) is None
    assert len(points) == num_points
