"""What the originals call well formed, and where in a response they look for the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from lfpc_rewards._typing import Scores
from lfpc_rewards.presets._tags import Flags, Tags, both
from lfpc_rewards.presets._texts import lengths_of

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


def turn_format(turns: Sequence[Sequence[str]], call: str) -> tuple[Scores, Scores]:
    """Whether the turns are well formed, and how many call a tool: of Mini-o3, taken over from VisionThink.

    Returns:
        (B,) 0.0 or 1.0 and (B,) the number of calls; NaN for a rollout without turns. See `mini_o3_format`.
    """
    counts = lengths_of(turns)
    # The last of several turns is not stripped: white space behind its answer is an error.
    texts = [turn.strip() for each in turns for turn in each]
    row_of = np.repeat(np.arange(len(turns)), counts)
    is_last = np.zeros(len(texts), np.bool_)
    is_last[np.cumsum(counts)[counts > 0] - 1] = True
    for turn in np.flatnonzero(is_last & (counts[row_of] > 1)).tolist():
        texts[turn] = turns[row_of[turn]][-1]
    tags = Tags(texts, both("think", "answer", call))
    answers, calls = _is_answer(tags, call), _is_call(tags, call)
    wrong = np.where(is_last, ~answers, ~calls)
    layout = np.bincount(row_of, wrong, len(turns)) == 0
    # A turn counts if no turn before it, in its row, is malformed.
    broken = np.cumsum(wrong)
    before_row = np.concatenate(([0], broken))[np.cumsum(counts) - counts]
    counted = (tags.pair(call)[0] >= 0) & (broken - wrong == before_row[row_of])
    counted &= ~is_last | (counts[row_of] == 1)
    called = np.bincount(row_of, counted, len(turns))
    nothing = counts == 0
    return np.where(nothing, np.nan, layout), np.where(nothing, np.nan, called)


def _begins_with_thinking(tags: Tags) -> Flags:
    good: Flags = (tags.first("<think>") == 0) & (tags.count("<think>") == 1) & (tags.count("</think>") == 1)
    return good


def _is_answer(tags: Tags, call: str) -> Flags:
    """``^<think>.*</think>.*<answer>.*</answer>$`` with each tag once and no call; a newline may end it."""
    once = (tags.count("<answer>") == 1) & (tags.count("</answer>") == 1)
    no_call = (tags.count(f"<{call}>") == 0) & (tags.count(f"</{call}>") == 0)
    start, stop = tags.pair("answer", tags.after_first("</think>"))
    behind = tags.after_last("</answer>")
    at_end = behind == tags.lengths
    for row in np.flatnonzero(behind == tags.lengths - 1).tolist():
        at_end[row] = tags.texts[row].endswith("\n")
    at_end &= (start >= 0) & (stop >= 0)
    good: Flags = _begins_with_thinking(tags) & once & no_call & at_end
    return good


def _is_call(tags: Tags, call: str) -> Flags:
    """``^<think>.*</think>.*<call>.*</call>$`` with one thinking, no answer; one call tag may repeat."""
    no_answer = (tags.count("<answer>") == 0) & (tags.count("</answer>") == 0)
    not_repeated = (tags.count(f"<{call}>") == 1) | (tags.count(f"</{call}>") == 1)
    start = tags.pair(call, tags.after_first("</think>"))[0]
    at_end = (start >= 0) & (tags.after_last(f"</{call}>") == tags.lengths)
    good: Flags = _begins_with_thinking(tags) & no_answer & not_repeated & at_end
    return good
