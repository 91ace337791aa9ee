"""Similarity of two texts."""

from __future__ import annotations


def similarity(text: str, other: str) -> float:
    """Return 2 x longest common subsequence / sum of both lengths; 1 for two empty texts.

    Equal to `Levenshtein.ratio` and `rapidfuzz.fuzz.ratio` / 100. Bit-parallel, one bit per character of
    `text` (Hyyrö 2004): a bit is 0 where the subsequence grows.
    """
    if not text or not other:
        return float(text == other)
    masks: dict[str, int] = {}
    for index, sign in enumerate(text):
        masks[sign] = masks.get(sign, 0) | 1 << index
    full = (1 << len(text)) - 1
    row = full
    for sign in other:
        same = row & masks.get(sign, 0)
        row = (row + same | row - same) & full
    return 2.0 * (len(text) - row.bit_count()) / (len(text) + len(other))
