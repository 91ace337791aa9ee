"""Where tags stand in many texts: one compiled pass finds them all, array operations answer questions.

Kernels see a chunk of texts as one array of character codes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._jit import kernel, part

Codes: TypeAlias = NDArray[Any]
"""Characters as uint8, uint16 or uint32."""

I64: TypeAlias = NDArray[np.int64]

Places: TypeAlias = NDArray[np.int64]
"""(B,) positions in the texts of a batch, as `str.find` gives them; -1 for none."""

Flags: TypeAlias = NDArray[np.bool_]
"""(B,) one yes or no per text."""

_CHUNK = 256
"""Texts per pass, few enough to stay in the processor's cache."""

_BLOCK = 64
"""Characters searched for a tag at once; a fixed number, so that the compiler can vectorise."""

_UTF16, _UTF32 = ("utf-16-le", "utf-32-le") if sys.byteorder == "little" else ("utf-16-be", "utf-32-be")


class Tags:
    """The tags of a batch of texts.

    A tag is a plain string that begins with "<", found as `str.find` finds it: exact in case and spacing.
    No tag may be a prefix of another.

    Attributes:
        texts: (B,) the texts.
        lengths: (B,) their lengths.
    """

    def __init__(self, texts: Sequence[str], tags: Sequence[str]) -> None:
        self.texts = texts
        self.lengths = lengths_of(texts)
        self._rows = {tag: row for row, tag in enumerate(tags)}
        self._count = np.zeros((len(tags), len(texts)), np.int64)
        self._first, self._last = np.full((2, *self._count.shape), -1)
        spelled = spelling(tags)
        for first, codes, lengths in in_chunks(texts):
            find_tags(codes, lengths, first, spelled, self._count, self._first, self._last)

    def count(self, tag: str, since: Places | None = None) -> Places:
        """(B,) how often the tag occurs at or after `since`."""
        return self._since(self._count, tag, since, str.count, 0)

    def first(self, tag: str, since: Places | None = None) -> Places:
        """(B,) where the tag first occurs at or after `since`."""
        return self._since(self._first, tag, since, str.find, -1)

    def last(self, tag: str) -> Places:
        """(B,) where the tag last occurs."""
        places: Places = self._last[self._rows[tag]]
        return places

    def after_first(self, tag: str, since: Places | None = None) -> Places:
        """(B,) the position after `first`."""
        return _behind(self.first(tag, since), tag)

    def after_last(self, tag: str) -> Places:
        """(B,) the position after `last`."""
        return _behind(self.last(tag), tag)

    def unbalanced(self, name: str, since: Places | None = None) -> Flags:
        """(B,) whether ``<name>`` and ``</name>`` occur a different number of times at or after `since`."""
        uneven: Flags = self.count(f"<{name}>", since) != self.count(f"</{name}>", since)
        return uneven

    def pair(self, name: str, since: Places | None = None) -> tuple[Places, Places]:
        """(B,) where ``<name>(.*?)</name>`` finds its first group at or after `since`; -1, -1 if nowhere."""
        start = self.after_first(f"<{name}>", since)
        stop = self.first(f"</{name}>", start)
        nowhere = (start < 0) | (stop < 0)
        return np.where(nowhere, -1, start), np.where(nowhere, -1, stop)

    def line_pair(self, name: str) -> tuple[Places, Places]:
        """(B,) as `pair`, but start tag, group and end tag must be on one line."""
        start, stop = self.pair(name)
        pattern = re.compile(f"<{name}>(.*?)</{name}>")
        for row, inside in enumerate(self.cut(start, stop)):
            if "\n" in inside:
                found = pattern.search(self.texts[row])
                start[row], stop[row] = found.span(1) if found else (-1, -1)
        return start, stop

    def last_pair(self, name: str) -> tuple[Places, Places]:
        """(B,) as `pair`, for the last match instead of the first."""
        start, stop = self.pair(name)
        several = (self.count(f"<{name}>") > 1) & (self.count(f"</{name}>") > 1)
        for row in np.flatnonzero(several & (start >= 0)).tolist():
            *_, last = re.finditer(f"<{name}>(.*?)</{name}>", self.texts[row], re.DOTALL)
            start[row], stop[row] = last.span(1)
        return start, stop

    def cut(self, start: Places, stop: Places) -> list[str]:
        """(B,) the text between two positions: "" where `start` is -1, up to the end where `stop` is -1."""
        stop = np.where(start < 0, 0, np.where(stop < 0, self.lengths, stop))
        spans = zip(self.texts, np.maximum(start, 0).tolist(), stop.tolist(), strict=True)
        return [text[begin:end] for text, begin, end in spans]

    def stripped(self, start: Places, stop: Places) -> list[str]:
        """(B,) as `cut`, stripped."""
        return list(map(str.strip, self.cut(start, stop)))

    def _since(self, table: I64, tag: str, since: Places | None, ask: Any, nothing: int) -> Places:
        row = self._rows[tag]
        answers: Places = table[row]
        if since is None:
            return answers
        answers = np.where(self._last[row] < since, nothing, answers)
        between = (self._first[row] < since) & (since <= self._last[row])
        for place in np.flatnonzero(between).tolist():
            answers[place] = ask(self.texts[place], tag, max(int(since[place]), 0))
        return answers


