"""What can be asked of the things in a list without a look inside them: kinds, sizes, which are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._capi import HAS_GIL, list_item, list_size, type_of
from lfpc_rewards._jit import object_kernel
from lfpc_rewards._packing import KINDS, item_of, size_of
from lfpc_rewards._vectors import prefetch

I64: TypeAlias = NDArray[np.int64]


def held(things: Sequence[Any]) -> list[Any]:
    """The same as a list that stays as it is while a kernel reads it."""
    return things if type(things) is list and HAS_GIL else list(things)


def only_texts(things: Sequence[Any]) -> bool:
    """Whether all of them are strings, and of no subclass."""
    if type(things) is list and HAS_GIL:
        return all_of_type(id(things), id(str))
    return set(map(type, things)) <= {str}


def only_lists(things: Sequence[Any]) -> bool:
    """Whether all of them are lists or tuples, and of no subclass."""
    if type(things) is list and HAS_GIL:
        return all_are_lists(id(things), KINDS)
    return set(map(type, things)) <= {list, tuple}


def distinct(things: Sequence[Any]) -> tuple[I64, list[Any]]:
    """(B,) which of the objects each thing is, and the objects, each once. Equal ones may be several."""
    listed = held(things)
    numbers = np.empty(len(listed), np.int64)
    table = np.full(4 << len(listed).bit_length(), -1)
    firsts = np.empty(len(listed), np.int64)
    count = number_objects(id(listed), table, numbers, firsts)
    return numbers, [listed[place] for place in firsts[:count].tolist()]


@object_kernel
def all_of_type(things: int, kind: int) -> bool:
    # The first look at each thing is at memory that may be in no cache.
    count = list_size(things)
    for i in range(count):
        prefetch(list_item(things, min(i + 16, count - 1)))
        if type_of(list_item(things, i)) != kind:
            return False
    return True


@object_kernel
def number_objects(things: int, table: I64, numbers: I64, firsts: I64) -> int:
    # A hash table of addresses; `firsts` becomes where each object stands first.
    count, last = 0, table.size - 1
    for i in range(numbers.size):
        thing = list_item(things, i)
        slot = ((thing >> 4) * 0x9E3779B1 >> 16) & last
        while table[slot] >= 0 and list_item(things, firsts[table[slot]]) != thing:
            slot = (slot + 1) & last
        if table[slot] < 0:
            table[slot] = count
            firsts[count] = i
            count += 1
        numbers[i] = table[slot]
    return count


@object_kernel
def all_are_lists(rows: int, kinds: NDArray[np.intp]) -> bool:
    # What they hold is looked at next.
    count = list_size(rows)
    for i in range(count):
        prefetch(list_item(rows, min(i + 16, count - 1)))
        row = list_item(rows, i)
        size = size_of(row, kinds)
        if size < 0:
            return False
        for k in range(size):
            prefetch(item_of(row, k, kinds))
    return True
