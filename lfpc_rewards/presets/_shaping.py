"""What long and repetitive responses cost, as several frameworks have it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfpc_rewards._capi import HAS_GIL, clear_error, int_or_error, list_item, list_size, type_of
from lfpc_rewards._jit import object_kernel, part
from lfpc_rewards._packing import pack_ints
from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._texts import codes_of, lengths_of, readable

_MANY = 1 << 31
"""Tokens below this fit twice into one number of 62 bits."""

_LETTERS = np.array([ord(chr(code).lower()) for code in range(0x80)], np.uint8)
_LETTERS[0] = ord("A")  # which no letter becomes
_LETTERS[[code for code in range(0x80) if chr(code).isspace()]] = 0
"""What each ASCII character is in a word in lower case: 0 for white space."""

_ZERO = cast("int", np.int64(0))
"""Where 0 starts a variable that is an argument later: numba would compile once more for a literal."""

_FACTOR, _SIGN = np.uint64(0x9E3779B97F4A7C15), np.int64(-(2**63))


def as_lengths(lengths: ArrayLike) -> Scores:
    """(B,) lengths; a clear error for anything else."""
    packed = pack_ints(lengths)
    # To `pack_ints` True is 1.
    numbers = np.asarray(lengths) if packed is None or packed.max(initial=0) < 2 else packed
    if numbers.ndim != 1 or (numbers.size and (numbers.dtype.kind not in "iu" or numbers.min() < 0)):
        raise ValueError(f"lengths must be a list of numbers of tokens, got {lengths!r:.60}")
    return numbers.astype(np.float64)


def soft_overlong(lengths: Scores, longest: float, buffer: float) -> Scores:
    """(B,) 0 up to `buffer` before the longest, then falling to -1 at the longest; -1 beyond it."""
    free = longest - buffer
    if buffer <= 0:
        return np.where(lengths <= free, 0.0, -1.0)
    return np.minimum(np.maximum((free - lengths) / buffer, -1.0), 0.0)


def cosine_between(progress: Scores, at_start: NDArray[Any], at_end: NDArray[Any]) -> Scores:
    """(B,) half a cosine wave from one value at progress 0 to another at progress 1."""
    scaled: Scores = at_end + (at_start - at_end) * (1.0 + np.cos(np.pi * progress)) / 2.0
    return scaled


def repeated_share(tokens: Sequence[Sequence[int]], size: int) -> Scores:
    """(B,) the share of n-grams of tokens that repeat another; 0 where there are none."""
    rows: list[Sequence[int]] = list(tokens)
    different, lengths = np.zeros((2, len(rows)), np.int64)
    if not (HAS_GIL and count_ngrams(id(rows), id(list), _checked(size), different, lengths)):
        rows = _numbered(rows)
        count_ngrams(id(rows), id(list), _checked(size), different, lengths)
    return _share(different, lengths, size)


def _numbered(tokens: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """The same rows as lists, in which each token is a small number."""
    stops = lengths_of(tokens).cumsum()
    flat = np.fromiter(chain.from_iterable(tokens), np.int64, int(stops[-1]) if len(tokens) else 0)
    numbers = np.unique(flat, return_inverse=True)[1]
    return [row.tolist() for row in np.split(numbers, stops[:-1])]


def repeated_word_share(texts: Sequence[str], size: int) -> Scores:
    """(B,) the share of n-grams of words, in lower case, that repeat another; 0 where there are none."""
    own = readable(texts)
    different, lengths = np.zeros((2, len(own)), np.int64)
    count_word_ngrams(id(own), _checked(size), different, lengths)
    out = _share(different, lengths, size)
    if not all(map(str.isascii, texts)):
        odd = [row for row, text in enumerate(texts) if not text.isascii()]
        out[odd] = _repeated_odd_words([texts[row] for row in odd], size)
    return out


def _repeated_odd_words(texts: Sequence[str], size: int) -> Scores:
    """`repeated_word_share` for any characters, of which lower case and white space are Python's business."""
    words = [text.lower().split() for text in texts]
    numbers = {word: number for number, word in enumerate(set(chain.from_iterable(words)))}
    return repeated_share([[numbers[word] for word in row] for row in words], size)


def _checked(size: int) -> int:
    if size < 1:
        raise ValueError(f"ngram_size must be at least 1, got {size}")
    return size


def _share(different: NDArray[np.int64], lengths: NDArray[np.int64], size: int) -> Scores:
    total = np.maximum(lengths - size + 1, 0)
    return np.where(total > 0, 1.0 - different / np.maximum(total, 1), 0.0)


@object_kernel
def count_ngrams(
    rows: int, list_kind: int, size: int, different: NDArray[np.int64], lengths: NDArray[np.int64]
) -> bool:
    # Fills in how many different n-grams each list of tokens has, and how many tokens. False at the first row
    # that is no list and at the first token that is no int or not below `_MANY`.
    longest = 0
    for row in range(lengths.size):
        if type_of(list_item(rows, row)) != list_kind:
            return False
        lengths[row] = list_size(list_item(rows, row))
        longest = max(longest, lengths[row])
    tokens, table = np.empty(longest, np.int64), np.empty((2, slots_for(longest)), np.int64)
    for row in range(lengths.size):
        thing = list_item(rows, row)
        most = _ZERO
        for k in range(lengths[row]):
            token = int_or_error(list_item(thing, k))
            if token < 0 or token >= _MANY:
                clear_error()
                return False
            tokens[k] = token
            most = max(most, token)
        different[row] = different_in(tokens[: lengths[row]], size, most, table)
    return True


