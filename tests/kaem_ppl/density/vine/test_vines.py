"""D-vines: known copulas found again, draws, both ways of whitening, what NumPyro asks for, and what is refused."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import stats

import kaem_ppl as kp

NUM_DRAWS = 5000


def gaussian_log_density(correlation, e):
    normal = stats.multivariate_normal(np.zeros(len(correlation)), correlation)
    return normal.logpdf(e) - stats.norm.logpdf(e).sum(-1)


def two_ways(rng, number):
    """Standard normal variables of correlation 0.9 or -0.9, as likely: no correlation, but dependence."""
    x, noise = rng.standard_normal((2, number))
    return x, rng.choice([-0.9, 0.9], number) * x + np.sqrt(0.19) * noise


def two_ways_log_density(x, y):
    """Of the copula, a mixture of two Gaussian ones."""
    e = np.stack([x, y], axis=-1)
    parts = [gaussian_log_density(np.array([[1, r], [r, 1]]), e) for r in (-0.9, 0.9)]
    return np.logaddexp(*parts) - np.log(2)


def clayton_draws(rng, number, theta=2.0):
    """By Marshall and Olkin (1988)."""
    shared = rng.gamma(1 / theta, size=(number, 1))
    return stats.norm.ppf((1 + rng.exponential(size=(number, 2)) / shared) ** (-1 / theta))


def clayton_log_density(e, theta=2.0):
    u = stats.norm.cdf(e)
    total = (u**-theta).sum(-1) - 1
    return np.log1p(theta) - (theta + 1) * np.log(u).sum(-1) - (2 + 1 / theta) * np.log(total)


def loss(vine, e, truth):
    """Nats of a draw by which the vine predicts worse than the truth."""
    return float(np.mean(truth - np.asarray(vine.log_density(jnp.asarray(e, jnp.float32)), float)))


@pytest.fixture(scope="module")
def conditional():
    """Normal pairs along the order, and a pair given the variable in between that goes two ways; draws and the vine."""
    rng = np.random.default_rng(1)
    middle = rng.standard_normal(2 * NUM_DRAWS)
    first, last = two_ways(rng, 2 * NUM_DRAWS)
    e = np.stack([0.6 * middle + 0.8 * first, middle, 0.6 * middle - 0.8 * last], axis=-1)
    pairs = np.array([[1, 0.6], [0.6, 1]])
    truth = gaussian_log_density(pairs, e[:, :2]) + gaussian_log_density(pairs, e[:, 1:])
    truth = truth + two_ways_log_density(first, -last)
    return e, truth, kp.DVine.fit(e[:NUM_DRAWS], order=[0, 1, 2], names=["a", "b", "c"])


@pytest.mark.slow
def test_a_normal_s_copula_costs_nothing_to_find():
    correlation = np.array([[1, 0.6, -0.3, 0.3], [0.6, 1, 0.1, 0.7], [-0.3, 0.1, 1, 0.1], [0.3, 0.7, 0.1, 1]])
    e = np.random.default_rng(0).multivariate_normal(np.zeros(4), correlation, size=3 * NUM_DRAWS)
    vine = kp.DVine.fit(e[:NUM_DRAWS])
    # Six parameters cost 6 / 2n = 0.0006 nats in the mean; seed 0.
    held_out = e[NUM_DRAWS:]
    assert loss(vine, held_out, gaussian_log_density(correlation, held_out)) < 0.005
    # The strongest pair is in the first tree.
    assert abs(vine.order.index(1) - vine.order.index(3)) == 1


@pytest.mark.exhaustive
def test_a_pair_with_a_joint_tail_and_one_without_correlation():
    rng = np.random.default_rng(2)
    e = clayton_draws(rng, 2 * NUM_DRAWS)
    vine = kp.DVine.fit(e[:NUM_DRAWS])
    truth = clayton_log_density(e)
    gaussian = gaussian_log_density(np.corrcoef(e[:NUM_DRAWS].T), e)
    # Losses of the vine have a standard error of 0.003; the Gaussian copula loses 0.1. Seed 2.
    assert loss(vine, e[NUM_DRAWS:], truth[NUM_DRAWS:]) < 0.02
    assert np.mean((truth - gaussian)[NUM_DRAWS:]) > 0.08
    x, y = two_ways(rng, 2 * NUM_DRAWS)
    e, truth = np.stack([x, y], axis=-1), two_ways_log_density(x, y)
    assert loss(kp.DVine.fit(e[:NUM_DRAWS]), e[NUM_DRAWS:], truth[NUM_DRAWS:]) < 0.03
    assert np.mean(truth[NUM_DRAWS:]) > 0.3


@pytest.mark.slow
def test_a_conditional_pair_is_found_and_shown(conditional):
    e, truth, vine = conditional
    assert [pair.is_gaussian for pair in vine.pairs] == [True, True, False]
    assert vine.pairs[2].variables == (0, 2)
    assert vine.pairs[2].given == (1,)
    assert vine.pairs[0].tau == pytest.approx(2 / np.pi * np.arcsin(0.6), abs=0.08)
    # Standard error 0.003; without the conditional pair 0.3 are lost. Seed 1.
    assert loss(vine, e[NUM_DRAWS:], truth[NUM_DRAWS:]) < 0.03
    text = repr(vine).splitlines()
    assert text[0] == "D-vine of 3 variables in the order a, b, c"
    assert text[2].startswith("1     a, b")
    assert text[4].startswith("2     a, c  b")
    assert "table" in text[4]


@pytest.mark.slow
def test_whitening_goes_both_ways_and_explains_the_density(conditional):
    vine = conditional[2]
    w = jax.random.normal(jax.random.key(0), (200, 3))
    forward = jax.jit(lambda v, e: (v.whiten(e), v.log_density(e)))
    scores, jacobian = jax.jit(lambda v, w: (v.unwhiten(w), jax.vmap(jax.jacrev(v.unwhiten))(w)))(vine, w)
    back, log_density = forward(vine, scores)
    np.testing.assert_allclose(back, w, atol=1e-3)
    expected = 0.5 * np.sum(np.square(scores) - np.square(w), axis=-1) - np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(log_density, expected, atol=5e-3)


@pytest.mark.slow
def test_a_truncated_vine_in_another_order(conditional):
    e = conditional[0][:500]
    vine = kp.DVine.fit(e, order=[2, 0, 1], num_trees=1)
    w = vine.whiten(e)
    np.testing.assert_allclose(vine.unwhiten(w), e, atol=1e-3)
    # The first variable of the order is its own coordinate, and the last is independent of it given the one in between.
    np.testing.assert_allclose(w[:, 2], e[:, 2], rtol=1e-6)
    assert vine.pairs[0].variables == (2, 0)


@pytest.mark.slow
def test_draws_follow_the_density(conditional):
    e, _, vine = conditional
    found = np.asarray(vine.unwhiten(jax.random.normal(jax.random.key(1), (NUM_DRAWS, 3))), float)
    whitened = np.asarray(vine.whiten(e[NUM_DRAWS:]), float)
    for i in range(3):
        # Seven tests at 1e-4 each.
        assert stats.kstest(found[:, i], "norm").pvalue > 1e-4
        assert stats.kstest(whitened[:, i], "norm").pvalue > 1e-4
    # What no correlation shows: the product of squares of the residuals, whose mean is 1 + 2 * 0.81.
    products = ((found[:, 0] - 0.6 * found[:, 1]) * (found[:, 2] - 0.6 * found[:, 1]) / 0.64) ** 2
    assert products.mean() == pytest.approx(2.62, abs=5 * products.std() / NUM_DRAWS**0.5)


@pytest.fixture(scope="module")
def joint(conditional):
    return kp.KANCopula([dist.Normal(jnp.zeros(2), 1.0), dist.Exponential(1.0)], conditional[2])


@pytest.mark.slow
def test_it_is_a_distribution_that_numpyro_can_use(joint):
    x = joint.sample(jax.random.key(2), (7,))
    expected = joint.log_prob(x)
    assert np.all(joint.support(x))
    assert "D-vine of 3 variables" in repr(joint)
    one = jax.jit(jax.vmap(jax.value_and_grad(lambda d, x: d.log_prob(x), argnums=1), (None, 0)))
    for same in (
        jax.tree.unflatten(*jax.tree.flatten(joint)[::-1]), pickle.loads(pickle.dumps(joint)), copy.deepcopy(joint),
    ):  # fmt: skip
        np.testing.assert_allclose(one(same, x)[0], expected, rtol=1e-4, atol=1e-4)
    ends = [one(joint, x + sign * jnp.array([1e-2, 0.0, 0.0]))[0] for sign in (-1, 1)]
    np.testing.assert_allclose(one(joint, x)[1][:, 0], (ends[1] - ends[0]) / 2e-2, rtol=0.1, atol=0.15)
    far = x.at[:3].set(jnp.array([[0.0, 0.0, -1.0], [9.0, -9.0, 60.0], [0.0, 0.0, 1e-9]]))
    values, slopes = one(joint, far)
    assert np.isneginf(values[0])
    assert np.all(np.isfinite(values[1:]))
    assert np.all(np.isfinite(slopes[1:]))


@pytest.mark.exhaustive
def test_nuts_takes_it_for_a_prior(conditional):
    vine = conditional[2]

    def model():
        x = numpyro.sample("x", kp.KANCopula(dist.Normal(jnp.zeros(3), 1.0), vine))
        numpyro.sample("y", dist.Normal(x[0], 0.5), obs=1.5)

    mcmc = numpyro.infer.MCMC(numpyro.infer.NUTS(model), num_warmup=500, num_samples=4000, progress_bar=False)
    mcmc.run(jax.random.key(0))
    x = np.asarray(mcmc.get_samples()["x"])
    # Conjugate in the first two; by 4,000 prior draws, weighted, in the third. Errors of five standard errors.
    assert x[:, 0].mean() == pytest.approx(1.2, abs=0.06)
    assert x[:, 0].std() == pytest.approx(0.2**0.5, abs=0.05)
    assert x[:, 1].mean() == pytest.approx(0.72, abs=0.12)
    prior = np.asarray(vine.unwhiten(jax.random.normal(jax.random.key(1), (50_000, 3))))
    weights = np.exp(-2 * (1.5 - prior[:, 0]) ** 2)
    weights /= weights.sum()
    second = weights @ prior[:, 2] ** 2
    assert (x[:, 2] ** 2).mean() == pytest.approx(second, abs=0.2)


@pytest.mark.exhaustive
def test_draws_become_a_prior_with_a_vine():
    rng = np.random.default_rng(3)
    x, y = two_ways(rng, 4000)
    below = -np.exp(0.5 * x + 0.1 * rng.standard_normal(4000))
    draws = {"x": x[:2000], "rest": np.stack([y, below], axis=-1)[:2000]}
    names, supports = ["x", "rest"], {}
    vine = kp.prior_from(draws, names, supports=supports, dependence="vine")
    held_out = vine.pack({"x": x[2000:], "rest": np.stack([y, below], axis=-1)[2000:]}).astype(np.float32)
    gains = {
        kind: np.mean(kp.prior_from(draws, names, supports=supports, dependence=kind).log_prob(held_out))
        for kind in ("gaussian", "independent")
    }
    mine = np.mean(vine.log_prob(held_out))
    assert mine > gains["gaussian"] + 0.3
    assert gains["gaussian"] > gains["independent"] + 1
    assert "rest[1]" in repr(vine)
    assert vine.unpack(vine.sample(jax.random.key(0), (5,)))["rest"].shape == (5, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", pytest.param("vine", marks=pytest.mark.exhaustive)])
def test_numbers_that_are_bounded_above_keep_the_sign_of_their_dependence(kind):
    x, noise = np.random.default_rng(4).standard_normal((2, 2000))
    draws = {"x": x, "below": 1 - np.exp(-(0.8 * x + 0.6 * noise))}
    prior = kp.prior_from(draws, supports={"below": constraints.less_than(1.0)}, dependence=kind)
    found = np.asarray(prior.sample(jax.random.key(0), (2000,)))
    # Standard error of either 0.01.
    assert stats.spearmanr(found).statistic == pytest.approx(stats.spearmanr(draws["x"], draws["below"])[0], abs=0.05)


GOOD = np.random.default_rng(5).standard_normal((50, 3))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"scores": "x"}, "scores"),
        ({"scores": GOOD[0]}, "scores"),
        ({"scores": GOOD[:10]}, "scores"),
        ({"scores": np.where(GOOD > 2, np.inf, GOOD)}, "scores"),
        ({"scores": GOOD[:, [0, 1, 0]]}, "scores"),
        ({"weights": np.ones(3)}, "weights"),
        ({"weights": -np.ones(50)}, "weights"),
        ({"order": [0, 1]}, "order"),
        ({"order": 3}, "order"),
        ({"num_trees": 1.5}, "num_trees"),
        ({"names": ["a"]}, "names"),
        ({"names": "abc"}, "names"),
    ],
)
def test_wrong_arguments_are_refused(arguments, name, assert_refused):
    assert_refused(lambda: kp.DVine.fit(**{"scores": GOOD} | arguments), name)


def test_a_vine_of_other_variables_is_refused(assert_refused):
    vine = kp.DVine.fit(GOOD, num_trees=0)
    assert_refused(lambda: kp.KANCopula(dist.Normal(jnp.zeros(2), 1.0), vine), "dependence")
    assert_refused(lambda: kp.prior_from({"x": GOOD}, dependence="flow"), "dependence")
