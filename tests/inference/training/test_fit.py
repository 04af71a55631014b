import csv
from dataclasses import dataclass

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

from kaem_ppl.inference import AdaptiveGrid, ImportanceMLE, NonFiniteLossError, fit

# Without resampling, which takes long to compile.
QUICK = {"strategy": ImportanceMLE(50, ess_threshold=0), "num_epochs": 2, "progress_bar": False}


def ppca(x=None, size=None):
    weight = numpyro.param("weight", jnp.array([0.5, 0.1, -0.2, 0.3]))
    offset = numpyro.param("offset", jnp.zeros(4))
    noise = numpyro.param("noise", 0.6, constraint=constraints.positive)
    with numpyro.plate("data", size if x is None else len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z[..., None] * weight + offset, noise).to_event(1), obs=x)


def convolved(x):
    kernel = numpyro.param("kernel", jnp.array([0.5, 0.1, -0.2]))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([4]).to_event(1))
        mean = jax.lax.conv_general_dilated(z[:, None, :], kernel[None, None, :], (1,), "SAME")[:, 0]
        numpyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)


def ppca_data(num_data):
    z_key, noise_key = jax.random.split(jax.random.key(0))
    z = jax.random.normal(z_key, (num_data, 1))
    return z * jnp.array([1.0, -0.5, 0.7, 0.2]) + 1 + 0.8 * jax.random.normal(noise_key, (num_data, 4))


@dataclass(frozen=True)
class CountVisits:
    """Remember how often each datum came by, and learn nothing."""

    def init(self, key, plate_model, params, data):
        return jnp.zeros(len(data))

    def loss(self, key, plate_model, params, state, batch):
        state = state + 1
        return jnp.square(params["noise"]), ({"most_visits": state.max(), "datum": batch[:, 0].sum()}, state)


def test_reaches_the_maximum_likelihood():
    # Oracle: Tipping and Bishop (1999), the maximum of probabilistic principal component analysis from eigenvalues. The
    # tolerance of 0.01 nats per datum is the noise of Adam's last steps; no parameters can exceed the maximum, but for
    # rounding.
    x = ppca_data(300)
    result = fit(
        jax.random.key(1),
        ppca,
        x,
        strategy=ImportanceMLE(500),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 200 * 3)),
        num_epochs=200,
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
    # The history's own estimate, over 50 epochs of 300 data and 500 draws, lies low by the logarithm's bias at most.
    assert abs(result.history["log_evidence"][-50:].mean() - maximum) < 0.05


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
        strategy=ImportanceMLE(300),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 150)),
        num_epochs=150,
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


def test_initial_params_are_where_training_starts():
    given = {"noise": jnp.array(0.9), "offset": jnp.ones(4)}
    arguments = QUICK | {"strategy": CountVisits(), "optimizer": optax.sgd(0.0)}
    result = fit(jax.random.key(0), ppca, ppca_data(20), params=given, **arguments)
    np.testing.assert_allclose(result.params["noise"], 0.9, rtol=1e-6)
    np.testing.assert_array_equal(result.params["offset"], jnp.ones(4))
    np.testing.assert_allclose(result.params["weight"], [0.5, 0.1, -0.2, 0.3])
    # The caller's arrays survive the donation of buffers.
    assert given["offset"].sum() == 4


def test_traces_do_not_grow_with_epochs():
    def count(num_epochs):
        traces = []

        def model(x):
            traces.append(None)
            ppca(x)

        fit(jax.random.key(0), model, ppca_data(20), **(QUICK | {"num_epochs": num_epochs, "batch_size": 8}))
        return len(traces)

    assert count(1) == count(6)


def test_nothing_compiles_after_the_first_epochs():
    # Oracle: JAX's own count of compilations. Three epochs with evaluations, copies for the callback and a resumption have
    # compiled everything; six more, and going on from a state, compile nothing.
    compiled, x = [], ppca_data(20)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    evidence = jax.jit(lambda params: -jnp.square(params["offset"] - 1).sum())
    arguments = QUICK | {"batch_size": 8, "evaluate": lambda key, params: evidence(params), "patience": 100}

    def run(num_epochs, state=None):
        return fit(
            jax.random.key(0),
            ppca,
            x,
            **(arguments | {"num_epochs": num_epochs}),
            state=state,
            callback=lambda *_: None,
        )

    run(3, run(2).state)
    assert compiled
    # Finding a model's sites compiles a few small programs at each call, however many epochs there are.
    compiled.clear()
    run(3)
    few = len(compiled)
    compiled.clear()
    result = run(9)
    assert len(compiled) == few
    compiled.clear()
    run(12, result.state)
    assert len(compiled) == few


