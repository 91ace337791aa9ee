"""Seg-Zero and VisionReasoner: a box and points for a segmentation model, scored by thresholds.

Seg-Zero asks for one object with two points, VisionReasoner for a list of objects with one point each. Every
term is 0 or 1, so no segmentation model has to run during training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lfpc_rewards._checks import same_length
from lfpc_rewards._json import json_or_none
from lfpc_rewards._packing import four_numbers
from lfpc_rewards._tags import Tags, both
from lfpc_rewards._typing import Message, Scores
from lfpc_rewards.presets._assignment import assign
from lfpc_rewards.presets._boxes import Numbers, as_numbers, numbers_in, pixel_inclusive_iou, read_golds
from lfpc_rewards.presets._completions import first_texts, last_texts
from lfpc_rewards.presets._layout import thought_and_answer
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

MOST_OBJECTS = 120
"""VisionReasoner ignores objects beyond this number. Set in the original's code."""

_NAMES = ("bbox", "points_1", "points_2")
_OBJECT = re.compile(r"{[^}]+}")
_CORNERS = r"\((\d+),(\d+)\),\((\d+),(\d+)\)"
_GOLD_BOX = re.compile(rf"<box>{_CORNERS}</box>")
_GOLD_POINTS = re.compile(rf"<points>{_CORNERS}</points>")
_SENTENCE_END = re.compile(r"[.!?\u3002\n]+")
_NOTHING = (np.nan,) * 8

_IN_THE_THINKING = Loophole(
    "answer in the thinking",
    "The first match is read, even inside the thinking, so the answer itself may say anything.",
    "Thinking is never an answer.",
)
_ANY_FOUR = Loophole(
    "four of anything",
    "The format counts entries: a box of four letters is well formed.",
    "A box must be four finite numbers with x0 < x1 and y0 < y1, a point two finite numbers.",
)

SEG_ZERO = System(
    name="Seg-Zero",
    paper="2503.06520",
    code="dvlab-research/Seg-Zero@42a3345528",
    rewards=("seg_zero",),
    terms="thinking format + object format + (IoU > 0.5) + (L1 < 10 px) + (points in the box, < 100 px off)",
    gates="the points only count inside the predicted box",
    blind_to=("the mask", "how good a box is beyond IoU 0.5", "points nearer than 100 px"),
    loopholes=(
        _IN_THE_THINKING,
        _ANY_FOUR,
        Loophole(
            "inverted box",
            "The corner distance ignores the order: an inverted box at a small target earns it.",
            "Such a box earns nothing.",
        ),
        Loophole(
            "text after the object",
            "Only the first braces are read, so more objects cost nothing.",
            "The answer must be a single object.",
        ),
    ),
)

VISION_REASONER = System(
    name="VisionReasoner",
    paper="2505.12081",
    code="dvlab-research/Seg-Zero@42a3345528",
    rewards=("vision_reasoner",),
    terms="format (thinking 1, objects 2) + accuracy (0 to 3, best assignment) + no repetition",
    gates="a point only counts inside its own box",
    blind_to=("the masks", "the labels", "how good a box is beyond IoU 0.5"),
    loopholes=(
        _IN_THE_THINKING,
        _ANY_FOUR,
        Loophole(
            "repetition without full stops",
            "Sentences only end at periods: text that repeats line by line has none.",
            "Line breaks and other punctuation end a sentence as well.",
        ),
        Loophole(
            "objects beyond 120",
            "Objects from the 121st on cost nothing.",
            "The score is divided by their number.",
        ),
    ),
)


class SegZeroParts(NamedTuple):
    """The parts of `seg_zero`, each (B,) float64 of 0 and 1.

    Attributes:
        think_format: 1 where the text is thinking followed by an answer.
        seg_format: 1 where the object has a box with four entries and two points with two entries.
        iou: 1 where the IoU exceeds 0.5.
        box_l1: 1 where the mean error of the four sides is below 10 pixels.
        point_l1: 1 where both points are in the predicted box and their mean error is below 100 pixels.
        total: Their sum.
    """

    think_format: Scores
    seg_format: Scores
    iou: Scores
    box_l1: Scores
    point_l1: Scores
    total: Scores


