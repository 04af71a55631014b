"""Byte-pair encoding: a vocabulary learnt from texts, and texts as sequences of its tokens."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

PADDING, END, UNKNOWN = range(3)
# Kept apart from what a text may hold; an unknown character is printed as Unicode's replacement character.
_SPECIAL = ("", "", "\N{REPLACEMENT CHARACTER}")
# A word takes the white space before it along, so that tokens put one after another are the text again.
_WORD = re.compile(r"\s?\S+|\s")


@dataclass(frozen=True)
class Vocabulary:
    """Tokens, and how a text is split into them.

    Token 0 pads, 1 ends a text, and 2 is a character that was not seen when the vocabulary was learnt.

    Attributes:
        tokens: the string of each token.
        merges: pairs of strings that became one, in the order in which they are merged.

    Source: Sennrich, Haddow and Birch 2016, arXiv 1508.07909, algorithm 1.

    Example:
        >>> from kaem_ppl.models import Vocabulary
        >>> texts = ["the cat sat", "the cat ran", "the dog ran"]
        >>> vocabulary = Vocabulary.learn(texts, 24)
        >>> tokens = vocabulary.encode(texts, length=12)
        >>> tokens.shape, vocabulary.decode(tokens)[0]
        ((3, 12), 'the cat sat')
    """

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]

    @classmethod
    def learn(cls, texts: Iterable[str], vocabulary_size: int) -> "Vocabulary":
        """Start from characters and merge the most frequent pair of neighbours inside words, again and again.

        Args:
            texts: what to learn from.
            vocabulary_size: number of tokens at most; fewer where no pair occurs twice.

        Raises:
            ValueError: `vocabulary_size` is less than the number of characters. Every character must be a token.
        """
        words = Counter(word for text in texts for word in _WORD.findall(text))
        characters = sorted({character for word in words for character in word})
        if vocabulary_size < len(_SPECIAL) + len(characters):
            raise ValueError(
                f"`vocabulary_size` is {vocabulary_size}, but {len(characters)} characters occur in the texts: expected at "
                f"least {len(_SPECIAL) + len(characters)}, with padding, end and unknown."
            )
        merges = tuple(_learn_merges(words, vocabulary_size - len(_SPECIAL) - len(characters)))
        return cls((*_SPECIAL, *characters, *(left + right for left, right in merges)), merges)

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Tokens of each text, its end, and padding.

        Args:
            texts: the texts.
            length: tokens of each row. A longer text is cut, and has no end.

        Returns:
            Tokens, int32, shape (num_texts, length).

        Raises:
            ValueError: `length` is not positive.
        """
        if length < 1:
            raise ValueError(f"`length` is {length}: expected at least 1.")
        rows = np.full((len(texts), length), PADDING, np.int32)
        of_word: dict[str, list[int]] = {}
        for row, text in zip(rows, texts, strict=True):
            tokens: list[int] = []
            for word in _WORD.findall(text):
                if word not in of_word:
                    of_word[word] = [self._index.get(part, UNKNOWN) for part in self._split(word)]
                tokens += of_word[word]
            tokens = [*tokens, END][:length]
            row[: len(tokens)] = tokens
        return rows

    def decode(self, tokens: Iterable[Iterable[int]]) -> list[str]:
        """The text of each row of tokens, up to its end or padding.

        Raises:
            ValueError: a token is not in the vocabulary.
        """
        rows = np.asarray(tokens)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise ValueError(f"`tokens` holds {rows.min()} to {rows.max()}: expected 0 to {len(self) - 1}.")
        texts = []
        for row in rows:
            stop = np.flatnonzero(row <= END)
            texts.append("".join(self.tokens[token] for token in row[: stop[0] if len(stop) else None]))
        return texts

    @cached_property
    def _index(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens) if index >= len(_SPECIAL)}

    @cached_property
    def _rank(self) -> dict[tuple[str, str], int]:
        return {pair: rank for rank, pair in enumerate(self.merges)}

    def _split(self, word: str) -> list[str]:
        parts = list(word)
        while len(parts) > 1:
            pair = min(pairwise(parts), key=lambda pair: self._rank.get(pair, len(self._rank)))
            if pair not in self._rank:
                break
            parts = _merge(parts, pair)
        return parts


def _learn_merges(words: Counter[str], num_merges: int) -> Iterator[tuple[str, str]]:
    """Pairs to merge, the most frequent first, of equals the first in the alphabet; counts follow each merge."""
    parts = {word: list(word) for word in words}
    counts: Counter[tuple[str, str]] = Counter()
    words_with: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for word, number in words.items():
        for pair in pairwise(parts[word]):
            counts[pair] += number
            words_with[pair].add(word)
    for _ in range(num_merges):
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            return
        yield best
        for word in words_with.pop(best):
            for pair in pairwise(parts[word]):
                counts[pair] -= words[word]
            parts[word] = _merge(parts[word], best)
            for pair in pairwise(parts[word]):
                counts[pair] += words[word]
                words_with[pair].add(word)
        del counts[best]


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        # A part that was just merged is longer than the pair's first half, so it is not merged twice.
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged
