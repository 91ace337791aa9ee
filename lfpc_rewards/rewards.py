"""The reward terms of LFPC and their weighted total.

Every function takes a batch and returns one float64 per rollout, NaN where the term does not apply to
the row. What a model wrote is never an error: a bad box scores 0. Bad ground truth raises and names
its row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfpc_rewards import _kernels
from lfpc_rewards._calls import image_number
from lfpc_rewards._checks import same_length
from lfpc_rewards._packing import four_numbers, pack_rows, starts_of
from lfpc_rewards._reading import Columns
from lfpc_rewards._typing import Accepted, BoxesLike, Choices, Judge, Scores, SizesLike
from lfpc_rewards.answers import answer_verdict, answers_match, match_letters
from lfpc_rewards.parsing import Completion, read_columns
from lfpc_rewards.targets import RowTarget, Targets

Reduce: TypeAlias = Literal["best", "last", "first", "mean"]
"""How several crops of one rollout become one score."""

RowCrops: TypeAlias = BoxesLike | Sequence[BoxesLike | None] | None
"""The crops of one rollout: zero or more boxes; a box that is None or malformed is a bad crop."""

CropImages: TypeAlias = Sequence[Any] | None
"""The numbers of the images that the crops of one rollout were cut from, from 1; None: all from the first."""

_PackedCrops: TypeAlias = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Crops of a batch: (4 * crops,) coordinates, bad boxes as NaN, and (B + 1,) where each rollout's start."""

OVERLAP_THRESHOLD = 0.9
"""tau of LFPC's table 12: the share of the innermost box above which the IoU counts."""

IOU_WEIGHT = 0.5
"""omega, the share of the IoU in the grounding reward. Our choice."""

_NO_IMAGES = np.empty(0, np.int64)
_VERDICTS = {"yes": 1.0, "no": 0.0, "unknown": math.nan}

_REDUCE = {"best": _kernels.BEST, "last": _kernels.LAST, "first": _kernels.FIRST, "mean": _kernels.MEAN}


class GroundingParts(NamedTuple):
    """The parts of `grounding_reward`, each (B,) float64, NaN where the row has no target.

    Attributes:
        overlap: The crop's `coverage` of the innermost box, or its `mask_coverage` of the innermost mask.
        iou: Best IoU with any of the nested boxes, 0 unless overlap > overlap_threshold.
        nearness: 1 minus the smallest `corner_distance` to any of the nested boxes, at least 0.
        total: ``iou_weight * iou + (1 - iou_weight) * nearness``, the reward.
        max_iou: `iou` without the condition on the overlap; for logging.
    """

    overlap: Scores
    iou: Scores
    nearness: Scores
    total: Scores
    max_iou: Scores


def accuracy_reward(
    completions: Sequence[Completion],
    answers: Sequence[Accepted | None],
    choices: Sequence[Choices | None] | None = None,
) -> Scores:
    """1 where the rollout's answer is right, else 0.

    Args:
        completions: (B,) strings, message lists or rollouts.
        answers: (B,) accepted answers: a text, a list of texts, or None where nothing is known.
        choices: (B,) texts of the options, None in rows without options.

    Returns:
        (B,) 0.0 or 1.0; NaN where `answers` is None.

    Raises:
        TypeError: A completion, answer or choice has the wrong type.
        ValueError: The lengths differ, or an accepted answer is empty or names none of the choices.

    Source:
        r_acc of LFPC (arXiv 2603.27494) with `answers_match` in place of the judge.

    Example:
        >>> accuracy_reward(["<answer>(B)</answer>", "B", "<answer>x</answer>"], ["B", "B", None])
        array([ 1.,  0., nan])
    """
    return _accuracy(read_columns(completions).answer_texts(), answers, choices)


