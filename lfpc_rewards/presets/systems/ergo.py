"""ERGO: a small crop from which a second model can answer; accuracy; format.

Its training code is not published. The terms and their weights follow the paper (arXiv 2509.21991); parsing,
cropping and comparing follow the published inference code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import eq
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._checks import as_positive_sizes, same_length
from lfpc_rewards._packing import NO_BOX
from lfpc_rewards._tags import Flags
from lfpc_rewards._typing import Boxes, Floats, Scores, SizesLike
from lfpc_rewards.presets._boxes import INTEGER_BOX, numbers_in
from lfpc_rewards.presets._completions import TurnList, turns_of
from lfpc_rewards.presets._judging import BatchJudge, ask, read_verdict, strict_accuracy
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict
from lfpc_rewards.presets.tools import ergo as tool

CropReader: TypeAlias = Callable[
    [Sequence[Any], Sequence[tuple[int, int, int, int]], Sequence[str]], Sequence[str | None]
]
"""``reward_model(images, boxes, questions)`` returns the answers of a frozen model that sees only the box of
each image, in pixels of the original: one text per crop, in order, or None if it failed. It does not get the
gold answer. It handles prompting, networking, retries and caching itself."""

_PAIRS = [re.compile(f"<{name}>(.*?)</{name}>", re.DOTALL) for name in ("zoom", "think", "answer")]
_ZOOM = _PAIRS[0]
_THINKING = re.compile("</?think>")
_LETTERS = re.compile("[a-zA-Z]+")
_MIN_PIXELS, _MAX_PIXELS = 4 * 28 * 28, 1280 * 28 * 28
"""Size limits of a shown crop: the defaults of the inference code, whose tool may refuse thin crops."""

SYSTEM = System(
    name="ERGO",
    paper="2509.21991",
    code="nota-github/ERGO@c6d6742141 (inference only)",
    rewards=("ergo",),
    terms="region (a frozen model answers from the crop) + 0.5 box (at most 0.6 of the image) + accuracy "
    "+ format (each 0 or 1)",
    gates="none as published; in `strict` the region needs a crop of at most 0.6",
    blind_to=(
        "where a small crop is, for the box term: any crop that is small enough earns it",
        "how small a crop is below that share",
        "whether the second model needed the crop, and whether the answer used it",
    ),
    loopholes=(
        Loophole(
            "no box",
            "Without exactly one box the crop is the whole image, from which the second model answers.",
            "Without a box there is no crop.",
        ),
        Loophole(
            "whole image",
            "A crop of the whole image loses the 0.5 for the box but keeps the 1 for the region.",
            "Only a crop within the maximum share is shown to the second model.",
        ),
        Loophole(
            "typed zoom",
            "A box that the model typed earns region and box, whether or not it was cut.",
            "A zoom counts only if a tool message delivered an image.",
        ),
        Loophole(
            "several zooms",
            "The first of several zooms counts, and the others cost nothing.",
            "A rollout with two zooms has no crop.",
        ),
        Loophole(
            "zoom in the thinking",
            "A zoom inside the thinking counts as well.",
            "The zoom must follow the thinking of its turn.",
        ),
        Loophole(
            "crop of nothing",
            "A box without area is small enough, even one outside the image.",
            "A crop without area does not count.",
        ),
        Loophole(
            "answer without tags",
            "Without an answer tag, or with an empty one, the whole last turn is the answer.",
            "The answer is the content of the only answer tag in the last turn.",
        ),
        Loophole(
            "answer in the thinking",
            "The first answer tag of the last turn counts, even one inside the thinking.",
            "Thinking is never an answer.",
        ),
        Loophole(
            "several answers",
            "The first of several answers counts, and the others cost nothing.",
            "A turn with two answers has no answer.",
        ),
        Loophole(
            "letters alone",
            'Only letters are compared: "-B", "B?" and "r e d" say B and red.',
            "The rules of `answers_match` decide, and after them the judge.",
        ),
        Loophole(
            "tags anywhere",
            "The format needs a pair of each tag, in any order and any turn.",
            "Two turns are needed: thinking and one zoom, thinking and one answer, with nothing around them.",
        ),
    ),
    deviations=(
        "The training code is not published; the terms and their weights are the paper's.",
        "How answers are compared is not specified: here as in the inference code, or by a judge.",
        "What the format needs is not specified: here a pair of each tag.",
        "If cropping raises, the inference code leaves the sample out; here the row is NaN.",
        "A crop without area is not shown to the second model, and its region is 0.",
    ),
)


class ErgoParts(NamedTuple):
    """The parts of ERGO's reward, each (B,) float64.

    Attributes:
        region: 1 where the second model answers correctly from the crop alone, else 0; NaN where it or the
            judge failed, and in "exact" where the tool raises.
        box: 1 where the crop is at most `max_share` of the image, else 0; NaN in "exact" where the tool
            raises.
        accuracy: 1 where the answer is right, 0 where not; NaN where the judge failed.
        format: 1 where the response is well formed, else 0.
        total: ``region_weight * region + box_weight * box + accuracy + format``.
    """

    region: Scores
    box: Scores
    accuracy: Scores
    format: Scores
    total: Scores


def ergo(
    completions: Sequence[TurnList],
    answers: Sequence[str],
    *,
    questions: Sequence[str],
    images: Sequence[Any],
    image_sizes: SizesLike,
    shown_sizes: SizesLike,
    reward_model: CropReader | None = None,
    judge: BatchJudge | None = None,
    region_weight: float = 1.0,
    box_weight: float = 0.5,
    max_share: float = 0.6,
    mode: Mode = "exact",
) -> ErgoParts:
    """ERGO's reward: ``region + 0.5 box + accuracy + format``.

    The paper states:

    * region: a frozen model (Qwen2.5-VL-72B) sees the crop and the question, not the image; 1 if its answer
      matches the gold answer. The weight is alpha = 1.
    * box: 1 if the crop has at most gamma = 0.6 of the image's area. The weight is beta = 0.5. Together they
      are the task-driven contextual exploration (TCE) reward.
    * accuracy: 1 if the model's own answer matches. format: think, zoom and answer tags.

    It does not specify the following, which "exact" takes from the published inference code:

    * The box is the only ``[x0, y0, x1, y1]`` in the first ``<zoom>`` of the first turn, in whole pixels of
      the shown image; it is scaled, clamped and truncated to whole pixels of the original
      (`lfpc_rewards.presets.tools.ergo`). Without exactly one box it is the whole image.
    * The answer follows the first ``<answer>`` of the last turn, or is the whole turn; the second model's
      reply is parsed in the same way. An answer matches if its letters, ignoring case and all other
      characters, are those of the gold answer. That suits options and single words; for other gold answers,
      pass a judge.

    Our choices: the format is a pair of each tag in any turn, and areas are computed from whole pixels.

    Args:
        completions: (B,) lists of the texts of the assistant turns, or lists of messages. A text is a single
            turn, of which the first zoom and the first answer count.
        answers: (B,) right answers; letters of the alphabet only, in mode "exact" without a judge.
        questions: (B,) questions for the second model, options included.
        images: (B,) passed to `reward_model` unchanged: paths, pictures or keys.
        image_sizes: (B, 2) width and height of the original images, or one (2,) for all.
        shown_sizes: The same of the images as shown: ``image_grid_thw * 14``, width first.
        reward_model: Answers a whole batch of crops (`CropReader`), only those that can affect the reward.
        judge: Compares answers with gold answers (`BatchJudge`), including those of the second model. Its
            texts must be one plain verdict. "exact" asks it about all answers, "strict" only where the rules
            of `answers_match` are undecided.
        region_weight: The paper's alpha.
        box_weight: The paper's beta.
        max_share: The paper's gamma.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed.

    Returns:
        The parts; total in [0, 3.5], NaN where one of them is.

    Raises:
        TypeError: A completion is not a list of texts or messages, or `reward_model` does not return texts.
        ValueError: The lengths differ, a size is not positive, `max_share` is not in (0, 1], `reward_model`
            is missing or returns a wrong number of answers, or a gold answer cannot be compared.

    Source:
        The rewards of ERGO (arXiv 2509.21991, ICLR 2026); `crop_with_zoom`, `extract_answer_text` and the
        comparison in `eval.py` of its inference code.

    Example:
        >>> def reward_model(images, boxes, questions):  # sees an A in the upper left corner
        ...     return ["A" if x0 < 50 and y0 < 50 else "B" for x0, y0, _, _ in boxes]
        >>> def looks(box):
        ...     return [f"<think>there</think><zoom>{box}</zoom>", "<think>so</think><answer>A</answer>"]
        >>> said = [looks([0, 0, 40, 40]), looks([60, 60, 90, 90]), looks([0, 0, 100, 100])]
        >>> columns = {"questions": ["Which letter?"] * 3, "images": ["a.jpg"] * 3}
        >>> sizes = {"image_sizes": (200, 200), "shown_sizes": (100, 100)}
        >>> ergo(said, ["A"] * 3, **columns, **sizes, reward_model=reward_model).total
        array([3.5, 2.5, 3. ])
        >>> ergo(said, ["A"] * 3, **columns, **sizes, reward_model=reward_model, mode="strict").total
        array([2., 2., 2.])
    """
    same_length(len(completions), answers=answers, questions=questions, images=images)
    if reward_model is None:
        raise ValueError("reward_model must be given: it answers from the crops")
    if not 0 < max_share <= 1:
        raise ValueError(f"max_share must be above 0 and at most 1, got {max_share!r}")
    original, shown = (
        _sizes(each, name, len(completions))
        for name, each in (("image_sizes", image_sizes), ("shown_sizes", shown_sizes))
    )
    strict = is_strict(mode)
    if not strict and judge is None:
        _check_letters(answers)
    match: Callable[..., Scores] = strict_accuracy if strict else _match
    read = (_read_strict if strict else _read)(completions, original, shown)
    width, height = _sides(read.boxes)
    share = width * height / (original[:, 0] * original[:, 1])
    visible, small = share > 0, share <= max_share
    rows = np.flatnonzero(visible & small if strict else visible)
    cut = list(zip(*read.boxes[rows].T.astype(np.int64).tolist(), strict=True))
    columns = [_take(column, rows) for column in (images, questions, answers)]
    region = np.zeros(len(share))
    region[rows] = _regions(reward_model, cut, columns, match, judge)
    box = (visible & small if strict else small).astype(np.float64)
    if not strict:
        region[np.isnan(share)] = box[np.isnan(share)] = np.nan
    accuracy = match(read.answers, answers, questions, judge)
    total = region_weight * region + box_weight * box + accuracy + read.format
    return ErgoParts(region, box, accuracy, read.format, total)


class _Parsed(NamedTuple):
    """A batch, parsed in one of the modes.

    Attributes:
        answers: (B,) the answers; in "strict" None where there is none.
        format: (B,) 1 where the response is well formed, else 0.
        boxes: (B, 4) the crops in whole pixels of the original; NaN where there is none.
    """

    answers: Sequence[str | None]
    format: Scores
    boxes: Boxes


def _read(completions: Sequence[TurnList], original: Floats, shown: Floats) -> _Parsed:
    turns = [each or ("",) for each in turns_of(completions)]
    layout = [all(any(map(pair.search, each)) for pair in _PAIRS) for each in turns]
    boxes, asked = _cut_boxes([each[0] for each in turns], original, shown)
    whole = np.concatenate((np.zeros_like(original), original), axis=1)
    answers = [_answer(each[-1]) for each in turns]
    return _Parsed(answers, np.array(layout, np.float64), np.where(asked, boxes, whole))


def _read_strict(completions: Sequence[TurnList], original: Floats, shown: Floats) -> _Parsed:
    read, turns = parse_strict_turns(completions, "zoom"), turns_of(completions)
    zooming = [[turn for turn in each if "<zoom>" in turn] for each in turns]
    once = [len(each) == 1 and each[0].count("<zoom>") == 1 for each in zooming]
    # The zoom must follow the thinking, and its image must have been delivered.
    seen = [
        each[0] if one and images == 1 and not _THINKING.search(each[0].partition("<zoom>")[2]) else ""
        for each, one, images in zip(zooming, once, read.images.tolist(), strict=True)
    ]
    boxes, asked = _cut_boxes(seen, original, shown)
    layout = np.logical_and(read.well_formed, once).astype(np.float64)
    return _Parsed(read.answers, layout, np.where(asked, boxes, np.nan))


def _cut_boxes(texts: Sequence[str], original: Floats, shown: Floats) -> tuple[Boxes, Flags]:
    """Return the boxes that the tool cuts for some turns.

    Returns:
        (n, 4) boxes, NaN where the tool raises, and (n, 1) whether the first zoom has exactly one box.
    """
    zooms = [zoom[1] if (zoom := _ZOOM.search(text)) else "" for text in texts]
    found = [list(INTEGER_BOX.finditer(zoom)) for zoom in zooms]
    asked = np.array([len(each) == 1 for each in found], np.bool_)
    numbers = np.array([numbers_in(each[0], 4) if len(each) == 1 else NO_BOX for each in found])
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = numbers.reshape(-1, 4) * np.tile(original / shown, 2)
        boxes = np.trunc(np.clip(scaled, 0, np.tile(original, 2)))
        width, height = _sides(boxes)
        # Unusual shapes, such as boxes without area, are passed to the tool itself.
        usual = (width < 1000 * height) & (height < 1000 * width)
    for k in np.flatnonzero(asked & ~usual).tolist():
        size, shown_size = ((int(each[k, 0]), int(each[k, 1])) for each in (original, shown))
        crop = tool.crop(texts[k], size, shown_size, min_pixels=_MIN_PIXELS, max_pixels=_MAX_PIXELS)
        boxes[k] = np.nan if crop is None else crop.box
    return boxes, asked[:, None]


def _sides(boxes: Boxes) -> tuple[Scores, Scores]:
    """Return the (n,) widths and (n,) heights."""
    return boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]


def _answer(text: str) -> str:
    """Return the text after the first answer tag up to the next one, or the whole text if that is empty."""
    inside = text.partition("<answer>")[2].partition("</answer>")[0].partition("<answer>")[0]
    return inside.strip() or text


def _regions(
    reward_model: CropReader,
    boxes: Sequence[Any],
    columns: Sequence[Sequence[Any]],
    match: Callable[..., Scores],
    judge: BatchJudge | None,
) -> Scores:
    """Return (n,) whether the second model answers correctly from each crop; NaN where it failed."""
    scores = np.full(len(boxes), np.nan)
    if not boxes:
        return scores
    images, questions, golds = columns
    replies = reward_model(images, boxes, questions)
    if len(replies) != len(boxes):
        raise ValueError(f"reward_model must give one answer per crop, got {len(replies)} for {len(boxes)}")
    for reply in replies if not set(map(type, replies)) <= {str, type(None)} else ():
        if reply is not None and not isinstance(reply, str):
            raise TypeError(f"reward_model must answer with a text or None, got {reply!r}")
    replied = np.flatnonzero([reply is not None for reply in replies])
    given = _take(replies, replied)
    if match is _match:
        given = list(map(_answer, given))
    scores[replied] = match(given, _take(golds, replied), _take(questions, replied), judge)
    return scores


def _match(
    given: Sequence[str], golds: Sequence[str], questions: Sequence[str], judge: BatchJudge | None
) -> Scores:
    """Compare (n,) answers like the inference code, or with the judge."""
    if judge is not None:
        return ask(judge, questions, given, golds, read_verdict)
    letters = {text: "".join(_LETTERS.findall(text)).lower() for text in {*given, *golds}}
    same = map(eq, map(letters.__getitem__, given), map(letters.__getitem__, golds))
    return np.fromiter(same, np.float64, len(given))


def _check_letters(answers: Sequence[str]) -> None:
    """Raise for a gold answer that no answer can match."""
    for row, gold in enumerate(answers):
        if not (isinstance(gold, str) and gold.isascii() and gold.isalpha()):
            raise ValueError(f"answers[{row}] must be letters only if there is no judge, got {gold!r}")


def _sizes(sizes: SizesLike, name: str, rows: int) -> Floats:
    array = as_positive_sizes(sizes, name)
    same_length(rows, **{name: array if array.ndim > 1 else None})
    return np.broadcast_to(array, (rows, 2))


def _take(column: Sequence[Any], rows: NDArray[np.int64]) -> Any:
    return column if rows.size == len(column) else [column[row] for row in rows.tolist()]
