"""What the originals call well formed, and where in a response they look for the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from lfpc_rewards._tags import Flags, Tags, both, lengths_of
from lfpc_rewards._typing import Scores

AnswerFrom: TypeAlias = Literal["strict", "split", "strict_v2"]
"""Which answer tag counts: the first pair; after the last opening tag; or up to the end of the text."""

_OPEN, _CLOSE = both("answer")
_FROM_THOUGHT_TO_ANSWER = re.compile(r"</think>\s*<answer>")


def thought_and_answer(tags: Tags) -> Scores:
    r"""(B,) 1 where ``<think>.*?</think>\s*<answer>.*?</answer>`` is all of the text, newlines included.

    Further tags may stand in the thinking and in the answer. `tags` must know those of think and answer.
    """
    good: Flags = (tags.first("<think>") == 0) & (tags.after_last(_CLOSE) == tags.lengths)
    good &= tags.first("</think>") >= 0
    begin, end = tags.first("</think>").tolist(), tags.last(_CLOSE).tolist()
    for row in np.flatnonzero(good).tolist():
        good[row] = _FROM_THOUGHT_TO_ANSWER.search(tags.texts[row], begin[row], end[row]) is not None
    return good.astype(np.float64)


def answers_from(texts: Sequence[str], answer_from: AnswerFrom | None) -> list[str | None]:
    """(B,) the answer in each text, None where there is none; as `mini_o3` describes."""
    if answer_from is None:
        return list(texts)
    if answer_from == "split":
        return [text.rpartition(_OPEN)[2].partition(_CLOSE)[0].strip() for text in texts]
    if answer_from not in ("strict", "strict_v2"):
        raise ValueError(f'answer_from must be "strict", "split", "strict_v2" or None, got {answer_from!r}')
    answers: list[str | None] = []
    for text in texts:
        inside = text.partition(_OPEN)[2]
        if answer_from == "strict":
            stop = inside.find(_CLOSE)
        else:  # "$" is the end of the text and also the place before a newline that ends it
            inside = inside.removesuffix("\n")
            stop = len(inside) - len(_CLOSE) if inside.endswith(_CLOSE) else -1
        answers.append(inside[:stop] if stop >= 0 else None)
    return answers


class Turns:
    """The assistant turns of a batch, read once: of Mini-o3, taken over from VisionThink.

    Attributes:
        empty: (B,) whether a rollout has no turns.
    """

    def __init__(self, turns: Sequence[Sequence[str]], call: str) -> None:
        self._turns, self._call, self._counts = turns, call, lengths_of(turns)
        self.empty: Flags = self._counts == 0
        # The last of several turns is not stripped: white space behind its answer is an error.
        texts = [
            turn if 0 < place == len(each) - 1 else turn.strip()
            for each in turns
            for place, turn in enumerate(each)
        ]
        self._tags = Tags(texts, both("think", "answer", call))

    def answers(self, answer_from: AnswerFrom | None) -> tuple[list[str], Flags]:
        """(B,) the answer in the turns, joined by blanks, as `answers_from` has it; (B,) if there is one."""
        return _split_off_none(answers_from([" ".join(each) for each in self._turns], answer_from))

    def last_answers(self) -> tuple[list[str], Flags]:
        """(B,) the last answer in the last turn; (B,) whether there is one."""
        last = [turns[-1] if turns else "" for turns in self._turns]
        tags = Tags(last, both("answer"))
        start, stop = tags.last_pair("answer")
        return tags.cut(start, stop), start >= 0

    def format(self) -> tuple[Scores, Scores]:
        """Whether the turns are well formed, and how many call a tool.

        Returns:
            (B,) 0.0 or 1.0 and (B,) the number of calls; NaN for a rollout without turns. See
            `mini_o3_format`.
        """
        tags, counts = self._tags, self._counts
        row_of = np.repeat(np.arange(len(counts)), counts)
        is_last = np.zeros(len(row_of), np.bool_)
        is_last[np.cumsum(counts)[counts > 0] - 1] = True
        wrong = np.where(is_last, ~_is_answer(tags, self._call), ~_is_call(tags, self._call))
        layout = np.bincount(row_of, wrong, len(counts)) == 0
        # A turn counts if no turn before it, in its row, is malformed.
        broken = np.cumsum(wrong)
        before_row = np.concatenate(([0], broken))[np.cumsum(counts) - counts]
        counted = (tags.pair(self._call)[0] >= 0) & (broken - wrong == before_row[row_of])
        counted &= ~is_last | (counts == 1)[row_of]
        called = np.bincount(row_of, counted, len(counts))
        return np.where(self.empty, np.nan, layout), np.where(self.empty, np.nan, called)


def _split_off_none(answers: Sequence[str | None]) -> tuple[list[str], Flags]:
    found = np.array([answer is not None for answer in answers], np.bool_)
    return [answer or "" for answer in answers], found


def _thinks_once(tags: Tags) -> Flags:
    once: Flags = (tags.count("<think>") == 1) & (tags.count("</think>") == 1) & (tags.first("<think>") == 0)
    return once


def _is_answer(tags: Tags, call: str) -> Flags:
    """``^<think>.*</think>.*<answer>.*</answer>$`` with each tag once and no call; a newline may end it."""
    good: Flags = _thinks_once(tags) & (tags.count(_OPEN) == 1) & (tags.count(_CLOSE) == 1)
    good &= (tags.count(f"<{call}>") == 0) & (tags.count(f"</{call}>") == 0)
    good &= tags.pair("answer", tags.after_first("</think>"))[0] >= 0
    behind = tags.after_last(_CLOSE)
    for row in np.flatnonzero(good & (behind != tags.lengths)).tolist():
        good[row] = tags.texts[row][behind[row] :] == "\n"
    return good


def _is_call(tags: Tags, call: str) -> Flags:
    """``^<think>.*</think>.*<call>.*</call>$`` with one thinking, no answer; one call tag may repeat."""
    good: Flags = _thinks_once(tags) & (tags.count(_OPEN) == 0) & (tags.count(_CLOSE) == 0)
    good &= (tags.count(f"<{call}>") == 1) | (tags.count(f"</{call}>") == 1)
    good &= tags.pair(call, tags.after_first("</think>"))[0] >= 0
    good &= tags.after_last(f"</{call}>") == tags.lengths
    return good
