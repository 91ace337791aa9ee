"""What long and repetitive responses cost, as several frameworks have it: lengths and tokens, no texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfpc_rewards._jit import kernel
from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._texts import lengths_of


def as_lengths(lengths: ArrayLike) -> Scores:
    """(B,) lengths; a clear error for anything else."""
    numbers = np.asarray(lengths)
    if numbers.ndim != 1 or (numbers.size and (numbers.dtype.kind not in "iu" or numbers.min() < 0)):
        raise ValueError(f"lengths must be a list of numbers of tokens, got {lengths!r:.60}")
    return numbers.astype(np.float64)


def soft_overlong(lengths: Scores, longest: float, buffer: float) -> Scores:
    """(B,) 0 up to `buffer` before the longest, then falling to -1 at the longest; -1 beyond it."""
    free = longest - buffer
    with np.errstate(divide="ignore", invalid="ignore"):
        falling = (free - lengths) / buffer
    return np.where(lengths <= free, 0.0, np.where(lengths <= longest, falling, -1.0))


def cosine_between(progress: Scores, at_start: NDArray[Any], at_end: NDArray[Any]) -> Scores:
    """(B,) half a cosine wave from one value at progress 0 to another at progress 1."""
    scaled: Scores = at_end + (at_start - at_end) * (1.0 + np.cos(np.pi * progress)) / 2.0
    return scaled


def repeated_share(tokens: Sequence[Sequence[Any]], size: int) -> Scores:
    """(B,) the share of n-grams, of numbers or of words, that repeat another; 0 where there are none."""
    if size < 1:
        raise ValueError(f"ngram_size must be at least 1, got {size}")
    lengths = lengths_of(tokens)
    flat: Iterable[Any] = chain.from_iterable(tokens)
    if lengths.size and isinstance(next(chain.from_iterable(tokens), 0), str):
        words = list(flat)
        numbers = dict(zip(set(words), range(len(words)), strict=False))
        flat = map(numbers.__getitem__, words)
    codes = np.fromiter(flat, np.int64, int(lengths.sum()))
    different = count_ngrams(codes, lengths, size)
    total = np.maximum(lengths - size + 1, 0)
    return np.where(total > 0, 1.0 - different / np.maximum(total, 1), 0.0)


@kernel
def count_ngrams(tokens: NDArray[np.int64], lengths: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    # How many different n-grams each text has, by a table of where each was seen first. Texts that look
    # alike to the hash are compared, so that the count is exact.
    out = np.zeros(lengths.size, np.int64)
    stop = 0
    for row in range(lengths.size):
        start, stop = stop, stop + lengths[row]
        last = stop - size
        slots = 16
        while slots < 2 * (last - start + 1):
            slots *= 2
        seen = np.full(slots, -1, np.int64)
        for i in range(start, last + 1):
            code = np.uint64(0)
            for k in range(size):
                code = (code ^ np.uint64(tokens[i + k])) * np.uint64(0x9E3779B97F4A7C15)
                code ^= code >> np.uint64(29)
            slot = np.int64(code & np.uint64(slots - 1))
            while seen[slot] >= 0:
                k = 0
                while k < size and tokens[seen[slot] + k] == tokens[i + k]:
                    k += 1
                if k == size:
                    break
                slot = (slot + 1) & (slots - 1)
            if seen[slot] < 0:
                seen[slot] = i
                out[row] += 1
    return out
