"""The tail shapes of many rows against ArviZ, a row at a time."""

import numpy as np
import pytest
from arviz_stats.base import array_stats

from kaem_ppl.inference.sampling.importance.psis import pareto_k


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
