"""How alike two texts are."""

from __future__ import annotations


def similarity(text: str, other: str) -> float:
    """Twice the length of the longest common subsequence over the sum of both lengths; 1 for two empty texts.

    `Levenshtein.ratio` and `rapidfuzz.fuzz.ratio` (over 100) are this number. One bit per character of `text`
    (Hyyrö 2004): a bit is 0 where the subsequence grows.
    """
    if not text or not other:
        return float(text == other)
    where: dict[str, int] = {}
    for place, sign in enumerate(text):
        where[sign] = where.get(sign, 0) | 1 << place
    full = (1 << len(text)) - 1
    row = full
    for sign in other:
        same = row & where.get(sign, 0)
        row = (row + same | row - same) & full
    return 2.0 * (len(text) - row.bit_count()) / (len(text) + len(other))
