"""Images resized and made grey as another library does it."""

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import Image

from kaem_ppl.models import Dataset, grey_images, resize_images, split_dataset, subset, to_unit_interval

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 3)).astype(np.uint8)


@pytest.mark.parametrize("size", [(6, 8), (5, 9), (24, 32), (12, 16)])
def test_resizing_is_pillows_bilinear_filter(size):
    resized = resize_images(IMAGES, size)
    assert resized.dtype == np.uint8
    for image, expected in zip(resized, IMAGES, strict=True):
        pillow = np.asarray(Image.fromarray(expected).resize(size[::-1], Image.Resampling.BILINEAR))
        # Pillow rounds after each of its two passes.
        assert np.abs(image.astype(int) - pillow).max() <= 1


def test_floats_stay_floats_and_bytes_are_a_rounding_away():
    floats = resize_images(IMAGES.astype(np.float32), (5, 9))
    assert floats.dtype == np.float32
    np.testing.assert_allclose(resize_images(IMAGES, (5, 9)), floats, atol=0.5001)


def test_many_images_are_resized_in_parts(monkeypatch):
    whole_resized, whole_grey = resize_images(IMAGES, (6, 8)), grey_images(IMAGES)
    monkeypatch.setattr("kaem_ppl.models.data.images._CHUNK_ELEMENTS", 2 * IMAGES[0].size)
    np.testing.assert_array_equal(resize_images(IMAGES, (6, 8)), whole_resized)
    np.testing.assert_array_equal(grey_images(IMAGES), whole_grey)


def test_grey_is_pillows_luma():
    grey = grey_images(IMAGES)
    pillow = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in IMAGES])[..., None]
    assert grey.dtype == np.uint8
    assert grey.shape == pillow.shape
    # Pillow's weights are rounded to 16 bits.
    assert np.abs(grey.astype(int) - pillow).max() <= 1
    assert grey_images(grey) is grey
    np.testing.assert_allclose(grey_images(IMAGES.astype(np.float32)), grey, atol=0.5001)


def test_the_unit_interval():
    levels = to_unit_interval(IMAGES)
    assert levels.dtype == np.float32
    np.testing.assert_allclose(levels, IMAGES / 255, rtol=1e-6)
    np.testing.assert_array_equal(to_unit_interval(np.array([0.25, 0.5])), [0.25, 0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resize_images(IMAGES[0], (2, 2)), r"`images` has shape \(12, 16, 3\)"),
        (lambda: resize_images(IMAGES, (2, 0)), r"`size` is \(2, 0\)"),
        (lambda: grey_images(IMAGES[..., :2]), "2 channels"),
    ],
)
def test_shapes_are_checked(call, message):
    with pytest.raises(ValueError, match=message):
        call()


DATASET = Dataset(np.arange(10)[:, None], np.arange(10))


def test_parts_are_disjoint_and_decided_by_the_seed():
    first, second = split_dataset(DATASET, [6, 3], seed=1)
    assert (len(first), len(second)) == (6, 3)
    assert len(set(first.labels) | set(second.labels)) == 9
    for part in (first, second):
        np.testing.assert_array_equal(part.values[:, 0], part.labels)
    np.testing.assert_array_equal(split_dataset(DATASET, [6, 4], seed=1)[0].labels, first.labels)
    np.testing.assert_array_equal(subset(DATASET, 6, seed=1).labels, first.labels)
    assert any(subset(DATASET, 6, seed=2).labels != first.labels)
    assert split_dataset(Dataset(DATASET.values), [10])[0].labels is None


@pytest.mark.parametrize(("sizes", "message"), [([8, 3], "only 10"), ([-1, 3], "`sizes`")])
def test_sizes_of_parts_are_checked(sizes, message):
    with pytest.raises(ValueError, match=message):
        split_dataset(DATASET, sizes)
