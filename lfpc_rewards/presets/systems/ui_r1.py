"""UI-R1: the right action, and a point inside the target for clicks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._checks import as_sizes, same_length
from lfpc_rewards._tags import Tags, both
from lfpc_rewards._typing import Message, Scores, SizesLike
from lfpc_rewards.presets._boxes import INTEGER_BOX, INTEGER_POINT, numbers_in
from lfpc_rewards.presets._completions import first_texts
from lfpc_rewards.presets._layout import thought_and_answer
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

_ANSWER = re.compile("<answer>(.*?)</answer>", re.DOTALL)
_ACTION, _BARE_ACTION = re.compile(r"'action':\s*'(\w+)'"), re.compile(r"'action':\s*(\w+)")

SYSTEM = System(
    name="UI-R1",
    paper="2503.21620",
    code="lll6gg/UI-R1@2fe9bf00c8",
    rewards=("ui_r1",),
    terms="action + action with its click inside the target + format (each 0 or 1)",
    gates="the click needs the right action",
    blind_to=("the typed text, the opened app, the scroll direction", "the thinking"),
    loopholes=(
        Loophole(
            "several actions",
            "The first action and the first point count, and the others cost nothing.",
            "An answer with two actions or two points does not count.",
        ),
        Loophole(
            "no point is the corner",
            "A click without a point is at 0, 0, which hits a target in the upper left corner.",
            "A click without a point hits nothing.",
        ),
        Loophole(
            "answer in the thinking",
            "The first answer tag is read, even one inside the thinking.",
            "Thinking is never an answer.",
        ),
        Loophole(
            "first message",
            "Only the first message is read.",
            "The answer must be in the last turn.",
        ),
    ),
)


class UiR1Parts(NamedTuple):
    """The parts of `ui_r1`, each (B,) float64 of 0 and 1.

    Attributes:
        action: 1 for the right action.
        coord: 1 for the right action; a click also needs its point inside the target, edges included.
        format: 1 where the text is thinking followed by an answer.
        total: Their sum.
    """

    action: Scores
    coord: Scores
    format: Scores
    total: Scores


def ui_r1(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str],
    *,
    scales: SizesLike,
    mode: Mode = "exact",
) -> UiR1Parts:
    """UI-R1's reward: ``action + coord + format``.

    The answer is the first ``<answer>..</answer>``. Its action is the word after ``'action':``, with or
    without quotes; its point is the first ``[x, y]`` of non-negative integers, multiplied by the scale and
    truncated to integers.

    Args:
        completions: (B,) texts, or lists of messages, of which only the first is read.
        answers: (B,) gold texts, such as ``<answer>[{'action': 'click', 'coordinate': [x0, y0, x1,
            y1]}]</answer>``, with integers in pixels of the original image.
        scales: (B, 2) size of the original image over that of the shown one, or one (2,) for all.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; total in {0, .., 3}.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, or a gold text names no action, or a click without its box.

    Source:
        `accuracy_reward_action`, `accuracy_reward_coord` and `format_reward` of UI-R1 (arXiv 2503.21620).

    Example:
        >>> said = "<think>so</think><answer>[{'action': 'click', 'coordinate': [%d, 20]}]</answer>"
        >>> gold = "<answer>[{'action': 'click', 'coordinate': [10, 10, 30, 30]}]</answer>"
        >>> ui_r1([said % 15, said % 16], [gold] * 2, scales=(2, 1)).total
        array([3., 2.])
    """
    same_length(len(completions), answers=answers)
    gold_actions, targets = _golds(answers)
    clicks = np.array([action == "click" for action in gold_actions], np.bool_)
    factors = as_sizes(scales, "scales")
    if is_strict(mode):
        read = parse_strict_turns(completions, "tool_call")
        layout, given = read.well_formed, [_only(text) for text in read.texts()]
    else:
        tags = Tags(first_texts(completions), both("think", "answer"))
        layout, given = thought_and_answer(tags), [_first(text) for text in tags.cut(*tags.pair("answer"))]
    named = zip(given, gold_actions, strict=True)
    right = np.array([action == gold for (action, _), gold in named], np.bool_)
    points = np.array([point for _, point in given], np.float64).reshape(-1, 2)
    with np.errstate(all="ignore"):
        points = np.trunc(points * factors)
        (x, y), (x0, y0, x1, y1) = points.T, targets.T
        hit = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
    action, coord = right.astype(np.float64), (right & (hit | ~clicks)).astype(np.float64)
    return UiR1Parts(action, coord, layout, action + coord + layout)


def _action(text: str) -> str | None:
    found = _ACTION.search(text) or _BARE_ACTION.search(text)
    return found[1] if found else None


def _first(text: str) -> tuple[str | None, tuple[float, ...]]:
    """Return the first action and the first point of an answer; 0, 0 without a point."""
    point = INTEGER_POINT.search(text)
    return _action(text), numbers_in(point, 2) if point else (0.0, 0.0)


def _only(text: str) -> tuple[str | None, tuple[float, ...]]:
    """Return the only action and the only point; one bracket belongs to the list."""
    point = INTEGER_POINT.search(text) if text.count("[") <= 2 else None
    return _action(text) if text.count("'action'") == 1 else None, numbers_in(point, 2)


def _golds(answers: Sequence[str]) -> tuple[list[str], NDArray[np.float64]]:
    """Return the (B,) gold actions and their (B, 4) boxes."""
    known = {text: _gold(text) for text in set(answers)}
    for row, text in enumerate(answers):
        action, box = known[text]
        if action is None or (action == "click" and np.isnan(box[0])):
            raise ValueError(f"answers[{row}] must name an action, and a click its box, got {text!r}")
    boxes = np.array([known[text][1] for text in answers], np.float64).reshape(-1, 4)
    return [known[text][0] or "" for text in answers], np.nan_to_num(boxes)


def _gold(text: str) -> tuple[str | None, tuple[float, ...]]:
    found = _ANSWER.search(text)
    inside = found[1] if found else ""
    return _action(inside), numbers_in(INTEGER_BOX.search(inside), 4)
