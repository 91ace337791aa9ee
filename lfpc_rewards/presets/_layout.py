"""What the originals call well formed, and where in a response they look for the answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Literal, TypeAlias

import numpy as np

from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._tags import Flags, Tags, both
from lfpc_rewards.presets._texts import Places, cut, lengths_of, stripped

AnswerFrom: TypeAlias = Literal["strict", "split", "strict_v2"]
"""Which answer tag counts: the first pair; after the last opening tag; or up to the end of the text."""


def thought_and_answer(tags: Tags) -> Scores:
    r"""(B,) 1 where ``<think>.*?</think>\s*<answer>.*?</answer>`` is all of the text, newlines included.

    Further tags may stand in the thinking and in the answer. `tags` must know those of think and answer.
    """
    answer = tags.first_behind("<answer>", "</think>")
    whole: Flags = (tags.first("<think>") == 0) & (tags.after_last("</answer>") == tags.lengths)
    good = whole & (answer >= 0) & (answer < tags.last("</answer>"))
    return good.astype(np.float64)


def answers_from(texts: Sequence[str], answer_from: AnswerFrom | None) -> list[str | None]:
    """(B,) the answer in each text, None where there is none; as `mini_o3` describes."""
    if answer_from is None:
        return list(texts)
    tags = Tags(texts, both("answer"))
    if answer_from == "split":
        start = np.maximum(tags.after_last("<answer>"), 0)
        return list(tags.cut_stripped(start, tags.first("</answer>", start)))
    start, stop = tags.pair("answer")
    if answer_from == "strict_v2":
        # "$" is the end of the text and also the place before a newline that ends it.
        ends = np.array([len(text) - text.endswith("\n") for text in texts], np.int64)
        stop = np.where(tags.after_last("</answer>") == ends, tags.last("</answer>"), -1)
        start = np.where(stop >= start, start, -1)
    elif answer_from != "strict":
        raise ValueError(f'answer_from must be "strict", "split", "strict_v2" or None, got {answer_from!r}')
    found = (start >= 0) & (stop >= 0)
    cuts = tags.cut(np.where(found, start, 0), np.where(found, stop, 0))
    return [text if yes else None for text, yes in zip(cuts, found.tolist(), strict=True)]


class Turns:
    """The assistant turns of a batch, read once: of Mini-o3, taken over from VisionThink.

    Attributes:
        tags: The tags of all turns, one rollout after the other.
        row_of: (T,) the rollout of each turn.
        is_last: (T,) whether it is the last one of its rollout.
        empty: (B,) whether a rollout has no turns.
    """

    def __init__(self, turns: Sequence[Sequence[str]], call: str) -> None:
        self._turns, self._call = turns, call
        self._counts = lengths_of(turns)
        self.tags = Tags(list(chain.from_iterable(turns)), both("think", "answer", call))
        self.row_of = np.repeat(np.arange(len(turns)), self._counts)
        self.is_last = np.zeros(len(self.row_of), np.bool_)
        self.is_last[np.cumsum(self._counts)[self._counts > 0] - 1] = True
        self.empty: Flags = self._counts == 0

    def answers(self, answer_from: AnswerFrom | None) -> tuple[list[str], Flags]:
        """(B,) the answer in the turns, joined by blanks, as `answers_from` has it; (B,) if there is one."""
        if answer_from != "strict":
            given = answers_from([" ".join(each) for each in self._turns], answer_from)
            return [text or "" for text in given], np.array([text is not None for text in given], np.bool_)
        opened = np.flatnonzero(self.tags.first("<answer>") >= 0)
        turn = np.full(len(self._turns), -1)
        turn[self.row_of[opened[::-1]]] = opened[::-1]  # the first one of a rollout is written last
        answers, found = self._cut(turn, *self.tags.pair("answer"))
        for row in np.flatnonzero(~found & (turn >= 0)).tolist():  # it may end in a later turn
            (text,) = answers_from([" ".join(self._turns[row])], answer_from)
            answers[row], found[row] = text or "", text is not None
        return answers, found

    def last_answers(self) -> tuple[list[str], Flags]:
        """(B,) the last answer in the last turn; (B,) whether there is one."""
        return self._cut(np.where(self.empty, -1, self._counts.cumsum() - 1), *self.tags.last_pair("answer"))

    def _cut(self, turn: Places, start: Places, stop: Places) -> tuple[list[str], Flags]:
        """(B,) the part of one turn of each rollout (-1: of none); (B,) whether there is one."""
        if not self.tags.texts:
            return [""] * len(turn), np.zeros(len(turn), np.bool_)
        rows = np.maximum(turn, 0)
        found: Flags = (turn >= 0) & (start[rows] >= 0)
        start, stop = np.where(found, start[rows], 0), np.where(found, stop[rows], 0)
        return cut(self.tags.own, start, stop, rows), found

    def format(self) -> tuple[Scores, Scores]:
        """Whether the turns are well formed, and how many call a tool.

        Returns:
            (B,) 0.0 or 1.0 and (B,) the number of calls; NaN for a rollout without turns. See
            `mini_o3_format`.
        """
        tags, row_of, count = self.tags, self.row_of, len(self._turns)
        alone = self._counts[row_of] == 1
        # The last of several turns is not stripped: white space behind its answer is an error.
        whole = self.is_last & ~alone
        start, stop = stripped(tags.own, tags.lengths * 0, tags.lengths)
        start, stop = np.where(whole, 0, start), np.where(whole, tags.lengths, stop)
        answers, calls = _is_answer(tags, self._call, start, stop), _is_call(tags, self._call, start, stop)
        wrong = np.where(self.is_last, ~answers, ~calls)
        layout = np.bincount(row_of, wrong, count) == 0
        # A turn counts if no turn before it, in its row, is malformed.
        broken = np.cumsum(wrong)
        before_row = np.concatenate(([0], broken))[np.cumsum(self._counts) - self._counts]
        counted = (tags.pair(self._call)[0] >= 0) & (broken - wrong == before_row[row_of])
        counted &= ~self.is_last | alone
        called = np.bincount(row_of, counted, count)
        return np.where(self.empty, np.nan, layout), np.where(self.empty, np.nan, called)


def _begins_with_thinking(tags: Tags, begin: Places) -> Flags:
    once = (tags.count("<think>") == 1) & (tags.count("</think>") == 1)
    good: Flags = once & (tags.first("<think>") == begin)
    return good


def _is_answer(tags: Tags, call: str, begin: Places, end: Places) -> Flags:
    """``^<think>.*</think>.*<answer>.*</answer>$`` with each tag once and no call; a newline may end it.

    `begin` and `end` are where "^" and "$" are, here and in `_is_call`.
    """
    once = (tags.count("<answer>") == 1) & (tags.count("</answer>") == 1)
    no_call = (tags.count(f"<{call}>") == 0) & (tags.count(f"</{call}>") == 0)
    start, stop = tags.pair("answer", tags.after_first("</think>"))
    behind = tags.after_last("</answer>")
    at_end = behind == end
    for row in np.flatnonzero((behind >= 0) & (behind == end - 1)).tolist():
        at_end[row] = tags.texts[row][behind[row]] == "\n"
    at_end &= (start >= 0) & (stop >= 0)
    good: Flags = _begins_with_thinking(tags, begin) & once & no_call & at_end
    return good


def _is_call(tags: Tags, call: str, begin: Places, end: Places) -> Flags:
    """``^<think>.*</think>.*<call>.*</call>$`` with one thinking, no answer; one call tag may repeat."""
    no_answer = (tags.count("<answer>") == 0) & (tags.count("</answer>") == 0)
    not_repeated = (tags.count(f"<{call}>") == 1) | (tags.count(f"</{call}>") == 1)
    start = tags.pair(call, tags.after_first("</think>"))[0]
    at_end = (start >= 0) & (tags.after_last(f"</{call}>") == end)
    good: Flags = _begins_with_thinking(tags, begin) & no_answer & not_repeated & at_end
    return good
