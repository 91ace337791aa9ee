"""Vision-R1 (Griffon): detection with optimal assignment and thresholds that rise during training.

The answer is JSON without tags. The original computes in float32, and so does `exact`, because its thresholds
are sensitive to rounding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._checks import ORDERED, as_positive_sizes, raise_bad_row, same_length
from lfpc_rewards._jit import kernel
from lfpc_rewards._json import json_or_none
from lfpc_rewards._packing import starts_of
from lfpc_rewards._typing import Message, Scores, SizesLike
from lfpc_rewards.presets._assignment import assign
from lfpc_rewards.presets._boxes import as_number, gold_box_lists, read_golds
from lfpc_rewards.presets._completions import first_texts, last_texts
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

Labelled: TypeAlias = tuple[str, Sequence[float]]
"""A label and its box."""

Found: TypeAlias = tuple[list[tuple[Any, ...]], list[str | None]]
"""The boxes of one answer and their labels."""

_F32 = np.float32
_STEP = 1500
_SIDE = r"(\d{1,3}|1000)"
_ANYWHERE = re.compile(rf'\{{"bbox_2d": \[{", ".join([_SIDE] * 4)}\], "label": "([^"]+)"\}}')
_FENCE = re.compile(r"```json\n|\n```")

SYSTEM = System(
    name="Vision-R1 (Griffon)",
    paper="2503.18013",
    code="jefferyZhan/Griffon@9866875e7d",
    rewards=("vision_r1",),
    terms="precision (mean GIoU) + recall + format; from step 1500 on with higher thresholds",
    gates="none; if there is nothing to find, precision and recall are 1 for an answer without boxes",
    blind_to=("all text besides the list of boxes",),
    loopholes=(
        Loophole(
            "boxes without end",
            "Precision is a mean over matched boxes only, and recall counts hits: extra boxes are free.",
            "Precision is a mean over the larger number of boxes.",
        ),
        Loophole(
            "wrong labels",
            "A label changes the matching cost by as much as one pixel: boxes with wrong labels are matched.",
            "A match with another label earns nothing.",
        ),
        Loophole(
            "boxes in passing",
            "If the answer is not JSON, the whole text is searched for boxes.",
            "Without a list of boxes there are none.",
        ),
        Loophole(
            "JSON without boxes",
            "Any JSON is well formed, even a number or a list of anything but boxes.",
            "The answer must be a list of objects that have a box and a label.",
        ),
        Loophole(
            "garbage where there is nothing",
            "If there is nothing to find, the format rewards anything but JSON and punishes the empty list.",
            "The answer must be an empty list.",
        ),
        Loophole(
            "first message",
            "Only the first message is read.",
            "The answer is the last turn.",
        ),
    ),
    deviations=("If the original raises, as for boxes where there is nothing to find, the row is NaN.",),
)


class VisionR1Parts(NamedTuple):
    """The parts of `vision_r1`, each (B,) float64.

    Attributes:
        precision: Mean GIoU of the matched boxes, set to 0 below and to 1 above thresholds.
        recall: Share of gold boxes that are hit, with similar thresholds.
        format: 1 where the answer is JSON whose boxes have four entries, else 0; inverted if there is nothing
            to find.
        total: Their sum.
    """

    precision: Scores
    recall: Scores
    format: Scores
    total: Scores


def vision_r1(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str | Sequence[Labelled]],
    *,
    image_sizes: SizesLike,
    shown_sizes: SizesLike,
    step: int | None = None,
    mode: Mode = "exact",
) -> VisionR1Parts:
    """Vision-R1's reward: ``precision + recall + format``.

    The answer is a list of ``{"bbox_2d": [x0, y0, x1, y1], "label": ..}``, in a ``json`` fence or bare; if it
    has no box, all objects in exactly this notation, with integers up to 1000, are used. Inverted boxes are
    dropped. Boxes are scaled to the original image and matched to the gold boxes so that the sum of L1
    distance (pixels) - GIoU - (same label) is minimal.

    * precision: mean GIoU of the matches; below 0.5 counts as 0, above 0.75 as 1.
    * recall: matches with a GIoU of at least 0.5 over the number of gold boxes; same thresholds.
    * From step 1500 on: 0.75 and 0.9 for precision, 0.75 for a hit. With `step` None there are no thresholds.

    Args:
        completions: (B,) texts, or lists of messages, of which only the first is read.
        answers: (B,) gold lists of (label, box) in pixels of the original image, or as JSON text; empty if
            there is nothing to find.
        image_sizes: (B, 2) width and height of the original images, or one (2,) for all.
        shown_sizes: The same of the images as encoded: ``image_grid_thw * 14``, width first.
        step: The trainer's step; None without the schedule.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; total in [0, 3]. NaN where the original raises.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, a gold list or box is invalid, or a size is not positive.

    Source:
        `precision_reward`, `recall_reward` and `dual_format_reward` of Vision-R1 (arXiv 2503.18013).

    Example:
        >>> said = '[{"bbox_2d": [0, 0, 10, 6], "label": "dog"}]'
        >>> gold = [("dog", [0, 0, 10, 10])]
        >>> for step in (None, 0, 1500):
        ...     parts = vision_r1([said], [gold], image_sizes=(99, 99), shown_sizes=(99, 99), step=step)
        ...     print(parts.precision.round(3), parts.recall, parts.format)
        [0.6] [1.] [1.]
        [0.6] [1.] [1.]
        [0.] [0.] [1.]
    """
    same_length(len(completions), answers=answers)
    gold_rows = _gold_rows(answers)
    gold_lists = gold_box_lists([[box for _, box in row] for row in gold_rows], "answers")
    golds = np.array([box for row in gold_lists for box in row], np.float64).reshape(-1, 4)
    gold_starts = starts_of(list(map(len, gold_lists)))
    ordered = (golds[:, 2:] >= golds[:, :2]).all(1)
    if not ordered.all():
        raise_bad_row("answers, box", golds, ordered, ORDERED)
    sizes = as_positive_sizes(image_sizes, "image_sizes"), as_positive_sizes(shown_sizes, "shown_sizes")
    strict = is_strict(mode)
    texts = last_texts(completions) if strict else first_texts(completions)
    boxes, labels, starts, sound = _read(texts, strict)
    shown, original = (np.broadcast_to(size.astype(_F32), (len(texts), 2)) for size in sizes[::-1])
    owners = np.repeat(np.arange(len(texts)), np.diff(starts))
    scaled = boxes / np.tile(shown, 2)[owners] * np.tile(original, 2)[owners]
    numbers: dict[str | None, int] = {None: -1}  # objects without a label have no class
    gold_labels = [numbers.setdefault(label.lower(), len(numbers)) for row in gold_rows for label, _ in row]
    classes = np.array([numbers.get(label, -1) for label in labels], np.int64)
    late = step is not None and step >= _STEP
    low, high = (0.0, 1.0) if step is None else (0.75, 0.9) if late else (0.5, 0.75)
    hit = 0.75 if late else 0.5
    limits = np.array([low, high, hit, *((0.0, 1.0) if step is None else (0.5, 0.75))], _F32)
    precision, recall = assignment_scores(
        scaled,
        classes,
        starts,
        golds.astype(_F32),
        np.array(gold_labels, np.int64),
        gold_starts,
        limits,
        strict,
    )
    layout = np.where((np.diff(gold_starts) > 0) | strict, sound, 1.0 - sound)
    return VisionR1Parts(precision, recall, layout, precision + recall + layout)


def _gold_rows(answers: Sequence[Any]) -> list[Any]:
    rows = read_golds(answers)
    for row, items in enumerate(rows):
        pairs = isinstance(items, list | tuple) and all(
            isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str) for item in items
        )
        if not pairs:
            raise ValueError(f"answers[{row}] must be a list of (label, box), got {answers[row]!r}")
    return rows


def _read(
    texts: Sequence[str], strict: bool
) -> tuple[NDArray[np.float32], list[str | None], NDArray[np.int64], Scores]:
    """Return (n, 4) boxes, their labels, the start index of each text, and whether each is well formed."""
    parsed = [json_or_none(_unfenced(text.strip())) for text in texts]
    found = [_boxes_of(*each, strict) for each in zip(texts, parsed, strict=True)]
    sides = [side for boxes, _ in found for box in boxes for side in box]
    try:
        boxes = np.array(sides, np.float64).reshape(-1, 4)
    except OverflowError:  # an integer beyond float64
        boxes = np.array(list(map(as_number, sides))).reshape(-1, 4)
    labels = [name.strip().lower() if isinstance(name, str) else None for _, names in found for name in names]
    sound = np.array([_is_sound(*each, strict) for each in zip(texts, parsed, strict=True)], np.float64)
    with np.errstate(over="ignore"):
        return boxes.astype(_F32), labels, starts_of([len(boxes) for boxes, _ in found]), sound


def _boxes_of(text: str, items: Any, strict: bool) -> Found:
    boxes: list[Any] = []
    labels: list[str | None] = []
    for item in items if isinstance(items, list) else ():
        box = item.get("bbox_2d") if isinstance(item, dict) else None
        if isinstance(box, list) and len(box) == 4:
            try:
                sides = [int(side) for side in box]
            except (TypeError, ValueError, OverflowError):
                continue
            if sides[0] < sides[2] and sides[1] < sides[3]:
                boxes.append(sides)
                labels.append(item.get("label"))
    if boxes or strict:
        return boxes, labels
    for *sides, label in _ANYWHERE.findall(text):
        x0, y0, x1, y1 = map(int, sides)
        if x0 < x1 and y0 < y1:
            boxes.append([x0, y0, x1, y1])
            labels.append(label)
    return boxes, labels


def _unfenced(text: str) -> str:
    lines = text.splitlines()
    if lines and lines[0].startswith("```json"):
        text = "\n".join(lines[1:])
    return text.split("```")[0]


def _is_sound(text: str, parsed: Any, strict: bool) -> float:
    """Return whether the answer is well formed; NaN if the original raises. `parsed`: its fenced JSON."""
    bare = _FENCE.sub("", text).strip()
    try:
        same = parsed is not None and _unfenced(text.strip()).strip() == bare
        items = parsed if same else json.loads(bare)
    except json.JSONDecodeError:
        return 0.0
    except (ValueError, RecursionError):  # more digits than Python converts, or nested too deeply
        return 0.0 if strict else np.nan
    if not isinstance(items, list):
        return 0.0 if strict else 1.0
    for item in items:
        whole = isinstance(item, dict) and "bbox_2d" in item and "label" in item
        if strict and not whole:
            return 0.0
        if whole and not (isinstance(item["bbox_2d"], list) and len(item["bbox_2d"]) == 4):
            return 0.0
    return 1.0


@kernel
def assignment_scores(
    boxes: NDArray[np.float32],
    classes: NDArray[np.int64],
    starts: NDArray[np.int64],
    golds: NDArray[np.float32],
    gold_classes: NDArray[np.int64],
    gold_starts: NDArray[np.int64],
    limits: NDArray[np.float32],
    strict: bool,
) -> tuple[Scores, Scores]:
    """Return (B,) precision and recall. `limits`: precision low and high, hit, recall low and high."""
    low, high, hit, recall_low, recall_high = limits
    precision, recall = np.zeros(starts.size - 1), np.zeros(starts.size - 1)
    for row in range(starts.size - 1):
        begin, gold_begin = starts[row], gold_starts[row]
        n, m = starts[row + 1] - begin, gold_starts[row + 1] - gold_begin
        if n == 0 or m == 0:
            alone = 1.0 if n == m else np.nan if n > 0 and not strict else 0.0
            precision[row], recall[row] = alone, alone
            continue
        gious = np.empty((n, m), np.float32)
        costs = np.empty((n, m))
        for k in range(n):
            for g in range(m):
                gious[k, g] = giou_float32(boxes[begin + k], golds[gold_begin + g])
                distance = np.float32(0)
                for side in range(4):
                    distance += abs(boxes[begin + k, side] - golds[gold_begin + g, side])
                same = np.float32(1 if classes[begin + k] == gold_classes[gold_begin + g] else 0)
                costs[k, g] = distance - same - gious[k, g]
        partners = np.empty(n, np.int64)
        if not assign(costs, partners):
            precision[row], recall[row] = np.nan, np.nan
            continue
        score, hits = np.float32(0), np.float32(0)
        for k in range(n):
            g = partners[k]
            if g < 0 or (strict and classes[begin + k] != gold_classes[gold_begin + g]):
                continue
            score += cut(gious[k, g], low, high)
            hits += cut(gious[k, g], hit, hit)
        precision[row] = score / np.float32(max(n, m) if strict else min(n, m))
        recall[row] = cut(hits / np.float32(m), recall_low, recall_high)
    return precision, recall


@kernel
def cut(value: np.float32, low: np.float32, high: np.float32) -> np.float32:
    """Return 0 below `low`, 1 above `high`, and the value itself from `low` to `high`."""
    return np.float32(0) if value < low else np.float32(1) if value > high else value


@kernel
def giou_float32(box: NDArray[np.float32], other: NDArray[np.float32]) -> np.float32:
    """Compute the generalized IoU, entirely in float32."""
    zero = np.float32(0)
    width = max(min(box[2], other[2]) - max(box[0], other[0]), zero)
    height = max(min(box[3], other[3]) - max(box[1], other[1]), zero)
    shared = width * height
    union = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared
    hull = (max(box[2], other[2]) - min(box[0], other[0])) * (max(box[3], other[3]) - min(box[1], other[1]))
    giou: np.float32 = shared / union - (hull - union) / hull
    return giou