def _accuracy(
    given: list[str | None],
    answers: Sequence[Accepted | None],
    choices: Sequence[Choices | None] | None,
) -> Scores:
    same_length(len(given), answers=answers, choices=choices)
    verdicts: list[float | None] = list(match_letters(given, answers, choices))
    for row in [row for row, verdict in enumerate(verdicts) if verdict is None]:
        accepted, options = answers[row], None if choices is None else choices[row]
        try:
            verdicts[row] = math.nan if accepted is None else answers_match(given[row], accepted, options)
        except (TypeError, ValueError) as error:
            raise type(error)(f"answers[{row}]: {error}") from None
    return np.array(verdicts, np.float64)


async def judged_accuracy_reward(
    completions: Sequence[Completion],
    answers: Sequence[Accepted | None],
    choices: Sequence[Choices | None] | None = None,
    *,
    judge: Judge,
    questions: Sequence[str] | None = None,
) -> Scores:
    """`accuracy_reward` with a judge for the answers on which the rules do not decide.

    The rules decide most rows: the accepted answer in other letters is right; no answer, another option,
    two options, another number, "no" for "yes" are wrong. Only other words go to the judge, all rows at once
    and the same case only once. The judge itself limits concurrency, time and money, and does the
    networking: this package has none.

    Args:
        completions: (B,) strings, message lists or rollouts.
        answers: (B,) accepted answers, as in `accuracy_reward`.
        choices: (B,) texts of the options, as in `accuracy_reward`.
        judge: ``await judge(question, answer, accepted)`` gives "yes", "no" or "unknown".
        questions: (B,) texts for the judge to read; without them it gets None.

    Returns:
        (B,) 0.0 or 1.0; NaN where `answers` is None or the judge does not know: that is not the model's
        fault, so it must not cost a rollout its reward.

    Raises:
        TypeError: As `accuracy_reward`.
        ValueError: As `accuracy_reward`, or the judge gave anything but its three verdicts.

    Source:
        LFPC (arXiv 2603.27494) asks a judge for every answer; asking only in doubt is our choice.

    Example:
        >>> import asyncio
        >>> async def judge(question, answer, accepted):
        ...     return "yes" if answer == "crimson" and accepted == ["red"] else "unknown"
        >>> said = [f"<answer>{word}</answer>" for word in ("Red.", "", "crimson", "scarlet")]
        >>> asyncio.run(judged_accuracy_reward(said, ["red"] * 4, judge=judge))
        array([ 1.,  0.,  1., nan])
    """
    import asyncio  # here: its import takes time, and only judges need it

    given = read_columns(completions).answer_texts()
    same_length(len(given), answers=answers, choices=choices, questions=questions)
    scores = np.full(len(given), np.nan)
    doubtful: dict[tuple[str | None, str, tuple[str, ...]], list[int]] = {}
    for row, (answer, accepted) in enumerate(zip(given, answers, strict=True)):
        if accepted is None:
            continue
        try:
            verdict = answer_verdict(answer, accepted, None if choices is None else choices[row])
        except (TypeError, ValueError) as error:
            raise type(error)(f"answers[{row}]: {error}") from None
        if verdict is None:
            texts = (accepted,) if isinstance(accepted, str) else tuple(accepted)
            question = None if questions is None else questions[row]
            doubtful.setdefault((question, answer or "", texts), []).append(row)
        else:
            scores[row] = verdict
    verdicts = await asyncio.gather(
        *(judge(question, answer, list(texts)) for question, answer, texts in doubtful)
    )
    for rows, said in zip(doubtful.values(), verdicts, strict=True):
        if said not in _VERDICTS:
            raise ValueError(f'judge must say "yes", "no" or "unknown", got {said!r} for row {rows[0]}')
        scores[rows] = _VERDICTS[said]
    return scores


def format_reward(completions: Sequence[Completion]) -> Scores:
    """0 where the rollout is well formed, -1 where it is not.

    Args:
        completions: (B,) strings, message lists or rollouts.

    Returns:
        (B,) 0.0 or -1.0.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.

    Source:
        r_format of LFPC (arXiv 2603.27494). Its values are not known; 0 and -1 are those of DeepEyes
        (arXiv 2505.14362). What is well formed: see `ParsedCompletion`.

    Example:
        >>> format_reward(["<think>so</think><answer>B</answer>", "<answer>B</answer>"])
        array([ 0., -1.])
    """
    return _format(read_columns(completions).well_formed)


