"""Penalties for long and repetitive responses, shared by several frameworks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfpc_rewards._typing import Scores


def as_lengths(lengths: ArrayLike) -> Scores:
    """Check lengths and return them as (B,) float64."""
    numbers = np.asarray(lengths)
    if numbers.ndim != 1 or (numbers.size and (numbers.dtype.kind not in "iu" or numbers.min() < 0)):
        raise ValueError(f"lengths must be a list of token counts, got {lengths!r:.60}")
    return numbers.astype(np.float64)


def soft_overlong(lengths: Scores, longest: float, buffer: float) -> Scores:
    """Return the (B,) penalty: 0 up to `longest - buffer`, then down to -1 at `longest`; -1 beyond it."""
    free = longest - buffer
    if buffer <= 0:
        return np.where(lengths <= free, 0.0, -1.0)
    return np.minimum(np.maximum((free - lengths) / buffer, -1.0), 0.0)


def cosine_between(progress: Scores, at_start: NDArray[Any], at_end: NDArray[Any]) -> Scores:
    """Interpolate (B,) with half a cosine wave from one value at progress 0 to another at progress 1."""
    scaled: Scores = at_end + (at_start - at_end) * (1.0 + np.cos(np.pi * progress)) / 2.0
    return scaled


def repeated_share(rows: Sequence[Sequence[Any]], size: int) -> Scores:
    """Return the (B,) share of n-grams of tokens or words that repeat another; 0 where there are none."""
    if size < 1:
        raise ValueError(f"ngram_size must be at least 1, got {size}")
    distinct = [len(set(zip(*(row[start:] for start in range(size)), strict=False))) for row in rows]
    total = np.array([max(len(row) - size + 1, 0) for row in rows], np.int64)
    return np.where(total > 0, 1.0 - np.array(distinct, np.int64) / np.maximum(total, 1), 0.0)


def repeated_word_share(texts: Sequence[str], size: int) -> Scores:
    """Return the (B,) `repeated_share` of the lower-case words of texts."""
    return repeated_share([text.lower().split() for text in texts], size)