@dataclass(frozen=True)
class Pull:
    """Pull every parameter to 3, on a path that depends on the keys, and remember the last key of each datum."""

    def init(self, key, plate_model, params, data):
        return jnp.zeros(len(data))

    def loss(self, key, plate_model, params, state, batch):
        noise = jax.random.normal(key, (len(batch),))
        distance = sum(jnp.square(leaf - 3).sum() for leaf in jax.tree.leaves(params))
        return distance + (state * batch[:, 0]).mean() * next(iter(params.values())).sum(), ({}, noise)


def test_a_state_resumes_bit_for_bit():
    # Oracle: the same training without a stop. The state passes through NumPy, as through a file.
    arguments = {"strategy": Pull(), "optimizer": optax.adam(0.1), "batch_size": 8, "progress_bar": False}
    states, rows = [], []
    whole = fit(
        jax.random.key(0), ppca, ppca_data(20), num_epochs=5, **arguments,
        callback=lambda state, row: (states.append(state), rows.append(row)),
    )  # fmt: skip
    kept = jax.tree.map(np.asarray, states[1])
    resumed = fit(jax.random.key(9), ppca, ppca_data(20), num_epochs=5, state=kept, **arguments)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)
    np.testing.assert_array_equal(resumed.history["epoch"], [3, 4, 5])
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"][2:])
    # The copies that the callback saw are its own.
    assert [int(state.epoch) for state in states] == [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert not np.array_equal(states[0].params["weight"], states[4].params["weight"])


@pytest.mark.parametrize("model", [ppca, convolved])
def test_a_state_inside_an_epoch_resumes_bit_for_bit(model):
    # Oracle: the same training without calls inside epochs, and without a stop; 20 data in batches of 3 make 7 steps.
    x = ppca_data(20)
    arguments = {"strategy": Pull(), "optimizer": optax.adam(0.1), "batch_size": 3, "progress_bar": False}
    seen = []
    whole = fit(jax.random.key(0), model, x, num_epochs=3, **arguments)
    called = fit(
        jax.random.key(0), model, x, num_epochs=3, callback_every=2, **arguments,
        callback=lambda state, row: seen.append((state, row)),
    )  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, called.state, whole.state)
    places = [(int(state.epoch), int(state.step)) for state, _ in seen]
    assert places == [(0, 2), (0, 4), (0, 6), (1, 0), (1, 2), (1, 4), (1, 6), (2, 0), (2, 2), (2, 4), (2, 6), (3, 0)]
    assert [row is not None for _, row in seen] == 3 * [False, False, False, True]
    kept = jax.tree.map(np.asarray, seen[5][0])
    resumed = fit(jax.random.key(9), model, x, num_epochs=3, state=kept, **arguments)
    jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"][1:])


def test_one_optimizer_for_each_site():
    # Oracle: steps of gradient descent by hand; a rate of 0 leaves a site where it was.
    rates = {"weight": 0.0, "offset": 0.1, "noise": 0.0}
    arguments = {"strategy": Pull(), "num_epochs": 1, "progress_bar": False}
    optimizer = {name: optax.sgd(rate) for name, rate in rates.items()}
    params = fit(jax.random.key(0), ppca, ppca_data(4), optimizer=optimizer, **arguments).params
    np.testing.assert_allclose(params["offset"], 0.1 * 6 * np.ones(4), rtol=1e-6)
    np.testing.assert_array_equal(params["weight"], jnp.array([0.5, 0.1, -0.2, 0.3]))
    np.testing.assert_allclose(params["noise"], 0.6, rtol=1e-6)


def test_gradients_are_clipped_by_optax():
    optimizer = optax.chain(optax.clip_by_global_norm(0.01), optax.sgd(1.0))
    arguments = {"strategy": Pull(), "num_epochs": 1, "progress_bar": False}
    params = fit(jax.random.key(0), ppca, ppca_data(4), optimizer=optimizer, **arguments).params
    moved = jnp.square(params["weight"] - jnp.array([0.5, 0.1, -0.2, 0.3])).sum() + jnp.square(params["offset"]).sum()
    assert 0 < moved <= 0.01**2 * 1.001


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