def _format(well_formed: NDArray[np.bool_]) -> Scores:
    return np.where(well_formed, 0.0, -1.0)


def tool_bonus(completions: Sequence[Completion], accuracy: ArrayLike) -> Scores:
    """1 where the answer is right and the rollout got at least one crop, else 0.

    A crop counts when a tool message delivered its image, never because the text looks like a call.

    Args:
        completions: (B,) strings, message lists or rollouts.
        accuracy: (B,) scores of `accuracy_reward` or of any judge; right means > 0.

    Returns:
        (B,) 0.0 or 1.0; NaN where `accuracy` is NaN.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ.

    Source:
        LFPC (arXiv 2603.27494), stage 1: ``1[r_acc > 0] * 1[crops >= 1]``.

    Example:
        >>> call = {"function": {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 9, 9]}}}
        >>> looked = [
        ...     {"role": "assistant", "content": "<think>near</think>", "tool_calls": [call]},
        ...     {"role": "tool", "content": [{"type": "image"}]},
        ...     {"role": "assistant", "content": "<think>so</think><answer>B</answer>"},
        ... ]
        >>> tool_bonus([looked, looked, looked[2:]], [1.0, 0.0, 1.0])
        array([1., 0., 0.])
    """
    looked = read_columns(completions).looked()
    right = np.asarray(accuracy, np.float64)
    if right.shape != looked.shape:
        raise ValueError(f"accuracy must have shape {looked.shape}, one per completion, got {right.shape}")
    return _bonus(looked, right)


def _bonus(looked: NDArray[np.bool_], right: Scores) -> Scores:
    return np.where(np.isnan(right), np.nan, (right > 0) & looked)


