"""Where the tags of many texts stand: one compiled pass, then questions as array operations.

Rewards of this family are counts and places of tags. A loop asks ``text.count`` and a regular expression
for each tag of each text; `Tags` reads a batch once and answers for all its texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._capi import list_item
from lfpc_rewards._jit import inlined, object_kernel
from lfpc_rewards._scan import is_space
from lfpc_rewards._vectors import (
    BLOCK,
    LANES,
    Codes,
    Words,
    eight_at,
    lowest,
    places_of,
    prefetch,
    same_words,
)
from lfpc_rewards.presets._texts import Places, codes_of, cut, find_text, readable, stripped

Flags = NDArray[np.bool_]
"""(B,) one yes or no per text."""

_OPEN, _ONE = 0x3C, np.uint64(1)

_ROOM = 1024
"""How many "<" of a text are looked at together."""

_BEGINNING, _OTHER = -1, -2
"""What stands before a tag, if it is no tag: nothing but white space, or anything else."""


class Tags:
    """The tags of a batch of texts.

    A tag is a plain string that begins with "<", found as `str.find` finds it: exact in case and spacing.
    No tag is the beginning of another, and no two of them overlap.

    Attributes:
        own: (B,) the texts, ready for further questions to the batch reader.
        texts: (B,) the texts themselves.
        lengths: (B,) their lengths.
        names: The tags, `LANES` at most.
    """

    def __init__(self, texts: Sequence[str], tags: Sequence[str]) -> None:
        self.own = readable(texts)
        self.texts = self.own.texts
        self.names = tuple(tags)
        self.lengths = np.empty(len(texts), np.int64)
        rows = np.arange(len(texts))
        everything = self._find(self.names, rows, np.zeros_like(rows), self.lengths)
        self._count, self._first, self._last = everything

    def _find(
        self, tags: tuple[str, ...], rows: Places, start: Places, lengths: Places
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """How often some tags stand in some texts from a place on, and where first and last; -1: nowhere.

        Each is (tags, rows). Fills in the lengths of the texts.
        """
        count = np.zeros((len(tags), len(rows)), np.int64)
        first, last = np.full((2, *count.shape), -1)
        words, masks, _ = spelling(tags)
        find_tags(id(self.own), rows, start, words, masks, lengths, count, first, last)
        return count, first, last

    def _since(self, tag: str, start: Places | None) -> tuple[Places, Places]:
        """(B,) how often the tag stands at or after `start`, and where first."""
        k = self.names.index(tag)
        count, first, last = self._count[k], self._first[k], self._last[k]
        if start is None:
            return count, first
        none, all_of_them = last < start, first >= start
        out = np.where(none, 0, count), np.where(none, -1, first)
        rows = np.flatnonzero(~(none | all_of_them))
        if rows.size:
            found = self._find((tag,), rows, np.maximum(start[rows], 0), np.empty_like(rows))
            out[0][rows], out[1][rows] = found[0][0], found[1][0]
        return out

    def count(self, tag: str, since: Places | None = None) -> Places:
        """(B,) how often the tag stands at or after `since`."""
        return self._since(tag, since)[0]

    def first(self, tag: str, since: Places | None = None) -> Places:
        """(B,) where the tag stands first at or after `since`."""
        return self._since(tag, since)[1]

    def last(self, tag: str) -> Places:
        """(B,) where the tag stands last."""
        places: Places = self._last[self.names.index(tag)]
        return places

    def after_first(self, tag: str, since: Places | None = None) -> Places:
        """(B,) the place behind `first`."""
        return self._behind(tag, self.first(tag, since))

    def after_last(self, tag: str) -> Places:
        """(B,) the place behind `last`."""
        return self._behind(tag, self.last(tag))

    def _behind(self, tag: str, places: Places) -> Places:
        return np.where(places < 0, -1, places + len(tag))

    def follows(self, tag: str) -> Flags:
        """(B,) whether only white space parts the first such tag from a tag, or from the beginning."""
        yes: Flags = self._before(self.first(tag)) >= _BEGINNING
        return yes

    def first_behind(self, tag: str, other: str) -> Places:
        """(B,) where the first `tag` stands that follows an `other`, with only white space between."""
        places = self.first(tag, self.after_first(other))
        behind = self._before(places) == self.names.index(other)
        # Behind an `other` that is not the first one, it may stand further on.
        for row in np.flatnonzero(~behind & (places >= 0) & (self.count(other) > 1)).tolist():
            found = re.search(f"{re.escape(other)}\\s*({re.escape(tag)})", self.texts[row])
            places[row], behind[row] = found.start(1) if found else -1, found is not None
        return np.where(behind, places, -1)

    def _before(self, places: Places) -> Places:
        """(B,) which tag stands before a place, with only white space between; or what else does."""
        out = np.empty_like(places)
        tag_before(id(self.own), places, *spelling(self.names), out)
        return out

    def unbalanced(self, name: str, since: Places | None = None) -> Flags:
        """(B,) whether ``<name>`` and ``</name>`` do not stand equally often at or after `since`."""
        uneven: Flags = self.count(f"<{name}>", since) != self.count(f"</{name}>", since)
        return uneven

    def pair(self, name: str, since: Places | None = None) -> tuple[Places, Places]:
        """(B,) where ``<name>(.*?)</name>`` finds its first group at or after `since`; -1, -1 if nowhere."""
        start = self.after_first(f"<{name}>", since)
        stop = self.first(f"</{name}>", start)
        nowhere = (start < 0) | (stop < 0)
        return np.where(nowhere, -1, start), np.where(nowhere, -1, stop)

    def pairs(self, name: str, since: Places | None = None) -> tuple[Places, Places, Places]:
        """All groups of ``<name>(.*?)</name>`` at or after `since`: of which text, where they start and stop.

        Each is of the length of the number of groups; text by text and from left to right.
        """
        most = np.minimum(*(self.count(tag, since) for tag in both(name)))
        spans = np.empty((3, int(most.sum())), np.int64)
        start = np.where(most == 0, self.lengths, 0 if since is None else since)
        words, masks, _ = spelling(both(name))
        count = find_pairs(id(self.own), start, words, masks, spans)
        owners, opens, closes = spans[:, :count]
        return owners, opens + len(name) + 2, closes

    def cut(self, start: Places, stop: Places) -> list[str]:
        """(B,) the texts between two places; a `stop` of -1 is the end of the text."""
        return cut(self.own, start, self._ends(stop))

    def strip(self, start: Places, stop: Places) -> tuple[Places, Places]:
        """(B,) the two places without white space between them at either end; `stop` as in `cut`."""
        return stripped(self.own, start, self._ends(stop))

    def cut_stripped(self, start: Places, stop: Places) -> list[str]:
        """(B,) as `cut`, without white space around."""
        return self.cut(*self.strip(start, stop))

    def _ends(self, stop: Places) -> Places:
        return np.where(stop < 0, self.lengths, stop)

    def line_pair(self, name: str) -> tuple[Places, Places]:
        """(B,) where the first group of ``re.search("<name>(.*?)</name>")`` is, on one line; as `pair`."""
        start, stop = self.pair(name)
        broken = find_text(self.own, "\n", start)
        for row in np.flatnonzero((start >= 0) & (broken >= 0) & (broken < stop)).tolist():
            found = re.search(f"<{name}>(.*?)</{name}>", self.texts[row])
            start[row], stop[row] = found.span(1) if found else (-1, -1)
        return start, stop

    def last_pair(self, name: str) -> tuple[Places, Places]:
        """(B,) where the last group of ``<name>(.*?)</name>`` is; as `pair`, which is the first one's."""
        start, stop = self.pair(name)
        several = (self.count(f"<{name}>") > 1) & (self.count(f"</{name}>") > 1)
        for row in np.flatnonzero(several & (start >= 0)).tolist():
            *_, last = re.finditer(f"<{name}>(.*?)</{name}>", self.texts[row], re.DOTALL)
            start[row], stop[row] = last.span(1)
        return start, stop


