"""Every data set is read from files in its official format as they were written."""

import hashlib
import logging

import numpy as np
import pytest

from kaem_ppl.models import (
    DATASETS,
    CelebA,
    DarcyFlow,
    PennTreebank,
    SMSSpam,
    load_dataset,
    split_digits,
)

from .dataset_files import COLOUR_IMAGES, GREY_IMAGES, LABELS, MESSAGES, SENTENCES, WRITERS, load, refused, written


def test_every_data_set_is_tried_here():
    assert set(DATASETS) == {"DIGITS", "DARCY_FLOW", *WRITERS}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_files_in_the_official_format_load_and_are_not_taken_for_official(root, caplog, name, split):
    folder = written(root, name)
    with caplog.at_level(logging.WARNING, "kaem_ppl"):
        dataset = load(name, split)
    assert len(dataset) > 0
    assert len(caplog.messages) == 1
    assert str(folder) in caplog.text
    assert "not known to be the official" in caplog.text


@pytest.mark.parametrize("name", ["MNIST", "FASHION_MNIST"])
def test_idx_images_and_labels_are_what_was_written(root, name):
    written(root, name)
    dataset = load(name)
    np.testing.assert_array_equal(dataset.values, GREY_IMAGES[..., None])
    np.testing.assert_array_equal(dataset.labels, LABELS)


@pytest.mark.parametrize("name", ["CIFAR10", "SVHN"])
def test_colours_and_labels_are_what_was_written(root, name):
    written(root, name)
    dataset = load(name)
    np.testing.assert_array_equal(dataset.values, COLOUR_IMAGES)
    np.testing.assert_array_equal(dataset.labels, LABELS)


def test_training_files_of_cifar10_follow_one_another(root):
    folder = written(root, "CIFAR10")
    (folder / "data_batch_4.bin").write_bytes((folder / "data_batch_1.bin").read_bytes()[: 2 * 3073])
    np.testing.assert_array_equal(load("CIFAR10").values, np.concatenate([COLOUR_IMAGES, COLOUR_IMAGES[:2]]))


def test_a_part_of_a_downloaded_cifar10_is_missed(root):
    folder = written(root, "CIFAR10")
    md5 = hashlib.md5((folder / "data_batch_1.bin").read_bytes()).hexdigest()
    (folder / "downloaded.md5").write_text(f"{md5}  data_batch_1.bin\n{md5}  data_batch_2.bin\n")
    refused(folder / "data_batch_2.bin", message="is missing", error=FileNotFoundError)


def test_faces_are_their_central_square_and_the_second_time_a_memory_map(root):
    folder = written(root, "CELEBA")
    for split, levels in (("train", (30, 60)), ("valid", (90, 120)), ("test", (150, 180))):
        first, second = (load_dataset(CelebA(size=8), split, progress_bar=False).values for _ in range(2))
        assert first.shape == (2, 8, 8, 3)
        # JPEG is exact to a level or two on even surfaces.
        assert (np.abs(first - np.array(levels)[:, None, None, None].astype(float)) <= 2).all()
        assert isinstance(second, np.memmap)
        np.testing.assert_array_equal(first, second)
    assert not list(folder.glob("*.part"))


def test_sentences_are_what_was_written(root):
    written(root, "PENN_TREEBANK")
    train, test = (load_dataset(PennTreebank(30, 40), split) for split in ("train", "test"))
    assert train.vocabulary == test.vocabulary
    assert train.values.shape == (3, 30)
    assert train.vocabulary.decode(train.values) == SENTENCES


def test_messages_are_what_was_written_and_split_by_the_seed(root):
    written(root, "SMS_SPAM")
    splits = [load_dataset(SMSSpam(40, 60), split) for split in ("train", "test")]
    assert [len(split) for split in splits] == [4, 1]
    texts = {
        text: label
        for split in splits
        for text, label in zip(split.vocabulary.decode(split.values), split.labels, strict=True)
    }
    # A character that the training messages do not hold is printed as one that is not known.
    assert sum(text in texts for text in MESSAGES) >= 4
    assert sum(texts.values()) == 1
    again = load_dataset(SMSSpam(40, 60), "test")
    np.testing.assert_array_equal(again.values, splits[1].values)
    assert any(load_dataset(SMSSpam(40, 60, seed), "test").labels[0] for seed in range(20))


def test_digits_have_the_same_face(root):
    pytest.importorskip("sklearn")
    for dataset, digits in zip((load("DIGITS"), load("DIGITS", "test")), split_digits(), strict=True):
        np.testing.assert_array_equal(dataset.values.reshape(len(dataset), -1), digits.images)
        np.testing.assert_array_equal(dataset.labels, digits.labels)


def test_darcy_flow_is_computed_once_and_then_read(root):
    source = DarcyFlow(resolution=8, num_train=4, num_test=3)
    first = load_dataset(source, progress_bar=False)
    assert first.values.shape == (4, 8, 8, 1)
    assert first.values.max() == 1
    assert len(load_dataset(source, "test", progress_bar=False)) == 3
    files = {path: path.stat().st_mtime_ns for path in (root / "darcy_flow").iterdir()}
    np.testing.assert_array_equal(load_dataset(source, progress_bar=False).values, first.values)
    assert {path: path.stat().st_mtime_ns for path in (root / "darcy_flow").iterdir()} == files
    longer = load_dataset(DarcyFlow(resolution=8, num_train=6, num_test=3), progress_bar=False)
    np.testing.assert_allclose(longer.values[:4] * longer.unit, first.values * first.unit, rtol=1e-6)


def test_darcy_flow_does_without_a_folder_it_can_not_write(root, caplog):
    (root / "darcy_flow").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING, "kaem_ppl"):
        dataset = load_dataset(DarcyFlow(resolution=4, num_train=2, num_test=1), progress_bar=False)
    assert dataset.values.shape == (2, 4, 4, 1)
    assert "can't be written" in caplog.text
