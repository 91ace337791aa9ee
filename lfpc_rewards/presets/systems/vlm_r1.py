"""VLM-R1: IoU of one box for referring expressions, and rules for other answers.

The original reads the first message of a completion; so does `exact`. Of its accuracy rules, `default`,
`mcq`, `yes_no`, `all_match` and the detection score are implemented; left out are mAP, the judge that
compares with "1.0", and the length reward, which treats every answer as right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from lfpc_rewards._checks import as_sizes, same_length
from lfpc_rewards._json import json_or_none
from lfpc_rewards._tags import Tags, both
from lfpc_rewards._typing import Boxes, Message, Scores, SizesLike
from lfpc_rewards.geometry import iou
from lfpc_rewards.presets._boxes import (
    INTEGER_BOX,
    gold_boxes,
    numbers_in,
    only_boxes,
    pixel_iou,
    proper,
    read_golds,
)
from lfpc_rewards.presets._completions import check_is_batch, first_texts
from lfpc_rewards.presets._judging import strict_accuracy
from lfpc_rewards.presets._layout import thought_and_answer
from lfpc_rewards.presets._math import MathLibrary, needed
from lfpc_rewards.presets._once import once_each
from lfpc_rewards.presets._shaping import repeated_word_share
from lfpc_rewards.presets._similarity import similarity
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

Method: TypeAlias = Literal["default", "mcq", "yes_no", "all_match", "detection"]
"""How `vlm_r1_accuracy` compares."""

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_ANSWER_LINE = re.compile(r"<answer>(.*?)</answer>")
_REC_FORMAT = re.compile(r"\{.*?" + INTEGER_BOX.pattern, re.DOTALL)
_THEN_ANSWER = re.compile(r"\s*<answer>")
_THOUGHT_ANSWER = re.compile(r"</think>\s*<answer>")
_OPTION_END = re.compile(r"[.,?!:;]|$")
_YES_NO = re.compile(r"(yes|no)")
_FENCED_JSON = re.compile(r"```json(.*?)```", re.DOTALL)
_FENCED = re.compile(r"```(.*?)```", re.DOTALL)
_BARE_JSON = re.compile(r'\[\s*{.*?"bbox_2d".*?"label".*?}\s*\]', re.DOTALL)
_STOPS = "\u3002.!\uff01,\uff0c"
_BREAK_AFTER_SPACE = {mark: re.compile(rf"{mark}(?<=\s{mark})") for mark in ("\n", "\r")}
# fmt: off
_CUES = (
    "答案", "选择", "正确", "是", "对", "ANSWER", "CORRECT", "CHOOSE", "SELECT", "RIGHT",
    "认为", "应该", "觉得", "THINK", "BELIEVE", "SHOULD",
)
# fmt: on

SYSTEM = System(
    name="VLM-R1",
    paper="2504.07615",
    code="om-ai-lab/VLM-R1@90052f4786",
    rewards=("vlm_r1", "vlm_r1_accuracy", "vlm_r1_format", "vlm_r1_repetition"),
    terms="IoU + format (0 or 1); for other answers accuracy + format, and repetition (-1 to 0)",
    gates="none: the format counts with any box",
    blind_to=(
        "everything but the box: a box of the whole image scores the target's share of the image",
        "the thinking",
    ),
    loopholes=(
        Loophole(
            "format around anything",
            "The format is only searched for, so any text may surround it, even more answers.",
            "The turn must be thinking and an answer and nothing else.",
        ),
        Loophole(
            "several boxes",
            "The first of several boxes counts and the others cost nothing.",
            "An answer with two boxes has no box.",
        ),
        Loophole(
            "first message",
            "Only the first message is read, so a box given before the tool replies is scored.",
            "The answer is the only answer tag in the last turn.",
        ),
        Loophole(
            "answer without tags",
            "Without answer tags the whole text is the answer (rules for other answers).",
            "Without the tag there is no answer.",
        ),
        Loophole(
            "yes or no inside a word",
            'The letters "no" count anywhere: "nobody knows, yes" is a no.',
            "The first word decides, and a text that says both is wrong.",
        ),
        Loophole(
            "several options",
            "One of several letters is chosen by nearby words and by position: hedging pays.",
            "An answer that names two options is wrong.",
        ),
        Loophole(
            "nearly the right word",
            "Texts are scored by common letters: a wrong word with similar letters earns most of the reward.",
            "A text is either right or wrong.",
        ),
        Loophole(
            "boxes with wrong labels",
            "A box with a wrong label is still matched and earns the completeness share.",
            "Only boxes of the same label are matched.",
        ),
    ),
    deviations=(
        "If the original raises, on labels that are not text or items that are not objects, the row is NaN.",
    ),
)


class VlmR1Parts(NamedTuple):
    """The parts of `vlm_r1`, each (B,) float64.

    Attributes:
        iou: IoU of the box with the gold box; 0 without a box.
        format: 1 where the response is well formed, else 0.
        total: Their sum.
    """

    iou: Scores
    format: Scores
    total: Scores


def vlm_r1(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str | Sequence[float]],
    *,
    image_sizes: SizesLike,
    shown_sizes: SizesLike,
    mode: Mode = "exact",
) -> VlmR1Parts:
    """VLM-R1's reward for referring expressions: ``IoU + format``.

    The box is the first ``[n, n, n, n]`` of non-negative integers in the first ``<answer>..</answer>``. It is
    in pixels of the shown image and is scaled to the original; the gold box is in pixels of the original.

    Args:
        completions: (B,) texts, or lists of messages, of which only the first is read.
        answers: (B,) gold boxes: four numbers, or text whose last ``<answer>`` holds them as JSON.
        image_sizes: (B, 2) width and height of the original images, or one (2,) for all.
        shown_sizes: The same of the images as encoded: ``image_grid_thw * 14``, width first.
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed: one box, which may have decimals, in
            the only answer of the last turn, with x0 < x1 and y0 < y1; standard IoU.

    Returns:
        The parts; total in [0, 2]. IoU is NaN where a number of the model overflows (mode "exact").

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, a gold box is not four numbers, or a size is missing.

    Source:
        `iou_reward` and `format_reward_rec` of VLM-R1 (arXiv 2504.07615).

    Example:
        >>> said = '<think>so</think><answer>{"bbox_2d": [10, 10, 20, 20]}</answer>'
        >>> parts = vlm_r1([said, said + " [1, 1, 2, 2]"], [[10, 10, 20, 20]] * 2,
        ...                image_sizes=(100, 100), shown_sizes=(100, 100))
        >>> parts.iou, parts.format
        (array([1., 1.]), array([1., 1.]))
    """
    same_length(len(completions), answers=answers)
    golds = _gold_boxes(answers)
    scale = np.tile(as_sizes(image_sizes, "image_sizes") / as_sizes(shown_sizes, "shown_sizes"), 2)
    if is_strict(mode):
        read = parse_strict_turns(completions, "tool_call")
        boxes = only_boxes(read.answers) * scale
        good = proper(boxes)
        ious = np.zeros(len(boxes))
        ious[good] = iou(boxes[good], golds[good])
        return VlmR1Parts(ious, read.well_formed, ious + read.well_formed)
    tags = Tags(first_texts(completions), both("think", "answer"))
    start, stop = tags.pair("answer")
    found = [INTEGER_BOX.search(inside) for inside in tags.cut(start, stop)]
    written_boxes = np.array([numbers_in(box, 4) for box in found], np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):
        boxes = written_boxes * scale
    ious = np.where(np.isnan(written_boxes[:, 0]), 0.0, pixel_iou(boxes, golds))
    layout = _rec_format(tags)
    return VlmR1Parts(ious, layout, ious + layout)


def vlm_r1_format(completions: Sequence[str | Sequence[Message]], *, mode: Mode = "exact") -> Scores:
    """Score 1 if the whole first message is thinking followed by an answer, else 0.

    Args:
        completions: As in `vlm_r1`.
        mode: "exact", or "strict", where more tags inside are an error and the last turn must answer.

    Returns:
        (B,) 0.0 or 1.0.

    Raises:
        TypeError: As in `vlm_r1`.

    Source:
        `format_reward` of VLM-R1.

    Example:
        >>> vlm_r1_format(["<think>so</think> <answer>4</answer>", "<answer>4</answer>"])
        array([1., 0.])
    """
    if is_strict(mode):
        check_is_batch(completions)
        return parse_strict_turns(completions, "tool_call").well_formed
    return thought_and_answer(Tags(first_texts(completions), both("think", "answer")))


def vlm_r1_accuracy(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str],
    *,
    method: Method = "default",
    math: MathLibrary | None = None,
    mode: Mode = "exact",
) -> Scores:
    r"""VLM-R1's accuracy for answers other than a single box.

    * "default": equal as mathematics, else equal as numbers, else the same option, else `Levenshtein.ratio`
      of the lower-case texts.
    * "mcq": the named option, by letters before punctuation or at the end; of several, the one with the most
      points for nearby words such as "answer" and for a late position.
    * "yes_no": whether "yes" or "no" comes first, even inside words.
    * "all_match": the same text in lower case, without final periods.
    * "detection": a list of ``{"bbox_2d", "label"}`` in a ``json`` fence, matched greedily from IoU 0.5 on;
      0.7 for the matched IoU of equal labels over the gold boxes, 0.3 for no missing or extra boxes.

    Args:
        completions: As in `vlm_r1`.
        answers: (B,) right answers, optionally inside ``<answer>..</answer>``.
        method: One of the five.
        math: The module math_verify, or an object with its `parse` and `verify`; for "default" in mode
            "exact".
        mode: "exact", or "strict": one answer tag, compared by the rules of `answers_match`; for
            "detection", boxes of other labels are not matched.

    Returns:
        (B,) in [0, 1]; NaN where the original raises.

    Raises:
        TypeError: As in `vlm_r1`.
        ValueError: The lengths differ, the method is unknown, `math` is missing, or a gold list is invalid.

    Source:
        `accuracy_reward` of VLM-R1.

    Example:
        >>> vlm_r1_accuracy(["<answer>nobody, yes</answer>"], ["no"], method="yes_no")
        array([1.])
        >>> vlm_r1_accuracy(["<answer>nobody, yes</answer>"], ["no"], method="yes_no", mode="strict")
        array([0.])
    """
    same_length(len(completions), answers=answers)
    if method not in ("default", "mcq", "yes_no", "all_match", "detection"):
        raise ValueError(f"method must be one of the five in Method, got {method!r}")
    if is_strict(mode):
        strict = parse_strict_turns(completions, "tool_call").answers
        golds = [_first_line_answer(gold) for gold in answers]
        if method == "detection":
            return np.array([_strict_detection(a, g) for a, g in zip(strict, golds, strict=True)], np.float64)
        return strict_accuracy(strict, golds, None, None)
    texts = first_texts(completions)
    tags = Tags(list(map(str.lower, texts)) if method == "yes_no" else texts, both("answer"))
    if method in _READ:
        read, read_gold = _READ[method]
        sides = (read(tags), _each(read_gold, answers))
        return np.array([one == other for one, other in zip(*sides, strict=True)], np.float64)
    given = _last_answers(tags)
    compare = _default(needed(math)) if method == "default" else _detection
    return once_each(compare, given, answers)


def vlm_r1_repetition(
    completions: Sequence[str | Sequence[Message]], *, repair: Callable[[str], str] | None = None
) -> Scores:
    """Penalty for repetition, -1 to 0: minus the share of repeated objects or six-word sequences.

    Args:
        completions: As in `vlm_r1`.
        repair: Repairs broken JSON; `json_repair.repair_json` in the original. None: broken JSON is treated
            as words.

    Returns:
        (B,) in [-1, 0]; NaN where the original raises.

    Raises:
        TypeError: As in `vlm_r1`.

    Source:
        `repetition_reward` of VLM-R1.

    Example:
        >>> vlm_r1_repetition(["a b c d e f a b c d e f"]).round(3)
        array([-0.143])
    """
    check_is_batch(completions)
    texts = first_texts(completions)
    shares = [_repeated_objects(text, repair) for text in texts]
    rows = [row for row, share in enumerate(shares) if share is None]
    out = -np.array([0.0 if share is None else share for share in shares], np.float64)
    out[rows] = -repeated_word_share([texts[row] for row in rows], 6)
    return out


def named_option(text: str) -> str | None:
    """Return the option that VLM-R1 extracts from a text, as a capital letter."""
    text = text.upper()
    letters = _lone_letters(text)
    if len(letters) > 1 or text[-1:].isspace():  # otherwise the result is the same
        text = re.sub(r"\s+", " ", text)
        letters = _lone_letters(text)
    if len(letters) < 2:
        return letters[0] if letters else None
    points = dict.fromkeys(letters, 0)
    for letter in letters:
        place = text.find(letter)
        near = text[max(0, place - 20) : place + 20]
        points[letter] += sum(cue in near for cue in _CUES)
        points[letter] += 2 * (place > len(text) * 0.7)
        points[letter] += place < len(text) - 1 and text[place + 1] in _STOPS
    return max(points, key=points.__getitem__)


def _lone_letters(text: str) -> list[str]:
    """Find ``(?<![A-Z])([A-Z])(?=[.,?!:;]|$)``, searching for its end first, which is rarer."""
    ends = (found.start() for found in _OPTION_END.finditer(text))
    pairs = [(text[end - 1 : end], text[max(end - 2, 0) : end - 1]) for end in ends if end]
    return [letter for letter, before in pairs if "A" <= letter <= "Z" and not "A" <= before <= "Z"]


def _gold_boxes(answers: Sequence[Any]) -> Boxes:
    boxes = read_golds(answers, _last_box)
    for row, box in enumerate(boxes):
        if box is None or len(box) != 4:
            raise ValueError(f"answers[{row}] must be four numbers, got {answers[row]!r}")
    return gold_boxes(boxes)


def _last_box(text: str) -> Any:
    held = _ANSWER.findall(text)
    return json_or_none(held[-1].strip()) if held else None


def _rec_format(tags: Tags) -> Scores:
    """Return (B,) whether a text contains thinking and then an answer with a box of integers in braces."""
    out = np.zeros(len(tags.texts))
    thought = tags.after_first("</think>", tags.after_first("<think>"))
    possible = (tags.first("<think>") >= 0) & (thought >= 0)
    for row, start in zip(np.flatnonzero(possible).tolist(), thought[possible].tolist(), strict=True):
        text = tags.texts[row]
        # The first match of each part leaves the most text for the following parts.
        answer = _THEN_ANSWER.match(text, start) or _THOUGHT_ANSWER.search(text, start)
        found = _REC_FORMAT.search(text, answer.end()) if answer else None
        closed = text.find("}", found.end()) if found else -1
        out[row] = closed >= 0 and text.find("</answer>", closed) >= 0
    return out


def _first_line_answer(text: str) -> str:
    found = _ANSWER_LINE.search(text)
    return (found[1] if found else text).strip()


def _each(read: Callable[[str], Any], texts: Sequence[str]) -> list[Any]:
    """Apply `read` to each text, once per distinct text."""
    known = {text: read(text) for text in set(texts)}
    return [known[text] for text in texts]


def _last_answers(tags: Tags) -> list[str]:
    """Return the (B,) last answer of each text, or the whole text without one."""
    start, stop = tags.last_pair("answer")
    return tags.cut(np.maximum(start, 0), stop)


def _first_answers(tags: Tags) -> list[str]:
    """Return the (B,) first answer of each text, stripped, or the whole text without one."""
    start, stop = tags.pair("answer")
    return tags.stripped(np.maximum(start, 0), stop)


def _tidy(text: str) -> str:
    """Normalize an answer: lower case, one line, no final periods."""
    for mark, after_space in _BREAK_AFTER_SPACE.items():
        if mark in text:
            text = after_space.sub("", text).replace(mark, " ")
    return text.strip().rstrip(".").lower()


def _tidy_gold(text: str) -> str:
    """Return the last answer of a gold text, normalized."""
    held = _ANSWER.findall(text)
    return _tidy(held[-1] if held else text)


def _gold_option(gold: str) -> str:
    return named_option(_first_line_answer(gold)) or gold.strip()


def _yes_or_no(text: str) -> str | None:
    found = _YES_NO.search(text)
    return found[1] if found else None


_READ: dict[str, tuple[Callable[[Tags], list[Any]], Callable[[str], Any]]] = {
    "mcq": (lambda tags: _each(named_option, _first_answers(tags)), _gold_option),
    "yes_no": (
        lambda tags: _each(_yes_or_no, _first_answers(tags)),
        lambda gold: _yes_or_no(_first_line_answer(gold.lower())),
    ),
    "all_match": (lambda tags: _each(_tidy, _last_answers(tags)), _tidy_gold),
}
"""Parsers of texts and gold texts: an answer is right if both give the same result."""


def _default(math: MathLibrary) -> Callable[[str, str], float]:
    def compare(answer: str, gold: str) -> float:
        answer, gold = answer.strip(), _first_line_answer(gold)
        if float(math.verify(math.parse(answer), math.parse(gold))) > 0:
            return 1.0
        if re.search(r"\d", gold):
            same = _same_number(_tidy_gold(answer), _tidy_gold(gold))
            return similarity(_tidy_gold(answer), _tidy_gold(gold)) if same is None else float(same)
        if right := named_option(gold):
            return float(named_option(answer) == right)
        return similarity(_tidy_gold(answer), _tidy_gold(gold))

    return compare


def _same_number(text: str, other: str) -> bool | None:
    try:
        return float(text) == float(other)
    except ValueError:
        return None


_Item: TypeAlias = Any
"""A detection parsed from JSON: an object with "bbox_2d" and "label", or any other model output."""


def _detection(said: str, gold: str) -> float:
    return _detection_score(_detections(_tidy(said)), _gold_detections(gold), same_label_only=False)


def _strict_detection(said: str | None, gold: str) -> float:
    return _detection_score(_detections(_tidy_gold(said or "")), _gold_detections(gold), same_label_only=True)


def _detection_score(found: list[_Item], golds: list[_Item], *, same_label_only: bool) -> float:
    if not golds or not found:
        return float(not golds and not found)
    pairs = [(i, j) for i in range(len(found)) for j in range(len(golds))]
    matches = [(iou, i, j) for i, j in pairs if (iou := _pixel_iou(found[i], golds[j])) >= 0.5]
    free_found, free_golds = set(range(len(found))), set(range(len(golds)))
    position = 0.0
    label: str | None = None  # as in the original, an item without a label takes the previous match's
    for iou, i, j in sorted(matches, key=lambda each: -each[0]):
        if i not in free_found or j not in free_golds:
            continue
        said, right = _label(found[i]), _label(golds[j]) or ""
        if same_label_only and said != right:
            continue
        label = label if said is None else said
        if label is None:
            return np.nan
        position += iou if label == right else 0.0
        free_found.remove(i)
        free_golds.remove(j)
    missing, adding = len(free_golds) / len(golds), len(free_found) / len(found)
    return 0.7 * position / len(golds) + 0.3 * (1.0 - (missing + adding) / 2.0)


def _label(item: _Item) -> str | None:
    label = item.get("label") if isinstance(item, Mapping) else None
    return label.lower() if isinstance(label, str) else None


def _pixel_iou(item: _Item, gold: _Item) -> float:
    """Compute the IoU of two detections; 0 unless both are boxes."""
    try:
        x0, y0, x1, y1 = item["bbox_2d"][:4]
        u0, v0, u1, v1 = gold["bbox_2d"][:4]
        width, height = min(x1, u1) - max(x0, u0), min(y1, v1) - max(y0, v0)
        if not (width > 1 and height > 1):
            return 0.0
        shared = width * height
        score: float = shared / ((x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared)
        return score if score == score else 0.0
    except (TypeError, ValueError, KeyError, ZeroDivisionError, OverflowError):
        return 0.0


def _gold_detections(gold: str) -> list[_Item]:
    fenced = _FENCED_JSON.search(_tidy_gold(gold))
    text = fenced[1].strip() if fenced else ""
    items = json_or_none(text) if text else []
    if not isinstance(items, list | dict):
        raise ValueError(f"answers must hold JSON lists of boxes in json fences, got {gold!r}")
    return list(items)


def _detections(tidied: str) -> list[_Item]:
    fenced = _FENCED_JSON.search(tidied)
    items = json_or_none(fenced[1].strip()) if fenced else None
    return list(items) if isinstance(items, list | dict | str) else []


def _repeated_objects(content: str, repair: Callable[[str], str] | None) -> float | None:
    """Return the share of repeated objects; None for a text without a list of objects."""
    try:
        part = _json_part(content)
        items = _read_json(part, repair) if part else None
        if items and isinstance(items, list):
            boxes = [item for item in items if "bbox_2d" in item and "label" in item]
            return _share_repeated([f"{item['bbox_2d']}_{item['label']}" for item in boxes])
    except (TypeError, ValueError, RecursionError):  # the original does not catch these
        return np.nan
    return None


def _share_repeated(things: Sequence[Any]) -> float:
    return 1 - len(set(things)) / len(things) if things else 0.0


def _json_part(content: str) -> str:
    """Return the first json fence, else the first fence, else a text that looks like a list of boxes."""
    if fenced := _FENCED_JSON.search(content):
        return fenced[1].strip()
    fenced = _FENCED.search(content)
    if fenced and fenced[1].strip():
        return fenced[1].strip()
    bare = _BARE_JSON.search(content)
    return bare[0] if bare else ""


def _read_json(text: str, repair: Callable[[str], str] | None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None if repair is None else json_or_none(repair(text))
