"""Byte-pair encoding: the merges of the paper's example, and texts that come back unchanged."""

import re
from collections import Counter

import numpy as np
import pytest

from kaem_ppl.models import Vocabulary
from kaem_ppl.models.data.vocabulary import END, PADDING, UNKNOWN

TEXTS = ["low low low low low", "lower lower", "newest newest newest newest newest newest", "widest widest widest"]
HARD = ["", " ", "  two  spaces ", "tab\tand\nline", "aaaa aaa", "naïve £5 \u2028 ┾〨", "low lowest widest"]


def slow_merges(texts, num_merges):
    """Sennrich et al. 2016, algorithm 1: count all pairs anew before each merge."""
    words = Counter(word for text in texts for word in re.findall(r"\s?\S+|\s", text))
    parts = {word: tuple(word) for word in words}
    merges = []
    for _ in range(num_merges):
        counts = Counter()
        for word, number in words.items():
            for pair in zip(parts[word], parts[word][1:], strict=False):
                counts[pair] += number
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < 2:
            break
        merges.append(best)
        for word, old in parts.items():
            new, index = [], 0
            while index < len(old):
                step = 2 if old[index : index + 2] == best else 1
                new.append("".join(old[index : index + step]))
                index += step
            parts[word] = tuple(new)
    return tuple(merges), parts


@pytest.mark.parametrize("texts", [TEXTS, [*HARD, "banana banana bananas aaaaa aaaaa"]])
@pytest.mark.parametrize("num_merges", [1, 5, 1000])
def test_merges_are_those_of_the_algorithm(texts, num_merges):
    num_characters = len(set("".join(texts)))
    vocabulary = Vocabulary.learn(texts, 3 + num_characters + num_merges)
    merges, parts = slow_merges(texts, num_merges)
    assert vocabulary.merges == merges
    assert len(vocabulary) == 3 + num_characters + len(merges)
    # What was merged while learning is how a word is cut later.
    for word, split in parts.items():
        tokens = vocabulary.encode([word], len(word) + 1)[0]
        assert tuple(vocabulary.tokens[token] for token in tokens if token > UNKNOWN) == split


@pytest.mark.parametrize("size", [60, 80])
def test_texts_come_back(size):
    vocabulary = Vocabulary.learn([*TEXTS, *HARD], size)
    assert vocabulary.decode(vocabulary.encode(HARD, 40)) == HARD


def test_padding_ends_and_unknown_characters():
    vocabulary = Vocabulary.learn(["ab"], 5)
    assert vocabulary.tokens[3:] == ("a", "b")
    np.testing.assert_array_equal(
        vocabulary.encode(["ab", "abc", "abab", ""], 4),
        [[3, 4, END, PADDING], [3, 4, UNKNOWN, END], [3, 4, 3, 4], [END, PADDING, PADDING, PADDING]],
    )
    assert vocabulary.decode([[3, UNKNOWN, END, 4], [PADDING, 3, 3, 3]]) == ["a\N{REPLACEMENT CHARACTER}", ""]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Vocabulary.learn(["abc"], 5), "expected at least 6"),
        (lambda: Vocabulary.learn(["abc"], 6).encode(["a"], 0), "`length` is 0"),
        (lambda: Vocabulary.learn(["abc"], 6).decode([[6]]), "expected 0 to 5"),
    ],
)
def test_sizes_are_checked(call, message):
    with pytest.raises(ValueError, match=message):
        call()
