"""Every data set from small files in its official format, and every kind of damage to them."""

import gzip
import hashlib
import io
import logging
import struct
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from kaem_ppl.models import (
    DATASETS,
    CelebA,
    DarcyFlow,
    DataFileError,
    PennTreebank,
    SMSSpam,
    load_dataset,
    split_digits,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 10, 12)
COLOUR_IMAGES = RNG.integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
GREY_IMAGES = RNG.integers(0, 256, (12, 28, 28)).astype(np.uint8)
SENTENCES = ["the cat sat on the mat", "the dog sat on the cat", "a mat for a dog"]
MESSAGES = ["Free entry!\u2028Call now", "ok lar", "see you at the mat", "wot u doin", "no"]


def write_idx(path, array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def write_mnist(folder):
    for prefix in ("train", "t10k"):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", GREY_IMAGES)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", LABELS)


def write_cifar10(folder):
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = [bytes([y]) + x.transpose(2, 0, 1).tobytes() for x, y in zip(COLOUR_IMAGES, LABELS, strict=True)]
        (folder / name).write_bytes(b"".join(records))


def write_svhn(folder, **changes):
    for split in ("train", "test"):
        arrays = {"X": COLOUR_IMAGES.transpose(1, 2, 3, 0), "y": np.where(LABELS == 0, 10, LABELS)[:, None]}
        savemat(folder / f"{split}_32x32.mat", arrays | changes, do_compression=True)


def write_celeba(folder):
    from PIL import Image

    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for index in range(1, 7):
            jpeg = io.BytesIO()
            pixels = np.full((218, 178, 3), 30 * index, np.uint8)
            pixels[:20] = 255  # Above the central square.
            Image.fromarray(pixels).save(jpeg, "JPEG")
            archive.writestr(f"img_align_celeba/{index:06}.jpg", jpeg.getvalue())
    lines = "".join(f"{index:06}.jpg {(index - 1) // 2}\n" for index in range(1, 7))
    (folder / "list_eval_partition.txt").write_text(lines)


def write_penn_treebank(folder):
    for split in ("train", "valid", "test"):
        (folder / f"ptb.{split}.txt").write_text("".join(f" {sentence} \n" for sentence in SENTENCES))


def write_sms_spam(folder):
    lines = [f"{'spam' if index == 0 else 'ham'}\t{text}\n" for index, text in enumerate(MESSAGES)]
    (folder / "SMSSpamCollection").write_bytes("".join(lines).encode())


