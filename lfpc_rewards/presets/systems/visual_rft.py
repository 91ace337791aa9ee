"""Visual-RFT: lists of boxes with confidences, matched greedily; GIoU of one box for reasoning segmentation.

The original reads the first message of a completion; so does `exact`. It first lets a math library compare
the whole text with the whole solution, which boxes never equal by accident, but a copy does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lfpc_rewards._checks import same_length
from lfpc_rewards._json import json_or_none
from lfpc_rewards._packing import NO_BOX
from lfpc_rewards._tags import Tags, both
from lfpc_rewards._typing import Boxes, Message, Scores
from lfpc_rewards.geometry import giou
from lfpc_rewards.presets._boxes import (
    Numbers,
    as_numbers,
    giou_as_written,
    gold_box_lists,
    gold_boxes,
    plain_iou,
    proper,
    read_golds,
)
from lfpc_rewards.presets._completions import first_texts
from lfpc_rewards.presets._layout import thought_and_answer
from lfpc_rewards.presets._math import MathLibrary, math_equal, needed
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

Found: TypeAlias = list[tuple[Any, float]]
"""The boxes of a text and their confidences, highest first."""

_CORNERS = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)")
_MATCHED = 0.5

SYSTEM = System(
    name="Visual-RFT",
    paper="2503.01785",
    code="Liuziyu77/Visual-RFT@94866331ff",
    rewards=("visual_rft", "visual_rft_lisa"),
    terms="IoU of matched boxes + confidence + format; for one box GIoU + 1 (0 to 2) + format",
    gates="none: confidence and format count with any box",
    blind_to=(
        "the labels: every box counts as an object of the requested class",
        "the frame: coordinates are compared as written",
    ),
    loopholes=(
        Loophole(
            "sure that it is wrong",
            "A box without a match earns 1 for confidence if its confidence is 0.",
            "Such a box earns no confidence.",
        ),
        Loophole(
            "confidence beyond 1",
            "Confidences of any size are averaged: a confidence of 9 makes up for eight bad boxes.",
            "A confidence outside 0 to 1 earns nothing.",
        ),
        Loophole(
            "answer without tags",
            "Without answer tags on one line the whole text is the answer.",
            "The answer is the content of the only answer tag in the last turn.",
        ),
        Loophole(
            "answer in the thinking",
            "The first answer tag is read, even one inside the thinking.",
            "Thinking is never an answer.",
        ),
        Loophole(
            "corners of two boxes",
            "More boxes cost nothing, and the corners of two boxes form a third.",
            "An answer with two boxes has no box.",
        ),
        Loophole(
            "inverted box",
            "An inverted box has a negative area, which increases its GIoU.",
            "Such a box earns nothing.",
        ),
        Loophole(
            "far is better than none",
            "GIoU + 1 rewards any box that is not at the opposite end of the image.",
            "Only positive GIoU counts, doubled.",
        ),
    ),
)


class VisualRftParts(NamedTuple):
    """The parts of `visual_rft`, each (B,) float64.

    Attributes:
        iou: Sum of the IoU of matched boxes over the larger number of boxes, in [0, 1].
        confidence: Mean confidence of the boxes, with 1 minus the confidence for boxes without a match.
        format: 1 where the text is thinking and then an answer, else 0.
        total: Their sum.
    """

    iou: Scores
    confidence: Scores
    format: Scores
    total: Scores


class VisualRftLisaParts(NamedTuple):
    """The parts of `visual_rft_lisa`, each (B,) float64.

    Attributes:
        giou: GIoU + 1, in [0, 2]; 0 without a box, 2 for the text of the solution.
        format: 1 where the text is thinking and then an answer, else 0.
        total: Their sum.
    """

    giou: Scores
    format: Scores
    total: Scores


def visual_rft(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str | Sequence[Sequence[float]]],
    *,
    math: MathLibrary | None = None,
    mode: Mode = "exact",
) -> VisualRftParts:
    """Visual-RFT's reward for detection: ``IoU + confidence + format``.

    The answer is a list of ``{'Position': [x0, y0, x1, y1], 'Confidence': c}``: the first one in answer tags
    on one line, else the whole text. Quotes become double, double brackets single, and a truncated list ends
    at its last object. In the order of their confidence, the boxes, without exact duplicates, are matched to
    the best free gold box if its IoU exceeds 0.5.

    Args:
        completions: (B,) texts, or lists of messages, of which only the first is read.
        answers: (B,) lists of gold boxes, or texts in the format of an answer.
        math: The module math_verify, or an object with its `parse` and `verify`; for mode "exact", where a
            text that equals the gold text gets 1 for both terms.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; total in [0, 3]. NaN where a confidence is NaN (mode "exact").

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, a gold answer holds no boxes, or `math` is missing in mode "exact".

    Source:
        `accuracy_reward_iou`, `accuracy_reward_confidence` and `format_reward` of Visual-RFT
        (arXiv 2503.01785).

    Example:
        >>> class plain:
        ...     parse = staticmethod(lambda text: [text])
        ...     verify = staticmethod(lambda gold, answer: gold == answer)
        >>> said = "<think>so</think><answer>[{'Position': [0, 0, 9, 10], 'Confidence': 0.8}]</answer>"
        >>> parts = visual_rft([said], [[[0, 0, 10, 10]]], math=plain)
        >>> parts.iou, parts.confidence, parts.format
        (array([0.9]), array([0.8]), array([1.]))
    """
    same_length(len(completions), answers=answers)
    golds = gold_box_lists(_gold_rows(answers), "answers")
    if is_strict(mode):
        read = parse_strict_turns(completions, "tool_call")
        found = [_boxes_of(text) for text in read.texts()]
        ious, confidence = detection_scores(found, golds, strict=True)
        return VisualRftParts(ious, confidence, read.well_formed, ious + confidence + read.well_formed)
    texts = first_texts(completions)
    tags = Tags(texts, both("think", "answer"))
    start, stop = tags.line_pair("answer")
    found = [_boxes_of(_repaired(text)) for text in tags.stripped(np.maximum(start, 0), stop)]
    ious, confidence = detection_scores(found, golds, strict=False)
    gold_texts = [gold if isinstance(gold, str) else "" for gold in answers]
    same = math_equal(texts, gold_texts, needed(math)) > 0
    ious, confidence = np.where(same, 1.0, ious), np.where(same, 1.0, confidence)
    layout = thought_and_answer(tags)
    return VisualRftParts(ious, confidence, layout, ious + confidence + layout)


def visual_rft_lisa(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str | Sequence[float]],
    *,
    math: MathLibrary | None = None,
    mode: Mode = "exact",
) -> VisualRftLisaParts:
    """Visual-RFT's reward for reasoning segmentation: ``GIoU + 1 + format`` of one box.

    The box is ``(x0,y0),(x1,y1)`` in thousandths of the image, in the first answer tag or, without one,
    anywhere. From several boxes, the original forms one box of the first corners of the first two.

    Args:
        completions: As in `visual_rft`.
        answers: (B,) texts with the gold box in the format of an answer, or (B, 4) boxes.
        math: As in `visual_rft`; a text that equals the gold text gets 1.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; total in [0, 3] for boxes with x0 <= x1 and y0 <= y1.

    Raises:
        TypeError: As in `visual_rft`.
        ValueError: As in `visual_rft`.

    Source:
        `accuracy_reward` and `format_reward` in `grpo_lisa.py` of Visual-RFT (arXiv 2503.01785).

    Example:
        >>> said = "<think>so</think><answer>(100,100),(200,150)</answer>"
        >>> visual_rft_lisa([said], [[100, 100, 200, 200]], mode="strict").giou
        array([1.])
    """
    same_length(len(completions), answers=answers)
    gold_texts = [gold if isinstance(gold, str) else "" for gold in answers]
    golds, gold_answers = _lisa_golds(answers, gold_texts)
    if is_strict(mode):
        read = parse_strict_turns(completions, "tool_call")
        boxes = np.array([_only_corners(text or "") for text in read.answers]).reshape(-1, 4) / 1000
        good = proper(boxes) & proper(golds)
        score = np.zeros(len(boxes))
        score[good] = 2 * np.maximum(giou(boxes[good], golds[good]), 0)
        return VisualRftLisaParts(score, read.well_formed, score + read.well_formed)
    tags = Tags(first_texts(completions), both("think", "answer"))
    start, stop = tags.pair("answer")
    given = tags.stripped(np.maximum(start, 0), stop)  # without an answer: the whole text
    boxes = np.array([_lisa_box(text) for text in given]).reshape(-1, 4) / 1000
    score = np.where(np.isnan(boxes[:, 0]), 0.0, giou_as_written(boxes, golds) + 1)
    score[[text == gold for text, gold in zip(given, gold_answers, strict=True)]] = 2.0
    score[math_equal(tags.texts, gold_texts, needed(math)) > 0] = 1.0
    layout = thought_and_answer(tags)
    return VisualRftLisaParts(score, layout, score + layout)


def _repaired(inside: str) -> str:
    """Return the list in an answer, repaired as in the original; quotes are replaced later."""
    inside = inside.replace("[[", "[").replace("]]", "]").replace("\n", "")
    return _completed(inside[: inside.find("</answer>")] if "</answer>" in inside else inside)


def _completed(text: str) -> str:
    return text if text.endswith("]") else text.rsplit("},", 1)[0] + "}]"


def _boxes_of(text: str) -> Found:
    """Return the boxes of a list without duplicates; none if the original fails on one of its objects."""
    items = json_or_none(text.replace("'", '"'))
    places: dict[Any, float] = {}
    for item in items if isinstance(items, list) else ():
        place = item.get("Position") if isinstance(item, dict) else None
        sure = item.get("Confidence") if isinstance(item, dict) else None
        if not isinstance(place, list | str | dict) or not isinstance(sure, int | float):
            return []
        try:
            places.setdefault(tuple(place), float(sure))
        except (TypeError, OverflowError):  # a list as value; a number too large to average
            return []
    return sorted(places.items(), key=itemgetter(1), reverse=True)


def _is_broken(place: tuple[Any, ...]) -> bool:
    """Whether the original fails to compare this value."""
    return len(place) != 4 or not all(isinstance(side, int | float) for side in place)


def _gold_rows(answers: Sequence[Any]) -> list[Any]:
    rows = read_golds(answers, _positions)
    for row in (row for row, places in enumerate(rows) if places is None):
        raise ValueError(f"answers[{row}] must hold a list of positions, got {answers[row]!r}")
    return rows


def _positions(text: str) -> list[Any] | None:
    items = json_or_none(
        _completed(text.partition("<answer>")[2].partition("</answer>")[0]).replace("'", '"')
    )
    if not isinstance(items, list) or not all(isinstance(i, dict) and "Position" in i for i in items):
        return None
    return [item["Position"] for item in items]


def _lisa_golds(answers: Sequence[Any], texts: Sequence[str]) -> tuple[Boxes, list[str | None]]:
    """Return the (B, 4) gold boxes in [0, 1], and the (B,) gold texts; None for gold answers without text."""
    if not any(texts):
        return gold_boxes(answers) / 1000, [None] * len(texts)
    tags = Tags(texts, both("answer"))
    start, stop = tags.line_pair("answer")
    given: list[str | None] = list(tags.stripped(np.maximum(start, 0), stop))
    boxes = np.array([_lisa_box(text or "") for text in given]).reshape(-1, 4)
    for row in np.flatnonzero(np.isnan(boxes[:, 0])).tolist():
        if texts[row]:
            raise ValueError(f"answers[{row}] must hold a box (x0,y0),(x1,y1), got {answers[row]!r}")
        boxes[row], given[row] = gold_boxes([answers[row]])[0], None
    return boxes / 1000, given


def _lisa_box(text: str) -> tuple[float, ...]:
    """Return the box that the original forms from all boxes in a text."""
    try:
        found = [tuple(map(int, corners)) for corners in _CORNERS.findall(text)]
        firsts = [corners[:2] for corners in found] + [corners[2:] for corners in found]
        return (*map(float, firsts[0]), *map(float, firsts[1])) if found else NO_BOX
    except (ValueError, OverflowError):  # more digits than Python converts, or beyond float64
        return NO_BOX


def _only_corners(text: str) -> tuple[float, ...]:
    return _lisa_box(text) if len(_CORNERS.findall(text)) == 1 else NO_BOX


def detection_scores(
    found: Sequence[Found], golds: Sequence[Sequence[Numbers]], *, strict: bool
) -> tuple[Scores, Scores]:
    """Return (B,) IoU and confidence: boxes, by confidence, take the best free gold box."""
    rows = [_matched(*row, strict) for row in zip(found, golds, strict=True)]
    ious, confidences = np.array(rows, np.float64).reshape(-1, 2).T
    return ious, confidences


def _matched(found: Found, golds: Sequence[Numbers], strict: bool) -> tuple[float, float]:
    if not found:
        return 0.0, 0.0
    free = list(golds)
    iou, confidence = 0.0, 0.0
    for place, sure in found:
        if free and _is_broken(place):
            return 0.0, 0.0
        box = as_numbers(place, 4)
        ious = [plain_iou(box, gold) for gold in free]
        best = max(ious, default=0.0)
        if best > _MATCHED:
            del free[ious.index(best)]
            iou += best
            confidence += sure if not strict or 0 <= sure <= 1 else 0.0
        elif not strict:
            confidence += 1 - sure
    most = max(len(found), len(golds))
    mean = confidence / (most if strict else len(found))
    return iou / most, 1.0 if mean > 1 else 0.0 if mean < 0 else mean