def both(*names: str) -> tuple[str, ...]:
    """The opening and the closing tag of each name."""
    return tuple(tag for name in names for tag in (f"<{name}>", f"</{name}>"))


class Spelling(NamedTuple):
    """Tags, as `eight_at` reads them.

    Attributes:
        words: (n, `LANES`) eight characters after the other of each tag, zeros behind its end.
        masks: (n, `LANES`) ones where the tag has characters. A lane without a tag never fits.
        widths: (tags,) how many characters each tag has.
    """

    words: Words
    masks: Words
    widths: NDArray[np.int64]


@cache
def spelling(tags: tuple[str, ...]) -> Spelling:
    if len(tags) > LANES:
        raise ValueError(f"tags must be {LANES} at most, got {len(tags)}")
    size = -(-max(map(len, tags)) // 8) * 8
    shape = (size // 8, LANES)
    words, masks = np.ones(shape, np.uint64), np.zeros(shape, np.uint64)
    for k, tag in enumerate(tags):
        words[:, k] = np.frombuffer(tag.encode("ascii").ljust(size, b"\0"), "<u8")
        masks[:, k] = np.frombuffer((b"\xff" * len(tag)).ljust(size, b"\0"), "<u8")
    return Spelling(words, masks, np.array(list(map(len, tags)), np.int64))


@object_kernel
def find_tags(
    texts: int,
    rows: Places,
    start: Places,
    words: Words,
    masks: Words,
    lengths: Places,
    count: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
) -> None:
    # What `_find` gives; the three come as its results for no tag at all.
    size = np.zeros(1, np.intp)
    places, which = np.empty(_ROOM, np.int64), np.empty(_ROOM, np.uint64)
    for k in range(rows.size):
        codes = codes_of(texts, rows[k], size)
        lengths[k] = codes.size
        ahead = list_item(texts, rows[min(k + 2, rows.size - 1)])
        begin = start[k]
        while begin < codes.size:
            begin, found = tags_from(codes, begin, words, masks, places, which, ahead)
            for j in range(found):
                tag = np.int64(which[j])
                if count[tag, k] == 0:
                    first[tag, k] = places[j]
                last[tag, k] = places[j]
                count[tag, k] += 1


@object_kernel
def find_pairs(texts: int, start: Places, words: Words, masks: Words, spans: NDArray[np.int64]) -> int:
    # Two tags; fills in of which text a pair is and where its tags begin, and gives how many there are.
    size = np.zeros(1, np.intp)
    places, which = np.empty(_ROOM, np.int64), np.empty(_ROOM, np.uint64)
    pairs = 0
    for row in range(start.size):
        codes = codes_of(texts, row, size)
        begin, opened = start[row], -1
        while begin < codes.size:
            begin, found = tags_from(codes, begin, words, masks, places, which, 0)
            for j in range(found):
                if which[j] == 0 and opened < 0:
                    opened = places[j]
                elif which[j] == 1 and opened >= 0:
                    spans[0, pairs], spans[1, pairs], spans[2, pairs] = row, opened, places[j]
                    pairs += 1
                    opened = -1
    return pairs


@object_kernel
def tag_before(
    texts: int, places: Places, words: Words, masks: Words, widths: NDArray[np.int64], out: Places
) -> None:
    size = np.zeros(1, np.intp)
    for row in range(places.size):
        codes = codes_of(texts, row, size)
        end = places[row]
        while end > 0 and is_space(codes[end - 1]):
            end -= 1
        out[row] = _BEGINNING if end == 0 else _OTHER
        for tag in range(widths.size):
            if end >= widths[tag] and stands_at(codes, end - widths[tag], tag, words, masks):
                out[row] = tag


@inlined
def tags_from(
    codes: Codes, begin: int, words: Words, masks: Words, places: Places, which: Words, ahead: int
) -> tuple[int, int]:
    # Reads on from `begin`, as far as there is room for what it finds: where tags stand, and which they are.
    # Gives where to go on, and how many there are; the memory `ahead` is needed next.
    # Each of the loops keeps something at every turn and counts it only if it is right: a processor cannot
    # foresee a branch on what stands in a text.
    opens = 0
    while begin < codes.size and opens <= _ROOM - BLOCK:
        prefetch(ahead + begin)
        bits = places_of(_OPEN, codes, begin)
        while bits:
            places[opens] = begin + lowest(bits)
            bits &= bits - _ONE
            opens += 1
        begin += BLOCK
    likely = 0
    for j in range(opens):
        bits = same_words(eight_at(codes, places[j]), words, masks)
        places[likely], which[likely] = places[j], bits
        likely += bits != 0
    found = 0
    for j in range(likely):
        bits, place = which[j], places[j]
        while bits and not stands_at(codes, place, lowest(bits), words, masks):
            bits &= bits - _ONE
        if bits:
            places[found], which[found] = place, np.uint64(lowest(bits))
            found += 1
    return begin, found


@inlined
def stands_at(codes: Codes, place: int, tag: int, words: Words, masks: Words) -> bool:
    for step in range(words.shape[0]):
        if eight_at(codes, place + 8 * step) & masks[step, tag] != words[step, tag]:
            return False
    return True
