"""The batch reader: texts as kernels see them, and what can be asked of all of them at once.

Python keeps texts of ASCII characters as bytes, which a compiled function may look at where they are. For
any other text it looks at a stand-in, in which every character has its place: white space is white space in
ASCII, and all else is a "?". So no place moves; where a "?" leaves a question open, a regular expression
decides it on the text itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Sized
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numba import carray
from numpy.typing import NDArray

from lfpc_rewards._capi import (
    HAS_GIL,
    ascii_string,
    ascii_text,
    concatenation,
    drop,
    list_item,
    list_size,
    set_list_item,
    substring,
    type_of,
)
from lfpc_rewards._jit import inlined, object_kernel, part
from lfpc_rewards._packing import KINDS, item_of, size_of
from lfpc_rewards._scan import _codes, is_space
from lfpc_rewards._vectors import BLOCK, Codes, lowest, places_of, prefetch

Places: TypeAlias = NDArray[np.int64]
"""(B,) places in the texts of a batch, as `str.find` counts them; -1 where there is none."""

UNSURE = 0x3F
"""What stands for a character beyond ASCII: "?"."""

_SPACE = 0x1F
_LAST = 0xFFFF
"""The last character of the table of stand-ins; none beyond it is white space."""

_DIGITS, _DECIMAL, _WORD, _BLANKS = 1, 2, 3, 4
_HOLES = {"#": _DIGITS, "~": _DECIMAL, "@": _WORD, " ": _BLANKS}
_PATTERNS = {"#": r"(\d+)", "~": r"(-?\d+(?:\.\d+)?)", "@": r"(\w+)", " ": r"\s*"}
_POWERS = 10.0 ** np.arange(16)
_YES, _NO, _MAYBE = 1, 0, -1
_ONE = np.uint64(1)


class Readable(list[str]):
    """(B,) texts or their stand-ins, as `codes_of` reads them; whoever makes one leaves it as it is.

    Attributes:
        texts: (B,) the texts themselves.
        odd: In which rows a stand-in is; None: the texts are asked.
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


def _held(things: Sequence[Any]) -> list[Any]:
    """The same as a list that stays as it is while a kernel reads it."""
    return things if type(things) is list and HAS_GIL else list(things)


def only_texts(things: Sequence[Any]) -> bool:
    """Whether all of them are strings, and of no subclass."""
    if type(things) is list and HAS_GIL:
        return all_of_type(id(things), id(str))
    return set(map(type, things)) <= {str}


def turn_counts(turns: Sequence[Any]) -> Places | None:
    """(B,) how many things each list or tuple holds; None if one is neither."""
    if type(turns) is list and HAS_GIL:
        counts = np.empty(len(turns), np.int64)
        return counts if sizes_of(id(turns), KINDS, counts) else None
    return lengths_of(turns) if set(map(type, turns)) <= {list, tuple} else None


def distinct(things: Sequence[Any]) -> tuple[Places, list[Any]]:
    """(B,) which of the objects each thing is, and the objects, each once. Equal ones may be several."""
    listed = _held(things)
    numbers = np.empty(len(listed), np.int64)
    table = np.full(4 << len(listed).bit_length(), -1)
    firsts = np.empty(len(listed), np.int64)
    count = number_objects(id(listed), table, numbers, firsts)
    return numbers, [listed[place] for place in firsts[:count].tolist()]


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
    whole = _held(texts.texts if isinstance(texts, Readable) else texts)
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


