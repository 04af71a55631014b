"""The digits: what they are, and how they split."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
from kaem_ppl.models import load_digits, split_digits


def test_digits_are_images_in_the_unit_interval():
    images, labels = load_digits()
    assert images.shape == (1797, 64)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert images.max() == 1
    assert set(labels) == set(range(10))


def test_the_split_is_a_partition_that_its_seed_decides():
    train, held_out = split_digits(seed=3)
    assert len(train.images) == len(train.labels) == 1500
    assert len(held_out.images) == len(held_out.labels) == 297
    both = np.concatenate([train.images, held_out.images])
    np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(load_digits().images, axis=0))
    np.testing.assert_array_equal(train.images, split_digits(seed=3)[0].images)
    assert np.any(train.images != split_digits(seed=4)[0].images)


def test_labels_stay_with_their_images():
    images, labels = load_digits()
    train, _ = split_digits()
    for image, label in zip(train.images[:20], train.labels[:20], strict=True):
        assert label in labels[(images == image).all(axis=1)]
