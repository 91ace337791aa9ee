"""How alike two texts are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._jit import kernel
from lfpc_rewards._scan import _codes


def similarity(text: str, other: str) -> float:
    """Twice the length of the longest common subsequence over the sum of both lengths; 1 for two empty texts.

    `Levenshtein.ratio` and `rapidfuzz.fuzz.ratio` (over 100) are this number.
    """
    if not text or not other:
        return float(text == other)
    return (
        2.0
        * common_subsequence(*(_codes(each).astype(np.int64) for each in (text, other)))
        / (len(text) + len(other))
    )


@kernel
def common_subsequence(codes: NDArray[np.int64], others: NDArray[np.int64]) -> int:
    best = np.zeros(others.size + 1, np.int64)
    for code in codes:
        diagonal = 0
        for j in range(others.size):
            above = best[j + 1]
            best[j + 1] = diagonal + 1 if code == others[j] else max(above, best[j])
            diagonal = above
    return int(best[-1])
