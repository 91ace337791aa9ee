"""SE-GUI: a click inside the target and near its center.

The click is the ``coordinate`` of the first tool call. Point, target and image are in pixels of the shown
image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._checks import as_positive_sizes, raise_bad_row, same_length
from lfpc_rewards._json import json_or_none
from lfpc_rewards._tags import Places, Tags, both
from lfpc_rewards._typing import BoxesLike, Message, Scores, SizesLike
from lfpc_rewards.presets._boxes import as_number, gold_boxes
from lfpc_rewards.presets._completions import first_texts, last_texts
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

_POINT = re.compile(r"\{.*\[\d+,\s*\d+\].*\}", re.DOTALL)

SYSTEM = System(
    name="SE-GUI",
    paper="2505.12370",
    code="YXB-NKU/SE-GUI@0e2623762f",
    rewards=("se_gui",),
    terms="1 inside the target + 1 - (distance to its centre over the largest possible)^2, + format (0 or 1)",
    gates="none: the distance term also counts outside the target",
    blind_to=("the action and the name of the tool", "all text besides the call"),
    loopholes=(
        Loophole(
            "anywhere near",
            "A click at the center of the image earns most of the squared distance term.",
            "A click outside the target earns nothing.",
        ),
        Loophole(
            "several calls",
            "The first call counts and the others cost nothing.",
            "The turn must have exactly one call.",
        ),
        Loophole(
            "format around anything",
            "The format needs no JSON: two integers in brackets and braces are enough, even across calls.",
            "The call must be JSON that names a tool, with a coordinate of two numbers.",
        ),
        Loophole(
            "yes is a number",
            "true and false are parsed as 1 and 0, a click in the upper left corner.",
            "A coordinate must be two numbers.",
        ),
        Loophole(
            "first message",
            "Only the first message is read.",
            "The call must be in the last turn.",
        ),
    ),
)


class SeGuiParts(NamedTuple):
    """The parts of `se_gui`, each (B,) float64.

    Attributes:
        point: 1 inside the target, edges included, plus at most 1 for the distance to its centre; 0 without a
            point.
        format: 1 where a tool call with two integers in brackets and in braces is found, else 0.
        total: Their sum.
    """

    point: Scores
    format: Scores
    total: Scores


def se_gui(
    completions: Sequence[str | Sequence[Message]],
    answers: BoxesLike,
    *,
    image_sizes: SizesLike,
    mode: Mode = "exact",
) -> SeGuiParts:
    """SE-GUI's reward for grounding a click: ``point + format``.

    In coordinates divided by width and height, d is the distance from the point to the center of the target,
    and D that of the farthest corner of the image: ``point = inside + (1 - (d / D)^2 if d <= 1 else 0)``.

    Args:
        completions: (B,) texts, or lists of messages, of which only the first is read.
        answers: (B, 4) targets, in pixels of the shown image.
        image_sizes: (B, 2) width and height of the shown images, or one (2,) for all.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed: one call in the last turn, and no
            reward outside the target.

    Returns:
        The parts; total in [0, 3] for points inside the image. Far outside it can be below 0.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, a target is not four finite numbers, or a size is not positive.

    Source:
        `point_reward` and `format_reward_rec` of SE-GUI (arXiv 2505.12370).

    Example:
        >>> call = '<tool_call>{"name": "computer_use", "arguments": {"coordinate": [%d, %d]}}</tool_call>'
        >>> said = [call % (50, 50), call % (50, 20), "no"]
        >>> for mode in ("exact", "strict"):
        ...     print(se_gui(said, [[40, 40, 60, 60]] * 3, image_sizes=(100, 100), mode=mode).point)
        [2.   0.82 0.  ]
        [2. 0. 0.]
    """
    golds = gold_boxes(answers)
    same_length(len(completions), answers=golds)
    if not np.isfinite(golds).all():
        raise_bad_row("answers", golds, np.isfinite(golds).all(1), "must be four finite numbers")
    sizes = as_positive_sizes(image_sizes)
    strict = is_strict(mode)
    tags = Tags(last_texts(completions) if strict else first_texts(completions), both("tool_call"))
    start, stop = tags.pair("tool_call")
    calls = tags.stripped(start, stop)
    points = np.array([_point(call, strict) for call in calls], np.float64).reshape(-1, 2)
    inside, near = _terms(points, golds, sizes)
    if strict:
        once = (tags.count("<tool_call>") == 1) & (tags.count("</tool_call>") == 1) & ~np.isnan(points[:, 0])
        layout = once.astype(np.float64)
        point = np.where(once & (inside > 0), inside + near, 0.0)
    else:
        layout = _format(tags, start)
        point = inside + near
    return SeGuiParts(point, layout, point + layout)


def _terms(points: NDArray[np.float64], golds: Any, sizes: Any) -> tuple[Scores, Scores]:
    """Return whether each point is inside its target, and the distance term; both 0 without a point."""
    with np.errstate(all="ignore"):
        (x, y), (left, top, right, bottom), (width, height) = points.T, golds.T, sizes.T
        inside = (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
        u, v = (left + right) / 2 / width, (top + bottom) / 2 / height
        farthest = np.hypot(np.maximum(abs(u), abs(u - 1)), np.maximum(abs(v), abs(v - 1)))  # of the corners
        off = np.hypot(x / width - u, y / height - v)
        share = off / farthest
        near = np.where(off <= 1, 1 - share * share, 0.0)
    return inside.astype(np.float64), near


def _point(text: str, strict: bool) -> tuple[float, float]:
    """Return the coordinate of a call; NaN if there is none."""
    value = json_or_none(text)
    call = value if isinstance(value, dict) else {}
    arguments = call.get("arguments")
    point = arguments.get("coordinate") if isinstance(arguments, dict) else None
    if not isinstance(point, list) or len(point) != 2 or not all(isinstance(n, int | float) for n in point):
        return math.nan, math.nan
    if strict and (bool in map(type, point) or not isinstance(call.get("name"), str)):
        return math.nan, math.nan
    return as_number(point[0]), as_number(point[1])


def _format(tags: Tags, start: Places) -> Scores:
    """Whether two integers in brackets and braces are found between any start and end of tool calls."""
    insides = tags.cut(start, np.maximum(tags.last("</tool_call>"), 0))
    return np.array([_POINT.search(inside) is not None for inside in insides], np.float64)