WRITERS = {
    "MNIST": write_mnist,
    "FASHION_MNIST": write_mnist,
    "CIFAR10": write_cifar10,
    "SVHN": write_svhn,
    "CELEBA": write_celeba,
    "PENN_TREEBANK": write_penn_treebank,
    "SMS_SPAM": write_sms_spam,
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("KAEM_DATA_DIR", str(tmp_path))
    return tmp_path


def written(root, name):
    folder = root / DATASETS[name].folder
    folder.mkdir()
    WRITERS[name](folder)
    return folder


def load(name, split="train"):
    return load_dataset(name, split, progress_bar=False)


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


def main_file(folder, name):
    return (
        folder
        / {
            "MNIST": "train-images-idx3-ubyte.gz",
            "FASHION_MNIST": "train-labels-idx1-ubyte.gz",
            "CIFAR10": "data_batch_1.bin",
            "SVHN": "train_32x32.mat",
            "CELEBA": "img_align_celeba.zip",
            "PENN_TREEBANK": "ptb.train.txt",
            "SMS_SPAM": "SMSSpamCollection",
        }[name]
    )


def refused(path, split="train", message=None, error=DataFileError):
    (name,) = (name for name in WRITERS if DATASETS[name].folder == path.parent.name)
    with pytest.raises(error, match=message) as caught:
        load(name, split)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kept", [0.999, 0.51, 0.01])
def test_a_truncated_file_is_refused(root, name, kept):
    path = main_file(written(root, name), name)
    content = path.read_bytes()
    path.write_bytes(content[: max(1, min(int(kept * len(content)), len(content) - 1))])
    refused(path)


@pytest.mark.parametrize("name", WRITERS)
def test_an_empty_file_is_refused(root, name):
    path = main_file(written(root, name), name)
    path.write_bytes(b"")
    refused(path, message="is empty")


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_another_format_is_refused(root, name):
    path = main_file(written(root, name), name)
    path.write_bytes(b"<!DOCTYPE html>\n<html>Not found\xff</html>\n")
    refused(path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_split_is_refused(root, name):
    path = main_file(written(root, name), name)
    path.unlink()
    refused(path, message="is missing", error=FileNotFoundError)


@pytest.mark.parametrize("name", [*WRITERS, "DIGITS", "DARCY_FLOW"])
def test_a_split_that_does_not_exist_is_refused(name):
    with pytest.raises(ValueError, match=r"`split` is 'validation': expected one of train, "):
        load_dataset(name, "validation")


def test_a_data_set_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"`source` is 'MINST': expected one of DIGITS, MNIST"):
        load_dataset("MINST")


@pytest.mark.parametrize("name", ["CIFAR10", "SVHN", "MNIST"])
def test_a_label_that_does_not_exist_is_refused(root, name):
    folder = written(root, name)
    path = main_file(folder, name)
    if name == "CIFAR10":
        content = bytearray(path.read_bytes())
        content[3073 * 4] = 11
        path.write_bytes(content)
    elif name == "SVHN":
        write_svhn(folder, y=np.where(LABELS == 0, 0, LABELS)[:, None])
    else:
        path = folder / "train-labels-idx1-ubyte.gz"
        write_idx(path, LABELS + 1)
    refused(path, message=r"label.* expected [01] to (9|10)\.")


def test_idx_headers_are_checked(root):
    folder = written(root, "MNIST")
    images, labels = folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte.gz"
    content = gzip.decompress(images.read_bytes())
    images.write_bytes(gzip.compress(b"\0\0\x0d\x03" + content[4:]))
    refused(images, message="magic number 0x00000d03 where .* has 0x00000803")
    images.write_bytes(gzip.compress(content[:10]))
    refused(images, message="header has 10 bytes of 16")
    images.write_bytes(gzip.compress(content[:-5]))
    refused(images, message="holds 9,403 bytes .* promises 9,408")
    write_idx(images, GREY_IMAGES[:, :20])
    refused(images, message=r"images of \(20, 28\) pixels")
    write_idx(images, GREY_IMAGES[:0])
    refused(images, message="no image")
    write_idx(images, GREY_IMAGES)
    write_idx(labels, LABELS[:5])
    refused(labels, message="5 labels for the 12 images")


def test_damage_inside_compressed_files_is_found(root):
    images = written(root, "MNIST") / "train-images-idx3-ubyte.gz"
    content = bytearray(images.read_bytes())
    content[len(content) // 2] ^= 0xFF
    images.write_bytes(content)
    refused(images, message="damaged")
    matlab = written(root, "SVHN") / "train_32x32.mat"
    content = bytearray(matlab.read_bytes())
    content[len(content) // 2] ^= 0xFF
    matlab.write_bytes(content)
    refused(matlab, message="damaged")


def test_arrays_of_svhn_are_checked(root):
    path = main_file(written(root, "SVHN"), "SVHN")
    write_svhn(path.parent, X=COLOUR_IMAGES)
    refused(path, message="array X of uint8 and shape")
    write_svhn(path.parent, y=LABELS[:5, None] + 1)
    refused(path, message="5 labels for 12 images")
    savemat(path, {"y": LABELS})
    refused(path, message="no array 'X'")


def test_photographs_that_are_missing_or_damaged_are_named(root):
    folder = written(root, "CELEBA")
    archive, partition = folder / "img_align_celeba.zip", folder / "list_eval_partition.txt"
    lines = partition.read_text()
    partition.write_text(lines + "000007.jpg 0\n")
    refused(archive, message=r"no img_align_celeba/000007.jpg")
    partition.write_text(lines + "000007.jpg 5\n")
    refused(partition, message="line 7")
    partition.write_text(lines.removesuffix("\n"))
    refused(partition, message="truncated")
    partition.write_text("000001.jpg 0\n")
    refused(partition, "test", message="names no image")
    partition.write_text(lines)
    with zipfile.ZipFile(archive, "w") as damaged:
        damaged.writestr("img_align_celeba/000001.jpg", b"\xff\xd8\xff\xe0 not a photograph")
    refused(archive, message=r"damaged img_align_celeba/000001.jpg")


def test_a_damaged_cache_is_refused(root):
    load_dataset(source := DarcyFlow(resolution=4, num_train=2, num_test=1), progress_bar=False)
    (path,) = (root / "darcy_flow").iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataFileError, match="Delete it") as caught:
        load_dataset(source, progress_bar=False)
    assert str(path) in str(caught.value)


def test_lines_of_messages_are_checked(root):
    path = main_file(written(root, "SMS_SPAM"), "SMS_SPAM")
    path.write_text("ham\tok\negg\tno\n")
    refused(path, message="line 2: expected 'ham' or 'spam'")
    path.write_text("ham\tok\n")
    refused(path, message="one message")
    path.write_bytes(b"ham\tok\nham\t\xff\n")
    refused(path, message="byte 11")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CelebA(size=0), "`size` is 0"),
        (lambda: DarcyFlow(num_test=0), "`num_test` 0"),
        (lambda: DarcyFlow(seed=-1), "`seed` is -1"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
