"""Log-evidences of many data add up without the bias of logarithms, within the error that is stated."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from kaem_ppl.inference import (
    AnnealedImportanceSampling,
    ImportanceSampling,
    ParallelTempering,
    PowerLadder,
    TemperedSMC,
    compare_evidence,
    log_evidence,
)
from kaem_ppl.inference.evidence.log_bias import add_up, bias_of_log_mean


def test_jackknife_leaves_each_batch_out():
    # Oracle: logarithms of means without each batch, by hand.
    weights = np.random.default_rng(0).lognormal(size=(12, 5))
    sizes, std_error = np.array([4, 4, 4]), np.full(5, 0.1)
    sums = weights.reshape(3, 4, 5).sum(1)
    found = bias_of_log_mean(np.log(sums / sums.sum(0)), sizes, std_error, are_shared=False)
    whole = np.log(weights.mean(0))
    without = np.stack([np.log(np.delete(weights, range(4 * b, 4 * b + 4), axis=0).mean(0)) for b in range(3)])
    np.testing.assert_allclose(found.bias, 2 * (without.mean(0) - whole))
    variance = 2 / 3 * np.square(without - without.mean(0)).sum(0)
    np.testing.assert_allclose(found.std_error_of_sum, np.sqrt(variance.sum()))
    np.testing.assert_allclose(found.common_error, found.bias + 0.005)


@pytest.mark.parametrize("are_shared", [False, True])
def test_sums_over_data(are_shared):
    # Oracle: weights exp(s n - s^2 / 2) have the mean 1, whose logarithm is 0. 20 sums over 3,000 data of 96 draws each;
    # shared draws differ in s between data. The squares of standard normals, 20 of them, add up to 46 once in 1,000 seeds.
    rng = np.random.default_rng(1)
    before, after = [], []
    for _ in range(20):
        s = rng.uniform(0.7, 1.1, size=3000)
        log_weights = s * rng.normal(size=(96, 1 if are_shared else 3000)) - s**2 / 2
        weights = np.exp(log_weights)
        value, size = np.log(weights.mean(0)), weights.sum(0) ** 2 / np.square(weights).sum(0)
        std_error = np.sqrt(1 / size - 1 / 96)
        sums = weights.reshape(32, 3, 3000).sum(1)
        found = bias_of_log_mean(np.log(sums / sums.sum(0)), np.full(32, 3), std_error, are_shared=are_shared)
        total, error = add_up(value, std_error, *found)
        before.append(value.sum() / np.sqrt(np.square(std_error).sum()))
        after.append(total / error)
    assert np.mean(before) < -2.5 if not are_shared else np.square(before).sum() > 100
    assert np.square(after).sum() < 46


def rows(c, x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(c * z, 0.5), obs=x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (ImportanceSampling(200), {"num_chains": 1}),
        (AnnealedImportanceSampling(40, ladder=PowerLadder(8, 3.0)), {"num_chains": 1}),
        pytest.param(TemperedSMC(30), {"num_chains": 4}, marks=pytest.mark.exhaustive),
        pytest.param(
            ParallelTempering(ladder=PowerLadder(6)),
            {"num_chains": 2, "num_samples": 40, "num_warmup": 40},
            marks=pytest.mark.exhaustive,
        ),
    ],
    ids=lambda x: type(x).__name__,
)
def test_sums_by_every_method(method, settings):
    # Oracle: the closed form, 8 sums over 500 data. The false alarm of the bound on the squares of eight standard
    # normals is 1 in 1,000; there are five estimates.
    squares = {}
    for seed in range(8):
        keys = jax.random.split(jax.random.key(seed), 4)
        c = jax.random.uniform(keys[0], (500,), minval=0.5, maxval=1.5)
        x = c * jax.random.normal(keys[1], (500,)) + 0.5 * jax.random.normal(keys[2], (500,))
        exact = np.asarray(dist.Normal(0, jnp.sqrt(c**2 + 0.25)).log_prob(x), float).sum()
        found = log_evidence(keys[3], rows, c, x, method=method, plate="data", progress_bar=False, **settings)
        for name in found.estimates:
            total, error = found.total(name)
            squares.setdefault(name, []).append(((total - exact) / error) ** 2)
        table = compare_evidence({"one": found, "other": found}).table
        assert tuple(table.loc["one", ["log_evidence", "std_error"]]) == found.total()
    for name, values in squares.items():
        assert np.sum(values) < 26.1, name
