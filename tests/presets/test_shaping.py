"""Repetition: the share of n-grams of tokens and words of any kind that repeat another."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lfpc_rewards.presets._shaping import repeated_share, repeated_word_share

few = st.lists(st.integers(0, 2), max_size=40)
odd = st.lists(st.sampled_from([0, 1, -1, True, 2**30, 2**31 - 1, 2**31, 2**62, -(2**63)]), max_size=12)
vocabulary = st.lists(st.integers(0, 200_000), max_size=12)
rows = st.lists(st.one_of(few, few.map(tuple), odd, vocabulary), max_size=4)

WORDS = ["a", "A", "b", "The", "the", "eight888", "EIGHT888", "a\0", "\0", "\0a", "é", "É", "İ", "ß", "\x7f"]
WORDS += ["nine99999", "Nine99999", "nine9999x", "long" * 5, "LONG" * 5, "l0ng" * 5]
BLANKS = ["", " ", " ", " ", "\n\t", "\x0b\x0c\r", "\x1c\x1f", "\u3000"]
pieces = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(BLANKS)).map("".join), max_size=30)


def share(things, size):
    ngrams = [tuple(things[start : start + size]) for start in range(len(things) - size + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


@example([[], [5] * 80, [5, 6] * 40], 30)
@example([[2**62, 5] * 2], 2)
@given(rows, st.integers(1, 12))
def test_ngrams_of_tokens_are_counted_as_tuples_are(tokens, size):
    assert repeated_share(tokens, size).tolist() == [share(row, size) for row in tokens]


@example(["one two " * 99, " x " * 99 + "two"], 20)
@given(st.lists(pieces.map("".join), max_size=4), st.integers(1, 12))
def test_ngrams_of_words_are_counted_as_tuples_are(texts, size):
    assert repeated_word_share(texts, size).tolist() == [share(text.lower().split(), size) for text in texts]


def test_long_runs_of_many_words_are_counted():
    dice = np.random.default_rng(0)
    words = dice.integers(0, 30, 700).tolist()
    for size in (1, 2, 3, 5, 8, 200):
        assert repeated_share([words + words], size).tolist() == [share(words + words, size)]
        assert repeated_word_share([" ".join(map(str, words + words))], size) == share(words + words, size)


@pytest.mark.parametrize(
    "rows", [[np.arange(4) % 2], [list(np.arange(4) % 2)], [(0, 1, 0, 1)], [[0, 1, 0, True]]]
)
def test_tokens_may_come_in_any_list(rows):
    assert repeated_share(rows, 2).tolist() == [share([0, 1, 0, 1], 2)]