def test_convolutions_train_batch_by_batch():
    # Oracle: the same model without a convolution, a sum over the same numbers, whose epochs are one program each.
    def summed(x):
        kernel = numpyro.param("kernel", jnp.array([0.5, 0.1, -0.2]))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([4]).to_event(1))
            padded = jnp.pad(z, ((0, 0), (1, 1)))
            mean = sum(kernel[i] * padded[:, i : i + 4] for i in range(3))
            numpyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)

    first, second = (
        fit(jax.random.key(0), model, ppca_data(20), **(QUICK | {"batch_size": 8})) for model in (convolved, summed)
    )
    np.testing.assert_allclose(first.params["kernel"], second.params["kernel"], rtol=1e-4)
    np.testing.assert_allclose(first.history["loss"], second.history["loss"], rtol=1e-4)


@pytest.mark.parametrize(("num_data", "batch_size", "visits"), [(6, 2, [1, 2, 3]), (6, 6, [1, 2, 3])])
def test_each_datum_comes_once_an_epoch(num_data, batch_size, visits):
    # Oracle: counting. A state kept per datum also shows that rows return to where they came from.
    data = jnp.broadcast_to(2.0 ** jnp.arange(num_data)[:, None], (num_data, 4))
    history = fit(
        jax.random.key(0),
        ppca,
        data,
        strategy=CountVisits(),
        num_epochs=3,
        batch_size=batch_size,
        progress_bar=False,
    ).history
    np.testing.assert_array_equal(history["most_visits"], visits)
    np.testing.assert_array_equal(history["datum"], 3 * [(2**num_data - 1) * batch_size / num_data])


def test_a_short_last_batch_is_filled_with_distinct_data():
    # Oracle: counting. Seven data in batches of four make two batches, so one datum comes twice; the sum over a batch
    # of distinct powers of two has exactly four bits.
    data = jnp.broadcast_to(2.0 ** jnp.arange(7)[:, None], (7, 4))

    @dataclass(frozen=True)
    class CountBits(CountVisits):
        def loss(self, key, plate_model, params, state, batch):
            bits = jax.lax.population_count(batch[:, 0].sum().astype(int))
            return jnp.square(params["noise"]), ({"bits": bits.astype(float)}, state)

    history = fit(
        jax.random.key(0), ppca, data, strategy=CountBits(), num_epochs=5, batch_size=4, progress_bar=False
    ).history
    np.testing.assert_array_equal(history["bits"], 5 * [4])