class VisionReasonerParts(NamedTuple):
    """The parts of `vision_reasoner`, each (B,) float64.

    Attributes:
        format: 1 for thinking and then an answer, plus the mean over the objects of 1 for a box and 1 for a
            point.
        accuracy: Sum over the best assignment of (IoU > 0.5) + (L1 < 10) + (point within 30 pixels and in its
            box), over the larger number of objects.
        non_repeat: 0 where two sentences are repetitions, else 1.
        total: Their sum.
    """

    format: Scores
    accuracy: Scores
    non_repeat: Scores
    total: Scores


def seg_zero(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str],
    *,
    restricted: bool = False,
    mode: Mode = "exact",
) -> SegZeroParts:
    """Seg-Zero's reward: five binary terms on one box and two points.

    The object is the first ``{..}`` of the text, parsed as JSON. Its box is the first entry with "bbox" in
    its name, its points the first two with "points" (for the format: "point"), truncated to integers. Boxes
    include their last pixel.

    Args:
        completions: (B,) texts, or lists of messages, of which only the first is read.
        answers: (B,) gold texts ``<box>(x0,y0),(x1,y1)</box><points>(x,y),(x,y)</points>``.
        restricted: The names must be "bbox", "points_1" and "points_2", as in the original's restricted
            variant.
        mode: "exact", or "strict" with the loopholes of `SEG_ZERO` closed; there the names are restricted.

    Returns:
        The parts; total in {0, .., 5}.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, or a gold text lacks its box or its points.

    Source:
        `seg_compute_score` and `seg_strict_compute_score` of Seg-Zero (arXiv 2503.06520).

    Example:
        >>> found = '{"bbox": [0, 0, 9, 9], "points_1": [4, 4], "points_2": [5, 5]}'
        >>> said = f"<think>so</think><answer>{found}</answer>"
        >>> gold = "<box>(0,0),(9,9)</box><points>(5,5),(4,4)</points>"
        >>> seg_zero([said, said.replace("9, 9", "19, 9")], [gold] * 2).total
        array([5., 4.])
    """
    same_length(len(completions), answers=answers)
    golds = _gold_objects(answers)
    if is_strict(mode):
        read = parse_strict_turns(completions, "tool_call")
        think = read.well_formed
        objects = [_object(text, restricted=True) for text in read.texts()]
        objects = [(found, sound) if _is_proper(found) else (_NOTHING, False) for found, sound in objects]
    else:
        tags = Tags(first_texts(completions), both("think", "answer"))
        think = thought_and_answer(tags)
        texts = [match[0] if (match := _OBJECT.search(text)) else "" for text in tags.texts]
        objects = [_object(text, restricted) for text in texts]
    rows = [(sound, *object_terms(found, gold)) for (found, sound), gold in zip(objects, golds, strict=True)]
    sound, ious, distances, points = np.array(rows, np.float64).reshape(-1, 4).T
    return SegZeroParts(think, sound, ious, distances, points, think + sound + ious + distances + points)


def vision_reasoner(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str | Sequence[Any]],
    *,
    mode: Mode = "exact",
) -> VisionReasonerParts:
    """VisionReasoner's reward: ``format + accuracy + non_repeat``.

    The answer is the first ``<answer>..</answer>``, a JSON list of ``{"bbox_2d": [..], "point_2d": [..]}``.
    Objects are assigned to gold objects so that the sum of their scores is largest. Boxes include their last
    pixel.

    Args:
        completions: (B,) texts, or lists of messages, of which only the first is read.
        answers: (B,) gold lists in the format of an answer, or as JSON text.
        mode: "exact", or "strict" with the loopholes of `VISION_REASONER` closed.

    Returns:
        The parts; total in [0, 7].

    Raises:
        TypeError: As in `seg_zero`.
        ValueError: The lengths differ, or a gold object lacks its box or its point.

    Source:
        `vision_reasoner_compute_score` of VisionReasoner (arXiv 2505.12081).

    Example:
        >>> said = '<think>so</think><answer>[{"bbox_2d": [0, 0, 9, 9], "point_2d": [4, 4]}]</answer>'
        >>> gold = [{"bbox_2d": [0, 0, 9, 9], "point_2d": [40, 4]}]
        >>> vision_reasoner([said, said], [gold, gold * 2]).accuracy
        array([2., 1.])
    """
    same_length(len(completions), answers=answers)
    golds = _gold_lists(answers)
    strict = is_strict(mode)
    if strict:
        read = parse_strict_turns(completions, "tool_call")
        texts, think = read.texts(), read.well_formed
        varied = [_varied(_SENTENCE_END.split(text)) for text in last_texts(completions)]
    else:
        tags = Tags(first_texts(completions), both("think", "answer"))
        texts, think = tags.stripped(*tags.pair("answer")), thought_and_answer(tags)
        varied = [_varied(text.split(".")) for text in tags.texts]
    lists = [_object_list(text, strict) for text in texts]
    rows = zip(lists, golds, strict=True)
    accuracy = np.array([assigned_terms(found, gold) for (found, _), gold in rows], np.float64)
    layout = think + np.array([sound for _, sound in lists], np.float64)
    fresh = np.array(varied, np.float64)
    return VisionReasonerParts(layout, accuracy, fresh, layout + accuracy + fresh)


