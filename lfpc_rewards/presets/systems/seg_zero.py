"""Seg-Zero and VisionReasoner: a box and points for a segmentation model, scored by thresholds.

Seg-Zero asks for one object with two points, VisionReasoner for a list of objects with one point each. Every
term is a yes or no, so that a segmentation model need not run during training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._packing import four_numbers, starts_of
from lfpc_rewards._tags import Tags, both
from lfpc_rewards._typing import Message, Scores
from lfpc_rewards.presets._assignment import assign
from lfpc_rewards.presets._boxes import (
    as_numbers,
    json_or_none,
    numbers_in,
    pairs_of,
    pixel_inclusive_iou,
    proper,
    read_golds,
)
from lfpc_rewards.presets._completions import first_texts, last_texts, same_length
from lfpc_rewards.presets._layout import thought_and_answer
from lfpc_rewards.presets._strict import read_strictly
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

MOST_OBJECTS = 120
"""Objects of VisionReasoner beyond this many are not looked at. In the original's code."""

_NAMES = ("bbox", "points_1", "points_2")
_OBJECT = re.compile(r"{[^}]+}")
_CORNERS = r"\((\d+),(\d+)\),\((\d+),(\d+)\)"
_GOLD_BOX = re.compile(rf"<box>{_CORNERS}</box>")
_GOLD_POINTS = re.compile(rf"<points>{_CORNERS}</points>")
_SENTENCE_END = re.compile(r"[.!?\u3002\n]+")
_NOTHING = (np.nan,) * 8

_IN_THE_THINKING = Loophole(
    "answer in the thinking",
    "What stands first is read, also inside the thinking, so the answer itself may say anything.",
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
    gates="the points count only inside the predicted box",
    blind_to=("the mask", "how good a box is beyond IoU 0.5", "points nearer than 100 px"),
    loopholes=(
        _IN_THE_THINKING,
        _ANY_FOUR,
        Loophole(
            "inverted box",
            "The distance of corners knows no order: an inverted box at a small target earns it.",
            "Such a box earns nothing.",
        ),
        Loophole(
            "text after the object",
            "Only the first braces are read, so further objects cost nothing.",
            "The answer must be one object.",
        ),
    ),
)

