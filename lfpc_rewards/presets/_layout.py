"""The originals' rules for well-formed responses, and for finding the answer in a response."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np

from lfpc_rewards._tags import Flags, Tags, both
from lfpc_rewards._typing import Scores

AnswerFrom: TypeAlias = Literal["strict", "split", "strict_v2"]
"""Which answer counts: the first tag pair; after the last opening tag; or up to the end of the text."""

_OPEN, _CLOSE = both("answer")
_FROM_THOUGHT_TO_ANSWER = re.compile(r"</think>\s*<answer>")


def thought_and_answer(tags: Tags) -> Scores:
    r"""Return (B,) 1 where ``<think>.*?</think>\s*<answer>.*?</answer>`` matches the whole text, DOTALL.

    The thinking and the answer may contain more tags. `tags` must include the think and answer tags.
    """
    good: Flags = (tags.first("<think>") == 0) & (tags.after_last(_CLOSE) == tags.lengths)
    good &= tags.first("</think>") >= 0
    begin, end = tags.first("</think>").tolist(), tags.last(_CLOSE).tolist()
    for row in np.flatnonzero(good).tolist():
        good[row] = _FROM_THOUGHT_TO_ANSWER.search(tags.texts[row], begin[row], end[row]) is not None
    return good.astype(np.float64)


def answer_in(text: str, answer_from: AnswerFrom | None) -> str | None:
    """Return the answer in a text, as described in `mini_o3`; None if there is none."""
    if answer_from is None:
        return text
    if answer_from == "split":
        return text.rpartition(_OPEN)[2].partition(_CLOSE)[0].strip()
    if answer_from not in ("strict", "strict_v2"):
        raise ValueError(f'answer_from must be "strict", "split", "strict_v2" or None, got {answer_from!r}')
    inside = text.partition(_OPEN)[2]
    if answer_from == "strict":
        stop = inside.find(_CLOSE)
    else:  # "$" also matches before a newline at the end
        inside = inside.removesuffix("\n")
        stop = len(inside) - len(_CLOSE) if inside.endswith(_CLOSE) else -1
    return inside[:stop] if stop >= 0 else None


def answers_in(turns: Sequence[Sequence[str]], answer_from: AnswerFrom | None) -> list[str | None]:
    """Return the (B,) answers in the turns of each rollout, joined by spaces."""
    return [answer_in(" ".join(each), answer_from) for each in turns]


def layout_and_calls(turns: Sequence[Sequence[str]], call: str) -> tuple[Scores, Scores]:
    """Check whether the turns are well formed and count tool calls: Mini-o3's rule, taken from VisionThink.

    Returns:
        (B,) 0.0 or 1.0, and the (B,) number of calls; NaN for a rollout without turns. See `mini_o3_format`.
    """
    find_tags = re.compile(f"</?(?:think|answer|{call})>").findall
    rows = [_layout_and_calls(each, call, find_tags) for each in turns]
    layout, calls = np.array(rows, np.float64).reshape(-1, 2).T
    return layout, calls


def _layout_and_calls(
    turns: Sequence[str], call: str, find_tags: Callable[[str], list[str]]
) -> tuple[float, float]:
    if not turns:
        return np.nan, np.nan
    # With several turns, the last one is not stripped: white space after its answer is an error.
    *before, last = [*map(str.strip, turns[:-1]), turns[-1] if len(turns) > 1 else turns[-1].strip()]
    begin, end = both(call)
    calls, good = 0, True
    for turn in before or [last]:
        tags = find_tags(turn)
        calls += begin in tags and end in tags[tags.index(begin) :]
        if before and not _is_call(turn, tags, begin, end):
            good = False  # calls are counted up to the first malformed turn
            break
    return float(good and _is_answer(last, find_tags(last), begin, end)), calls


def _thinks_once(turn: str, tags: list[str]) -> bool:
    return turn.startswith("<think>") and tags.count("<think>") == tags.count("</think>") == 1


def _is_answer(turn: str, tags: list[str], begin: str, end: str) -> bool:
    """Match ``^<think>.*</think>.*<answer>.*</answer>$``: each tag once, no call, maybe a final newline."""
    return (
        turn.removesuffix("\n").endswith(_CLOSE)
        and _thinks_once(turn, tags)
        and _OPEN in tags[tags.index("</think>") :]
        and tags.count(_OPEN) == tags.count(_CLOSE) == 1
        and begin not in tags
        and end not in tags
    )


def _is_call(turn: str, tags: list[str], begin: str, end: str) -> bool:
    """Match ``^<think>.*</think>.*<call>.*</call>$``: one thinking, no answer; one call tag may repeat."""
    return (
        turn.endswith(end)
        and _thinks_once(turn, tags)
        and begin in tags[tags.index("</think>") :]
        and 1 in (tags.count(begin), tags.count(end))
        and _OPEN not in tags
        and _CLOSE not in tags
    )
