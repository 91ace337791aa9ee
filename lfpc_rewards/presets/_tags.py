"""Where the tags of many texts stand: one compiled pass, then questions as array operations.

Rewards of this family are counts and places of tags. A loop asks ``text.count`` and a regular expression
for each tag of each text; `Tags` reads a batch once and answers for all its texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._jit import object_kernel, part
from lfpc_rewards._scan import only_space
from lfpc_rewards.presets._texts import Places, codes_of, find_sign, readable, stripped

Flags = NDArray[np.bool_]
"""(B,) one yes or no per text."""

_BLOCK = 64
"""Characters that are searched for "<" at once: a fixed number, so that it becomes vector instructions."""

_DE_BRUIJN = 0x03F79D71B4CB0A89
"""Its bits, six by six, are all different: shifted by n places, the upper six tell n."""

_BIT_NUMBERS = np.argsort([(_DE_BRUIJN << n & (1 << 64) - 1) >> 58 for n in range(64)])
_FACTOR, _SHIFT, _ONE = np.uint64(_DE_BRUIJN), np.uint64(58), np.uint64(1)

_BEGINNING, _OTHER = -1, -2
"""What stands before a tag, if it is no tag: nothing but white space, or anything else."""

_ZERO = cast("int", np.int64(0))
"""Where 0 starts a variable that is an argument later: numba would compile once more for a literal."""


class Tags:
    """The tags of a batch of texts.

    A tag is a plain string that begins with "<", found as `str.find` finds it: exact in case and spacing.

    Attributes:
        own: (B,) the texts, ready for further questions to the batch reader.
        texts: (B,) the texts themselves.
        lengths: (B,) their lengths.
        names: The tags.
    """

    def __init__(self, texts: Sequence[str], tags: Sequence[str]) -> None:
        self.own = readable(texts)
        self.texts = self.own.texts
        self.names = tuple(tags)
        spelled = [np.frombuffer(tag.encode("ascii"), np.uint8) for tag in tags]
        widths = np.array([name.size for name in spelled], np.int64)
        padded = np.zeros((len(spelled), int(widths.max())), np.uint8)
        for row, name in zip(padded, spelled, strict=True):
            row[: name.size] = name
        self.lengths = np.empty(len(texts), np.int64)
        counts = np.zeros(len(spelled), np.int64)
        found = np.empty((len(spelled), 3, 2 * len(texts) + 1), np.int64)
        found = find_tags(id(self.own), self.lengths, padded, widths, found, counts)
        self._widths = dict(zip(tags, widths.tolist(), strict=True))
        self._of = {tag: found[k, :, : counts[k]] for k, tag in enumerate(tags)}

    def _where(self, tag: str, since: Places | None) -> tuple[Places, Places]:
        owners, places, _ = self._of[tag]
        if since is None:
            return owners, places
        late = places >= since[owners]
        return owners[late], places[late]

    def count(self, tag: str, since: Places | None = None) -> Places:
        """(B,) how often the tag stands at or after `since`."""
        return np.bincount(self._where(tag, since)[0], minlength=len(self.texts))

    def first(self, tag: str, since: Places | None = None) -> Places:
        """(B,) where the tag stands first at or after `since`."""
        owners, places = self._where(tag, since)
        out = np.full(len(self.texts), -1)
        out[owners[::-1]] = places[::-1]  # the last one written stays
        return out

    def last(self, tag: str) -> Places:
        """(B,) where the tag stands last."""
        owners, places, _ = self._of[tag]
        out = np.full(len(self.texts), -1)
        out[owners] = places
        return out

    def after_first(self, tag: str, since: Places | None = None) -> Places:
        """(B,) the place behind `first`."""
        return self._behind(tag, self.first(tag, since))

    def after_last(self, tag: str) -> Places:
        """(B,) the place behind `last`."""
        return self._behind(tag, self.last(tag))

    def _behind(self, tag: str, places: Places) -> Places:
        return np.where(places < 0, -1, places + self._widths[tag])

    def follows(self, tag: str) -> Flags:
        """(B,) whether only white space parts such a tag from the tag before it, or from the beginning."""
        owners, _, before = self._of[tag]
        out = np.zeros(len(self.texts), np.bool_)
        out[owners[before >= _BEGINNING]] = True
        return out

    def first_behind(self, tag: str, other: str) -> Places:
        """(B,) where the first `tag` stands that follows an `other`, with only white space between."""
        owners, places, before = self._of[tag]
        rows = np.flatnonzero(before == self.names.index(other))[::-1]
        out = np.full(len(self.texts), -1)
        out[owners[rows]] = places[rows]
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

    def pairs(self, name: str) -> tuple[Places, Places, Places]:
        """All groups of ``re.findall("<name>(.*?)</name>")``: of which text, where they start and stop.

        Each is of the length of the number of groups; text by text and from left to right.
        """
        owners, opens, _ = self._of[f"<{name}>"]
        closing, closes, _ = self._of[f"</{name}>"]
        scale = int(self.lengths.max(initial=0)) + 1
        ends = np.searchsorted(closing * scale + closes, owners * scale + opens)
        ended = ends < len(closing)
        ended[ended] &= closing[ends[ended]] == owners[ended]
        # Of several that open before the same end, the first one counts.
        ended[1:] &= ends[1:] != ends[:-1]
        starts = opens[ended] + self._widths[f"<{name}>"]
        return owners[ended], starts, closes[ends[ended]]

    def cut(self, start: Places, stop: Places) -> list[str]:
        """(B,) the texts between two places; a `stop` of -1 is the end of the text."""
        return [text[begin:end] for text, begin, end in self._spans(start, stop)]

    def cut_stripped(self, start: Places, stop: Places) -> list[str]:
        """(B,) as `cut`, without white space around."""
        return self.cut(*stripped(self.own, start, np.where(stop < 0, self.lengths, stop)))

    def _spans(self, start: Places, stop: Places) -> Iterable[tuple[str, int, int]]:
        stop = np.where(stop < 0, self.lengths, stop)
        return zip(self.texts, start.tolist(), stop.tolist(), strict=True)

    def line_pair(self, name: str) -> tuple[Places, Places]:
        """(B,) where the first group of ``re.search("<name>(.*?)</name>")`` is, on one line; as `pair`."""
        start, stop = self.pair(name)
        broken = find_sign(self.own, "\n", np.maximum(start, 0))
        for row in np.flatnonzero((start >= 0) & (broken >= 0) & (broken < stop)).tolist():
            found = re.search(f"<{name}>(.*?)</{name}>", self.texts[row])
            start[row], stop[row] = found.span(1) if found else (-1, -1)
        return start, stop

    def last_group(self, name: str) -> list[str | None]:
        """(B,) what ``re.findall("<name>(.*?)</name>")`` finds last, newlines included; None if nothing."""
        start, stop = self.pair(name)
        cuts = self.cut(np.maximum(start, 0), np.maximum(stop, 0))
        groups = [text if found else None for text, found in zip(cuts, start >= 0, strict=True)]
        several = (self.count(f"<{name}>") > 1) & (self.count(f"</{name}>") > 1)
        for row in np.flatnonzero(several & (start >= 0)).tolist():
            groups[row] = re.findall(f"<{name}>(.*?)</{name}>", self.texts[row], re.DOTALL)[-1]
        return groups


def both(*names: str) -> tuple[str, ...]:
    """The opening and the closing tag of each name."""
    return tuple(tag for name in names for tag in (f"<{name}>", f"</{name}>"))


@object_kernel
def find_tags(
    texts: int,
    lengths: NDArray[np.int64],
    names: NDArray[np.uint8],
    widths: NDArray[np.int64],
    found: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> NDArray[np.int64]:
    # Fills in the lengths. Appends (which text, where in it, which tag stands before it with only white space
    # between) to the row of each tag, text by text and from left to right; gives `found`, or a larger one
    # with the same.
    size = np.zeros(1, np.intp)
    for text in range(lengths.size):
        codes = codes_of(texts, text, size)
        lengths[text] = codes.size
        behind, before = _ZERO, _BEGINNING  # the end of the last tag, and which it was
        for first in range(0, codes.size, _BLOCK):
            opens = opens_in(codes, first)
            while opens:
                lowest = opens & (~opens + _ONE)
                opens ^= lowest
                i = first + _BIT_NUMBERS[(lowest * _FACTOR) >> _SHIFT]
                name = tag_at(codes, i, names, widths)
                if name < 0:
                    continue
                count = counts[name]
                if count == found.shape[2]:
                    grown = np.empty((found.shape[0], 3, 2 * count), np.int64)
                    grown[:, :, :count] = found
                    found = grown
                found[name, 0, count] = text
                found[name, 1, count] = i
                found[name, 2, count] = before if only_space(codes, behind, i) else _OTHER
                counts[name] = count + 1
                behind, before = i + widths[name], name
    return found


@part
def opens_in(codes: NDArray[np.uint8], first: int) -> np.uint64:
    # A bit for each "<" in a block of the text. A loop that may leave at every character, or that stores what
    # it finds, cannot use vector instructions.
    opens = np.uint64(0)
    if first + _BLOCK <= codes.size:
        block = codes[first : first + _BLOCK]
        for k in range(_BLOCK):
            opens |= np.uint64(block[k] == 0x3C) << np.uint64(k)
    else:
        for k in range(codes.size - first):
            opens |= np.uint64(codes[first + k] == 0x3C) << np.uint64(k)
    return opens


@part
def tag_at(codes: NDArray[np.uint8], i: int, names: NDArray[np.uint8], widths: NDArray[np.int64]) -> int:
    # Which tag begins at a place, -1 if none does; no tag is the beginning of another. The ends of tags tell
    # more than their beginnings: "<|image_pad|>" is both.
    for name in range(widths.size):
        last = widths[name] - 1
        if i + last < codes.size and codes[i + 1] == names[name, 1]:
            k = last
            while k > 1 and codes[i + k] == names[name, k]:
                k -= 1
            if k == 1:
                return name
    return -1
