"""TreeVGR: how well the boxes that a model names while it thinks cover the gold boxes.

Its authors published the metric of their benchmark, which is what `exact` gives. The reward of their training
is in no public code; by the paper it is the mean of this and its counterpart for precision. A mean still pays
half of what a text gets that tiles the image, so `strict` takes the harmonic mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._jit import kernel
from lfpc_rewards._typing import Boxes, Message, Scores
from lfpc_rewards.presets._boxes import pack_golds, plain_iou
from lfpc_rewards.presets._completions import first_texts, last_texts, same_length
from lfpc_rewards.presets._shapes import Shape
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict
from lfpc_rewards.presets._tags import Tags, both
from lfpc_rewards.presets._texts import stripped

_SIDES = Shape("[#,#,#,#]")

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
    tags = Tags(texts, both("box"))
    owners, start, stop = tags.pairs("box")
    boxes = _SIDES.at(tags.own, owners, *stripped(tags.own, start, stop, owners))
    starts = np.searchsorted(owners, np.arange(len(texts) + 1))
    return best_overlaps(boxes, starts, golds, gold_starts, strict)


def _thinking(text: str) -> str:
    head, tag, _ = text.partition("</think>")
    return head if tag and head.lstrip().startswith("<think>") else ""


@kernel
def best_overlaps(
    boxes: Boxes, starts: NDArray[np.int64], golds: Boxes, gold_starts: NDArray[np.int64], both_ways: bool
) -> Scores:
    """(B,) mean over the gold boxes of the best IoU; `both_ways`: its harmonic mean with the counterpart."""
    scores = np.zeros(starts.size - 1)
    all_of_gold, all_of_box = np.zeros(golds.shape[0]), np.zeros(boxes.shape[0])
    for row in range(starts.size - 1):
        n, m = starts[row + 1] - starts[row], gold_starts[row + 1] - gold_starts[row]
        best_of_gold = all_of_gold[gold_starts[row] : gold_starts[row + 1]]
        best_of_box = all_of_box[starts[row] : starts[row + 1]]
        kept = 0
        for k in range(n):
            box = boxes[starts[row] + k]
            if not (box[0] < box[2] and box[1] < box[3]):
                continue
            kept += 1
            for g in range(m):
                overlap = plain_iou(golds[gold_starts[row] + g], box)
                best_of_gold[g] = max(best_of_gold[g], overlap)
                best_of_box[k] = max(best_of_box[k], overlap)
        if m > 0:
            scores[row] = best_of_gold.sum() / m
            if both_ways and scores[row] > 0:  # then there is a box, and it overlaps
                counterpart = best_of_box.sum() / kept
                scores[row] = 2 * scores[row] * counterpart / (scores[row] + counterpart)
    return scores
