"""UI-R1: the right action, and for a click a point inside the target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._checks import as_sizes
from lfpc_rewards._typing import Message, Scores, SizesLike
from lfpc_rewards.presets._boxes import INTEGER_BOX, INTEGER_POINT
from lfpc_rewards.presets._completions import first_texts, same_length
from lfpc_rewards.presets._layout import thought_and_answer
from lfpc_rewards.presets._shapes import Shape
from lfpc_rewards.presets._strict import read_strictly
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict
from lfpc_rewards.presets._tags import Flags, Tags, both
from lfpc_rewards.presets._texts import Places, Readable, lengths_of, readable, same_parts

_ACTION = Shape("'action': '@'")
_BARE_ACTION = re.compile(r"'action':\s*(\w+)")

SYSTEM = System(
    name="UI-R1",
    paper="2503.21620",
    code="lll6gg/UI-R1@2fe9bf00c8",
    rewards=("ui_r1",),
    terms="action + action with its click inside the target + format (each 0 or 1)",
    gates="the click needs the right action",
    blind_to=("which text is typed, which app is opened, where to scroll", "the thinking"),
    loopholes=(
        Loophole(
            "several actions",
            "The first action and the first point count, the others cost nothing.",
            "An answer with two actions or two points has none.",
        ),
        Loophole(
            "no point is the corner",
            "A click without a point is one at 0, 0, which hits what lies in the upper left corner.",
            "A click without a point hits nothing.",
        ),
        Loophole(
            "answer in the thinking",
            "The first answer tag is read, also one inside the thinking.",
            "Thinking is never an answer.",
        ),
        Loophole(
            "first message",
            "Only the first message is read.",
            "The answer is that of the last turn.",
        ),
    ),
)


class UiR1Parts(NamedTuple):
    """The parts of `ui_r1`, each (B,) float64 of 0 and 1.

    Attributes:
        action: 1 for the right action.
        coord: 1 for the right action, if it is a click only with its point inside the target, edges included.
        format: 1 where the text is thinking and then an answer.
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
    without quotes, its point the first ``[x, y]`` of non-negative integers, which is multiplied by the scale
    and cut to integers.

    Args:
        completions: (B,) texts, or lists of messages, of which the first is read.
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
    golds, gold_actions, clicks, targets = _golds(answers)
    factors = as_sizes(scales, "scales")
    if is_strict(mode):
        read = read_strictly(completions, "tool_call")
        texts, layout = readable([text or "" for text in read.answers]), read.well_formed
        actions, points = _only_actions(texts), _only_points(texts)
    else:
        tags = Tags(first_texts(completions), both("think", "answer"))
        texts, (start, stop) = tags.own, tags.pair("answer")
        actions, layout = _first_actions(texts, start, stop), thought_and_answer(tags)
        points, spans = INTEGER_POINT.first(texts, start, stop)
        points[spans[:, 0] < 0] = 0.0  # no point is the corner; one beyond float64 stays NaN and hits nothing
    right = same_parts(texts, actions, golds, gold_actions)
    with np.errstate(all="ignore"):
        points = np.trunc(points * factors)
        (x, y), (x0, y0, x1, y1) = points.T, targets.T
        hit = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
    action, coord = right.astype(np.float64), (right & (hit | ~clicks)).astype(np.float64)
    return UiR1Parts(action, coord, layout, action + coord + layout)


def _first_actions(texts: Readable, start: Places, stop: Places) -> NDArray[np.int64]:
    """(B, 2) where the action stands that is named first between two places of each text; -1 for none."""
    spans = _ACTION.first(texts, start, stop)[1]
    for row in np.flatnonzero((spans[:, 0] < 0) & (start >= 0)).tolist():
        found = _BARE_ACTION.search(texts.texts[row], int(start[row]), int(stop[row]))
        spans[row] = found.span(1) if found else -1
    return spans


def _only_actions(texts: Readable) -> NDArray[np.int64]:
    spans = _first_actions(texts, lengths_of(texts) * 0, lengths_of(texts))
    spans[[text.count("'action'") != 1 for text in texts]] = -1
    return spans


def _only_points(texts: Readable) -> NDArray[np.float64]:
    points = INTEGER_POINT.first(texts)[0]
    points[[text.count("[") > 2 for text in texts]] = np.nan  # the list, and one point in it
    return points


def _golds(answers: Sequence[str]) -> tuple[Readable, NDArray[np.int64], Flags, NDArray[np.float64]]:
    """The gold texts, where their actions stand, which of these are clicks, and their boxes."""
    tags = Tags(answers, both("answer"))
    start, stop = tags.pair("answer")
    actions, boxes = _first_actions(tags.own, start, stop), INTEGER_BOX.first(tags.own, start, stop)[0]
    named = zip(tags.texts, *actions.T.tolist(), strict=True)
    clicks = np.array([text[begin:end] == "click" for text, begin, end in named], np.bool_)
    missing = (actions[:, 0] < 0) | (clicks & np.isnan(boxes[:, 0]))
    for row in np.flatnonzero(missing).tolist():
        raise ValueError(f"answers[{row}] must name an action, and a click its box, got {tags.texts[row]!r}")
    return tags.own, actions, clicks, np.nan_to_num(boxes)
