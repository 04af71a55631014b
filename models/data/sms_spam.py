"""SMS Spam Collection: text messages with labels, spam or not."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset import Dataset
from .fetch import DataFile, DataFileError, Download, find_files
from .text_file import read_lines
from .vocabulary import Vocabulary

_FILE = DataFile("SMSSpamCollection", "1949b64a224790d01335c2bf8a0e48b2")
_LABELS = ("ham", "spam")
TEST_FRACTION = 0.2


@dataclass(frozen=True)
class SMSSpam:
    """5,574 messages, one in five, drawn at random, to test on; there is no official split. Label 1 is spam.

    Attributes:
        length: tokens of a message; longer ones are cut.
        vocabulary_size: number of tokens, learnt from the messages to train on.
        seed: of the split.

    Source: Almeida, Gomez Hidalgo and Yamakami, Contributions to the study of SMS spam filtering, DocEng 2011.

    Example:
        >>> from kaem_ppl.models import SMSSpam, load_dataset
        >>> SMSSpam(length=50)
        SMSSpam(length=50, vocabulary_size=500, seed=0)
        >>> load_dataset(SMSSpam(length=50)).values.shape  # doctest: +SKIP
        (4459, 50)
    """

    length: int = 500
    vocabulary_size: int = 500
    seed: int = 0

    folder = "sms_spam"
    splits = ("train", "test")

    def downloads(self) -> tuple[Download, ...]:
        """One archive, whose checksum is not published; that of the file in it is known."""
        url = "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip"
        return (Download(url, (_FILE,), members=(_FILE.name,)),)

    def load(self, root: Path, split: str, progress_bar: bool) -> Dataset:
        """Read a split; the vocabulary is that of the messages to train on."""
        (path,) = find_files(root / self.folder, (_FILE,))
        texts, labels = read_messages(path)
        order = np.random.default_rng(self.seed).permutation(len(texts))
        test, train = np.split(order, [round(TEST_FRACTION * len(texts))])
        vocabulary = Vocabulary.learn([texts[row] for row in train], self.vocabulary_size)
        rows = {"train": train, "test": test}[split]
        tokens = vocabulary.encode([texts[row] for row in rows], self.length)
        return Dataset(tokens, labels[rows], vocabulary)


def read_messages(path: Path) -> tuple[list[str], np.ndarray]:
    """Messages, and 1 for spam, from lines `ham<TAB>text` and `spam<TAB>text`.

    Raises:
        DataFileError: a line is something else, or there are fewer than two.
    """
    texts, labels = [], []
    for number, line in enumerate(read_lines(path), 1):
        label, tab, text = line.partition("\t")
        if not tab or label not in _LABELS:
            raise DataFileError(
                f"{path} has {line[:40]!r} in line {number}: expected 'ham' or 'spam', a tab and the message."
            )
        texts.append(text)
        labels.append(_LABELS.index(label))
    if len(texts) < 2:
        raise DataFileError(f"{path} has one message: expected enough for two splits.")
    return texts, np.array(labels)
