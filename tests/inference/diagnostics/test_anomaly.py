"""P-values of anomalies against SciPy's ranks and permutation test, and their law on data like the usual ones."""

import numpy as np
import pytest
from scipy import stats

from kaem_ppl.inference import anomaly_p_values


def test_p_values_are_ranks_among_the_usual():
    rng = np.random.default_rng(0)
    # Rounded, so that there are ties; SciPy's largest rank of a score among all of them.
    usual, scores = rng.normal(size=40).round(1), rng.normal(size=(3, 4)).round(1)
    expected = [stats.rankdata([*usual, x], method="max")[-1] / 41 for x in scores.ravel()]
    np.testing.assert_allclose(anomaly_p_values(usual, scores), np.reshape(expected, (3, 4)))
    assert anomaly_p_values(usual, -np.inf) == 1 / 41


def test_p_values_of_usual_data_are_uniform():
    # 2,000 sets of 19 usual scores and a new one, with ties; a Kolmogorov test at 0.001, and a binomial count within 4
    # standard deviations: together less than 2 false alarms in 1,000 seeds.
    rng = np.random.default_rng(1)
    sets = rng.normal(size=(2000, 20)).round(1)
    random = np.array([anomaly_p_values(row[:-1], row[-1], key=n) for n, row in enumerate(sets)])
    assert stats.kstest(random, "uniform").pvalue > 1e-3
    plain = np.array([anomaly_p_values(row[:-1], row[-1]) for row in sets])
    assert (plain <= 0.1).mean() < 0.1 + 4 * np.sqrt(0.1 * 0.9 / 2000)


def test_what_is_no_score_is_refused():
    with pytest.raises(ValueError, match="`usual` must be scores of shape"):
        anomaly_p_values([], [1.0])
    with pytest.raises(ValueError, match="`scores` holds NaN"):
        anomaly_p_values([1.0], [np.nan])
