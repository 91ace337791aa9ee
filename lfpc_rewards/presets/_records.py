"""Lists of small objects in the texts of models, in compiled code.

Models answer with ``[{"bbox_2d": [1, 2, 3, 4], "label": "dog"}, ..]``. What is written in this plain way is
read here for a whole batch; any other text is handed to a parser for its language, so that this module never
has an opinion of its own on what JSON or Python is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._jit import object_kernel, part
from lfpc_rewards._scan import after_sign, read_number, skip_blanks
from lfpc_rewards.presets._texts import Places, codes_of, lengths_of, readable

TEXT, OBJECT = 0, -1
"""What a field holds besides numbers: a text, or an object with all fields that follow."""

_QUOTES = {'"': 0x22, "'": 0x27, "either": 0}


class Records(NamedTuple):
    """The objects of a batch of texts, one after the other.

    Attributes:
        first: (B,) the first object of each text.
        counts: (B,) how many objects it has; -1 where the text is written in another way.
        numbers: (R, n) the numbers of each object, in the order of the fields.
        spans: (R, fields, 2) where each text field starts and stops in its text; -1 where it is missing.
    """

    first: NDArray[np.int64]
    counts: NDArray[np.int64]
    numbers: NDArray[np.float64]
    spans: NDArray[np.int64]

    def owners(self) -> NDArray[np.int64]:
        """(R,) the text of each object."""
        return np.repeat(np.arange(len(self.counts)), np.maximum(self.counts, 0))


class Layout:
    """How the objects of one system look.

    Args:
        fields: Name of each field and what it holds: 1 (a number), n > 1 (a list of n numbers), `TEXT` or
            `OBJECT`. Numbers must be there, texts may be missing, and nothing else may stand there.
        quotes: The quotes around names and texts: '"', "'" or "either".
        single: The text is one object and no list.
    """

    def __init__(self, fields: dict[str, int], quotes: str = '"', *, single: bool = False) -> None:
        names = [np.frombuffer(name.encode("ascii"), np.uint8) for name in fields]
        self.widths = np.array([name.size for name in names], np.int64)
        self.names = np.zeros((len(names), int(self.widths.max())), np.uint8)
        for row, name in zip(self.names, names, strict=True):
            row[: name.size] = name
        self.sizes = np.array(list(fields.values()), np.int64)
        self.levels = np.concatenate(([0], np.cumsum(self.sizes == OBJECT)[:-1]))
        self.places = np.concatenate(([0], np.cumsum(np.maximum(self.sizes, 0))))
        self.shortest = int(self.widths[self.sizes > 0].sum()) + len("{}")
        self.quote = _QUOTES[quotes]
        self.single = single

    def read(self, texts: Sequence[str], start: Places | None = None, stop: Places | None = None) -> Records:
        """Read what is written plainly, in each text or between two places of it."""
        own = readable(texts)
        start = np.zeros(len(own), np.int64) if start is None else start
        stop = lengths_of(own) if stop is None else stop
        room = int((np.maximum(stop - start, 0) // self.shortest + 1).sum())  # one may be begun in vain
        numbers = np.empty((room, int(self.places[-1])))
        spans = np.empty((room, self.sizes.size, 2), np.int64)
        first, counts = np.empty(len(texts), np.int64), np.empty(len(texts), np.int64)
        found = read_texts(
            id(own),
            start,
            stop,
            self.names,
            self.widths,
            self.sizes,
            self.levels,
            self.places,
            self.quote,
            self.single,
            first,
            counts,
            numbers,
            spans,
        )
        return Records(first, counts, numbers[:found], spans[:found])


@object_kernel
def read_texts(
    texts: int,
    starts: Places,
    stops: Places,
    names: NDArray[np.uint8],
    widths: NDArray[np.int64],
    sizes: NDArray[np.int64],
    levels: NDArray[np.int64],
    places: NDArray[np.int64],
    quote: int,
    single: bool,
    first: NDArray[np.int64],
    counts: NDArray[np.int64],
    numbers: NDArray[np.float64],
    spans: NDArray[np.int64],
) -> int:
    size = np.zeros(1, np.intp)
    found = 0
    for row in range(starts.size):
        codes = codes_of(texts, row, size)
        start, stop = starts[row], stops[row]
        first[row] = found
        counts[row] = -1
        n = 0
        i = skip_blanks(codes, start, stop)
        if not single:
            i = after_sign(codes, i, stop, 0x5B)  # [
            if 0 <= i < stop and codes[i] == 0x5D:  # ]
                counts[row] = 0 if skip_blanks(codes, i + 1, stop) == stop else -1
                continue
        while i >= 0:
            i = read_object(
                codes, i, stop, names, widths, sizes, levels, places, quote, numbers, spans, found + n
            )
            if i < 0:
                break
            n += 1
            i = skip_blanks(codes, i, stop)
            if not single and i < stop and codes[i] == 0x2C:  # ,
                i = skip_blanks(codes, i + 1, stop)
                continue
            if not single:
                i = after_sign(codes, i, stop, 0x5D)
            if i == stop:
                counts[row] = n
            break
        if counts[row] > 0:
            found += n
    return found


@part
def read_object(
    codes: NDArray[np.uint8],
    i: int,
    stop: int,
    names: NDArray[np.uint8],
    widths: NDArray[np.int64],
    sizes: NDArray[np.int64],
    levels: NDArray[np.int64],
    places: NDArray[np.int64],
    quote: int,
    numbers: NDArray[np.float64],
    spans: NDArray[np.int64],
    here: int,
) -> int:
    # The place behind the object; -1 if it is not written plainly.
    i = after_sign(codes, i, stop, 0x7B)  # {
    if i < 0:
        return -1
    spans[here] = -1
    seen, level = 0, 0
    while i >= 0:
        field = which_name(codes, i, stop, names, widths, levels, level, quote)
        if field < 0 or (seen >> field) & 1:
            return -1
        seen |= 1 << field
        i = after_sign(codes, i + widths[field] + 2, stop, 0x3A)  # :
        if i < 0:
            return -1
        if sizes[field] == OBJECT:
            level += 1
            i = after_sign(codes, i, stop, 0x7B)
            continue
        if sizes[field] == TEXT:
            begin = i + 1
            i = after_quoted(codes, i, stop, quote)
            spans[here, field, 0], spans[here, field, 1] = begin, i - 1
        else:
            i = read_numbers(codes, i, stop, numbers[here, places[field] : places[field + 1]])
        if i < 0:
            return -1
        i = skip_blanks(codes, i, stop)
        while level > 0 and i < stop and codes[i] == 0x7D:  # }
            level -= 1
            i = skip_blanks(codes, i + 1, stop)
        if i < stop and codes[i] == 0x7D:
            for k in range(sizes.size):
                if sizes[k] != TEXT and not (seen >> k) & 1:
                    return -1
            return i + 1
        i = after_sign(codes, i, stop, 0x2C)  # ,
    return -1


@part
def which_name(
    codes: NDArray[np.uint8],
    i: int,
    stop: int,
    names: NDArray[np.uint8],
    widths: NDArray[np.int64],
    levels: NDArray[np.int64],
    level: int,
    quote: int,
) -> int:
    if i >= stop or not is_quote(codes[i], quote):
        return -1
    for field in range(widths.size):
        end = i + 1 + widths[field]
        if levels[field] != level or end >= stop or codes[end] != codes[i]:
            continue
        k = 0
        while k < widths[field] and codes[i + 1 + k] == names[field, k]:
            k += 1
        if k == widths[field]:
            return field
    return -1


@part
def is_quote(code: int, quote: int) -> bool:
    return code == quote if quote > 0 else code == 0x22 or code == 0x27


@part
def after_quoted(codes: NDArray[np.uint8], i: int, stop: int, quote: int) -> int:
    # Past a text without escapes; -1 if it is anything else.
    if i >= stop or not is_quote(codes[i], quote):
        return -1
    mark = codes[i]
    i += 1
    while i < stop and codes[i] != mark:
        if codes[i] < 0x20 or codes[i] == 0x5C:
            return -1
        i += 1
    return i + 1 if i < stop else -1


@part
def read_numbers(codes: NDArray[np.uint8], i: int, stop: int, numbers: NDArray[np.float64]) -> int:
    # One number, or a list of as many as there is room for; the place behind, or -1.
    if numbers.size == 1:
        numbers[0], i = read_number(codes, i, stop)
        return i
    for k in range(numbers.size):
        i = after_sign(codes, i, stop, 0x5B if k == 0 else 0x2C)
        if i < 0:
            return -1
        numbers[k], i = read_number(codes, i, stop)
        if i < 0:
            return -1
    i = skip_blanks(codes, i, stop)
    return i + 1 if i < stop and codes[i] == 0x5D else -1
