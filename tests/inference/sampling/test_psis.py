"""The tail shapes of many rows against ArviZ, a row at a time."""

import numpy as np
import pytest
from arviz_stats.base import array_stats

from kaem_ppl.inference.sampling.importance.psis import pareto_k, smooth


@pytest.mark.parametrize("number", [50, 2000])
def test_is_arvizs(number):
    # Light tails to none with a variance; 200 rows.
    rng = np.random.default_rng(0)
    log_weights = rng.exponential(size=(number, 200)) * np.linspace(0.05, 1.2, 200)
    expected = [array_stats.psislw(-row)[1] for row in log_weights.T]
    np.testing.assert_allclose(pareto_k(log_weights.reshape(2, number // 2, 200)), expected, rtol=0, atol=1e-6)


def test_rows_without_a_tail():
    rng = np.random.default_rng(1)
    log_weights = rng.normal(size=(100, 4))
    log_weights[:, 1] = 0.0
    log_weights[:85, 2] = -np.inf
    log_weights[:50, 3] = -np.inf
    k = pareto_k(log_weights[None])
    assert np.isfinite(k[0])
    assert k[1] == -np.inf
    assert k[2] == np.inf
    assert np.isclose(k[3], array_stats.psislw(-log_weights[50:, 3])[1])
    assert pareto_k(np.zeros((1, 10, 1)))[0] == np.inf


@pytest.mark.parametrize("of", [pareto_k, lambda x: smooth(x.reshape(-1, 3).T)[1]], ids=["shape", "smoothing"])
@pytest.mark.parametrize("zeros", [0, 10])
def test_weights_that_spread_beyond_floats_have_no_finite_shape(of, zeros):
    # The shape grows with the spread: 1, 10, 100, 700 and 3,000 nats of standard deviation. Where a quarter of the tail
    # underflows beside the largest weight, the fit divided by it, and its shape was 0.
    rng = np.random.default_rng(2)
    base = rng.normal(size=(2000, 3))
    base[:zeros] = -np.inf
    found = np.array([of((spread * base)[None]) for spread in (1.0, 10.0, 100.0, 700.0, 3000.0)])
    assert (np.diff(found[:3], axis=0) > 0).all()
    assert (found[1:] > 2).all()
    assert np.isinf(found[3:]).all()