def grounding_reward(
    crops: Sequence[RowCrops],
    targets: Sequence[RowTarget] | Targets,
    image_sizes: SizesLike | Sequence[SizesLike] | None = None,
    *,
    crop_images: Sequence[CropImages] | None = None,
    target_images: Sequence[Sequence[int] | None] | None = None,
    overlap_threshold: float | None = OVERLAP_THRESHOLD,
    iou_weight: float = IOU_WEIGHT,
    reduce: Reduce = "best",
) -> Scores:
    """How well the crops of a rollout find the targets: gated IoU and corner distance.

    For one crop p and one region with nested boxes B1 (innermost) to Bn:

    * overlap = area(p & B1) / area(B1)
    * iou = max over i of IoU(p, Bi) if overlap > overlap_threshold, else 0. The comparison is strict
      and has no tolerance; for integer boxes it is exact.
    * nearness = 1 - min over i of the `corner_distance` of p and Bi, at least 0 (far outside the image)
    * total = iou_weight * iou + (1 - iou_weight) * nearness

    `reduce` says how several crops of a rollout become one score per region; the score of the rollout
    is the mean over its regions:

    * "best": the crop with the highest total for that region (the earlier one of equals), so that a
      question about two objects needs two good crops. Further crops never cost anything.
    * "last", "first": that one crop, good or bad, for every region.
    * "mean": the mean over all crops, bad ones as 0, so that every wild crop costs.

    The parts are those of the crop that was taken ("mean": means over all crops), so total is always their
    weighted sum. A crop that is None, not four finite numbers, inverted or without area scores 0 in every
    part, and so does a rollout without crops. `grounding_parts` gives the parts.

    Where a row has several images, a region is on one of them. A crop of another image overlaps nothing: it
    scores 0 in every part, wherever its box is.

    The innermost target of a region may be a mask (see `Targets`). Then overlap is the share of its pixels
    inside the crop (`mask_coverage`): a crop that cuts off an empty corner of the mask's box loses nothing
    by it. iou and nearness are those of the mask's tight box, which is B1: a crop is a box, so it could
    never have an IoU of 1 with the pixels of a mask, and the best crop must get 1. With a mask that fills
    its box nothing changes.

    Args:
        crops: (B,) rows of zero or more boxes, xyxy in pixels of the original image. Ragged; an entry
            may be None. An array (B, 4) is one crop for each rollout.
        targets: (B,) rows of nested boxes (n, 4) from inner to outer, or a list of such regions, or
            None: the term does not apply. The first of a region may be a mask. Or `Targets` with B rows,
            checked and packed before.
        image_sizes: (B, 2) width and height of the original images, or one (2,) for all. With
            `target_images` a row may also be the sizes (k, 2) of its k images. None with `Targets`.
        crop_images: (B,) rows with the number of each crop's image, from 1, as the model wrote it: what is
            no number of an image is another image than every other. None: all crops are of the first.
        target_images: (B,) rows with the number of each region's image, as in `Targets`. None: every row has
            one image, and `crop_images` is not read. None with `Targets`.
        overlap_threshold: The overlap that must be exceeded, in [0, 1): no overlap exceeds 1, so with 1 the
            IoU would never count. None drops the condition.
        iou_weight: Share of the IoU in [0, 1]; the rest goes to the nearness.
        reduce: "best", "last", "first" or "mean".

    Returns:
        (B,) in [0, 1], NaN where the row has no target.

    Raises:
        ValueError: A target is bad (see `Targets`), the lengths differ, sizes are missing, a row has no image
            of a region's number, an option is out of its range, a row of crops is a list of four numbers
            where a list of boxes is meant, or an array that holds no boxes.
        TypeError: A row of crops is not a list.

    Source:
        LFPC (arXiv 2603.27494), stage 2. The distance's normaliser, iou_weight = 0.5, `reduce`, the
        score of a bad crop and masks are not in the paper: our choices.

    Example:
        >>> sign = [[40, 40, 60, 60], [20, 20, 80, 80]]
        >>> grounding_reward([[[40, 40, 60, 60]], [], [[60, 60, 40, 40]]], [sign] * 3, (100, 100))
        array([1., 0., 0.])
        >>> grounding_reward(np.array([[40, 40, 60, 60], [60, 60, 40, 40]]), [sign] * 2, (100, 100))
        array([1., 0.])
        >>> grounding_reward([[[0, 0, 9, 9]], [[0, 0, 9, 9]]], [None, sign], (100, 100)).round(3)
        array([  nan, 0.272])

        Two images, the sign on the second; the same crop of either:

        >>> sizes, crop = [[(640, 480), (100, 100)]] * 2, [[40, 40, 60, 60]]
        >>> grounding_reward(
        ...     [crop, crop], [sign, sign], sizes, crop_images=[[1], [2]], target_images=[[2], [2]]
        ... )
        array([0., 1.])

        A mask as the target, one arm of which leaves its box nearly empty. A crop of most of the box misses
        the arm; with the box as the target it passes:

        >>> import lfpc_rewards
        >>> arm = np.zeros((100, 100), bool)
        >>> arm[40:60, 40:42] = arm[40:41, 40:60] = True
        >>> mask = lfpc_rewards.Masks([arm])
        >>> crop = [[40, 40.5, 60, 60]]
        >>> for inner in (mask, [40, 40, 60, 60]):
        ...     parts = grounding_parts([crop], [[inner]], (100, 100))
        ...     print(parts.overlap.round(3), parts.total.round(3))
        [0.828] [0.499]
        [0.975] [0.987]

        Two regions and two crops, one of them exact:

        >>> pair = [[[10, 10, 20, 20]], [[70, 70, 90, 90]]]
        >>> crops = [[[10, 10, 20, 20], [0, 0, 100, 100]]]
        >>> for reduce in ("best", "first", "last", "mean"):
        ...     print(reduce, grounding_reward(crops, [pair], (100, 100), reduce=reduce).round(3))
        best [0.66]
        first [0.588]
        last [0.3]
        mean [0.444]
    """
    return grounding_parts(
        crops,
        targets,
        image_sizes,
        crop_images=crop_images,
        target_images=target_images,
        overlap_threshold=overlap_threshold,
        iou_weight=iou_weight,
        reduce=reduce,
    ).total


