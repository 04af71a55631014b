"""Batches and steps: each datum once an epoch, resumption bit for bit, and no compilation after the first epochs."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

from kaem_ppl.inference import History, fit

from .small_models import QUICK, CountVisits, Pull, convolved, ppca, ppca_data


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


def test_a_state_resumes_bit_for_bit(capsys):
    # Oracle: the same training without a stop. The state passes through NumPy, as through a file.
    arguments = {"strategy": Pull(), "optimizer": optax.adam(0.1), "batch_size": 8, "progress_bar": False}
    states, rows = [], []
    whole = fit(
        jax.random.key(0), ppca, ppca_data(20), num_epochs=5, **arguments,
        callback=lambda state, row: (states.append(state), rows.append(row)),
    )  # fmt: skip
    kept = jax.tree.map(np.asarray, states[1])
    arguments["progress_bar"] = True
    resumed = fit(jax.random.key(9), ppca, ppca_data(20), num_epochs=5, state=kept, **arguments)
    assert "kaem-ppl: training goes on after epoch 2 of 5\n" in capsys.readouterr().err
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


def test_a_history_prints_the_first_last_and_best_of_each_column():
    columns = {"epoch": [1, 2, 3], "loss": [3.0, 1.0, 2.0], "evaluation": [np.nan, -4.0, -2.5]}
    lines = repr(History({name: np.array(column) for name, column in columns.items()})).splitlines()
    assert [line.split() for line in lines] == [
        ["3", "epochs", "first", "last", "best", "(epoch)"],
        ["loss", "3", "2", "1", "(2)"],
        ["evaluation", "nan", "-2.5", "-2.5", "(3)"],
    ]
    assert repr(History({})) == "No epochs"