@object_kernel
def count_word_ngrams(
    texts: int, size: int, different: NDArray[np.int64], lengths: NDArray[np.int64]
) -> None:
    # The same of the words of texts of ASCII characters, in lower case.
    room = np.zeros(1, np.intp)
    longest = 0
    for row in range(lengths.size):
        longest = max(longest, codes_of(texts, row, room).size)
    most = longest // 2 + 2
    words, bounds = np.empty(most, np.int64), np.empty((most, 2), np.int64)
    table = np.empty((2, slots_for(most)), np.int64)
    for row in range(lengths.size):
        codes = codes_of(texts, row, room)
        count = read_words(codes, words, bounds)
        number_words(codes, words[:count], bounds, table)
        lengths[row] = count
        different[row] = different_in(words[:count], size, count, table)


@part
def read_words(codes: NDArray[np.uint8], words: NDArray[np.int64], bounds: NDArray[np.int64]) -> int:
    # Each word in lower case as a number, and where it stands. Up to eight characters the number is the word;
    # that of a longer one is negative, and others may share it. What may be a word is written at each blank:
    # a step without a choice is faster than one that is often skipped.
    count, first = 0, 0
    word = np.int64(0)
    for i in range(codes.size):
        letter = _LETTERS[codes[i]]
        if letter != 0:
            word = word << 8 | letter if i - first < 8 else 33 * word + letter
            continue
        words[count] = word if i - first <= 8 else word | _SIGN
        bounds[count, 0], bounds[count, 1] = first, i
        count += i > first
        first, word = i + 1, np.int64(0)
    words[count] = word if codes.size - first <= 8 else word | _SIGN
    bounds[count, 0], bounds[count, 1] = first, codes.size
    return count + (codes.size > first)


@part
def number_words(
    codes: NDArray[np.uint8], words: NDArray[np.int64], bounds: NDArray[np.int64], table: NDArray[np.int64]
) -> None:
    # Exchanges each word for the number of the first one that is the same.
    keys, firsts = table[0], table[1]
    slots = slots_for(words.size // 2)  # most words are said more than once
    shift = np.uint64(65 - bits_of(slots))
    keys[:slots] = 0
    for i in range(words.size):
        word = words[i]
        slot = slot_of(word, shift)
        while keys[slot] != 0:
            j = firsts[slot]
            if keys[slot] == word and (word > 0 or same_word(codes, bounds[i], bounds[j])):
                break
            slot = (slot + 1) & (slots - 1)
        if keys[slot] == 0:
            keys[slot], firsts[slot] = word, i
        words[i] = firsts[slot]


@part
def same_word(codes: NDArray[np.uint8], one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    if one[1] - one[0] != other[1] - other[0]:
        return False
    for k in range(one[1] - one[0]):  # noqa: SIM110 - `all` with a generator does not compile
        if _LETTERS[codes[one[0] + k]] != _LETTERS[codes[other[0] + k]]:
            return False
    return True


@part
def different_in(tokens: NDArray[np.int64], size: int, most: int, table: NDArray[np.int64]) -> int:
    # How many different n-grams of tokens from 0 to `most` there are. The tokens do not survive.
    if size > tokens.size:
        return 0
    while size * bits_of(most) > 62:
        # Too long for one number: with the longest runs that are not as tokens, n-grams are shorter.
        run = 62 // bits_of(most)
        count_runs(tokens, run, bits_of(most), table, True)
        tokens, size = tokens[: tokens.size - run + 1], size - run + 1
        most = tokens.size
    return count_runs(tokens, size, bits_of(most), table, False)


@part
def count_runs(
    tokens: NDArray[np.int64], size: int, bits: int, table: NDArray[np.int64], renumber: bool
) -> int:
    # How many different runs of `size` tokens of so many bits there are, each as one number. `renumber`:
    # exchanges the token at which a run begins for the number of that run.
    keys, numbers = table[0], table[1]
    slots = slots_for(tokens.size)
    shift = np.uint64(65 - bits_of(slots))
    keys[:slots] = -1
    count, run = 0, np.int64(0)
    last = (np.int64(1) << (size * bits)) - 1
    for i in range(size - 1):
        run = run << bits | tokens[i]
    for i in range(size - 1, tokens.size):
        run = (run << bits | tokens[i]) & last
        slot = slot_of(run, shift)
        while keys[slot] != run:
            if keys[slot] < 0:
                keys[slot] = run
                if renumber:
                    numbers[slot] = count
                count += 1
                break
            slot = (slot + 1) & (slots - 1)
        if renumber:
            tokens[i - size + 1] = numbers[slot]
    return count


@part
def slots_for(count: int) -> int:
    # A power of two, of which so many keys take a quarter at most: fewer meet.
    return 1 << bits_of(4 * count)


@part
def slot_of(key: int, shift: Any) -> Any:
    return np.int64(np.uint64(key) * _FACTOR >> shift)


@part
def bits_of(number: int) -> int:
    bits = 1
    while number >> bits > 0:
        bits += 1
    return bits