def grounding_parts(
    crops: Sequence[RowCrops],
    targets: Sequence[RowTarget] | Targets,
    image_sizes: SizesLike | Sequence[SizesLike] | None = None,
    *,
    crop_images: Sequence[CropImages] | None = None,
    target_images: Sequence[Sequence[int] | None] | None = None,
    overlap_threshold: float | None = OVERLAP_THRESHOLD,
    iou_weight: float = IOU_WEIGHT,
    reduce: Reduce = "best",
) -> GroundingParts:
    """The parts of `grounding_reward`.

    Args:
        crops: As `grounding_reward`, and so are all others.
        targets: As `grounding_reward`.
        image_sizes: As `grounding_reward`.
        crop_images: As `grounding_reward`.
        target_images: As `grounding_reward`.
        overlap_threshold: As `grounding_reward`.
        iou_weight: As `grounding_reward`.
        reduce: As `grounding_reward`.

    Returns:
        Five arrays (B,), NaN where the row has no target.

    Raises:
        ValueError: As `grounding_reward`.
        TypeError: As `grounding_reward`.

    Source:
        See `grounding_reward`.

    Example:
        >>> sign = [[40, 40, 60, 60], [20, 20, 80, 80]]
        >>> parts = grounding_parts([[[40, 40, 58, 60]]], [sign], (100, 100))
        >>> parts.overlap, parts.iou, parts.max_iou  # 0.9 does not exceed 0.9
        (array([0.9]), array([0.]), array([0.9]))
    """
    packed = _pack_crops(crops)
    truth = _ground_truth(targets, image_sizes, target_images)
    images = _crop_images(crop_images, packed[1], truth)
    return _grounding(packed, images, truth, overlap_threshold, iou_weight, reduce)


def check_grounding(overlap_threshold: float | None, iou_weight: float) -> None:
    """Refuse settings of `grounding_reward` that cannot work.

    Args:
        overlap_threshold: As in `grounding_reward`.
        iou_weight: As in `grounding_reward`.

    Raises:
        ValueError: A setting is out of its range; the text names it, its range and what came.
    """
    if overlap_threshold is not None and not 0.0 <= overlap_threshold < 1.0:
        raise ValueError(
            f"overlap_threshold must be at least 0 and below 1, or none, got {overlap_threshold}"
        )
    if not 0.0 <= iou_weight <= 1.0:
        raise ValueError(f"iou_weight must lie in [0, 1], got {iou_weight}")


def _grounding(
    crops: _PackedCrops,
    images: NDArray[np.int64],
    targets: Targets,
    overlap_threshold: float | None,
    iou_weight: float,
    reduce: Reduce,
) -> GroundingParts:
    if reduce not in _REDUCE:
        raise ValueError(f'reduce must be "best", "last", "first" or "mean", got {reduce!r}')
    check_grounding(overlap_threshold, iou_weight)
    boxes, starts = crops
    if len(starts) - 1 != len(targets):
        raise ValueError(
            f"crops and targets must have the same length, got {len(starts) - 1} and {len(targets)}"
        )
    out = np.empty((5, len(targets)))
    _kernels.grounding_rows(
        boxes,
        starts,
        images,
        targets.boxes,
        targets.region_starts,
        targets.row_starts,
        targets.sizes,
        targets.images,
        targets.runs,
        targets.run_starts,
        targets.rows,
        -1.0 if overlap_threshold is None else float(overlap_threshold),
        float(iou_weight),
        _REDUCE[reduce],
        out,
    )
    return GroundingParts(*out)


