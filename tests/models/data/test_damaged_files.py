"""Truncated, empty, damaged and misplaced files of every data set are refused, by name."""

import gzip
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from kaem_ppl.models import (
    CelebA,
    DarcyFlow,
    DataFileError,
    load_dataset,
)

from .dataset_files import (
    COLOUR_IMAGES,
    GREY_IMAGES,
    LABELS,
    WRITERS,
    main_file,
    refused,
    write_idx,
    write_svhn,
    written,
)


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
        (lambda: CelebA(size=0), "`size`"),
        (lambda: DarcyFlow(num_test=0), "`num_test`"),
        (lambda: DarcyFlow(seed=-1), "`seed`"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
