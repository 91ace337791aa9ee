"""Boxes in model outputs, and how the original systems compare them.

Systems parse boxes and compute IoU differently; each function names the system that it follows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._checks import as_box_list
from lfpc_rewards._json import json_or_none
from lfpc_rewards._packing import NO_BOX, four_numbers, pack_rows
from lfpc_rewards._scan import BOX_IN_TEXT
from lfpc_rewards._typing import Boxes, Scores

Numbers: TypeAlias = tuple[float, ...]
"""A box as four numbers, optionally followed by points."""

INTEGER_BOX = re.compile(r"\[(\d+),\s*(\d+),\s*(\d+),\s*(\d+)]")
INTEGER_POINT = re.compile(r"\[(\d+),\s*(\d+)]")


def read_golds(answers: Sequence[Any], read: Callable[[str], Any] = json_or_none) -> list[Any]:
    """Return the (B,) gold answers with texts parsed, each distinct text once."""
    parsed = {text: read(text) for text in {answer for answer in answers if isinstance(answer, str)}}
    return [parsed[answer] if isinstance(answer, str) else answer for answer in answers]


def only_boxes(texts: Sequence[str | None]) -> Boxes:
    """Return the (B, 4) box of each text with exactly one ``[n, n, n, n]``; NaN for all others."""
    return np.array([_only_box(text) for text in texts], np.float64).reshape(-1, 4)


def _only_box(text: str | None) -> tuple[float, ...]:
    matches = BOX_IN_TEXT.findall(text or "")
    numbers = tuple(map(float, matches[0])) if len(matches) == 1 else NO_BOX
    return numbers if all(map(math.isfinite, numbers)) else NO_BOX


def numbers_in(match: re.Match[str] | None, count: int) -> tuple[float, ...]:
    """Return the integers of a match; all NaN without a match, or if one is too large for float64."""
    numbers = tuple(map(float, match.groups())) if match else (math.inf,)
    return (math.nan,) * count if math.inf in numbers else numbers


def gold_boxes(answers: Any) -> Boxes:
    """Return the (B, 4) gold boxes."""
    return as_box_list(answers, "answers")


def pixel_iou(boxes: Boxes, others: Boxes) -> Scores:
    """Compute the (B,) IoU as in VLM-R1, which ignores an intersection of at most one pixel.

    Inverted boxes are accepted and have a negative area. 0 if the union has no area; NaN if a box is not
    finite.
    """
    with np.errstate(all="ignore"):
        (x0, y0, x1, y1), (u0, v0, u1, v1) = boxes.T, others.T
        left, top, right, bottom = (
            np.maximum(x0, u0),
            np.maximum(y0, v0),
            np.minimum(x1, u1),
            np.minimum(y1, v1),
        )
        shares = (left < right - 1) & (top < bottom - 1)
        shared = np.where(shares, (right - left) * (bottom - top), 0.0)
        union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared
        return np.where(union == 0, 0.0, shared / union)


def proper(boxes: Boxes) -> NDArray[np.bool_]:
    """Return a (B,) mask of the boxes that are four finite numbers with x0 < x1 and y0 < y1."""
    with np.errstate(all="ignore"):
        sides = boxes[:, 2:] - boxes[:, :2]
        area = sides[:, 0] * sides[:, 1] * 4
        good: NDArray[np.bool_] = (sides[:, 0] > 0) & (sides[:, 1] > 0) & np.isfinite(area)
    return good & np.isfinite(boxes).all(1)


def as_number(value: Any) -> float:
    """Convert a Python or JSON number to float64; infinite if it is too large, NaN if it is not a number."""
    if not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def as_numbers(values: Any, count: int) -> tuple[float, ...]:
    """Convert a list of `count` values with `as_number`; all NaN for anything else."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return (math.nan,) * count
    return tuple(map(as_number, values))


def gold_box_lists(rows: Sequence[Any], name: str) -> list[list[Numbers]]:
    """Return (B,) lists of gold boxes; raise for anything that is not a box."""
    packed = pack_rows(rows, four_numbers) or pack_rows(list(map(list, rows)), four_numbers)
    assert packed is not None  # `four_numbers` reads anything
    boxes, starts = packed[0].reshape(-1, 4), packed[1]
    for broken in np.flatnonzero(~np.isfinite(boxes).all(1)).tolist():
        row = int(np.searchsorted(starts, broken, side="right")) - 1
        box = rows[row][broken - int(starts[row])]
        raise ValueError(f"{name}[{row}] must hold boxes of four finite numbers, got {box!r}")
    golds = list(map(tuple, boxes.tolist()))
    return [golds[begin:end] for begin, end in pairwise(starts.tolist())]


def giou_as_written(boxes: Boxes, others: Boxes) -> Scores:
    """Compute the (B,) generalized IoU as in Visual-RFT, in [-1, 1] for proper boxes.

    Inverted boxes are accepted, so areas may be negative. The IoU is 0 if the union is not positive; if the
    enclosing box has no area, the result is the IoU.
    """
    with np.errstate(all="ignore"):
        sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
        shared = np.maximum(sides, 0).prod(1)
        union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (others[:, 2:] - others[:, :2]).prod(1) - shared
        ious = np.where(union > 0, shared / union, 0.0)
        hull = (np.maximum(boxes[:, 2:], others[:, 2:]) - np.minimum(boxes[:, :2], others[:, :2])).prod(1)
        return np.where(hull > 0, ious - (hull - union) / hull, ious)


def plain_ious(boxes: Boxes, golds: Boxes) -> Scores:
    """(B,) IoU of boxes with x0 < x1 and y0 < y1; 0 where they share nothing."""
    sides = np.minimum(boxes[:, 2:], golds[:, 2:]) - np.maximum(boxes[:, :2], golds[:, :2])
    shared = np.where((sides > 0).all(1), sides.prod(1), 0.0)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (golds[:, 2:] - golds[:, :2]).prod(1)
    ious: Scores = np.divide(shared, areas - shared, out=np.zeros(len(boxes)), where=shared > 0)
    return ious


def plain_iou(box: Numbers, gold: Numbers) -> float:
    """Compute the IoU of boxes with continuous sides; 0 if they do not overlap or `box` has NaN."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = box, gold
    # NaN in `box` comes first, so `min` and `max` keep it.
    width, height = min(x1, u1) - max(x0, u0), min(y1, v1) - max(y0, v0)
    if not (width > 0 and height > 0):
        return 0.0
    shared = width * height
    return _ratio(shared, (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared)


def pixel_inclusive_iou(box: Numbers, gold: Numbers, touching: bool) -> float:
    """Compute the IoU of boxes that include their last pixel (+1), as in Seg-Zero; NaN without any area.

    `touching`: boxes that share an edge share its pixels (VisionReasoner); otherwise they do not overlap.
    """
    # NaN in `box` comes first, so `min` and `max` keep it.
    width, height = min(box[2], gold[2]) - max(box[0], gold[0]), min(box[3], gold[3]) - max(box[1], gold[1])
    least = -1.0 if touching else 0.0
    shared = (width + 1) * (height + 1) if width > least and height > least else 0.0
    return _ratio(shared, _pixels(box) + _pixels(gold) - shared)


def _pixels(box: Numbers) -> float:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def _ratio(shared: float, union: float) -> float:
    # Divides by 0 like numpy.
    return shared / union if union else math.inf if shared > 0 else math.nan