def test_history(tmp_path):
    history = fit(jax.random.key(0), ppca, ppca_data(20), **(QUICK | {"num_epochs": 3})).history
    assert list(history) == ["epoch", "effective_sample_size", "log_evidence", "loss"]
    assert all(type(column) is np.ndarray and column.shape == (3,) for column in history.values())
    history.write_csv(tmp_path / "history.csv")
    with open(tmp_path / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [np.float32(row["loss"]) for row in rows] == history["loss"].tolist()


@dataclass(frozen=True)
class FailAt:
    """A parabola in `noise` that turns into NaN once a datum has been seen `visits` times."""

    visits: int

    def init(self, key, plate_model, params, data):
        return jnp.zeros(len(data))

    def loss(self, key, plate_model, params, state, batch):
        value = jnp.square(params["noise"] - 5)
        return jnp.where(state.max() >= self.visits, jnp.nan, value), ({}, state + 1)


@pytest.mark.parametrize("epoch", [1, 3])
def test_non_finite_loss_names_the_epoch_and_keeps_good_params(epoch):
    # Oracle: the same training stopped before it fails. The last parameters known to have a finite loss are those of
    # the last finite step, one update behind those an epoch returns.
    x, arguments = ppca_data(20), {"optimizer": optax.adam(0.1), "progress_bar": False, "batch_size": 5}
    with pytest.raises(NonFiniteLossError, match=f"in step 1 of epoch {epoch} of 5") as caught:
        fit(jax.random.key(0), ppca, x, strategy=FailAt(epoch - 1), num_epochs=5, **arguments)
    error = caught.value
    assert (error.epoch, error.step) == (epoch, 1)
    # It is the strategy that fails: no site of the model is to blame.
    assert error.sites == ()
    assert "so is every site at draws from the prior" in str(error)
    np.testing.assert_array_equal(error.history.get("epoch", []), range(1, epoch))
    if epoch == 1:
        np.testing.assert_allclose(error.params["noise"], 0.6, rtol=1e-6)
        return
    good = fit(jax.random.key(0), ppca, x, strategy=FailAt(epoch - 1), num_epochs=epoch - 1, **arguments).params
    assert 0.6 < error.params["noise"] < good["noise"]
    np.testing.assert_allclose(error.params["noise"], good["noise"], rtol=0.15)


def test_diverging_parameters_are_not_the_good_ones():
    # A step of 1e30 leaves finite parameters whose loss is not; the good ones are those before it.
    x = ppca_data(20)
    with pytest.raises(NonFiniteLossError) as caught:
        fit(jax.random.key(0), ppca, x, **(QUICK | {"optimizer": optax.sgd(1e30), "num_epochs": 3}))
    error = caught.value
    np.testing.assert_allclose(error.params["noise"], 0.6, rtol=1e-6)
    np.testing.assert_allclose(error.params["offset"], 0)
    assert error.step == 1
    assert error.epoch == 2
    # The broken parameters lie far out; the exponential that keeps `noise` positive has overflowed there.
    assert np.abs(error.broken_params["offset"]).max() > 1e20
    assert error.sites == ("noise",)
    assert "What is not finite there: 'noise'" in str(error)


def test_a_likelihood_that_is_not_finite_is_named():
    # Oracle: a model whose likelihood is NaN once `a` has been moved, and whose parameters and prior stay finite.
    def model(x):
        a = numpyro.param("a", 1.0)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("x", dist.Normal(z, jnp.sqrt(a)), obs=x)

    with pytest.raises(NonFiniteLossError, match="What is not finite there: 'x'") as caught:
        fit(jax.random.key(0), model, 5 * jnp.ones(4), **(QUICK | {"optimizer": optax.sgd(-10.0)}))
    assert caught.value.sites == ("x",)
    assert caught.value.broken_params["a"] < 0 < caught.value.params["a"]


def test_parameters_that_are_not_finite_are_named():
    # The loss is finite, and the parameters after the step are not.
    with pytest.raises(NonFiniteLossError, match="What is not finite there: 'offset'") as caught:
        fit(
            jax.random.key(0), ppca, ppca_data(20), strategy=CountVisits(), num_epochs=1, progress_bar=False,
            optimizer={name: optax.sgd(np.nan if name == "offset" else 0.0) for name in ("weight", "offset", "noise")},
        )  # fmt: skip
    assert caught.value.sites == ("offset",)


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
        ({"evaluate": max, "patience": 0}, ValueError, "`patience` must be at least 1"),
        ({"evaluate_every": 0}, ValueError, "`evaluate_every` must be at least 1"),
        ({"callback_every": 0}, ValueError, "`callback_every` must be at least 1"),
        ({"grids": AdaptiveGrid()}, ValueError, "`grids` is given, but the model has no grid"),
        ({"state": (1.0,)}, ValueError, "`state` is not a state of this training"),
        ({"params": {"wait": 1.0}}, ValueError, r"`params` names \['wait'\], but the model's parameters are"),
        ({"plate": "rows"}, ValueError, r"the model's plates are \['data'\]"),
        ({"model": without_params}, ValueError, "no `numpyro.param` site"),
        ({"model": with_mutable_state}, ValueError, r"mutable state in \['decoder\$state'\]"),
    ],
)
def test_refuses(arguments, error, message):
    arguments = {"key": jax.random.key(0), "model": ppca, "data": ppca_data(20), **QUICK, **arguments}
    with pytest.raises(error, match=message):
        fit(**arguments)


@pytest.mark.parametrize(("progress_bar", "shown"), [(False, ""), (True, "3/3")])
def test_progress_bar_only_on_request(capfd, progress_bar, shown):
    fit(jax.random.key(0), ppca, ppca_data(20), strategy=CountVisits(), num_epochs=3, progress_bar=progress_bar)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert shown in captured.err
    assert bool(captured.err) == progress_bar
