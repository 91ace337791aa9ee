"""TreeVGR: how well the boxes that a model names while it thinks cover the gold boxes.

Its authors published the metric of their benchmark, which is what `exact` gives. The reward of their training
is in no public code; by the paper it is the mean of this and its counterpart for precision. A mean still pays
half of what a text gets that tiles the image, so `strict` takes the harmonic mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._packing import starts_of
from lfpc_rewards._typing import Boxes, Message, Scores
from lfpc_rewards.presets._boxes import numbers_in, pack_golds, pairs_of, plain_iou
from lfpc_rewards.presets._completions import first_texts, last_texts, same_length
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

_BOX = re.compile("<box>(.*?)</box>", re.DOTALL)
_SIDES = re.compile(r"\s*\[(\d+),(\d+),(\d+),(\d+)\]")

SYSTEM = System(
    name="TreeVGR",
    paper="2507.07999",
    code="Haochen-Wang409/TreeVGR@4823ad8860",
    rewards=("treevgr",),
    terms="mean over the gold boxes of the best IoU with any box of the text",
    gates="none",
    blind_to=("the answer", "which box is meant for which object"),
    loopholes=(
        Loophole(
            "boxes without end",
            "Only gold boxes are counted: a text that tiles the image hits all of them.",
            "The harmonic mean with the counterpart: over the boxes, the best IoU with a gold box.",
        ),
        Loophole(
            "boxes after the thinking",
            "Boxes count wherever they stand.",
            "Boxes count in the thinking of the last turn.",
        ),
    ),
    deviations=("The training reward is in no public code; this is the metric of the benchmark.",),
)


def treevgr(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[Sequence[Sequence[float]]],
    *,
    mode: Mode = "exact",
) -> Scores:
    """The mean over the gold boxes of the best IoU with any ``<box>[x0,y0,x1,y1]</box>`` of the text.

    Boxes are integers without blanks between them, x0 < x1 and y0 < y1; others are left out.

    Args:
        completions: (B,) texts, or lists of messages, of which the first is read.
        answers: (B,) lists of gold boxes.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        (B,) in [0, 1]; 0 where there is no gold box.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, or a gold box is not four finite numbers.

    Source:
        `compute_box_iou` of TreeVGR (arXiv 2507.07999).

    Example:
        >>> said = "<think><box>[0,0,10,10]</box> or <box>[50,50,60,60]</box></think>"
        >>> [treevgr([said], [[[0, 0, 10, 20]]], mode=mode).tolist() for mode in ("exact", "strict")]
        [[0.5], [0.3333333333333333]]
    """
    same_length(len(completions), answers=answers)
    golds, gold_starts = pack_golds(answers, "answers")
    strict = is_strict(mode)
    texts = [_thinking(text) for text in last_texts(completions)] if strict else first_texts(completions)
    found = [[box for inside in _BOX.findall(text) if (box := _sides(inside))] for text in texts]
    boxes = np.array([box for each in found for box in each], np.float64).reshape(-1, 4)
    starts = starts_of(list(map(len, found)))
    return best_overlaps(boxes, starts, golds, gold_starts, strict)


def _thinking(text: str) -> str:
    head, tag, _ = text.partition("</think>")
    return head if tag and head.lstrip().startswith("<think>") else ""


def _sides(inside: str) -> tuple[float, ...] | None:
    box = numbers_in(_SIDES.match(inside), 4)
    return box if box[0] < box[2] and box[1] < box[3] else None


def best_overlaps(
    boxes: Boxes, starts: NDArray[np.int64], golds: Boxes, gold_starts: NDArray[np.int64], both_ways: bool
) -> Scores:
    """(B,) mean over the gold boxes of the best IoU; `both_ways`: its harmonic mean with the counterpart."""
    _, box, gold = pairs_of(starts, gold_starts)
    overlaps = plain_iou(golds[gold], boxes[box])
    recall, precision = _mean_of_best(overlaps, gold, gold_starts), _mean_of_best(overlaps, box, starts)
    if not both_ways:
        return recall
    return np.where(recall > 0, 2 * recall * precision / np.where(recall > 0, recall + precision, 1.0), 0.0)


def _mean_of_best(overlaps: Scores, owners: NDArray[np.int64], starts: NDArray[np.int64]) -> Scores:
    """(B,) the mean over the boxes of a row of the best of their overlaps; 0 for a row without boxes."""
    best, counts = np.zeros(starts[-1]), np.diff(starts)
    np.maximum.at(best, owners, overlaps)
    rows = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(rows, best, len(counts)) / np.maximum(counts, 1)