def _varied(sentences: Sequence[str]) -> bool:
    said = [sentence for sentence in map(str.strip, sentences) if sentence]
    return len(said) - len(set(said)) < 2


def _gold_objects(answers: Sequence[str]) -> list[Numbers]:
    golds = []
    for row, text in enumerate(answers):
        golds.append((*numbers_in(_GOLD_BOX.search(text), 4), *numbers_in(_GOLD_POINTS.search(text), 4)))
        if any(map(math.isnan, golds[row])):
            raise ValueError(
                f"answers[{row}] must hold <box>..</box> and <points>..</points>, got {answers[row]!r}"
            )
    return golds


def _object(text: str, restricted: bool) -> tuple[Numbers, bool]:
    """Return the box and two points of an object, NaN where missing, and whether it is well formed."""
    item = json_or_none(text)
    if not isinstance(item, dict):
        return _NOTHING, False
    if restricted:
        boxes = [name for name in _NAMES[:1] if name in item]
        points = named = [name for name in _NAMES[1:] if name in item]
        kinds: Any = list
    else:
        boxes = [name for name in item if "bbox" in name.lower()][:1]
        named = [name for name in item if "point" in name.lower() and name not in boxes][:2]
        points = [name for name in item if "points" in name.lower()][:2]
        kinds = list | str | dict
    box = item[boxes[0]] if boxes and boxes[0] else None
    sizes = [isinstance(item[name], kinds) and len(item[name]) == 2 for name in named]
    sound = isinstance(box, kinds) and len(box) == 4 and sizes == [True, True]
    places = [_point(item[name]) for name in points]
    if len(places) != 2:
        places = [(np.nan, np.nan)] * 2
    return (*as_numbers(box, 4), *places[0], *places[1]), sound


def _point(value: Any) -> tuple[float, float]:
    """Return the first two entries, truncated to integers, as the original parses a point."""
    try:
        return float(int(value[0])), float(int(value[1]))
    except (TypeError, ValueError, OverflowError, LookupError):
        return np.nan, np.nan


def _gold_lists(answers: Sequence[Any]) -> list[list[Numbers]]:
    golds = []
    for row, items in enumerate(read_golds(answers)):
        if not isinstance(items, list | tuple):
            raise ValueError(f"answers[{row}] must be a list of objects, got {answers[row]!r}")
        numbers = _gold_numbers(items[:MOST_OBJECTS])
        if numbers is None:
            raise ValueError(
                f"answers[{row}] must hold objects with a bbox_2d of four and a point_2d of two finite "
                f"numbers, got {answers[row]!r}"
            )
        golds.append(numbers)
    return golds


def _gold_numbers(items: Sequence[Any]) -> list[Numbers] | None:
    """Return the boxes and points of gold objects; None if one is incomplete."""
    try:
        rows: list[Numbers] = [
            (*four_numbers(item["bbox_2d"]), *four_numbers((*item["point_2d"], 0, 0))[:2]) for item in items
        ]
    except (TypeError, LookupError):
        return None
    return rows if all(math.isfinite(number) for row in rows for number in row) else None


