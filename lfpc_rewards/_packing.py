"""From nested Python lists to flat arrays, which takes most of the time of a reward.

A compiled function reads the usual boxes, lists or tuples of four floats or ints; Python reads all others,
and everything where it runs without the GIL.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._capi import (
    HAS_GIL,
    float_value,
    int_value,
    is_subtype,
    list_item,
    list_size,
    tuple_item,
    tuple_size,
    type_of,
)
from lfpc_rewards._jit import object_kernel, part

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_LIST, _TUPLE, _FLOAT, _INT = range(4)
KINDS = np.array([id(list), id(tuple), id(float), id(int)], np.intp)
Box: TypeAlias = tuple[float, float, float, float]
NO_BOX: Box = (math.nan, math.nan, math.nan, math.nan)


class Packed:
    """Arrays about many rows, checked once and read-only from then on, also after a copy or a pickle."""

    __slots__: tuple[str, ...] = ()

    def _freeze(self) -> None:
        for name in self.__slots__:
            getattr(self, name).flags.writeable = False

    def __setstate__(self, state: tuple[None, dict[str, NDArray[Any]]]) -> None:
        """Restore from a pickle, which makes the arrays writeable: freeze them again."""
        for name, value in state[1].items():
            setattr(self, name, value)
        self._freeze()


def chosen_rows(rows: int, indices: int | slice | Sequence[int] | NDArray[Any]) -> I64:
    """The numbers of the rows that an index into so many selects."""
    chosen = indices if isinstance(indices, slice) else np.asarray(indices)
    if isinstance(chosen, np.ndarray) and chosen.size == 0:
        chosen = chosen.astype(np.int64)  # numpy reads an empty list as floats
    return np.atleast_1d(np.arange(rows)[chosen])


def starts_of(lengths: Sequence[int] | NDArray[Any]) -> I64:
    """Where each of several runs starts, and where the last one stops."""
    starts = np.empty(len(lengths) + 1, np.int64)
    starts[0] = 0
    starts[1:] = lengths
    return starts.cumsum()


def four_numbers(box: Any) -> Box:
    """The box, or four NaN for anything that is not four numbers."""
    try:
        if isinstance(box, str) or len(box) != 4:
            return NO_BOX
        numbers = box.tolist() if isinstance(box, np.ndarray) else box
        x0, y0, x1, y1 = (math.nan if isinstance(n, bool | str) else float(n) for n in numbers)
        return x0, y0, x1, y1
    except (TypeError, ValueError, OverflowError):
        return NO_BOX


def pack_rows(
    rows: Sequence[Any], numbers_of: Callable[[Any], tuple[float, ...] | None]
) -> tuple[F64, I64] | None:
    """(4 * n,) coordinates of all boxes of all rows, and where each row's boxes start.

    `numbers_of` reads boxes that are not lists of four plain numbers. Returns None if it gives None, or if a
    row is neither a list nor a tuple.
    """
    rows = rows if type(rows) is list else list(rows)
    read = pack_lists(id(rows), KINDS) if HAS_GIL else _unread(rows)
    if read is None:
        return None
    flat, starts, odd = read
    if odd.size:
        owners = np.searchsorted(starts, odd, side="right") - 1
        within = odd - starts[owners]
        boxes = [rows[row][box] for row, box in zip(owners.tolist(), within.tolist(), strict=True)]
        numbers = list(map(numbers_of, boxes))
        if None in numbers:
            return None
        flat.reshape(-1, 4)[odd] = numbers
    return flat, starts


def _unread(rows: list[Any]) -> tuple[F64, I64, I64] | None:
    """As `pack_lists`, but every box is left to Python."""
    if not set(map(type, rows)) <= {list, tuple}:
        return None
    starts = starts_of(list(map(len, rows)))
    return np.empty(4 * starts[-1]), starts, np.arange(starts[-1])


@object_kernel
def pack_lists(rows: int, kinds: NDArray[np.intp]) -> tuple[F64, I64, I64] | None:
    # (coordinates of all boxes, where each row starts, which boxes were not read); None if a row is
    # neither a list nor a tuple.
    count = list_size(rows)
    starts = np.empty(count + 1, np.int64)
    starts[0] = 0
    for i in range(count):
        size = size_of(list_item(rows, i), kinds)
        if size < 0:
            return None
        starts[i + 1] = starts[i] + size
    flat = np.empty(4 * starts[count])
    odd = np.empty(starts[count], np.int64)
    odds = 0
    overflow = np.zeros(1, np.int32)
    for i in range(count):
        row = list_item(rows, i)
        for k in range(starts[i], starts[i + 1]):
            if not read_box(item_of(row, k - starts[i], kinds), kinds, flat[4 * k : 4 * k + 4], overflow):
                odd[odds] = k
                odds += 1
    return flat, starts, odd[:odds]


@part
def size_of(thing: int, kinds: NDArray[np.intp]) -> int:
    # -1 for anything but a list or tuple.
    kind = type_of(thing)
    if kind == kinds[_LIST]:
        return list_size(thing)
    return tuple_size(thing) if kind == kinds[_TUPLE] else -1


@part
def item_of(thing: int, i: int, kinds: NDArray[np.intp]) -> int:
    # Of a list or tuple that is longer than i.
    return list_item(thing, i) if type_of(thing) == kinds[_LIST] else tuple_item(thing, i)


@part
def read_box(box: int, kinds: NDArray[np.intp], out: F64, overflow: NDArray[np.int32]) -> bool:
    if size_of(box, kinds) != 4:
        return False
    listed = type_of(box) == kinds[_LIST]
    for k in range(4):
        number = list_item(box, k) if listed else tuple_item(box, k)
        kind = type_of(number)
        if kind == kinds[_INT]:  # but no subclass: True is not a number here
            out[k] = int_value(number, overflow.ctypes.data)
            if overflow[0] != 0:
                return False
        elif kind == kinds[_FLOAT] or is_subtype(kind, kinds[_FLOAT]):  # such as numpy.float64
            out[k] = float_value(number)
        else:
            return False
    return True
