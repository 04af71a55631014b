"""Training by replica exchange: gradients, evidence and ladders against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_ppl.inference import (
    MALA,
    AdaptedLadder,
    CyclicPower,
    GeometricLadder,
    GivenLadder,
    PowerLadder,
    ThermodynamicMLE,
)
from kaem_ppl.inference.model.training_model import read_training_model
from kaem_ppl.inference.training.strategies.thermodynamic_mle import _OBJECTIVES


def training_model_of(linear_gaussian, data):
    return read_training_model(jax.random.key(0), linear_gaussian.model, data, "data", linear_gaussian.params)


@pytest.mark.parametrize("objective", ["thermodynamic", "steppingstone"])
def test_weights_are_those_of_the_objective_s_derivative(objective):
    # Oracle: independent draws from p_t with z ~ Normal(0, s), l = -(z - y)^2 / 2, whose power posteriors are normal; the
    # derivative in y, and in log s at 1, of the objective's expectation, by central differences of its closed form.
    temperatures, y = np.array([0, 0.1, 0.4, 1.0]), 0.8
    num_draws = 200_000

    def moments(t, y, log_s):
        precision = np.exp(-2 * log_s) + t
        return t * y / precision, 1 / precision

    def mean_log_likelihood(t, y, log_s):
        mean, variance = moments(t, y, log_s)
        return -0.5 * ((mean - y) ** 2 + variance)

    def log_normalizer(t, y, log_s):
        variance = np.exp(2 * log_s) + (1 / t if t else np.inf)
        return 0.0 if t == 0 else -0.5 * y**2 / variance - 0.5 * np.log(t * variance)

    def objective_in(y, log_s):
        if objective == "steppingstone":
            return log_normalizer(1.0, y, log_s)
        means = [mean_log_likelihood(t, y, log_s) for t in temperatures]
        return np.trapezoid(means, temperatures)

    mean, variance = moments(temperatures, y, 0.0)
    z = mean + np.sqrt(variance) * np.random.default_rng(0).normal(size=(num_draws, 4))
    log_likelihood = -0.5 * (z - y) ** 2
    weigh = _OBJECTIVES[objective]
    estimate, likelihood_weight, prior_weight = weigh(jnp.asarray(log_likelihood), jnp.asarray(temperatures))
    np.testing.assert_allclose(estimate, objective_in(y, 0.0), atol=0.01)
    in_y = (likelihood_weight * (z - y)).sum()
    in_log_s = (prior_weight * (z**2 - 1)).sum()
    step = 1e-4
    np.testing.assert_allclose(in_y, (objective_in(y + step, 0) - objective_in(y - step, 0)) / (2 * step), atol=0.02)
    np.testing.assert_allclose(in_log_s, (objective_in(y, step) - objective_in(y, -step)) / (2 * step), atol=0.02)


def test_evidence_and_ladder_of_persistent_populations(linear_gaussian):
    # Oracle: the closed-form log-evidence. 100 visits of 10 sweeps to each of 6 data; the steppingstone's logarithm of ten
    # draws lies low by less than 0.1 nats here.
    strategy, x = ThermodynamicMLE(MALA(), AdaptedLadder(4), 10), linear_gaussian.x
    plate_model, params = training_model_of(linear_gaussian, x), linear_gaussian.params

    @jax.jit
    def visit(memory, key):
        _, (metrics, memory) = strategy.loss(key, plate_model, params, memory, x)
        return memory, metrics

    memory = strategy.init(jax.random.key(0), plate_model, params, x)
    memory, metrics = jax.lax.scan(visit, memory, jax.random.split(jax.random.key(1), 200))
    exact = linear_gaussian.log_evidence(params, x).mean()
    assert abs(metrics["log_evidence"][100:].mean() - exact) < 0.1
    ladder = np.asarray(memory.temperatures)
    assert (np.diff(ladder) > 0).all()
    np.testing.assert_allclose(ladder[:, [0, -1]], [[0, 1]] * len(x), atol=1e-6)
    assert not np.allclose(ladder[0], ladder[1], atol=1e-3)


@pytest.mark.slow
def test_fisher_s_gradient(linear_gaussian):
    # Oracle: the closed form, differentiated; as for `LangevinMLE`, 20 batches, five standard errors.
    strategy = ThermodynamicMLE(MALA(0.3), PowerLadder(3, 2.0), 60)
    x = jnp.repeat(linear_gaussian.x, 100, axis=0)
    plate_model, params = training_model_of(linear_gaussian, x), linear_gaussian.params

    @jax.jit
    def estimate(key):
        init_key, loss_key = jax.random.split(key)
        memory = strategy.init(init_key, plate_model, params, x)
        return jax.grad(lambda params: strategy.loss(loss_key, plate_model, params, memory, x)[0])(params)

    estimates = jax.tree.map(lambda *x: jnp.stack(x), *map(estimate, jax.random.split(jax.random.key(1), 20)))
    exact = jax.grad(lambda params: -linear_gaussian.log_evidence(params, linear_gaussian.x).mean())(params)
    for name, values in estimates.items():
        std_error = values.std(0, ddof=1) / np.sqrt(len(values))
        assert (jnp.abs(values.mean(0) - exact[name]) < 5 * std_error).all(), name


def test_cyclic_power(linear_gaussian):
    # Oracle: the powers of a cosine, by hand; and what a population does with each datum's own number of visits.
    ladder = CyclicPower(3, low=1.0, high=5.0, period=8)
    middle = [float(ladder.temperatures(jnp.array(epoch))[1]) for epoch in (0, 2, 4, 8, 12)]
    np.testing.assert_allclose(middle, 0.5 ** np.array([1, 3, 5, 1, 5]), rtol=1e-5)
    strategy, x = ThermodynamicMLE(MALA(), ladder, 2), linear_gaussian.x
    plate_model, params = training_model_of(linear_gaussian, x), linear_gaussian.params
    memory = strategy.init(jax.random.key(0), plate_model, params, x)
    assert memory.temperatures == ()
    num_updates = jnp.array([0, 2, 4, 8, 12, 3])
    memory = memory._replace(chains=memory.chains._replace(num_updates=num_updates))
    temperatures = jax.vmap(strategy._temperatures)(memory)
    np.testing.assert_allclose(temperatures[:5, 1], middle, rtol=1e-5)
    np.testing.assert_array_equal(temperatures[:, [0, 2]], [[0, 1]] * len(x))


@pytest.mark.parametrize("ladder", [PowerLadder(4, 2.5), GeometricLadder(5, 1e-2), GivenLadder((0, 0.2, 1))])
def test_given_ladders_stand_still(linear_gaussian, ladder):
    strategy, x = ThermodynamicMLE(MALA(), ladder, 2), linear_gaussian.x
    plate_model, params = training_model_of(linear_gaussian, x), linear_gaussian.params
    memory = strategy.init(jax.random.key(0), plate_model, params, x)
    assert memory.temperatures == ()
    assert memory.chains.log_step_size.shape == (len(x), ladder.num_temperatures)
    np.testing.assert_allclose(strategy._temperatures(memory), ladder.temperatures, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ladder": GivenLadder((0.1, 1))}, "`ladder` must start at 0, the prior, for ThermodynamicMLE, got 0.1"),
        ({"objective": "bound"}, "`objective` must be"),
        ({"objective": "steppingstone", "num_steps": 1}, "give at least 2 `num_steps`"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        ThermodynamicMLE(**arguments)
    with pytest.raises(TypeError, match="`ladder` must be a ladder"):
        ThermodynamicMLE(ladder=8)
    with pytest.raises(ValueError, match="`num_temperatures` must be a whole number of at least 2, got 1"):
        CyclicPower(1)
    with pytest.raises(ValueError, match="`low` must be at most `high`"):
        CyclicPower(low=2.0, high=1.0)
    with pytest.raises(ValueError, match="`period`"):
        CyclicPower(period=0)