def _behind(places: Places, tag: str) -> Places:
    return np.where(places < 0, -1, places + len(tag))


def both(*names: str) -> tuple[str, ...]:
    """The opening and the closing tag of each name."""
    return tuple(tag for name in names for tag in (f"<{name}>", f"</{name}>"))


def lengths_of(texts: Sequence[Any]) -> I64:
    """(B,) the length of each."""
    return np.fromiter(map(len, texts), np.int64, len(texts))


def in_chunks(texts: Sequence[str]) -> Iterator[tuple[int, Codes, I64]]:
    """Texts in chunks: index of the first text, its chunk's characters, their lengths."""
    for first in range(0, len(texts), _CHUNK):
        chunk = texts[first : first + _CHUNK]
        yield first, codes_of("".join(chunk)), lengths_of(chunk)


def codes_of(text: str) -> Codes:
    """The characters of a text as numbers."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    # "surrogatepass": a lone surrogate, which a broken stream may leave, is a character like any other.
    codes = np.frombuffer(text.encode(_UTF16, "surrogatepass"), np.uint16)
    if codes.size == len(text):
        return codes
    return np.frombuffer(text.encode(_UTF32, "surrogatepass"), np.uint32)


def spelling(tags: Sequence[str]) -> NDArray[np.uint8]:
    """(tags, width) the characters of ASCII tags, padded with zeros."""
    width = max(map(len, tags)) + 1
    return np.frombuffer("".join(tag.ljust(width, "\0") for tag in tags).encode("ascii"), np.uint8).reshape(
        len(tags), width
    )


@kernel
def find_tags(
    codes: Codes,
    lengths: I64,
    first_text: int,
    tags: NDArray[np.uint8],
    count: I64,
    first: I64,
    last: I64,
) -> None:
    # Fills the columns of some texts; `first` is -1 so far.
    stop = 0
    for k in range(lengths.size):
        start, stop = stop, stop + lengths[k]
        text = first_text + k
        i = next_open(codes, start, stop)
        while i < stop:
            tag = tag_at(codes, i, stop, tags)
            if tag >= 0:
                if count[tag, text] == 0:
                    first[tag, text] = i - start
                last[tag, text] = i - start
                count[tag, text] += 1
            i = next_open(codes, i + 1, stop)


@part
def tag_at(codes: Codes, i: int, stop: int, tags: NDArray[np.uint8]) -> int:
    # Which tag begins at i; -1 for none.
    for tag in range(tags.shape[0]):
        k = 0
        while tags[tag, k] != 0 and i + k < stop and codes[i + k] == tags[tag, k]:
            k += 1
        if tags[tag, k] == 0:
            return tag
    return -1


@part
def next_open(codes: Codes, i: int, stop: int) -> int:
    # The position of the first "<" from i on; `stop` or more if there is none before it. A loop that may end
    # at any character is not vectorised; the minimum over a whole block is.
    while i < stop and i + _BLOCK <= codes.size:
        block = codes[i : i + _BLOCK]
        place = np.uint8(_BLOCK)
        for k in range(_BLOCK):
            place = min(place, np.uint8(k) if block[k] == 0x3C else np.uint8(_BLOCK))
        if place < _BLOCK:
            return i + int(place)
        i += _BLOCK
    while i < stop and codes[i] != 0x3C:
        i += 1
    return i
