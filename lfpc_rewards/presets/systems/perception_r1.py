"""Perception-R1: the square of the IoU of one box.

Boxes are in thousandths of the image. In a text without Qwen2-VL's box token they are read as fractions and
multiplied by 1000.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lfpc_rewards._checks import same_length
from lfpc_rewards._json import json_or_none
from lfpc_rewards._tags import Flags, Tags
from lfpc_rewards._typing import Boxes, BoxesLike, Message, Scores
from lfpc_rewards.geometry import iou
from lfpc_rewards.presets._boxes import gold_boxes, proper
from lfpc_rewards.presets._completions import check_is_batch, first_texts, last_texts
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_FOUR = r",\s*".join([_NUMBER] * 4)
_BOXES = (
    ("[", re.compile(rf"\[\s*{_FOUR}\s*\]")),
    ("(", re.compile(rf"\(\s*{_FOUR}\s*\)")),
    ("(", re.compile(rf"\(\s*{_NUMBER},\s*{_NUMBER}\),\s*\(\s*{_NUMBER},\s*{_NUMBER}\)")),
)
"""The box formats: first character, for a quick check, and pattern."""

_STRICT = re.compile(
    r"\s*<\|object_ref_start\|>[^<]*<\|object_ref_end\|><\|box_start\|>\s*"
    rf"\(\s*{_NUMBER},\s*{_NUMBER}\s*\),\s*\(\s*{_NUMBER},\s*{_NUMBER}\s*\)\s*<\|box_end\|>(?:<\|im_end\|>)?\s*"
)
_BEGINNINGS = ("<", ">", "object_ref_start", "object_ref_end", "box_start", "box_end", "im_end")
_END_OF_TEXT = "<|endoftext|>"

SYSTEM = System(
    name="Perception-R1",
    paper="2504.07954",
    code="linkangheng/PR1@48d5558ee3",
    rewards=("perception_r1", "perception_r1_think_format"),
    terms="IoU squared + format (0 or 1)",
    gates="none",
    blind_to=("the name of the object", "which of several boxes is meant: the first one counts"),
    loopholes=(
        Loophole(
            "format of one character",
            'The "|" in the pattern means "or": any text that begins with < is well formed.',
            "The text must be a named object with its box and nothing else.",
        ),
        Loophole(
            "several boxes",
            "The first of several boxes counts and the others cost nothing.",
            "A text with two boxes has no box.",
        ),
        Loophole(
            "box without its token",
            "A box in brackets or parentheses anywhere counts, in fractions of the image.",
            "Without its token there is no box, so the frame is never guessed.",
        ),
        Loophole(
            "first message",
            "Only the first message is read.",
            "The box is that of the last turn.",
        ),
        Loophole(
            "tags inside tags",
            "The think format allows more tags and answers inside both parts.",
            "Each tag must occur exactly once.",
        ),
    ),
    deviations=("If the original raises, as for two boxes without area, the row is NaN.",),
)


class PerceptionR1Parts(NamedTuple):
    """The parts of `perception_r1`, each (B,) float64.

    Attributes:
        iou2: The square of the IoU; NaN where the original divides by zero.
        format: 1 where the text is well formed, which in mode "exact" any beginning with "<" is.
        total: Their sum.
    """

    iou2: Scores
    format: Scores
    total: Scores


def perception_r1(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str] | BoxesLike,
    *,
    mode: Mode = "exact",
) -> PerceptionR1Parts:
    """Perception-R1's reward for grounding: ``IoU^2 + format``.

    The box is the first ``[a, b, c, d]``, else the first ``(a, b, c, d)``, else the first ``(a, b), (c, d)``;
    without one it is 0, 0, 0, 0. Unless the text has ``<|box_start|>``, its numbers are multiplied by 1000
    and truncated to integers.

    Args:
        completions: (B,) texts with special tokens, or lists of messages, of which only the first is read.
        answers: (B, 4) gold boxes in thousandths of the image, or texts ``[x0, y0, x1, y1]``.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; total in [0, 2], NaN where the original raises.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, or a gold box is not four finite numbers.

    Source:
        `pr1_grounding_reward` and `pr1_grounding_format_reward` of Perception-R1 (arXiv 2504.07954).

    Example:
        >>> box = "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(100,100),(200,200)<|box_end|>"
        >>> said = [box, "[0.1, 0.1, 0.2, 0.2]", "<"]
        >>> for mode in ("exact", "strict"):
        ...     print(perception_r1(said, [[100, 100, 200, 200]] * 3, mode=mode).total)
        [2. 1. 1.]
        [2. 0. 0.]
    """
    same_length(len(completions), answers=answers)
    golds = _golds(answers)
    if is_strict(mode):
        found = [_STRICT.fullmatch(text) for text in last_texts(completions)]
        boxes = np.array([match.groups() if match else (np.nan,) * 4 for match in found], np.float64).reshape(
            -1, 4
        )
        good = proper(boxes) & proper(golds)
        squares = np.zeros(len(boxes))
        squares[good] = iou(boxes[good], golds[good]) ** 2
        layout = np.array([match is not None for match in found], np.float64)
        return PerceptionR1Parts(squares, layout, squares + layout)
    texts = [text.replace(_END_OF_TEXT, "") for text in first_texts(completions)]
    squares = _iou_as_written(_first_boxes(texts), golds) ** 2
    layout = np.array([text.startswith(_BEGINNINGS) for text in texts], np.float64)
    return PerceptionR1Parts(squares, layout, squares + layout)


def perception_r1_think_format(
    completions: Sequence[str | Sequence[Message]], *, mode: Mode = "exact"
) -> Scores:
    """Score 1 if the text is a single line of thinking and answer with nothing in between, else 0.

    Args:
        completions: As in `perception_r1`.
        mode: "exact", or "strict", which allows white space in between but each tag only once.

    Returns:
        (B,) 0.0 or 1.0.

    Raises:
        TypeError: As in `perception_r1`.

    Source:
        `think_format_reward` of Perception-R1.

    Example:
        >>> perception_r1_think_format(["<think>so</think><answer>4</answer>", "<answer>4</answer>"])
        array([1., 0.])
    """
    check_is_batch(completions)
    if is_strict(mode):
        return parse_strict_turns(completions, "tool_call").well_formed
    # ``^<think>.*?</think><answer>.*?</answer>$``, which may be followed by a newline but contains none.
    tags = Tags(first_texts(completions), ("<think>", "</think><answer>", "</answer>"))
    ends = tags.lengths - np.array([text.endswith("\n") for text in tags.texts], np.int64)
    good: Flags = (tags.first("<think>") == 0) & (tags.last("</answer>") == ends - len("</answer>"))
    good &= tags.first("</think><answer>") >= 0
    for row in np.flatnonzero(good).tolist():
        good[row] = tags.texts[row].find("\n", 0, int(ends[row])) < 0
    return good.astype(np.float64)


def _golds(answers: Any) -> Boxes:
    rows = [json_or_none(answer) if isinstance(answer, str) else answer for answer in answers]
    for row, box in enumerate(rows):
        if box is None or not hasattr(box, "__len__") or len(box) != 4:
            raise ValueError(f"answers[{row}] must be four numbers, got {answers[row]!r}")
    golds = gold_boxes(rows)
    if not np.isfinite(golds).all():
        raise ValueError("answers must be finite numbers")
    return golds


def _first_boxes(texts: Sequence[str]) -> Boxes:
    """Return the (B, 4) first box in the first format that a text has; 0, 0, 0, 0 without one."""
    boxes = np.array([_first_box(text) for text in texts], np.float64).reshape(-1, 4)
    shares = np.array(["<|box_start|>" not in text for text in texts], np.bool_)
    with np.errstate(over="ignore", invalid="ignore"):
        thousandths = np.trunc(boxes[shares] * 1000)
    boxes[shares] = np.where(np.isfinite(thousandths), thousandths, np.nan)
    return boxes


def _first_box(text: str) -> tuple[float, ...]:
    for sign, form in _BOXES:
        match = form.search(text) if sign in text else None
        if match:
            return tuple(map(float, match.groups()))
    return (0.0,) * 4


def _iou_as_written(boxes: Boxes, others: Boxes) -> Scores:
    """Compute the IoU with signed areas; NaN where the union is 0."""
    with np.errstate(all="ignore"):
        sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
        shared = np.maximum(sides, 0).prod(1)
        union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (others[:, 2:] - others[:, :2]).prod(1) - shared
        ious: Scores = shared / union
    return np.where(np.isfinite(ious), ious, np.nan)
