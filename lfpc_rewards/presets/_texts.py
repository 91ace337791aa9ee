"""The batch reader: texts as kernels see them, and what can be asked of all of them at once.

Python keeps texts of ASCII characters as bytes, which a compiled function may look at where they are. For
any other text it looks at a stand-in, in which every character has its place: white space is white space in
ASCII, and all else is a "?". So no place moves; where a "?" leaves a question open, a regular expression
decides it on the text itself.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numba import carray
from numpy.typing import NDArray

from lfpc_rewards._capi import (
    ascii_string,
    ascii_text,
    concatenation,
    drop,
    list_item,
    list_size,
    set_list_item,
    substring,
)
from lfpc_rewards._jit import inlined, object_kernel, part
from lfpc_rewards._scan import _codes, is_space
from lfpc_rewards._vectors import BLOCK, Codes, lowest, places_of, prefetch
from lfpc_rewards.presets._objects import held

Places: TypeAlias = NDArray[np.int64]
"""(B,) places in the texts of a batch, as `str.find` counts them; -1 where there is none."""

UNSURE = 0x3F
"""What stands for a character beyond ASCII: "?"."""

_SPACE = 0x1F
_LAST = 0xFFFF
"""The last character of the table of stand-ins; none beyond it is white space."""

YES, NO, MAYBE = 1, 0, -1
"""What a kernel found; MAYBE leaves it to Python."""

_ONE = np.uint64(1)


class Readable(list[str]):
    """(B,) texts or their stand-ins, as `codes_of` reads them; whoever makes one leaves it as it is.

    Attributes:
        texts: (B,) the texts themselves.
        odd: In which rows a stand-in is; who makes one may know it already.
    """

    def __init__(self, texts: Sequence[str], odd: list[int] | None = None) -> None:
        super().__init__(texts)
        self.texts = texts
        if odd is None and not all(map(str.isascii, self)):
            odd = [row for row, text in enumerate(self) if not text.isascii()]
        self.odd: list[int] = odd or []
        if not self.odd:
            return
        codes = _codes("".join(self[row] for row in self.odd))
        signs = _stand_ins()[np.minimum(codes, _LAST)].tobytes().decode("ascii")
        place = 0
        for row in self.odd:
            size = len(self[row])
            self[row] = signs[place : place + size]
            place += size


def readable(texts: Sequence[str]) -> Readable:
    """The texts for a kernel, made ready once."""
    return texts if isinstance(texts, Readable) else Readable(texts)


@cache
def _stand_ins() -> NDArray[np.uint8]:
    """What stands for each of the first characters."""
    signs = np.full(_LAST + 1, UNSURE, np.uint8)
    signs[:0x80] = np.arange(0x80)
    signs[[code for code in range(0x80, _LAST + 1) if chr(code).isspace()]] = _SPACE
    return signs


def lengths_of(texts: Sequence[Sized]) -> Places:
    """(B,) the length of each."""
    return np.fromiter(map(len, texts), np.int64, len(texts))


def stripped(
    texts: Sequence[str], start: Places, stop: Places, rows: Places | None = None
) -> tuple[Places, Places]:
    """The same parts of the texts without white space around, as `str.strip` has it; 0, 0 for no part (-1).

    A part that stops before it starts is empty. `rows`: in which texts the parts stand; None: one in each.
    """
    own = readable(texts)
    start, stop = np.maximum(start, 0), np.maximum(stop, 0)
    stop = np.maximum(start, stop)
    strip_parts(id(own), np.arange(len(own)) if rows is None else rows, start, stop)
    return start, stop


def find_text(texts: Sequence[str], wanted: str, start: Places | None = None) -> Places:
    """(B,) where a text of ASCII characters without "?" stands first, at or after `start`."""
    own = readable(texts)
    places = np.zeros(len(own), np.int64) if start is None else np.maximum(start, 0)
    find_codes(id(own), np.frombuffer(wanted.encode("ascii"), np.uint8), places)
    return places


def find_between(
    texts: Sequence[str], opening: str, closing: str, start: Places
) -> tuple[Places, Places, Places]:
    """What stands between two texts, at or after `start`; both are as in `find_text`.

    Returns:
        (B,) the place behind the first `opening`; (B,) that of the `closing` behind it; (B,) that of the
        next `opening`, inside or behind. -1 where there is none.
    """
    own = readable(texts)
    found = np.empty((3, len(own)), np.int64)
    first, last = (np.frombuffer(each.encode("ascii"), np.uint8) for each in (opening, closing))
    find_group(id(own), first, last, start, found)
    inside, stop, again = found
    return inside, stop, again


def cut(texts: Sequence[str], start: Places, stop: Places, rows: Places | None = None) -> list[str]:
    """The part of each text between two places, as slices have it; a negative place is 0.

    `rows`: in which texts the parts stand; None: one in each.
    """
    whole = held(texts.texts if isinstance(texts, Readable) else texts)
    parts = [""] * len(start)
    cut_parts(id(whole), np.arange(len(whole)) if rows is None else rows, start, stop, id(parts))
    return parts


def without(texts: Sequence[str], unwanted: str) -> Readable:
    """(B,) the texts as ``text.replace(unwanted, "")`` leaves them; `unwanted` is as in `find_text`."""
    own = readable(texts)
    left = list(own.texts)
    some = remove(id(own), np.frombuffer(unwanted.encode("ascii"), np.uint8), id(left))
    return Readable(left, own.odd) if some else own


def lower(texts: Sequence[str]) -> list[str]:
    """(B,) the texts as `str.lower` gives them."""
    own = readable(texts)
    lowered = list(own)
    lower_texts(id(own), np.empty(max(map(len, own), default=0), np.uint8), id(lowered))
    for row in own.odd:
        lowered[row] = own.texts[row].lower()
    return lowered


@part
def codes_of(texts: int, row: int, size: NDArray[np.intp]) -> NDArray[np.uint8]:
    # The characters of one text of a `readable` list; `size` is room for their number.
    pointer: Any = ascii_text(list_item(texts, row), size.ctypes.data)
    codes: NDArray[np.uint8] = carray(pointer, (size[0],), np.uint8)
    return codes


@object_kernel
def strip_parts(texts: int, rows: Places, start: Places, stop: Places) -> None:
    size = np.zeros(1, np.intp)
    for k in range(rows.size):
        soon = min(k + 8, rows.size - 1)
        prefetch(list_item(texts, rows[soon]) + start[soon] + 48)
        codes = codes_of(texts, rows[k], size)
        begin, end = start[k], stop[k]
        while begin < end and is_space(codes[begin]):
            begin += 1
        while begin < end and is_space(codes[end - 1]):
            end -= 1
        start[k], stop[k] = begin, end


@object_kernel
def cut_parts(texts: int, rows: Places, start: Places, stop: Places, parts: int) -> None:
    for k in range(rows.size):
        begin = max(start[k], 0)
        part = substring(list_item(texts, rows[k]), begin, max(begin, stop[k]))
        if part == 0:  # Python raises its MemoryError when this returns
            break
        set_list_item(parts, k, part)


@object_kernel
def find_codes(texts: int, wanted: NDArray[np.uint8], places: Places) -> None:
    # Puts where it stands in the place of where to begin.
    size = np.zeros(1, np.intp)
    for row in range(places.size):
        codes = codes_of(texts, row, size)
        soon = min(row + 2, places.size - 1)
        ahead = list_item(texts, soon) + places[soon] - places[row]
        places[row] = place_in(codes, wanted, places[row], ahead)


@object_kernel
def lower_texts(texts: int, room: NDArray[np.uint8], lowered: int) -> None:
    size = np.zeros(1, np.intp)
    for row in range(list_size(texts)):
        codes = codes_of(texts, row, size)
        for i in range(codes.size):
            code = codes[i]
            room[i] = code + 0x20 if 0x41 <= code <= 0x5A else code
        text = ascii_string(room.ctypes.data, codes.size)
        if text == 0:  # Python raises its MemoryError when this returns
            break
        set_list_item(lowered, row, text)


@object_kernel
def remove(texts: int, unwanted: NDArray[np.uint8], left: int) -> bool:
    # `left` is a list of the texts themselves; gives whether any of them is another one now.
    size = np.zeros(1, np.intp)
    count, removed = list_size(texts), False
    for row in range(count):
        codes = codes_of(texts, row, size)
        place = place_in(codes, unwanted, 0, list_item(texts, min(row + 2, count - 1)))
        if place < 0:
            continue
        text, behind = substring(list_item(left, row), 0, place), place + unwanted.size
        while place >= 0 and text != 0:
            place = place_in(codes, unwanted, behind, 0)
            part = substring(list_item(left, row), behind, place if place >= 0 else codes.size)
            if part == 0:
                break
            whole = concatenation(text, part)
            drop(text)
            drop(part)
            text, behind = whole, place + unwanted.size
        if text == 0:  # Python raises its MemoryError when this returns
            break
        set_list_item(left, row, text)
        removed = True
    return removed


@object_kernel
def find_group(
    texts: int, opening: NDArray[np.uint8], closing: NDArray[np.uint8], start: Places, out: NDArray[np.int64]
) -> None:
    size = np.zeros(1, np.intp)
    for row in range(start.size):
        codes = codes_of(texts, row, size)
        soon = min(row + 2, start.size - 1)
        ahead = list_item(texts, soon) + start[soon] - start[row]
        opened = place_in(codes, opening, start[row], ahead)
        inside = opened + opening.size
        closed = place_in(codes, closing, inside, 0) if opened >= 0 else -1
        again = place_in(codes, opening, opened + 1, 0) if opened >= 0 else -1
        out[0, row], out[1, row], out[2, row] = (inside if opened >= 0 else -1), closed, again


@inlined
def place_in(codes: Codes, wanted: NDArray[np.uint8], begin: int, ahead: int) -> int:
    # Compares first and last characters, many at once; the memory `ahead` is needed next.
    last, place = wanted.size - 1, -1
    while begin < codes.size - last and place < 0:
        prefetch(ahead + begin)
        bits = places_of(wanted[0], codes, begin) & places_of(wanted[last], codes, begin + last)
        while bits and place < 0:
            place = begin + lowest(bits)
            bits &= bits - _ONE
            for k in range(1, last):
                if codes[place + k] != wanted[k]:
                    place = -1
                    break
        begin += BLOCK
    return place


def same_parts(
    texts: Sequence[str], spans: Places, others: Sequence[str], other_spans: Places
) -> NDArray[np.bool_]:
    """(B,) whether a part of each text is a part of the other text; False where one of them is -1, -1.

    `spans`, `other_spans`: (B, 2) where the parts start and stop.
    """
    own, other = readable(texts), readable(others)
    states = compare_parts(id(own), spans, id(other), other_spans)
    same: NDArray[np.bool_] = states == YES
    for row in np.flatnonzero(states == MAYBE).tolist():
        part, other_part = own.texts[row][slice(*spans[row])], other.texts[row][slice(*other_spans[row])]
        same[row] = part == other_part
    return same


@object_kernel
def compare_parts(texts: int, spans: Places, others: int, other_spans: Places) -> Places:
    size = np.zeros(1, np.intp)
    states = np.full(len(spans), NO)
    for row in range(len(spans)):
        i, j = spans[row, 0], other_spans[row, 0]
        if i < 0 or j < 0 or spans[row, 1] - i != other_spans[row, 1] - j:
            continue
        codes, other_codes = codes_of(texts, row, size), codes_of(others, row, size)
        states[row] = YES
        for k in range(spans[row, 1] - i):
            if codes[i + k] != other_codes[j + k]:
                states[row] = NO
                break
            if codes[i + k] == UNSURE or codes[i + k] == _SPACE:  # what differs may have the same stand-in
                states[row] = MAYBE
    return states