def _object_list(text: str, strict: bool) -> tuple[list[Numbers], float]:
    """Return the box and point of each object in a list, and the format score of the list."""
    items = json_or_none(text)
    sound = _format_of(items)
    rows = (_rows_of(items) if isinstance(items, list) else None) or []
    if not strict:
        return rows[:MOST_OBJECTS], sound
    good = [_is_proper(row) for row in rows]
    rows = [row if proper else _NOTHING for row, proper in zip(rows, good, strict=True)]
    return rows, sound if rows and all(good) else 0.0


def _format_of(items: Any) -> float:
    """Return the mean format score of the entries, up to the first that is not an object."""
    total = 0.0
    for item in items if isinstance(items, list) else ():
        if isinstance(item, int | float | None) or (not isinstance(item, dict) and ("bbox_2d" in item)):
            break
        if isinstance(item, dict):
            sizes = (("bbox_2d", 4), ("point_2d", 2))
            total += sum(isinstance(item.get(k), list) and len(item[k]) == n for k, n in sizes) / len(items)
        elif "point_2d" in item:
            break
    return total


def _rows_of(items: list[Any]) -> list[Numbers] | None:
    """Return the (n, 6) numbers of a list of objects; None if the original fails on one of them."""
    rows = []
    for place, item in enumerate(items):
        if not isinstance(item, dict) or not {"bbox_2d", "point_2d"} <= item.keys():
            return None
        box, point = item["bbox_2d"], item["point_2d"]
        if place < MOST_OBJECTS and not (_all_numbers(box, 4) and _all_numbers(point, 2)):
            return None
        if place < MOST_OBJECTS and any(
            isinstance(n, int) and abs(n) >= 2**64 for n in point
        ):  # numpy has no such integers
            return None
        rows.append((*as_numbers(box, 4), *as_numbers(point, 2)))
    return rows


def _all_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list) and len(values) == count and all(isinstance(n, int | float) for n in values)
    )


def _is_proper(numbers: Numbers) -> bool:
    """Whether all numbers are finite and the first four are a box with an area."""
    x0, y0, x1, y1 = numbers[:4]
    width, height = x1 - x0, y1 - y0
    return all(map(math.isfinite, numbers)) and width > 0 and height > 0 and width * height * 4 < math.inf


def object_terms(found: Numbers, gold: Numbers) -> tuple[bool, bool, bool]:
    """Return the IoU, box and point terms of one box with two points, NaN where missing."""
    points, gold_points = (found[4:6], found[6:8]), (gold[4:6], gold[6:8])
    straight = _distance(points[0], gold_points[0]) + _distance(points[1], gold_points[1])
    crossed = _distance(points[0], gold_points[1]) + _distance(points[1], gold_points[0])
    return (
        pixel_inclusive_iou(found, gold, touching=False) > 0.5,
        _mean_distance(found, gold) < 10,
        all(_inside(point, found) for point in points) and min(straight, crossed) / 2 < 100,
    )


def pair_terms(found: Numbers, gold: Numbers) -> int:
    """Return how many of the three terms a box with one point earns."""
    near = _inside(found[4:], found) and _distance(found[4:], gold[4:]) < 30
    return (pixel_inclusive_iou(found, gold, touching=True) > 0.5) + (_mean_distance(found, gold) < 10) + near


def assigned_terms(found: Sequence[Numbers], golds: Sequence[Numbers]) -> float:
    """Return the sum of the terms over the best assignment, divided by the larger number of objects."""
    if not found or not golds:
        return 0.0
    terms = np.array([[pair_terms(each, gold) for gold in golds] for each in found], np.float64)
    partners = np.empty(len(terms), np.int64)
    assign(3.0 - terms, partners)
    matched = partners >= 0
    return float(terms[matched, partners[matched]].sum()) / max(len(found), len(golds))


def _inside(point: Numbers, box: Numbers) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _mean_distance(box: Numbers, gold: Numbers) -> float:
    return sum(abs(box[k] - gold[k]) for k in range(4)) / 4


def _distance(point: Numbers, gold: Numbers) -> float:
    width, height = point[0] - gold[0], point[1] - gold[1]
    return math.sqrt(width * width + height * height)
