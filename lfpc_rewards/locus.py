"""The reward of LOCUS: where in the full image does this crop lie?

The model sees an image and a crop of it and answers with a box in a single turn, without tools. The box that
it types is its answer, so it counts as such, and nothing else in the text does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._checks import WITH_AREA, are_boxes, as_box_list, raise_bad_row
from lfpc_rewards._jit import kernel, part
from lfpc_rewards._packing import pack_rows
from lfpc_rewards._scan import BOX_IN_TEXT, is_space, read_box
from lfpc_rewards._tags import Codes, in_chunks
from lfpc_rewards._typing import Boxes, BoxesLike, Scores, SizesLike
from lfpc_rewards.boxes import Frame, FrameName, convert_frame
from lfpc_rewards.geometry import iou
from lfpc_rewards.parsing import Completion, read_columns


class LocusParts(NamedTuple):
    """The parts of `locus_reward`, each (B,) float64.

    Attributes:
        iou: IoU of the box in the answer with the target; 0 without a box, NaN without a target.
        format: 1 where the response is thinking and then an answer, else 0.
        total: ``(1 - format_weight) * iou + format_weight * format``, the reward.
    """

    iou: Scores
    format: Scores
    total: Scores


@overload
def locus_reward(
    completions: Sequence[Completion],
    targets: Sequence[BoxesLike | None] | Boxes,
    *,
    frame: Frame | FrameName = Frame.ORIGINAL,
    image_sizes: SizesLike | None = None,
    shown_sizes: SizesLike | None = None,
    format_weight: float = 0.1,
    return_parts: Literal[False] = False,
) -> Scores: ...


@overload
def locus_reward(
    completions: Sequence[Completion],
    targets: Sequence[BoxesLike | None] | Boxes,
    *,
    frame: Frame | FrameName = Frame.ORIGINAL,
    image_sizes: SizesLike | None = None,
    shown_sizes: SizesLike | None = None,
    format_weight: float = 0.1,
    return_parts: Literal[True],
) -> LocusParts: ...


@overload
def locus_reward(
    completions: Sequence[Completion],
    targets: Sequence[BoxesLike | None] | Boxes,
    *,
    frame: Frame | FrameName = Frame.ORIGINAL,
    image_sizes: SizesLike | None = None,
    shown_sizes: SizesLike | None = None,
    format_weight: float = 0.1,
    return_parts: bool,
) -> Scores | LocusParts: ...


def locus_reward(
    completions: Sequence[Completion],
    targets: Sequence[BoxesLike | None] | Boxes,
    *,
    frame: Frame | FrameName = Frame.ORIGINAL,
    image_sizes: SizesLike | None = None,
    shown_sizes: SizesLike | None = None,
    format_weight: float = 0.1,
    return_parts: bool = False,
) -> Scores | LocusParts:
    """IoU of the box that the model answers with, and a little for the format.

    The box is the first list of four numbers in the answer, which is the text of the only
    ``<answer>..</answer>`` of the last turn, after its thinking; further boxes neither help nor harm. A box
    that is not finite, inverted or without area scores 0. The format is that of `Rollout.well_formed`:
    ``<think>..</think><answer>..</answer>`` with only white space around.

    Args:
        completions: (B,) strings, message lists or rollouts.
        targets: (B,) boxes of the crops, xyxy in pixels of the original image; None where there is none.
        frame: The frame in which the model writes: a `Frame` or its value, such as "shown".
        image_sizes: (B, 2) width and height of the original images, or one (2,) for all. Not needed if the
            frame is "original".
        shown_sizes: The same of the images as the model saw them. Needed if the frame is "shown".
        format_weight: Share of the format in [0, 1]; the rest goes to the IoU.
        return_parts: Return `LocusParts` in place of its total.

    Returns:
        (B,) totals in [0, 1], never NaN: without a target only the format's share is left. Or the three
        parts.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts, or a target holds no numbers.
        ValueError: The lengths differ, a target is not finite, inverted or without area, the weight is out
            of its range, or the frame is unknown or lacks its sizes.

    Source:
        LOCUS (arXiv 2606.16586), equations 4 and 5, with 0.1 for the format. Which of several boxes counts
        and how a missing target is scored is our choice.

    Example:
        >>> said = "<think>by the door</think><answer>[10, 10, 30, 20]</answer>"
        >>> locus_reward([said, "[10, 10, 30, 20]", said], [[10, 10, 30, 30], [10, 10, 30, 20], None])
        array([0.55, 0.  , 0.1 ])
        >>> target = [[20, 10, 60, 20]]
        >>> locus_reward([said], target, frame="shown", image_sizes=(200, 100), shown_sizes=(100, 100))
        array([1.])
    """
    if not 0.0 <= format_weight <= 1.0:
        raise ValueError(f"format_weight must lie in [0, 1], got {format_weight}")
    columns = read_columns(completions)
    if len(targets) != len(columns.texts):
        raise ValueError(
            f"targets must have one entry per completion, got {len(targets)} for {len(columns.texts)}"
        )
    golds, known = _targets(targets)
    boxes = convert_frame(
        _first_boxes(columns.texts, columns.answers),
        frame,
        Frame.ORIGINAL,
        original_size=image_sizes,
        shown_size=shown_sizes,
    )
    overlap = np.where(known, 0.0, np.nan)
    good = known & are_boxes(boxes, with_area=True)
    overlap[good] = iou(boxes[good], golds[good])
    layout = columns.well_formed.astype(np.float64)
    total = (1.0 - format_weight) * np.where(known, overlap, 0.0) + format_weight * layout
    return LocusParts(overlap, layout, total) if return_parts else total


def _targets(targets: Sequence[BoxesLike | None] | Boxes) -> tuple[Boxes, NDArray[np.bool_]]:
    """(B, 4) the targets, anything where there is none, and (B,) whether there is one."""
    known = np.array([target is not None for target in targets], np.bool_)
    rows: Any = targets if known.all() else [(0, 0, 1, 1) if row is None else row for row in targets]
    packed = pack_rows([rows], lambda _: None) if type(rows) is list else None
    golds = as_box_list(rows, "targets") if packed is None else packed[0].reshape(-1, 4)
    good = are_boxes(golds, with_area=True)
    if not good.all():
        raise_bad_row("targets", golds, good, WITH_AREA)
    return golds, known


def _first_boxes(texts: Sequence[str], spans: NDArray[np.int64]) -> Boxes:
    """(B, 4) the first list of four numbers in a part of each text, NaN where there is none."""
    boxes, doubtful = np.full((len(texts), 4), np.nan), np.zeros(len(texts), np.bool_)
    for first, codes, lengths in in_chunks(texts):
        find_boxes(codes, lengths, first, spans, boxes, doubtful)
    for row in np.flatnonzero(doubtful).tolist():
        found = BOX_IN_TEXT.search(texts[row], int(spans[row, 0]), int(spans[row, 1]))
        boxes[row] = [float(number) for number in found.groups()] if found else math.nan
    return boxes


@kernel
def find_boxes(
    codes: Codes,
    lengths: NDArray[np.int64],
    first_text: int,
    spans: NDArray[np.int64],
    boxes: NDArray[np.float64],
    doubtful: NDArray[np.bool_],
) -> None:
    """Write the first box of each part if it is written plainly; else NaN, or it is doubtful."""
    start = 0
    for k in range(lengths.size):
        row = first_text + k
        doubtful[row] = not find_box(codes, start + spans[row, 0], start + spans[row, 1], boxes[row])
        start += lengths[k]


@part
def find_box(codes: Codes, start: int, stop: int, box: NDArray[np.float64]) -> bool:
    """False if a "[" before what may begin a number has no plain box behind it: `BOX_IN_TEXT` decides."""
    for i in range(start, stop):
        if codes[i] != 0x5B:  # [
            continue
        if read_box(codes, i, stop, box) >= 0:
            return True
        box[:] = np.nan
        k = i + 1
        while k < stop and is_space(codes[k]):
            k += 1
        if k < stop and (codes[k] > 0x7F or (0x2B <= codes[k] <= 0x39 and codes[k] != 0x2C)):
            return False
    return True
