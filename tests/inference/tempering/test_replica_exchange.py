import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_ppl.inference.tempering import replica_exchange as rex
from kaem_ppl.inference.tempering.ladder_adaptation import (
    communication_barrier,
    equalize_rejection,
    recommended_num_temperatures,
)


def still(key, replica, temperature, parameters):
    """An inner kernel that stays where it is."""
    return replica, ()


def test_swaps_neighbours_of_one_parity_with_the_exact_probability():
    # Oracle: min(1, exp((t_1 - t_0)(l_0 - l_1))) by hand. Frequencies over 20,000 keys have a standard error under
    # 0.0036; five of those, a false alarm in 6e-7 of seeds for each of three pairs.
    temperatures = jnp.array([0.0, 0.3, 0.7, 1.0])
    log_likelihood = jnp.array([-3.0, -1.0, -2.5, -2.0])
    kernel = rex.build_kernel(still, lambda replica: replica)
    state = rex.init(log_likelihood, temperatures)
    keys = jax.random.split(jax.random.key(0), 20_000)
    exact = np.minimum(1, np.exp(np.diff(temperatures) * -np.diff(log_likelihood)))
    for parity in (0, 1):
        start = state._replace(num_steps=jnp.array(parity, jnp.int32))
        new, info = jax.vmap(lambda key, start=start: kernel(key, start, jnp.zeros(4)))(keys)
        np.testing.assert_allclose(info.swap_acceptance[0], exact, rtol=1e-6)
        expected = np.where(np.arange(3) % 2 == parity, exact, 0)
        np.testing.assert_allclose(info.is_swapped.mean(0), expected, atol=0.018)
        # Replicas and the index process move together, and nothing is lost.
        np.testing.assert_array_equal(new.replicas, log_likelihood[new.index])
        np.testing.assert_array_equal(np.sort(new.index, axis=1), np.broadcast_to(np.arange(4), new.index.shape))
        assert (new.num_steps == parity + 1).all()


def test_impossible_replicas():
    kernel = rex.build_kernel(still, lambda replica: replica)
    state = rex.init(jnp.array([-jnp.inf, -jnp.inf, -1.0]), jnp.array([0.0, 0.5, 1.0]))
    _, info = kernel(jax.random.key(0), state, jnp.zeros(3))
    np.testing.assert_array_equal(info.swap_acceptance, [0.0, 0.0])


def test_more_temperatures_leave_the_draws_of_the_others_alone():
    def draw(key, replica, temperature, parameters):
        return jax.random.normal(key), ()

    kernel = rex.build_kernel(draw, lambda replica: 0 * replica)
    few, many = (
        kernel(jax.random.key(0), rex.init(jnp.zeros(n), jnp.linspace(0, 1, n)), jnp.zeros(n))[0] for n in (2, 6)
    )
    np.testing.assert_array_equal(np.sort(many.replicas[:2]), np.sort(few.replicas))


def test_round_trips():
    # By hand. Replica 0: first, last, first, last, first: two trips. Replica 1: last, first, last, first, last: one trip,
    # for it has not been at the first temperature before. Replica 2 never reaches an end.
    swap, stay = [1, 2, 0], [0, 2, 1]
    assert rex.count_round_trips([stay, swap, stay, swap, stay]).tolist() == [2, 1, 0]
    # Staying at an end, or coming back to it, is no trip.
    assert rex.count_round_trips([[0, 1], [0, 1], [0, 1]]).tolist() == [0, 0]
    assert rex.count_round_trips([[0, 1, 2], [1, 0, 2], [0, 1, 2]]).tolist() == [0, 0, 0]
    assert rex.count_round_trips([[0, 1], [1, 0], [0, 1]]).tolist() == [1, 0]


def test_barrier_and_recommendation():
    rejection = jnp.array([[0.5, 0.7, 0.3], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(communication_barrier(rejection), [1.5, 0.0])
    assert recommended_num_temperatures(rejection).tolist() == [4, 2]


def test_ladder_equalises_rejection():
    # Oracle: a barrier known in closed form, Lambda(t) = t^(1/2) (a rate per unit of t that grows towards the prior); the
    # ladder that cuts it into equal parts is (k / n)^2.
    def rejection(temperatures):
        return 0.9 * jnp.diff(jnp.sqrt(temperatures))

    temperatures = jnp.linspace(0, 1, 8)
    for _ in range(30):
        temperatures = equalize_rejection(temperatures, rejection(temperatures))
    np.testing.assert_allclose(temperatures, jnp.linspace(0, 1, 8) ** 2, atol=2e-3)
    # A ladder that never rejects stays increasing.
    moved = equalize_rejection(jnp.linspace(0, 1, 5), jnp.zeros(4))
    np.testing.assert_allclose(moved, jnp.linspace(0, 1, 5), atol=1e-6)


def test_top_level_api_with_a_blackjax_kernel():
    # Oracle: the fraction above 0 is 0.7 by the weights of two normals that do not touch, under a prior that is even.
    # Over 500 round trips put its standard error under 0.02; the bar is 0.075, crossed by less than 1e-3 of seeds.
    def log_likelihood(x):
        return jnp.logaddexp(jnp.log(0.7) - 50 * (x - 2) ** 2, jnp.log(0.3) - 50 * (x + 2) ** 2)

    algorithm = rex.as_top_level_api(
        lambda x: -0.125 * x**2,
        log_likelihood,
        blackjax.mala.build_kernel(),
        blackjax.mala.init,
        {"step_size": jnp.array([1.0, 0.5, 0.2, 0.08, 0.02, 0.005])},
        temperatures=jnp.array([0.0, 0.01, 0.04, 0.13, 0.4, 1.0]),
    )
    keys = jax.random.split(jax.random.key(2), 20_000)
    start = algorithm.init(jnp.zeros(6))

    def step(state, key):
        state, info = algorithm.step(key, state)
        return state, (state.replicas[-1], info)

    state, (draws, info) = jax.jit(lambda state: jax.lax.scan(step, state, keys))(start)
    assert state.num_steps == 20_000
    assert (info.index.shape, info.kernel_info.acceptance_rate.shape) == ((20_000, 6), (20_000, 6, 1))
    assert rex.count_round_trips(info.index).sum() > 500
    assert abs(float((draws > 0).mean()) - 0.7) < 0.075


@pytest.mark.parametrize("num_replicas", [2, 5])
def test_state_keeps_its_types(num_replicas):
    kernel = rex.build_kernel(still, lambda replica: replica)
    state = rex.init(jnp.zeros(num_replicas), jnp.linspace(0, 1, num_replicas))
    new, _ = jax.lax.scan(
        lambda s, k: (kernel(k, s, jnp.zeros(num_replicas))[0], None), state, jax.random.split(jax.random.key(0), 3)
    )
    assert jax.tree.map(jnp.result_type, new) == jax.tree.map(jnp.result_type, state)