class Shape:
    """A regular expression without choices: a fixed row of signs and holes, which a compiled function reads.

    Args:
        template: "#" is a group of digits, "~" of a decimal number, "@" of a word, a blank is any white space
            or none; every other sign is itself. It begins with a sign, and a sign follows each hole, at most
            with a blank between them.
    """

    def __init__(self, template: str) -> None:
        self.pattern = re.compile("".join(_PATTERNS.get(sign) or re.escape(sign) for sign in template))
        self.program = np.array([_HOLES.get(sign) or ord(sign) for sign in template], np.uint8)
        self.kinds = [sign for sign in template if sign in "#~@"]
        self.count = len(self.kinds) - self.kinds.count("@")

    def first(
        self, texts: Sequence[str], start: Places | None = None, stop: Places | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The first match in each text, or between two places of it.

        Returns:
            (B, n) its numbers, NaN where there is none or one is too large; and (B, 2) where its word starts
            and stops, or without a word the whole match; -1 where there is none.
        """
        rows = np.arange(len(texts))
        start = np.zeros(len(texts), np.int64) if start is None else np.maximum(start, 0)
        return self._read(texts, rows, start, lengths_of(texts) if stop is None else stop, True)

    def at(self, texts: Sequence[str], rows: Places, start: Places, stop: Places) -> NDArray[np.float64]:
        """(n, numbers) of the matches that start at `start` in the texts `rows`, as `first`."""
        return self._read(texts, rows, start, stop, False)[0]

    def _read(
        self, texts: Sequence[str], rows: Places, start: Places, stop: Places, search: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        own = readable(texts)
        numbers, spans = np.empty((len(rows), self.count)), np.empty((len(rows), 2), np.int64)
        states = np.empty(len(rows), np.int64)
        find_shape(id(own), rows, start, stop, search, self.program, numbers, spans, states)
        look = self.pattern.search if search else self.pattern.match
        for k in np.flatnonzero(states == _MAYBE).tolist():
            found = look(own.texts[rows[k]], int(start[k]), int(stop[k]))
            numbers[k] = self._numbers(found) if found else np.nan
            spans[k] = found.span(1 if "@" in self.kinds else 0) if found else -1
        return numbers, spans

    def _numbers(self, found: re.Match[str]) -> list[float] | float:
        pairs = zip(self.kinds, found.groups(), strict=True)
        try:
            return [float(text if kind == "~" else int(text)) for kind, text in pairs if kind != "@"]
        except (ValueError, OverflowError):  # digits beyond Python's limit, or beyond float64
            return np.nan


@part
def codes_of(texts: int, row: int, size: NDArray[np.intp]) -> NDArray[np.uint8]:
    # The characters of one text of a `readable` list; `size` is room for their number.
    pointer: Any = ascii_text(list_item(texts, row), size.ctypes.data)
    codes: NDArray[np.uint8] = carray(pointer, (size[0],), np.uint8)
    return codes


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
def number_objects(things: int, table: Places, numbers: Places, firsts: Places) -> int:
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
def sizes_of(rows: int, kinds: NDArray[np.intp], sizes: Places) -> bool:
    for i in range(sizes.size):
        prefetch(list_item(rows, min(i + 16, sizes.size - 1)))
        row = list_item(rows, i)
        sizes[i] = size_of(row, kinds)
        if sizes[i] < 0:
            return False
        for k in range(sizes[i]):
            prefetch(item_of(row, k, kinds))
    return True


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


@object_kernel
def find_shape(
    texts: int,
    rows: Places,
    start: Places,
    stop: Places,
    search: bool,
    program: NDArray[np.uint8],
    numbers: NDArray[np.float64],
    spans: NDArray[np.int64],
    states: NDArray[np.int64],
) -> None:
    size = np.zeros(1, np.intp)
    for k in range(rows.size):
        codes = codes_of(texts, rows[k], size)
        states[k] = _NO
        if not search:
            states[k] = fits(codes, start[k], stop[k], program, numbers[k], spans[k])
        begin = start[k]
        while search and begin < stop[k] and states[k] == _NO:
            places = places_of(program[0], codes, begin)
            while places and states[k] == _NO:
                i = begin + lowest(places)
                places &= places - _ONE
                states[k] = fits(codes, i, stop[k], program, numbers[k], spans[k])
            begin += BLOCK
        if states[k] != _YES:
            numbers[k] = np.nan
            spans[k] = -1


@part
def fits(
    codes: NDArray[np.uint8],
    i: int,
    stop: int,
    program: NDArray[np.uint8],
    numbers: NDArray[np.float64],
    span: NDArray[np.int64],
) -> int:
    # Whether the shape stands at i. No step has a choice, so there is nothing to try again.
    span[0] = i
    count, worded = 0, False
    for step in program:
        first = i
        if step == _BLANKS:
            while i < stop and is_space(codes[i]):
                i += 1
            continue
        if step == _WORD:
            while i < stop and is_word(codes[i]):
                i += 1
            span[0], span[1] = first, i
            worded = True
        elif step in (_DIGITS, _DECIMAL):
            negative = step == _DECIMAL and i < stop and codes[i] == 0x2D
            if negative:
                i += 1
            first = i
            digits, decimals = np.int64(0), 0
            while i < stop and 0x30 <= codes[i] <= 0x39 and i - first < 16:
                digits = 10 * digits + (np.int64(codes[i]) - 0x30)
                i += 1
            whole = i - first
            if step == _DECIMAL and 0 < whole < 16 and i < stop and codes[i] == 0x2E:
                i += 1
                while i < stop and 0x30 <= codes[i] <= 0x39 and whole + decimals < 16:
                    digits = 10 * digits + (np.int64(codes[i]) - 0x30)
                    decimals += 1
                    i += 1
                if decimals == 0:  # what follows a number in a shape is no "."
                    return _MAYBE if i < stop and codes[i] == UNSURE else _NO
            if whole + decimals > 15:
                return _MAYBE
            # At most 15 digits and the power of ten are exact in float64, so this rounds as `float` does.
            value = digits / _POWERS[decimals]
            numbers[count] = -value if negative else value
            count += 1
        elif i < stop and codes[i] == step:
            i += 1
        if i == first:
            return _MAYBE if i < stop and codes[i] == UNSURE else _NO
    if not worded:
        span[1] = i
    return _YES


@part
def is_word(code: int) -> bool:
    # `\w`, of ASCII.
    return 0x30 <= code <= 0x39 or 0x41 <= code <= 0x5A or code == 0x5F or 0x61 <= code <= 0x7A


def same_parts(
    texts: Sequence[str], spans: Places, others: Sequence[str], other_spans: Places
) -> NDArray[np.bool_]:
    """(B,) whether a part of each text is a part of the other text; False where one of them is -1, -1.

    `spans`, `other_spans`: (B, 2) where the parts start and stop.
    """
    own, other = readable(texts), readable(others)
    states = compare_parts(id(own), spans, id(other), other_spans)
    same: NDArray[np.bool_] = states == _YES
    for row in np.flatnonzero(states == _MAYBE).tolist():
        part, other_part = own.texts[row][slice(*spans[row])], other.texts[row][slice(*other_spans[row])]
        same[row] = part == other_part
    return same


@object_kernel
def compare_parts(texts: int, spans: Places, others: int, other_spans: Places) -> Places:
    size = np.zeros(1, np.intp)
    states = np.full(len(spans), _NO)
    for row in range(len(spans)):
        i, j = spans[row, 0], other_spans[row, 0]
        if i < 0 or j < 0 or spans[row, 1] - i != other_spans[row, 1] - j:
            continue
        codes, other_codes = codes_of(texts, row, size), codes_of(others, row, size)
        states[row] = _YES
        for k in range(spans[row, 1] - i):
            if codes[i + k] != other_codes[j + k]:
                states[row] = _NO
                break
            if codes[i + k] == UNSURE or codes[i + k] == _SPACE:  # what differs may have the same stand-in
                states[row] = _MAYBE
    return states
