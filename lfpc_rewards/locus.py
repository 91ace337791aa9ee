"""The reward of LOCUS: where in the full image does this crop lie?

The model sees an image and a crop of it and answers with a box in a single turn, without tools. The box that
it types is its answer, so it counts as such, and nothing else in the text does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._checks import WITH_AREA, are_boxes, as_box_list, raise_bad_row
from lfpc_rewards._packing import NO_BOX
from lfpc_rewards._scan import BOX_IN_TEXT
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


def locus_reward(
    completions: Sequence[Completion],
    targets: Sequence[BoxesLike | None] | Boxes,
    *,
    frame: Frame | FrameName = Frame.ORIGINAL,
    image_sizes: SizesLike | None = None,
    shown_sizes: SizesLike | None = None,
    format_weight: float = 0.1,
) -> Scores:
    """IoU of the box that the model answers with, and a little for the format.

    The box is the first list of four numbers in the answer, which is the text of the only
    ``<answer>..</answer>`` of the last turn, after its thinking; further boxes neither help nor harm. A box
    that is not finite, inverted or without area scores 0. The format is `ParsedCompletion.well_formed`:
    ``<think>..</think><answer>..</answer>`` with only white space around.

    Args:
        completions: (B,) strings, message lists or rollouts.
        targets: (B,) boxes of the crops, xyxy in pixels of the original image; None where there is none.
        frame: The frame in which the model writes: a `Frame` or its value, such as "shown".
        image_sizes: (B, 2) width and height of the original images, or one (2,) for all. Not needed if the
            frame is "original".
        shown_sizes: The same of the images as the model saw them. Needed if the frame is "shown".
        format_weight: Share of the format in [0, 1]; the rest goes to the IoU.

    Returns:
        (B,) in [0, 1], never NaN: without a target only the format's share is left. `locus_parts` gives the
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
    return locus_parts(
        completions,
        targets,
        frame=frame,
        image_sizes=image_sizes,
        shown_sizes=shown_sizes,
        format_weight=format_weight,
    ).total


def locus_parts(
    completions: Sequence[Completion],
    targets: Sequence[BoxesLike | None] | Boxes,
    *,
    frame: Frame | FrameName = Frame.ORIGINAL,
    image_sizes: SizesLike | None = None,
    shown_sizes: SizesLike | None = None,
    format_weight: float = 0.1,
) -> LocusParts:
    """The parts of `locus_reward`.

    Args:
        completions: As `locus_reward`, and so are all others.
        targets: As `locus_reward`.
        frame: As `locus_reward`.
        image_sizes: As `locus_reward`.
        shown_sizes: As `locus_reward`.
        format_weight: As `locus_reward`.

    Returns:
        Three arrays (B,); see `LocusParts`.

    Raises:
        ValueError: As `locus_reward`.

    Source:
        See `locus_reward`.

    Example:
        >>> said = "<think>by the door</think><answer>[10, 10, 30, 20]</answer>"
        >>> locus_parts([said], [[10, 10, 30, 30]])
        LocusParts(iou=array([0.5]), format=array([1.]), total=array([0.55]))
    """
    if not 0.0 <= format_weight <= 1.0:
        raise ValueError(f"format_weight must lie in [0, 1], got {format_weight}")
    columns = read_columns(completions)
    if len(targets) != len(columns.texts):
        raise ValueError(
            f"targets must have one entry per completion, got {len(targets)} for {len(columns.texts)}"
        )
    golds, known = _targets(targets)
    written = zip(columns.texts, columns.answers.tolist(), strict=True)
    boxes = convert_frame(
        np.array([_first_box(text, *span) for text, span in written], np.float64).reshape(-1, 4),
        frame,
        Frame.ORIGINAL,
        original_size=image_sizes,
        shown_size=shown_sizes,
    )
    scores = np.where(known, 0.0, np.nan)
    good = known & are_boxes(boxes, with_area=True)
    scores[good] = iou(boxes[good], golds[good])
    layout = columns.well_formed.astype(np.float64)
    total = (1.0 - format_weight) * np.where(known, scores, 0.0) + format_weight * layout
    return LocusParts(scores, layout, total)


def _first_box(text: str, start: int, stop: int) -> tuple[float, ...]:
    """The first list of four numbers in the answer; NaN without one, or without an answer (-1, -1)."""
    found = BOX_IN_TEXT.search(text, start, stop) if start >= 0 else None
    return tuple(map(float, found.groups())) if found else NO_BOX


def _targets(targets: Sequence[BoxesLike | None] | Boxes) -> tuple[Boxes, NDArray[np.bool_]]:
    """(B, 4) the targets, anything where there is none, and (B,) whether there is one."""
    known = np.array([target is not None for target in targets], np.bool_)
    rows: Any = targets if known.all() else [(0, 0, 1, 1) if row is None else row for row in targets]
    golds = as_box_list(rows, "targets")
    good = are_boxes(golds, with_area=True)
    if not good.all():
        raise_bad_row("targets", golds, good, WITH_AREA)
    return golds, known
