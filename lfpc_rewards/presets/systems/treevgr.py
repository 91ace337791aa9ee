"""TreeVGR: how well the boxes in the model's thinking cover the gold boxes.

Its authors published the metric of their benchmark, which `exact` reproduces. Their training reward is not in
public code; in the paper it is the mean of this metric and its precision counterpart. With that mean, a text
that tiles the image with boxes still gets half, so `strict` uses the harmonic mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._checks import same_length
from lfpc_rewards._packing import starts_of
from lfpc_rewards._typing import Boxes, Message, Scores
from lfpc_rewards.presets._boxes import Numbers, gold_box_lists, numbers_in, plain_ious
from lfpc_rewards.presets._completions import first_texts, last_texts
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
            "Only gold boxes count: a text that tiles the image hits all of them.",
            "The harmonic mean with its precision counterpart: the mean over the boxes of the best IoU.",
        ),
        Loophole(
            "boxes after the thinking",
            "Boxes count anywhere in the text.",
            "Boxes count only in the thinking of the last turn.",
        ),
    ),
    deviations=("The training reward is not in public code; this is the metric of the benchmark.",),
)


def treevgr(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[Sequence[Sequence[float]]],
    *,
    mode: Mode = "exact",
) -> Scores:
    """Average over the gold boxes the best IoU with any ``<box>[x0,y0,x1,y1]</box>`` in the text.

    Boxes are integers without spaces between them, x0 < x1 and y0 < y1; others are ignored.

    Args:
        completions: (B,) texts, or lists of messages, of which only the first is read.
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
    golds = gold_box_lists(answers, "answers")
    strict = is_strict(mode)
    texts = [_thinking(text) for text in last_texts(completions)] if strict else first_texts(completions)
    found = [[box for inside in _BOX.findall(text) if (box := _sides(inside))] for text in texts]
    recall, precision = _mean_best_ious(found, golds)
    if not strict:
        return recall
    return 2 * recall * precision / np.where(recall > 0, recall + precision, 1.0)


def _thinking(text: str) -> str:
    head, tag, _ = text.partition("</think>")
    return head if tag and head.lstrip().startswith("<think>") else ""


def _sides(inside: str) -> tuple[float, ...] | None:
    box = numbers_in(_SIDES.match(inside), 4)
    return box if box[0] < box[2] and box[1] < box[3] else None


def _mean_best_ious(
    found: Sequence[Sequence[Numbers]], golds: Sequence[Sequence[Numbers]]
) -> tuple[Scores, Scores]:
    """(B,) means of the best IoU of each gold box with a found one, and of each found one with a gold box."""
    boxes, counts = _flat(found)
    targets, target_counts = _flat(golds)
    pairs = counts * target_counts
    rows = np.repeat(np.arange(len(pairs)), pairs)
    place = np.arange(rows.size) - starts_of(pairs)[rows]
    box = starts_of(counts)[rows] + place // target_counts[rows]
    target = starts_of(target_counts)[rows] + place % target_counts[rows]
    ious = plain_ious(boxes[box], targets[target])
    best, best_target = np.zeros(len(boxes)), np.zeros(len(targets))
    np.maximum.at(best, box, ious)
    np.maximum.at(best_target, target, ious)
    return _means(best_target, target_counts), _means(best, counts)


def _flat(rows: Sequence[Sequence[Numbers]]) -> tuple[Boxes, NDArray[np.int64]]:
    boxes = np.array(list(chain.from_iterable(rows)), np.float64).reshape(-1, 4)
    return boxes, np.fromiter(map(len, rows), np.int64, len(rows))


def _means(values: Scores, counts: NDArray[np.int64]) -> Scores:
    """(B,) the mean of the values of each row, 0 for a row without any."""
    sums = np.bincount(np.repeat(np.arange(counts.size), counts), values, counts.size)
    return sums / np.maximum(counts, 1)
