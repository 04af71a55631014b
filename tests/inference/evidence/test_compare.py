import numpy as np
import pytest

from kaem_ppl.inference import Estimate, LogEvidence, compare_evidence


def evidence(value, std_error, trust=True):
    value, std_error = np.asarray(value, float), np.asarray(std_error, float)
    estimate = Estimate(value, std_error, np.full(value.shape, trust))
    plate = None if value.ndim == 0 else "data"
    return LogEvidence(*estimate[:3], (), {"one": estimate}, None, {}, None, plate, 1.0)


def test_bayes_factors_and_probabilities():
    # Oracle: by hand, evidences e^-10, 3 e^-10 and 6 e^-10.
    models = {name: evidence(-10 + np.log(k), e) for name, k, e in (("a", 1, 0.3), ("b", 3, 0.4), ("c", 6, 0.0))}
    comparison = compare_evidence(models)
    assert list(comparison.table.index) == ["c", "b", "a"]
    np.testing.assert_allclose(comparison.table["probability"], [0.6, 0.3, 0.1])
    np.testing.assert_allclose(comparison.table["log_bayes_factor"], np.log([1, 1 / 2, 1 / 6]), atol=1e-12)
    np.testing.assert_allclose(comparison.table["log_bayes_factor_std_error"], [0, 0.4, 0.3])
    assert np.isclose(comparison.log_bayes_factors.loc["b", "a"], np.log(3))
    assert np.isclose(comparison.std_errors.loc["b", "a"], 0.5)
    assert comparison.std_errors.loc["a", "a"] == 0
    weighted = compare_evidence(models, prior_probabilities={"a": 0.6, "b": 0.2, "c": 0.2})
    np.testing.assert_allclose(weighted.table.loc[["a", "b", "c"], "probability"], np.array([6, 6, 12]) / 24)


def test_data_of_a_plate_are_added():
    table = compare_evidence({"a": evidence([-1, -2], [0.3, 0.4]), "b": evidence([-1, -3], [0, 0], trust=False)}).table
    assert table.loc["a", "log_evidence"] == -3
    assert np.isclose(table.loc["a", "std_error"], 0.5)
    assert list(table["is_trustworthy"]) == [True, False]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({"a": evidence(0, 1)},), ValueError, "at least two models"),
        (({"a": evidence(0, 1), "b": -3.0},), TypeError, r"`evidences\['b'\]` must be what `log_evidence` returned"),
        (({"a": evidence(0, 1), "b": evidence([0, 1], [1, 1])},), ValueError, "different numbers of data"),
    ],
)
def test_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        compare_evidence(*arguments)


@pytest.mark.parametrize("prior", [{"a": 1.0}, {"a": 1.0, "b": 0.0}])
def test_refuses_prior_probabilities(prior):
    with pytest.raises(ValueError, match="`prior_probabilities"):
        compare_evidence({"a": evidence(0, 1), "b": evidence(0, 1)}, prior_probabilities=prior)