def _ground_truth(
    targets: Sequence[RowTarget] | Targets,
    image_sizes: SizesLike | Sequence[SizesLike] | None,
    target_images: Sequence[Sequence[int] | None] | None,
) -> Targets:
    if isinstance(targets, Targets):
        if image_sizes is not None:
            raise ValueError("image_sizes must be None when targets is a Targets, which holds its own sizes")
        if target_images is not None:
            raise ValueError("target_images must be None when targets is a Targets, which holds its own")
        return targets
    if image_sizes is None:
        raise ValueError("image_sizes is needed unless targets is a Targets, got None")
    return Targets(targets, image_sizes, target_images)


def _crop_images(
    rows: Sequence[CropImages] | None, starts: NDArray[np.int64], targets: Targets
) -> NDArray[np.int64]:
    """(crops,) the number of each crop's image; empty where no target asks for it."""
    if targets.images.size == 0:
        return _NO_IMAGES
    if rows is None:
        return np.ones(starts[-1], np.int64)
    if len(rows) != len(starts) - 1:
        raise ValueError(
            f"crop_images must have one entry per row of crops, got {len(rows)} for {len(starts) - 1}"
        )
    images: list[int] = []
    for row, (numbers, crops) in enumerate(zip(rows, np.diff(starts).tolist(), strict=True)):
        own = [1] * crops if numbers is None else list(map(image_number, numbers))
        if len(own) != crops:
            raise ValueError(f"crop_images[{row}] must have one number per crop, got {len(own)} for {crops}")
        images += own
    return np.array(images, np.int64)


def lfpc_reward(
    completions: Sequence[Completion],
    answers: Sequence[Accepted | None],
    choices: Sequence[Choices | None] | None = None,
    *,
    crops: Sequence[RowCrops] | Literal["requested"] | None = None,
    targets: Sequence[RowTarget] | Targets | None = None,
    image_sizes: SizesLike | Sequence[SizesLike] | None = None,
    crop_images: Sequence[CropImages] | None = None,
    target_images: Sequence[Sequence[int] | None] | None = None,
    accuracy_weight: float = 0.8,
    format_weight: float = 0.2,
    tool_weight: float = 1.2,
    grounding_weight: float = 1.0,
    overlap_threshold: float | None = OVERLAP_THRESHOLD,
    iou_weight: float = IOU_WEIGHT,
    reduce: Reduce = "best",
) -> Scores:
    """The weighted total of `accuracy_reward`, `format_reward`, `tool_bonus` and `grounding_reward`.

    Without `targets` this is the reward of stage 1, with them that of stage 2. A term that does not
    apply to a row adds nothing to it; its weight is not shared out among the others.

    Args:
        completions: (B,) strings, message lists or rollouts.
        answers: (B,) accepted answers, as in `accuracy_reward`.
        choices: (B,) texts of the options, as in `accuracy_reward`.
        crops: (B,) crops in pixels of the original image, as in `grounding_reward`. None takes the
            boxes of the delivered crops as the model wrote them, which is right only if the model
            writes original pixels: convert others with `convert_frame` and pass them. "requested"
            takes the boxes of all crops that were asked for, delivered or not: for completions that are
            strings, which prove no picture.
        targets: (B,) nested boxes or `Targets`, as in `grounding_reward`; None for stage 1.
        image_sizes: Sizes of the original images, as in `grounding_reward`.
        crop_images: As in `grounding_reward`, for `crops` that are given; crops taken from the completions
            have the image that their call names.
        target_images: As in `grounding_reward`.
        accuracy_weight: Weight of `accuracy_reward`.
        format_weight: Weight of `format_reward`.
        tool_weight: Weight of `tool_bonus`.
        grounding_weight: Weight of `grounding_reward`.
        overlap_threshold: As in `grounding_reward`.
        iou_weight: As in `grounding_reward`.
        reduce: As in `grounding_reward`.

    Returns:
        (B,) totals, never NaN: the format applies to every row.

    Raises:
        TypeError: As the terms.
        ValueError: As the terms.

    Source:
        LFPC (arXiv 2603.27494), table 12: 0.8, 0.2, 1.2. That grounding is added with weight 1.0 and
        whether the answer is right or not is our choice.

    Example:
        >>> lfpc_reward(["<think>so</think><answer>B</answer>", "<answer>B</answer>", "B"], ["B", "B", "B"])
        array([ 0.8,  0.6, -0.2])
        >>> sign = [[40, 40, 60, 60], [20, 20, 80, 80]]
        >>> lfpc_reward(
        ...     ["<think>so</think><answer>B</answer>"], ["B"],
        ...     crops=[[[40, 40, 60, 60]]], targets=[sign], image_sizes=(100, 100),
        ... )
        array([1.8])
    """
    columns = read_columns(completions)
    accuracy = _accuracy(columns.answer_texts(), answers, choices)
    terms = [
        (accuracy_weight, accuracy),
        (format_weight, _format(columns.well_formed)),
        (tool_weight, _bonus(columns.looked(), accuracy)),
    ]
    if targets is not None:
        same_length(len(accuracy), targets=targets)
        truth = _ground_truth(targets, image_sizes, target_images)
        if crops is None or isinstance(crops, str):
            if crop_images is not None:
                raise ValueError("crop_images must be None unless crops are given: the calls name theirs")
            packed, images = _crops_of(columns, crops)
        else:
            same_length(len(accuracy), crops=crops)
            packed = _pack_crops(crops)
            images = _crop_images(crop_images, packed[1], truth)
        grounding = _grounding(packed, images, truth, overlap_threshold, iou_weight, reduce)
        terms.append((grounding_weight, grounding.total))
    total = np.zeros(len(accuracy))
    for weight, scores in terms:
        total += weight * np.nan_to_num(scores, nan=0.0)
    return total