VISION_REASONER = System(
    name="VisionReasoner",
    paper="2505.12081",
    code="dvlab-research/Seg-Zero@42a3345528",
    rewards=("vision_reasoner",),
    terms="format (thinking 1, objects 2) + accuracy (0 to 3, best assignment) + no repetition",
    gates="a point counts only inside its own box",
    blind_to=("the masks", "the labels", "how good a box is beyond IoU 0.5"),
    loopholes=(
        _IN_THE_THINKING,
        _ANY_FOUR,
        Loophole(
            "repetition without full stops",
            "Sentences end at full stops only: what repeats itself line by line has none.",
            "Lines and other marks end a sentence as well.",
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
        think_format: 1 where the text is thinking and then an answer.
        seg_format: 1 where the object has a box with four entries and two points with two.
        iou: 1 where the IoU exceeds 0.5.
        box_l1: 1 where the four sides are off by less than 10 pixels on average.
        point_l1: 1 where both points lie in the predicted box and are off by less than 100 pixels on average.
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
        non_repeat: 0 where two sentences are repeats, else 1.
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
    """Seg-Zero's reward: five yes or no terms about one box and two points.

    The object is the first ``{..}`` of the text, read as JSON. Its box is the first entry with "bbox" in its
    name, its points the first two with "points" (for the format: "point"), cut to integers. Boxes are
    compared with their last pixels included.

    Args:
        completions: (B,) texts, or lists of messages, of which the first is read.
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
        read = read_strictly(completions, "tool_call")
        found, sound = _objects(read.texts(), True)
        good = proper(found[:, :4]) & np.isfinite(found).all(1)
        found[~good] = np.nan
        think, sound = read.well_formed, sound * good
    else:
        tags = Tags(first_texts(completions), both("think", "answer"))
        objects = [match[0] if (match := _OBJECT.search(text)) else "" for text in tags.texts]
        found, sound = _objects(objects, restricted)
        think = thought_and_answer(tags)
    overlap, distances, points = object_terms(found, golds)
    total = think + sound + overlap + distances + points
    return SegZeroParts(think, sound, overlap, distances, points, total)


def vision_reasoner(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str | Sequence[Any]],
    *,
    mode: Mode = "exact",
) -> VisionReasonerParts:
    """VisionReasoner's reward: ``format + accuracy + non_repeat``.

    The answer is the first ``<answer>..</answer>``, a JSON list of ``{"bbox_2d": [..], "point_2d": [..]}``.
    Objects are assigned to gold objects so that their scores sum to the most. Boxes are compared with their
    last pixels included.

    Args:
        completions: (B,) texts, or lists of messages, of which the first is read.
        answers: (B,) gold lists as an answer has them, or JSON text of them.
        mode: "exact", or "strict" with the loopholes of `VISION_REASONER` closed.

    Returns:
        The parts; total in [0, 7].

    Raises:
        TypeError: As `seg_zero`.
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
    golds, gold_starts = _gold_lists(answers)
    strict = is_strict(mode)
    if strict:
        read = read_strictly(completions, "tool_call")
        found, starts, sound = _object_lists(read.texts(), True)
        think, varied = (
            read.well_formed,
            [_varied(_SENTENCE_END.split(text)) for text in last_texts(completions)],
        )
    else:
        tags = Tags(first_texts(completions), both("think", "answer"))
        found, starts, sound = _object_lists(tags.stripped(*tags.pair("answer")), False)
        think, varied = thought_and_answer(tags), [_varied(text.split(".")) for text in tags.texts]
    accuracy = assigned_terms(found, starts, golds, gold_starts)
    layout, fresh = think + sound, np.array(varied, np.float64)
    return VisionReasonerParts(layout, accuracy, fresh, layout + accuracy + fresh)


def _varied(sentences: Sequence[str]) -> bool:
    said = [sentence for sentence in map(str.strip, sentences) if sentence]
    return len(said) - len(set(said)) < 2


def _gold_objects(answers: Sequence[str]) -> NDArray[np.float64]:
    pairs = [(_GOLD_BOX.search(text), _GOLD_POINTS.search(text)) for text in answers]
    golds = np.array([(*numbers_in(box, 4), *numbers_in(points, 4)) for box, points in pairs]).reshape(-1, 8)
    for row in np.flatnonzero(np.isnan(golds).any(1)).tolist():
        raise ValueError(
            f"answers[{row}] must hold <box>..</box> and <points>..</points>, got {answers[row]!r}"
        )
    return golds


def _objects(texts: Sequence[str], restricted: bool) -> tuple[NDArray[np.float64], Scores]:
    """(B, 8) box and two points of each object, NaN for what it lacks, and whether it is well formed."""
    read = [_object(text, restricted) for text in texts]
    found = np.array([numbers for numbers, _ in read], np.float64).reshape(-1, 8)
    return found, np.array([sound for _, sound in read], np.float64)


def _object(text: str, restricted: bool) -> tuple[tuple[float, ...], bool]:
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
    """The first two entries, cut to integers, as the original reads a point."""
    try:
        return float(int(value[0])), float(int(value[1]))
    except (TypeError, ValueError, OverflowError, LookupError):
        return np.nan, np.nan


def _gold_lists(answers: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rows = read_golds(answers)
    for row, items in enumerate(rows):
        if not isinstance(items, list | tuple):
            raise ValueError(f"answers[{row}] must be a list of objects, got {answers[row]!r}")
    rows = [items[:MOST_OBJECTS] for items in rows]
    golds = [_gold_numbers(items) for items in rows]
    for row, numbers in enumerate(golds):
        if numbers is None:
            raise ValueError(
                f"answers[{row}] must hold objects with a bbox_2d of four and a point_2d of two finite "
                f"numbers, got {answers[row]!r}"
            )
    flat = [numbers for row in golds for numbers in row or ()]
    return np.array(flat, np.float64).reshape(-1, 6), starts_of(list(map(len, rows)))


def _gold_numbers(items: Sequence[Any]) -> list[tuple[float, ...]] | None:
    """Box and point of gold objects; None where one lacks them."""
    try:
        rows = [
            (*four_numbers(item["bbox_2d"]), *four_numbers((*item["point_2d"], 0, 0))[:2]) for item in items
        ]
    except (TypeError, LookupError):
        return None
    return rows if all(math.isfinite(number) for row in rows for number in row) else None


def _object_lists(
    texts: Sequence[str], strict: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64], Scores]:
    """(n, 6) box and point of all objects, where those of each text start, and (B,) its format."""
    lists = [json_or_none(text) for text in texts]
    sound = np.array([_format_of(items) for items in lists], np.float64)
    rows = [(_rows_of(items) if isinstance(items, list) else None) or [] for items in lists]
    if not strict:
        rows = [row[:MOST_OBJECTS] for row in rows]
    starts = starts_of(list(map(len, rows)))
    found = np.array([numbers for row in rows for numbers in row], np.float64).reshape(-1, 6)
    if strict:
        good = proper(found[:, :4]) & np.isfinite(found).all(1)
        found[~good] = np.nan
        owners = np.repeat(np.arange(len(rows)), np.diff(starts))
        sound *= (np.diff(starts) > 0) & (np.bincount(owners, ~good, len(rows)) == 0)
    return found, starts, sound


def _format_of(items: Any) -> float:
    """The mean of what each object has, up to the first that is no object."""
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


def _rows_of(items: list[Any]) -> list[tuple[float, ...]] | None:
    """(n, 6) numbers of a list of objects; None where the original stops at one of them."""
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


def object_terms(found: NDArray[np.float64], golds: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, B) IoU, distance and points of one box with two points (NaN where there are none)."""
    box, gold = found[:, :4], golds[:, :4]
    points, gold_points = found[:, 4:].reshape(-1, 2, 2), golds[:, 4:].reshape(-1, 2, 2)
    inside = _inside(points[:, 0], box) & _inside(points[:, 1], box)
    with np.errstate(all="ignore"):
        straight = _distance(points, gold_points).sum(1)
        crossed = _distance(points, gold_points[:, ::-1]).sum(1)
        near = np.fmin(straight, crossed) / 2 < 100
    terms = [pixel_inclusive_iou(box, gold, False) > 0.5, _mean_distance(box, gold) < 10, inside & near]
    return np.array(terms, np.float64)


def assigned_terms(
    found: NDArray[np.float64],
    starts: NDArray[np.int64],
    golds: NDArray[np.float64],
    gold_starts: NDArray[np.int64],
) -> Scores:
    """(B,) the sum of the terms over the best assignment, over the larger number of objects."""
    rows, mine, its = pairs_of(starts, gold_starts)
    box, point, gold, gold_point = found[mine, :4], found[mine, 4:], golds[its, :4], golds[its, 4:]
    terms = (pixel_inclusive_iou(box, gold, True) > 0.5).astype(np.float64)
    with np.errstate(all="ignore"):
        terms += _mean_distance(box, gold) < 10
        terms += _inside(point, box) & (_distance(point, gold_point) < 30)
    pairs = np.searchsorted(rows, np.arange(len(starts))).tolist()
    counts, gold_counts = np.diff(starts), np.diff(gold_starts)
    scores = np.zeros(len(counts))
    for row in np.flatnonzero((counts > 0) & (gold_counts > 0)).tolist():
        scores[row] = _most(terms[pairs[row] : pairs[row + 1]].reshape(counts[row], gold_counts[row]))
    return scores / np.maximum(np.maximum(counts, gold_counts), 1)


def _most(terms: NDArray[np.float64]) -> float:
    """The largest sum of terms of an assignment."""
    if terms.size == 1:
        return float(terms[0, 0])
    partners = np.empty(len(terms), np.int64)
    assign(3.0 - terms, partners)
    matched = partners >= 0
    return float(terms[matched, partners[matched]].sum())


def _inside(point: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.bool_]:
    inside = (box[:, :2] <= point) & (point <= box[:, 2:])
    within: NDArray[np.bool_] = inside[:, 0] & inside[:, 1]
    return within


def _mean_distance(box: NDArray[np.float64], other: NDArray[np.float64]) -> Scores:
    with np.errstate(all="ignore"):
        mean: Scores = abs(box - other).sum(1) / 4
    return mean


def _distance(point: NDArray[np.float64], other: NDArray[np.float64]) -> Scores:
    distance: Scores = np.sqrt(((point - other) ** 2).sum(-1))
    return distance
