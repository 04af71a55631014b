"""Distances of images against SciPy's matrix root, double loops, and closed forms of Gaussians."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from kaem_ppl.models import (
    extrapolated_frechet_distance,
    frechet_distance,
    kernel_distance,
    load_dataset,
    precision_recall,
    train_classifier,
)


def gaussian(seed, n, d=6, shift=0.0):
    rng = np.random.default_rng(seed)
    factor = np.random.default_rng(99).normal(size=(d, d)) / np.sqrt(d)
    return rng.normal(size=(n, d)) @ factor + shift


def test_the_frechet_distance_is_that_of_scipys_matrix_root():
    x, y = gaussian(0, 40), 1.5 * gaussian(1, 60, shift=0.3)
    of_x, of_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(of_x + of_y - 2 * sqrtm(of_x @ of_y).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    # Features that never change, as rectified ones may.
    x[:, 2] = y[:, 2] = 1.0
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


def test_the_extrapolated_distance_has_no_bias():
    # Of 40 pairs of one law each value lies within 2 of its errors of 0 with probability 0.95 or more, and 5 outside come
    # by chance once in 20; 6 once in 70, 8 once in 1,000. The mean lies within 4 of its errors.
    found = [extrapolated_frechet_distance(gaussian(2 * s, 200), gaussian(2 * s + 1, 200)) for s in range(40)]
    z = np.array([one.value / one.std_error for one in found])
    values = np.array([one.value for one in found])
    plain = np.mean([frechet_distance(gaussian(2 * s, 200), gaussian(2 * s + 1, 200)) for s in range(40)])
    assert (abs(z) > 2).sum() < 8
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(40) < plain


def test_the_error_of_the_extrapolated_distance_is_its_spread_where_laws_differ():
    # The truth is |shift|^2 d = 1.5. 40 values within 4 errors of their mean; a spread from 40 is good to 11 %, 4 of which
    # are allowed: together less than 1 false alarm in 5,000.
    found = [
        extrapolated_frechet_distance(gaussian(2 * s, 200), gaussian(2 * s + 1, 200, shift=0.5)) for s in range(40)
    ]
    values, errors = np.array(found).T
    assert abs(values.mean() - 1.5) < 4 * values.std() / np.sqrt(40)
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(values.std(), rel=0.45)


def test_the_kernel_distance_is_a_double_loop():
    x, y = gaussian(0, 23, 4), gaussian(1, 31, 4, shift=0.2)

    def kernel(a, b):
        return (a @ b / 4 + 1) ** 3

    def within(x):
        pairs = [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
        return np.mean(pairs)

    expected = within(x) + within(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])
    found = kernel_distance(x, y, num_groups=5)
    assert found.value == pytest.approx(expected, rel=1e-9)
    # Its error by leaving out the same groups, the slow way.
    orders = np.random.default_rng(0)
    parts = [np.array_split(z[orders.permutation(len(z))], 5) for z in (x, y)]
    without = []
    for group in range(5):
        a, b = (np.concatenate([z for i, z in enumerate(one) if i != group]) for one in parts)
        without.append(within(a) + within(b) - 2 * np.mean([kernel(u, v) for u in a for v in b]))
    assert found.std_error == pytest.approx(np.sqrt(4 / 5 * np.square(without - np.mean(without)).sum()), rel=1e-9)


def test_precision_and_recall_are_those_of_a_loop():
    real, generated = gaussian(0, 25, 2), gaussian(1, 19, 2, shift=0.8)

    def share(x, others, k):
        radii = [np.sort(np.linalg.norm(others - other, axis=1))[k] for other in others]
        return np.mean([any(np.linalg.norm(a - o) <= r for o, r in zip(others, radii, strict=True)) for a in x])

    found = precision_recall(real, generated, 2)
    assert found.precision.value == pytest.approx(share(generated, real, 2))
    assert found.recall.value == pytest.approx(share(real, generated, 2))
    far = precision_recall(real, generated + 100)
    assert (far.precision.value, far.recall.value) == (0, 0)


def test_what_is_no_pair_of_feature_sets_is_refused():
    x = gaussian(0, 100)
    with pytest.raises(ValueError, match="`x` must be features of shape"):
        frechet_distance(np.zeros((3, 4, 5)), x)
    with pytest.raises(ValueError, match="`y` has features that are not finite"):
        kernel_distance(x, np.full((100, 6), np.nan))
    with pytest.raises(ValueError, match="expected the same network"):
        extrapolated_frechet_distance(x, x[:, :3])
    with pytest.raises(ValueError, match="`y` has 30 rows: expected at least 80"):
        extrapolated_frechet_distance(x, x[:30])
    with pytest.raises(ValueError, match="`num_neighbours` is 3"):
        precision_recall(x, x[:3])


def test_a_classifier_learns_digits_and_gives_features_without_bias():
    train, test = (load_dataset("DIGITS", split, progress_bar=False) for split in ("train", "test"))
    classifier = train_classifier(0, train.values, train.labels)
    probabilities = classifier.probabilities(test.values)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (probabilities.argmax(1) == test.labels).mean() > 0.95
    features = classifier.features(train.values)
    assert features.var(0).mean() == pytest.approx(1, rel=1e-4)
    order = np.random.default_rng(0).permutation(len(features))
    found = extrapolated_frechet_distance(features[order[:700]], features[order[700:1400]])
    assert abs(found.value) < 2 * found.std_error
    with pytest.raises(ValueError, match="trained on images of another size"):
        classifier.features(np.zeros((2, 16, 16)))
    with pytest.raises(ValueError, match="`labels` must be an integer"):
        train_classifier(0, train.values, train.labels[:3])
