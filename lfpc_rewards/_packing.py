"""From nested Python lists to flat arrays: where most of the time of a reward goes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 512
"""Rows per step: their boxes and numbers, which lie scattered in memory, stay in the cache meanwhile."""


def starts_of(lengths: list[int]) -> NDArray[np.int64]:
    """Where each of several runs starts, and where the last one stops."""
    starts = np.empty(len(lengths) + 1, np.int64)
    starts[0] = 0
    starts[1:] = lengths
    return starts.cumsum()


def pack_rows(rows: Sequence[Sequence[Any]]) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """(4 * n,) coordinates of all boxes of all rows, and where each row's boxes start.

    None unless every box is four numbers, which is the usual case. `struct` reads Python
    numbers in a quarter of the time that `numpy.array` takes, and refuses text.
    """
    try:
        starts = starts_of(list(map(len, rows)))
        flat = np.empty(4 * starts[-1])
        memory = memoryview(flat)  # type: ignore[arg-type]  # numpy 1.26 does not say that arrays are buffers
        for first in range(0, len(rows), _CHUNK):
            boxes = list(chain.from_iterable(rows[first : first + _CHUNK]))
            if list(map(len, boxes)).count(4) != len(boxes):
                return None
            pack = struct.Struct(f"{4 * len(boxes)}d").pack_into
            pack(memory, 32 * int(starts[first]), *chain.from_iterable(boxes))
    except (TypeError, ValueError, OverflowError, struct.error):
        return None
    return None if bool in map(type, _suspects(rows, flat, starts)) else (flat, starts)


def _suspects(
    rows: Sequence[Sequence[Any]], flat: NDArray[np.float64], starts: NDArray[np.int64]
) -> Iterable[Any]:
    """The numbers that may have been True or False, which `struct` takes for 1 and 0."""
    if len(rows) == 1:
        return chain.from_iterable(rows[0])
    places = np.flatnonzero((flat == 0.0) | (flat == 1.0))
    owners = np.searchsorted(starts, places // 4, side="right") - 1
    within = places // 4 - starts[owners]
    return (
        list(rows[row][box])[k]
        for row, box, k in zip(owners.tolist(), within.tolist(), (places % 4).tolist(), strict=True)
    )
