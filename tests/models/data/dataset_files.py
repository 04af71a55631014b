"""Small files in the official formats of the data sets, written for tests."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from kaem_ppl.models import (
    DATASETS,
    DataFileError,
    load_dataset,
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


def written(root, name):
    folder = root / DATASETS[name].folder
    folder.mkdir()
    WRITERS[name](folder)
    return folder


def load(name, split="train"):
    return load_dataset(name, split, progress_bar=False)


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
