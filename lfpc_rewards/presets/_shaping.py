"""What long and repetitive responses cost, as several frameworks have it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfpc_rewards._jit import kernel, object_kernel, part
from lfpc_rewards._scan import is_space
from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._texts import codes_of, lengths_of, readable


def as_lengths(lengths: ArrayLike) -> Scores:
    """(B,) lengths; a clear error for anything else."""
    numbers = np.asarray(lengths)
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
    lengths = lengths_of(tokens)
    codes = np.fromiter(chain.from_iterable(tokens), np.int64, int(lengths.sum()))
    return _share(count_ngrams(codes, lengths, _checked(size)), lengths, size)


def repeated_word_share(texts: Sequence[str], size: int) -> Scores:
    """(B,) the share of n-grams of words, in lower case, that repeat another; 0 where there are none."""
    plain = np.fromiter(map(str.isascii, texts), np.bool_, len(texts))
    out = np.zeros(len(texts))
    out[~plain] = _repeated_odd_words([text for text in texts if not text.isascii()], _checked(size))
    own = readable([text for text in texts if text.isascii()])
    different, lengths = np.zeros((2, len(own)), np.int64)
    count_word_ngrams(id(own), size, different, lengths)
    out[plain] = _share(different, lengths, size)
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


@kernel
def count_ngrams(tokens: NDArray[np.int64], lengths: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    # How many different n-grams each row has.
    out = np.zeros(lengths.size, np.int64)
    seen = np.empty(slots_for(lengths.max() if lengths.size else 0), np.int64)
    nowhere, no_text = np.empty((0, 2), np.int64), np.empty(0, np.uint8)
    stop = 0
    for row in range(lengths.size):
        start, stop = stop, stop + lengths[row]
        out[row] = different_in(tokens[start:stop], size, seen, nowhere, no_text)
    return out


@object_kernel
def count_word_ngrams(
    texts: int, size: int, different: NDArray[np.int64], lengths: NDArray[np.int64]
) -> None:
    # The same of the words of texts of ASCII characters, in lower case; fills in how many words each has.
    room = np.zeros(1, np.intp)
    longest = 0
    for row in range(lengths.size):
        longest = max(longest, codes_of(texts, row, room).size)
    most = longest // 2 + 1
    hashes, bounds = np.empty(most, np.uint64), np.empty((most, 2), np.int64)
    seen = np.empty(slots_for(most), np.int64)
    for row in range(lengths.size):
        codes = codes_of(texts, row, room)
        count, i = 0, 0
        while i < codes.size:
            if is_space(codes[i]):
                i += 1
                continue
            bounds[count, 0] = i
            code = np.uint64(0)
            while i < codes.size and not is_space(codes[i]):
                code = code * np.uint64(33) + np.uint64(lower(codes[i]))
                i += 1
            hashes[count], bounds[count, 1] = code, i
            count += 1
        lengths[row] = count
        different[row] = different_in(hashes[:count], size, seen, bounds, codes)


@part
def slots_for(count: int) -> int:
    slots = 16
    while slots < 2 * count:
        slots *= 2
    return slots


@part
def different_in(
    tokens: NDArray[Any],
    size: int,
    seen: NDArray[np.int64],
    bounds: NDArray[np.int64],
    codes: NDArray[np.uint8],
) -> int:
    # How many different n-grams there are, by a table of where each was seen first. N-grams that look alike
    # to the hash are compared, and so are words (those with `bounds` in a text), so that the count is exact.
    slots = slots_for(tokens.size)
    seen[:slots] = -1
    count = 0
    for i in range(tokens.size - size + 1):
        code = np.uint64(0)
        for k in range(size):
            code = (code ^ np.uint64(tokens[i + k])) * np.uint64(0x9E3779B97F4A7C15)
            code ^= code >> np.uint64(29)
        slot = np.int64(code & np.uint64(slots - 1))
        while seen[slot] >= 0:
            k = 0
            while k < size and tokens[seen[slot] + k] == tokens[i + k]:
                if bounds.size and not same_word(codes, bounds[seen[slot] + k], bounds[i + k]):
                    break
                k += 1
            if k == size:
                break
            slot = (slot + 1) & (slots - 1)
        if seen[slot] < 0:
            seen[slot] = i
            count += 1
    return count


@part
def same_word(codes: NDArray[np.uint8], one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    if one[1] - one[0] != other[1] - other[0]:
        return False
    for k in range(one[1] - one[0]):  # noqa: SIM110 - `all` with a generator does not compile
        if lower(codes[one[0] + k]) != lower(codes[other[0] + k]):
            return False
    return True


@part
def lower(code: int) -> int:
    return code | 0x20 if 0x41 <= code <= 0x5A else code