def _crops_of(columns: Columns, which: str | None) -> tuple[_PackedCrops, NDArray[np.int64]]:
    """The boxes in the completions, and their images: of the delivered crops, or of all requested."""
    if which not in (None, "requested"):
        raise ValueError(f'crops must be a list of rows, None or "requested", got {which!r}')
    if which is not None:
        return (columns.boxes, columns.crop_starts), columns.crop_images
    starts = starts_of(columns.delivered)[columns.crop_starts]
    boxes = columns.boxes.reshape(-1, 4)[columns.delivered].reshape(-1)
    return (boxes, starts), columns.crop_images[columns.delivered]


def _pack_crops(crops: Sequence[RowCrops]) -> _PackedCrops:
    packed = pack_rows(crops, _crop_numbers)
    if packed is None:
        packed = pack_rows([_crop_list(row, i) for i, row in enumerate(crops)], four_numbers)
    return cast("_PackedCrops", packed)


def _crop_numbers(box: Any) -> tuple[float, ...] | None:
    """`four_numbers`, but None for a bare number: its row may be one box without the list around it."""
    return None if _is_number(box) else four_numbers(box)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _crop_list(row: Any, i: int) -> list[Any]:
    """The boxes of a rollout. An array has a shape and so is read in full; a list of numbers is refused."""
    if row is None:
        return []
    if isinstance(row, np.ndarray):
        if row.dtype.kind not in "iuf" or row.size == 0:
            return list(row.tolist())
        if row.ndim > 2 or row.shape[-1:] != (4,):
            raise ValueError(
                f"crops[{i}] must be boxes (n, 4) or one box (4,), got an array of shape {row.shape}"
            )
        return list(row.reshape(-1, 4).tolist())
    if not isinstance(row, list | tuple):
        raise TypeError(f"crops[{i}] must be a list of boxes, got {type(row).__name__}")
    if len(row) == 4 and all(map(_is_number, row)):
        raise ValueError(
            f"crops[{i}] must be a list of boxes, got the single box {list(row)}: put it in a list"
        )
    return list(row)
