"""Regular expressions without choices, read in many texts at once by a compiled function."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._jit import object_kernel, part
from lfpc_rewards._scan import is_space
from lfpc_rewards._vectors import BLOCK, lowest, places_of
from lfpc_rewards.presets._texts import MAYBE, NO, UNSURE, YES, Places, codes_of, lengths_of, readable

_DIGITS, _DECIMAL, _WORD, _BLANKS = 1, 2, 3, 4
_HOLES = {"#": _DIGITS, "~": _DECIMAL, "@": _WORD, " ": _BLANKS}
_PATTERNS = {"#": r"(\d+)", "~": r"(-?\d+(?:\.\d+)?)", "@": r"(\w+)", " ": r"\s*"}
_POWERS = 10.0 ** np.arange(16)
_ONE = np.uint64(1)


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
        for k in np.flatnonzero(states == MAYBE).tolist():
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
        states[k] = NO
        if not search:
            states[k] = fits(codes, start[k], stop[k], program, numbers[k], spans[k])
        begin = start[k]
        while search and begin < stop[k] and states[k] == NO:
            places = places_of(program[0], codes, begin)
            while places and states[k] == NO:
                i = begin + lowest(places)
                places &= places - _ONE
                states[k] = fits(codes, i, stop[k], program, numbers[k], spans[k])
            begin += BLOCK
        if states[k] != YES:
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
                    return MAYBE if i < stop and codes[i] == UNSURE else NO
            if whole + decimals > 15:
                return MAYBE
            # At most 15 digits and the power of ten are exact in float64, so this rounds as `float` does.
            value = digits / _POWERS[decimals]
            numbers[count] = -value if negative else value
            count += 1
        elif i < stop and codes[i] == step:
            i += 1
        if i == first:
            return MAYBE if i < stop and codes[i] == UNSURE else NO
    if not worded:
        span[1] = i
    return YES


@part
def is_word(code: int) -> bool:
    # `\w`, of ASCII.
    return 0x30 <= code <= 0x39 or 0x41 <= code <= 0x5A or code == 0x5F or 0x61 <= code <= 0x7A
