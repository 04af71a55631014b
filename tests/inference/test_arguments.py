"""Calls that are wrong are refused in one sentence that names the argument; unusual ones that are clear are taken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import nnx
from numpyro.contrib.module import nnx_module

import kaem_ppl as kp
from kaem_ppl.inference import (
    HMC,
    MALA,
    NUTS,
    PCNL,
    ULA,
    AdaptedLadder,
    AdaptiveGrid,
    AnnealedImportanceSampling,
    BridgeSampling,
    CyclicPower,
    GeometricLadder,
    GivenLadder,
    ImportanceMLE,
    ImportanceSampling,
    LangevinMLE,
    NestedSampling,
    ParallelTempering,
    PathwiseImportanceMLE,
    PowerLadder,
    StudentProposal,
    TemperedSMC,
    ThermodynamicMLE,
    VariationalMLE,
    bound_log_evidence,
    compare_evidence,
    cross_check,
    diagnose,
    fit,
    log_evidence,
    sample_posterior,
    simulation_based_calibration,
    steppingstone,
    thermodynamic_curve,
)

KEY = jax.random.key(0)
X = jnp.array([0.5, -1.0, 2.0])
NAN = float("nan")


def model(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)


def learnt(x):
    a = numpyro.param("a", jnp.zeros(()))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(a, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)


def kaem(x):
    prior = kp.kan_prior("prior", (2,), basis=kp.RBF(4), domain=(-3, 3), reference=dist.Normal(0, 1))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", prior.to_event(1))
        numpyro.sample("x", dist.Normal(z.sum(-1), 1), obs=x)


def normalised(x):
    """A generator of Flax with running means."""
    decode = nnx_module("decoder", _NETWORK)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("x", dist.Normal(decode(z)[:, 0], 1), obs=x)


_NETWORK = nnx.Sequential(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), nnx.BatchNorm(1, rngs=nnx.Rngs(0)))
_WITHOUT_STATE = {"decoder$params": nnx.to_pure_dict(nnx.state(_NETWORK, nnx.Param))}


def with_random_scale(x):
    scale = jax.random.uniform(numpyro.prng_key())
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(numpyro.sample("z", dist.Normal(0, 1)), 1 + scale), obs=x)


_FEW = {"num_chains": 1, "num_samples": 4, "num_warmup": 4, "progress_bar": False}


def sample(*args, **kwargs):
    return sample_posterior(*args, **{**_FEW, "sampler": ImportanceSampling(20), **kwargs})


def weigh(*args, **kwargs):
    return log_evidence(*args, **{**_FEW, "method": ImportanceSampling(20), **kwargs})


def learn(*args, **kwargs):
    return fit(*args, **{"num_epochs": 1, "progress_bar": False, "strategy": ImportanceMLE(10), **kwargs})


@pytest.fixture(scope="module")
def draws():
    return sample(KEY, model, X)


@pytest.fixture(scope="module")
def evidence():
    return weigh(KEY, model, X)


def _with(name, make, *values, **fixed):
    """A case for each value of an argument."""
    return [(lambda value=value: make(**{name: value}, **fixed), name) for value in values]


_SAMPLE = functools.partial(sample, KEY, model, X)
_WEIGH = functools.partial(weigh, KEY, model, X)
_LEARN = functools.partial(learn, KEY, learnt, X)

KEYS = [
    (lambda call=call, key=key: call(key), "key")
    for call in (lambda key: sample(key, model, X), lambda key: weigh(key, model, X), lambda key: learn(key, learnt, X))
    for key in (None, 1.5, "0", True, jax.random.split(KEY), jnp.zeros(3), jnp.zeros(3, jnp.uint32))
]
MODELS = [
    *(
        (lambda call=call, bad=bad: call(KEY, bad, X), "model")
        for call in (sample, weigh, learn)
        for bad in ("m", X, None)
    ),
    (lambda: sample(model, KEY, X), "key"),
    (lambda: sample(KEY, model), "'x'"),
    (lambda: sample(KEY, model, X, X), "model"),
    (lambda: sample(KEY, model, y=X), "model"),
    (lambda: sample(KEY, model, X, samplr=NUTS()), "samplr"),
    (lambda: weigh(KEY, model), "'x'"),
    (lambda: learn(KEY, learnt, {"y": X}), "model"),
    (lambda: learn(KEY, learnt, (X, X)), "model"),
    (lambda: sample(KEY, lambda x: numpyro.sample("x", dist.Normal(0, 1), obs=x), 1.0), "model"),
    (lambda: sample(KEY, lambda x: numpyro.sample("x", dist.Normal(0, 1)), 1.0), "model"),
    (lambda: learn(KEY, model, X), "model"),
    (lambda: sample(KEY, normalised, X), "decoder$state"),
    (lambda: sample(KEY, normalised, X, params=_WITHOUT_STATE), "decoder$state"),
    (lambda: learn(KEY, learnt, X, training_kwargs={"train": True}), "training_kwargs"),
    *((lambda call=call: call(KEY, with_random_scale, X), "`model`") for call in (sample, learn)),
]
DATA = [
    (lambda: sample(KEY, model, jnp.zeros(0)), "`x`"),
    (lambda: sample(KEY, model, jnp.zeros(0), plate="data"), "`x`"),
    (lambda: sample(KEY, model, "abc"), "'x'"),
    (lambda: sample(KEY, model, np.array(["a", "b"])), "'x'"),
    (lambda: sample(KEY, model, [0.5, 1.0], plate="data"), "'x'"),
    (lambda: sample(KEY, model, X.at[1].set(NAN)), "`x` holds NaN"),
    (lambda: sample(KEY, model, X.at[1].set(NAN), plate="data"), "`x` holds NaN"),
    (lambda: weigh(KEY, model, X.at[1].set(NAN)), "`x` holds NaN"),
    *(
        (lambda data=data: learn(KEY, learnt, data), "data")
        for data in (
            None, "abc", 3.0, jnp.zeros(0), jnp.zeros((0, 3)), np.array(["a"]), X.at[0].set(NAN), X.at[0].set(jnp.inf),
            {"x": X, "y": X[:2]}, {}, [[1.0], [2.0, 3.0]], np.array([None, 1]),
        )
    ),
]  # fmt: skip
PARAMS = [
    *(
        (lambda call=call, params=params: call(KEY, learnt, X, params=params), "params")
        for call in (sample, weigh)
        for params in (None, {}, {"a": 0.0, "b": 1.0}, {"a": jnp.zeros(2)}, {"a": "x"}, [1.0], 3.0, {"a": NAN})
    ),
    *_with("params", _LEARN, {"b": 0.0}, {"a": "x"}, {"a": jnp.zeros(3)}, 3, {"a": 1}),
    (lambda: sample(KEY, kaem, X, params={"prior$params": jnp.zeros(3)}), "prior$params"),
    (lambda: sample(KEY, kaem, X, params={"prior$params": {"coef": jnp.zeros((2, 4))}}), "prior$params"),
]
COUNTS = [
    *_with("num_chains", _SAMPLE, 0, -1, 2.0, "2", None, True),
    *_with("num_samples", _SAMPLE, 0, NAN, 1.5),
    *_with("num_warmup", _SAMPLE, -1, None, 0.5),
    *_with("num_chains", _WEIGH, 0, 1.5),
    *_with("num_samples", _WEIGH, 2, NAN),
    *_with("num_epochs", _LEARN, 0, -1, 1.5, NAN, None),
    *_with("batch_size", _LEARN, 0, 4, 2.0, "2"),
    *_with("evaluate_every", _LEARN, 0, 1.5),
    *_with("callback_every", _LEARN, 0, 1.5),
    *_with("patience", _LEARN, -1, 1.5, evaluate=lambda key, params: 0.0),
    *_with("patience", _LEARN, 1),
    *_with("num_chains", functools.partial(bound_log_evidence, KEY, model, X), 1, 2.5),
]
KINDS = [
    *_with(
        "sampler",
        _SAMPLE,
        NUTS,
        "NUTS",
        TemperedSMC,
        3,
        ImportanceMLE(),
        numpyro.infer.NUTS(model),
    ),
    *_with("method", _WEIGH, NUTS(), TemperedSMC, "smc", ImportanceMLE()),
    *_with("plate", _SAMPLE, "rows", 3, ["data"]),
    *_with("plate", _LEARN, "rows", None),
    *_with("optimizer", _LEARN, 1e-3, "adam", optax.adam, {"b": optax.adam(1e-3)}, {"a": 1e-3}, {}, numpyro.optim.Adam),
    *_with("strategy", _LEARN, ImportanceMLE, "importance", NUTS(), None),
    *_with("grids", _LEARN, True, AdaptiveGrid, AdaptiveGrid()),
    *_with("evaluate", _LEARN, 3.0),
    *_with("callback", _LEARN, 3),
    *_with("state", _LEARN, "s", {}),
    *_with("method", functools.partial(bound_log_evidence, KEY, model, X), TemperedSMC(), AnnealedImportanceSampling),
    *_with("draws", diagnose, None, {"z": X}, 3),
]
_CROSS = functools.partial(cross_check, KEY, model, X, **_FEW)
_CALIBRATE = functools.partial(simulation_based_calibration, KEY, model, X, sampler=ULA(0.1), progress_bar=False)
SETTINGS = [
    *_with("methods", _CROSS, (TemperedSMC(20),), (TemperedSMC, ULA(0.1)), ("smc", "nested"), 3),
    *_with("key", functools.partial(cross_check, model=model, x=X, **_FEW), None, "a"),
    *_with("num_simulations", _CALIBRATE, 5, 20.5, None),
    *_with("sampler", functools.partial(simulation_based_calibration, KEY, model, X), NUTS, "NUTS", None),
    *_with("proposal", ImportanceSampling, NUTS(), "draws", model),
    *_with("draws", functools.partial(log_evidence, KEY, model, X), {"z": X}, X, 3),
    *_with("draws", StudentProposal, {"z": X}, None),
    (lambda: log_evidence(KEY, model, X, method=BridgeSampling()), "draws"),
    *_with("step_size", ULA, -0.1, "a", NAN, float("inf"), jnp.ones(3), True, None),
    *_with("step_size", MALA, 0, MALA()),
    *_with("step_size", PCNL, 3.0, 0),
    *_with("target_acceptance", NUTS, 0, 1.5, "a", None, model),
    *_with("num_integration_steps", HMC, 0, 1.5, "a"),
    *_with("max_integration_steps", HMC, None, 0),
    *_with("shortest_step", HMC, 0, 1.5, "a"),
    *_with("max_tree_depth", NUTS, 0, 2.5, None),
    *_with("num_particles", ImportanceSampling, 0, 10.5, "a", None, NAN, NUTS()),
    *_with("num_particles", TemperedSMC, 0, 1.5, MALA()),
    *_with("kernel", TemperedSMC, MALA, "MALA", ImportanceSampling()),
    *_with("target_ess", TemperedSMC, 0, 1, "a", None),
    *_with("ladder", TemperedSMC, AdaptedLadder(), PowerLadder, [0, 0.5, 1], GivenLadder([0.1, 1])),
    *_with("num_mutation_steps", TemperedSMC, 0, 1.5),
    *_with("max_mutation_steps", TemperedSMC, None),
    *_with("kernel", ParallelTempering, 8, NUTS, TemperedSMC()),
    *_with("ladder", ParallelTempering, 8, PowerLadder, [0, 1], None),
    *_with("num_temperatures", PowerLadder, 1, 0, 2.5, "a", NAN),
    *_with("power", PowerLadder, 0, -1, NAN, "a"),
    *_with("num_temperatures", GeometricLadder, 2, 4.5),
    *_with("smallest", GeometricLadder, 0, 2, "a"),
    *_with(
        "temperatures", GivenLadder, [1, 0], [0, 0.5, 0.2, 1], [1], [], 0.5, None, "abc", [0, NAN, 1], [0, 0.5], [-1, 1],
        [[0, 1]],
    ),
    *_with("num_temperatures", AdaptedLadder, 1, 2.5, "a"),
    *_with("max_temperatures", AdaptedLadder, 1, None),
    *_with("num_particles", AnnealedImportanceSampling, 0, 1.5),
    *_with("kernel", AnnealedImportanceSampling, MALA, ULA(0.1)),
    *_with("ladder", AnnealedImportanceSampling, AdaptedLadder(), 32),
    *_with("num_live", NestedSampling, 0, 50.5, "a"),
    *_with("num_slice_steps", NestedSampling, 0, 1.5),
    *_with("remaining", NestedSampling, 0, 2, None),
    *_with("num_particles", ImportanceMLE, 0, 1.5, "a"),
    *_with("ess_threshold", ImportanceMLE, 2, None),
    *_with("resampler", ImportanceMLE, "residual"),
    *_with("num_particles", PathwiseImportanceMLE, 0, 1.5),
    *_with("kernel", LangevinMLE, 20, MALA),
    *_with("num_steps", LangevinMLE, 0, 1.5),
    *_with("initial_step_size", LangevinMLE, -1, "a"),
    *_with("initial_step_size", LangevinMLE, 0.1, kernel=ULA(0.1)),
    *_with("ladder", ThermodynamicMLE, 8, GivenLadder([0.1, 1])),
    *_with("objective", ThermodynamicMLE, "evidence"),
    *_with("num_temperatures", CyclicPower, 1, 4.5),
    *_with("low", CyclicPower, 0, 9, "a"),
    *_with("period", CyclicPower, 0, 1.5),
    *_with("guide", VariationalMLE, "guide", None),
    *_with("num_draws", VariationalMLE, 0, 1.5, guide=model),
    *_with("kl_weight", VariationalMLE, -1, "a", guide=model),
    *_with("first", AdaptiveGrid, 0, 1.5),
    *_with("growth", AdaptiveGrid, 1, "a"),
    *_with("num_data", AdaptiveGrid, 1, 1.5),
    *_with("margin", AdaptiveGrid, -1, None),
    (lambda: thermodynamic_curve(np.zeros((1, 4, 4)), np.linspace(0, 1, 4)), "log_likelihood"),
    (lambda: steppingstone(np.zeros((1, 4, 1, 4)), np.linspace(1, 0, 4)[None]), "temperatures"),
    (lambda: steppingstone("a", np.linspace(0, 1, 4)[None]), "log_likelihood"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "name"),
    [*KEYS, *MODELS, *DATA, *PARAMS, *COUNTS, *KINDS, *SETTINGS],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_wrong_calls_are_refused(call, name, assert_refused):
    assert_refused(call, name)


@pytest.mark.parametrize(
    ("evidences", "kwargs", "name"),
    [
        (lambda e: e, {}, "evidences"),
        (lambda e: [e, e], {}, "evidences"),
        (lambda e: {"a": e}, {}, "evidences"),
        (lambda e: {"a": e, "b": 3.0}, {}, "evidences['b']"),
        *(
            (lambda e: {"a": e, "b": e}, {"prior_probabilities": p}, "prior_probabilities")
            for p in ({"a": 1.0}, {"a": 2.0, "b": -1.0}, [0.5, 0.5], {"a": NAN, "b": 1.0}, {"a": 0.5, "b": 0.1})
        ),
    ],
)
def test_wrong_comparisons_are_refused(evidence, evidences, kwargs, name, assert_refused):
    assert_refused(lambda: compare_evidence(evidences(evidence), **kwargs), name)


@pytest.mark.parametrize("key", [None, "a", jnp.zeros(3)], ids=str)
def test_wrong_keys_of_predictions_are_refused(draws, key, assert_refused):
    assert_refused(lambda: draws.predict(key), "key")
