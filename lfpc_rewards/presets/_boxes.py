"""Boxes in the texts of models, and the ways in which the originals compare them.

What a box is and what its IoU is differs from system to system; each function says whose it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._checks import as_box_list
from lfpc_rewards._packing import four_numbers, pack_rows, starts_of
from lfpc_rewards._scan import BOX_IN_TEXT
from lfpc_rewards._typing import Boxes, Scores

I64: TypeAlias = NDArray[np.int64]

Json: TypeAlias = Any
"""What JSON text holds."""

INTEGER_BOX = re.compile(r"\[(\d+),\s*(\d+),\s*(\d+),\s*(\d+)]")
INTEGER_POINT = re.compile(r"\[(\d+),\s*(\d+)]")
NO_BOX = (math.nan,) * 4


def json_or_none(text: str) -> Json | None:
    """The value of JSON text, None for anything that is not JSON; never raises."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not JSON, digits beyond Python's limit, or nested too deeply
        return None


def read_golds(answers: Sequence[Any], read: Callable[[str], Any] = json_or_none) -> list[Any]:
    """(B,) gold answers; those that are texts are read, each text once."""
    known = {text: read(text) for text in {answer for answer in answers if isinstance(answer, str)}}
    return [known[answer] if isinstance(answer, str) else answer for answer in answers]


def only_boxes(texts: Sequence[str | None]) -> Boxes:
    """(B, 4) the box of each text that names exactly one ``[n, n, n, n]``; NaN in all others."""
    return np.array([_only_box(text) for text in texts], np.float64).reshape(-1, 4)


def _only_box(text: str | None) -> tuple[float, ...]:
    found = BOX_IN_TEXT.findall(text or "")
    numbers = tuple(map(float, found[0])) if len(found) == 1 else NO_BOX
    return numbers if all(map(math.isfinite, numbers)) else NO_BOX


def numbers_in(found: re.Match[str] | None, count: int) -> tuple[float, ...]:
    """The integers that a pattern found; NaN where it found none, or one that is too large."""
    numbers = tuple(map(float, found.groups())) if found else (math.inf,)
    return (math.nan,) * count if math.inf in numbers else numbers


def pairs_of(starts: I64, other_starts: I64) -> tuple[I64, I64, I64]:
    """Every pair of a box of a row with a gold box of the same row: its row, its box, its gold box."""
    counts, other_counts = np.diff(starts), np.diff(other_starts)
    pairs = starts_of(counts * other_counts)
    rows = np.repeat(np.arange(len(counts)), counts * other_counts)
    box, gold = np.divmod(np.arange(pairs[-1]) - pairs[rows], np.maximum(other_counts, 1)[rows])
    return rows, box + starts[rows], gold + other_starts[rows]


def gold_boxes(answers: Any) -> Boxes:
    """(B, 4) gold boxes: numbers in any form, four for each row; whether they make boxes is not checked."""
    packed = pack_rows([answers], lambda _: None) if type(answers) is list else None
    return as_box_list(answers, "answers") if packed is None else packed[0].reshape(-1, 4)


def pixel_iou(boxes: Boxes, others: Boxes) -> Scores:
    """(B,) IoU as VLM-R1 has it: areas as they come, but an overlap of at most one pixel is none.

    Inverted boxes are not refused: their area is negative. 0 where the union has no area; NaN where a
    box is not finite.
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
        overlap = np.where(shares, (right - left) * (bottom - top), 0.0)
        union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - overlap
        return np.where(union == 0, 0.0, overlap / union)


def proper(boxes: Boxes) -> NDArray[np.bool_]:
    """(B,) whether a box is four finite numbers with x0 < x1 and y0 < y1."""
    with np.errstate(all="ignore"):
        sides = boxes[:, 2:] - boxes[:, :2]
        area = sides[:, 0] * sides[:, 1] * 4
        good: NDArray[np.bool_] = (sides[:, 0] > 0) & (sides[:, 1] > 0) & np.isfinite(area)
    return good & np.isfinite(boxes).all(1)


def as_number(value: Any) -> float:
    """A number of Python or JSON as float64: too large is infinite; NaN for what is no number."""
    if not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def as_numbers(values: Any, count: int) -> tuple[float, ...]:
    """The numbers of a list of `count` values, each as `as_number`; all NaN for anything else."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return (math.nan,) * count
    return tuple(map(as_number, values))


def pack_golds(rows: Sequence[Sequence[Any]], name: str) -> tuple[Boxes, NDArray[np.int64]]:
    """(G, 4) the boxes of all rows, and (B + 1,) where those of each row start; raises for what is no box."""
    packed = pack_rows(rows, four_numbers) or pack_rows([list(row) for row in rows], four_numbers)
    if packed is None or not np.isfinite(packed[0]).all():
        for row, boxes in enumerate(rows):
            for box in boxes:
                if not np.isfinite(four_numbers(box)).all():
                    raise ValueError(f"{name}[{row}] must hold boxes of four finite numbers, got {box!r}")
        raise ValueError(f"{name} must hold lists of boxes")
    return packed[0].reshape(-1, 4), packed[1]


def giou_as_written(boxes: Boxes, others: Boxes) -> Scores:
    """(B,) generalised IoU as Visual-RFT has it, in [-1, 1] for proper boxes.

    Inverted boxes are not refused: their areas come as they come. The IoU is 0 where the union is not
    positive, and it is the result where the enclosing box has no area.
    """
    with np.errstate(all="ignore"):
        sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
        shared = np.maximum(sides, 0).prod(1)
        union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (others[:, 2:] - others[:, :2]).prod(1) - shared
        overlap = np.where(union > 0, shared / union, 0.0)
        hull = (np.maximum(boxes[:, 2:], others[:, 2:]) - np.minimum(boxes[:, :2], others[:, :2])).prod(1)
        return np.where(hull > 0, overlap - (hull - union) / hull, overlap)


def plain_iou(boxes: Boxes, others: Boxes) -> Scores:
    """(B,) IoU of boxes with continuous sides; 0 where they share nothing, also for NaN."""
    with np.errstate(all="ignore"):
        width, height = _shared_sides(boxes, others)
        shared = width * height
        return np.where((width > 0) & (height > 0), shared / (_area(boxes) + _area(others) - shared), 0.0)


def pixel_inclusive_iou(boxes: Boxes, others: Boxes, touching: bool) -> Scores:
    """(B,) IoU of boxes whose last pixel belongs to them (+1), as in Seg-Zero; NaN without any area.

    `touching`: boxes that share an edge share its pixels (VisionReasoner); else they share nothing.
    """
    with np.errstate(all="ignore"):
        width, height = _shared_sides(boxes, others)
        least = -1.0 if touching else 0.0
        shared = np.where((width > least) & (height > least), (width + 1) * (height + 1), 0.0)
        overlap: Scores = shared / (_area(boxes, 1) + _area(others, 1) - shared)
    return overlap


def _shared_sides(boxes: Boxes, others: Boxes) -> tuple[Scores, Scores]:
    width, height = (np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])).T
    return width, height


def _area(boxes: Boxes, pixel: int = 0) -> Scores:
    area: Scores = (boxes[:, 2:] - boxes[:, :2] + pixel).prod(1)
    return area
