"""GUI-R1: the right action with the right argument, and a format that the original evaluates as Python.

Accuracy is searched for with patterns, the format is the value of the answer. Here a parser for literals
takes the place of the evaluator.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._tags import Tags, both
from lfpc_rewards._typing import Message, Scores
from lfpc_rewards.presets._boxes import NO_BOX, as_number, as_numbers, json_or_none, read_golds
from lfpc_rewards.presets._completions import first_texts, same_length
from lfpc_rewards.presets._layout import thought_and_answer
from lfpc_rewards.presets._literals import NotLiteralError, python_literal
from lfpc_rewards.presets._strict import read_strictly
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

NEAR = 140.0
"""Pixels within which a click at a point counts. In the original's code."""

_WHOLE = r"(0|[1-9]\d{0,14})"
_PLAIN = re.compile(
    rf"\[\{{'action': ?'(\w+)', ?'point': ?\[{_WHOLE}, ?{_WHOLE}\], ?"
    r"'input_text': ?'([^'\\\x00-\x1f\[\]]*)'\}\]",
    re.ASCII,
)
"""An action as models write it: here patterns and parser agree."""

_ACTION = re.compile(r"'action':\s*'(\w+)'")
_INPUT = re.compile(r"'input_text':\s*'(.*?)'")
_POINT = re.compile(r"\{.*\[(\d+),\s*(\d+)]\s*.*\}")
_NO_TEXT = "no input text"
_WITH_TEXT = ("type", "select", "scroll")
_DIRECTIONS = ("left", "right", "up", "down")

SYSTEM = System(
    name="GUI-R1",
    paper="2504.10458",
    code="ritzz-ai/GUI-R1@d43eea2f1c",
    rewards=("gui_r1",),
    terms="0.8 accuracy + 0.2 format (each 0 or 1)",
    gates="the argument needs the right action",
    blind_to=("the arguments of other actions, such as which app is opened", "the thinking"),
    loopholes=(
        Loophole(
            "several actions",
            "The first action and the last point of a line are graded, also from different actions.",
            "The answer must be a list of one action.",
        ),
        Loophole(
            "part of a word",
            "Where text and gold are one word each, any part of the word will do, also one letter.",
            "The words must be the same.",
        ),
        Loophole(
            "half the words",
            "Half of the words are as good as all.",
            "All words must be there in their order, and no others.",
        ),
        Loophole(
            "no point is the corner",
            "A click without a point is one at 0, 0, which hits what lies in the upper left corner.",
            "A click without a point hits nothing.",
        ),
        Loophole(
            "answer in the thinking",
            "The first answer tag is read, also one inside the thinking.",
            "Thinking is never an answer.",
        ),
        Loophole(
            "nothing is well formed",
            "The format checks every action of the list: an empty list has none that is wrong.",
            "The answer must be a list of one action.",
        ),
    ),
    deviations=(
        "The original evaluates the answer as code; here a text that computes its value is not well formed.",
    ),
)


class GuiR1Parts(NamedTuple):
    """The parts of `gui_r1`, each (B,) float64.

    Attributes:
        accuracy: 1 for the right action with the right argument, else 0.
        format: 1 where the text is thinking and then a list of complete actions, else 0.
        total: ``0.8 accuracy + 0.2 format``.
    """

    accuracy: Scores
    format: Scores
    total: Scores


class _Action(NamedTuple):
    """What the patterns read in an answer."""

    name: str = "no action"
    point: tuple[float, float] = (0.0, 0.0)
    text: str = _NO_TEXT


class _Actions(NamedTuple):
    """The same of a batch, and whether each answer is complete; of gold actions, places are targets."""

    names: list[str]
    places: NDArray[np.float64]
    texts: list[str]
    complete: NDArray[np.bool_] = np.ones(0, np.bool_)


def gui_r1(
    completions: Sequence[str | Sequence[Message]],
    answers: Sequence[str | Mapping[str, Any]],
    *,
    mode: Mode = "exact",
) -> GuiR1Parts:
    """GUI-R1's reward: ``0.8 accuracy + 0.2 format``.

    The answer is the first ``<answer>..</answer>``, a list of ``{'action': .., 'point': [x, y], 'input_text':
    ..}``.

    * accuracy: the same action, in single quotes only; a click strictly inside the gold box, or less than 140
      pixels from the gold point; for "type", "select" and "scroll" a text that shares half of its words (F1),
      or, word against word, is a part of it.
    * format: a list of dicts with a text, a point of two integers and a text; "type", "select" and "open_app"
      with a text, "scroll" with a direction.

    Args:
        completions: (B,) texts, or lists of messages, of which the first is read.
        answers: (B,) gold actions as JSON text or mappings: "action", "gt_bbox" (a box or a point, in pixels
            of the image as loaded), "input_text".
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed; there JSON is as good as Python.

    Returns:
        The parts; total in {0, 0.2, 0.8, 1}.

    Raises:
        TypeError: A completion is neither a string nor a list of dicts.
        ValueError: The lengths differ, or a gold action is not complete.

    Source:
        `r1gui_compute_score` of GUI-R1 (arXiv 2504.10458).

    Example:
        >>> click = "[{'action': 'click', 'point': [%d, 5], 'input_text': ''}]"
        >>> said = f"<think>so</think><answer>{click}</answer>"
        >>> gold = {"action": "click", "gt_bbox": [0, 0, 10, 10], "input_text": ""}
        >>> gui_r1([said % 5, said % 10, "click"], [gold] * 3).total
        array([1. , 0.2, 0. ])
    """
    same_length(len(completions), answers=answers)
    golds = _golds(answers)
    strict = is_strict(mode)
    if strict:
        read = read_strictly(completions, "tool_call")
        texts, framed = read.texts(), read.well_formed
    else:
        tags = Tags(first_texts(completions), both("think", "answer"))
        texts, framed = tags.stripped(*tags.pair("answer")), thought_and_answer(tags)
    given = _read(texts, strict)
    accuracy = _is_right(given, golds, strict).astype(np.float64)
    layout = framed * given.complete
    return GuiR1Parts(accuracy, layout, 0.8 * accuracy + 0.2 * layout)


def _golds(answers: Sequence[Any]) -> _Actions:
    """The gold actions; places are boxes, or (x, y, NaN, NaN) for a point."""
    golds = [_gold(gold, f"answers[{row}]", answers[row]) for row, gold in enumerate(read_golds(answers))]
    names, places, texts = zip(*golds, strict=True) if golds else ((), (), ())
    return _Actions(list(names), np.array(places, np.float64).reshape(-1, 4), list(texts))


def _gold(gold: Any, where: str, answer: Any) -> tuple[str, tuple[float, ...], Any]:
    action, target, text = (
        gold.get(name) if isinstance(gold, Mapping) else None for name in ("action", "gt_bbox", "input_text")
    )
    numbers = target if isinstance(target, list | tuple) else [math.nan]
    if not isinstance(action, str) or not all(isinstance(n, int | float) and n - n == 0 for n in numbers):
        raise ValueError(f"{where} must have an action and a gt_bbox of numbers, got {answer!r}")
    if action.lower() in _WITH_TEXT and not isinstance(text, str):
        raise ValueError(f"{where} must have an input_text, got {answer!r}")
    if action.lower() == "click" and len(numbers) not in (2, 4):
        raise ValueError(f"{where} must have a gt_bbox of two or four numbers, got {answer!r}")
    is_box = len(numbers) == 4
    return action.lower(), as_numbers(target, 4) if is_box else as_numbers(target, 2) + NO_BOX[:2], text


def _read(texts: Sequence[str], strict: bool) -> _Actions:
    """What each answer says."""
    known = {text: _plain(text) or _odd(text, strict) for text in set(texts)}
    actions = [known[text] for text in texts]
    names, places, words = zip(*(action for action, _ in actions), strict=True) if actions else ((), (), ())
    complete = np.array([whole for _, whole in actions], np.bool_)
    return _Actions(list(names), np.array(places, np.float64).reshape(-1, 2), list(words), complete)


def _plain(text: str) -> tuple[_Action, bool] | None:
    found = _PLAIN.fullmatch(text)
    if not found:
        return None
    name, x, y, words = found.groups()
    return _Action(name, (float(x), float(y)), words), _has_argument(name, words)


def _odd(text: str, strict: bool) -> tuple[_Action, bool]:
    value = _value(text, strict)
    return _strict_action(value) if strict else _searched(text), _is_complete(value, strict)


def _searched(text: str) -> _Action:
    """What the patterns of the original find."""
    name, words, point = _ACTION.search(text), _INPUT.search(text), _POINT.search(text)
    try:
        place = (as_number(int(point[1])), as_number(int(point[2]))) if point else (0.0, 0.0)
    except ValueError:  # digits beyond Python's limit
        place = (0.0, 0.0)
    return _Action(name[1] if name else "no action", place, words[1] if words else _NO_TEXT)


def _value(text: str, strict: bool) -> Any:
    try:
        return python_literal(text)
    except NotLiteralError:
        return json_or_none(text) if strict else None


def _strict_action(value: Any) -> _Action:
    if not _is_complete(value, True):
        return _Action(point=(np.nan, np.nan))
    action = value[0]
    x, y = map(as_number, action["point"])
    return _Action(action["action"], (x, y), action["input_text"])


def _is_complete(value: Any, strict: bool) -> bool:
    if not isinstance(value, list) or (strict and len(value) != 1):
        return False
    return all(_is_action(item, strict) for item in value)


def _is_action(item: Any, strict: bool) -> bool:
    if not isinstance(item, dict) or not {"action", "point", "input_text"} <= item.keys():
        return False
    name, point, words = item["action"], item["point"], item["input_text"]
    try:
        whole = isinstance(point[0], int) and isinstance(point[1], int)
    except (TypeError, LookupError):
        return False
    if strict and not (isinstance(point, list | tuple) and len(point) == 2 and bool not in map(type, point)):
        return False
    return whole and isinstance(name, str) and isinstance(words, str) and _has_argument(name, words)


def _has_argument(name: str, words: str) -> bool:
    if name in ("type", "select", "open_app"):
        return words != _NO_TEXT
    return name != "scroll" or words in _DIRECTIONS


def _is_right(given: _Actions, golds: _Actions, strict: bool) -> NDArray[np.bool_]:
    """(B,) whether each action is the gold one, with the right argument."""
    right = np.array([a.lower() == b for a, b in zip(given.names, golds.names, strict=True)], np.bool_)
    clicks = np.array([name == "click" for name in golds.names], np.bool_)
    with np.errstate(all="ignore"):
        (x, y), (x0, y0, x1, y1) = given.places.T, golds.places.T
        inside = (x0 < x) & (x < x1) & (y0 < y) & (y < y1)
        near = np.isnan(x1) & ((x - x0) * (x - x0) + (y - y0) * (y - y0) < NEAR**2)
    for row in np.flatnonzero(right & ~clicks).tolist():
        if golds.names[row] in _WITH_TEXT:
            right[row] = _says(given.texts[row], golds.texts[row], strict)
    right &= inside | near | ~clicks
    return right


def _says(text: str, gold: str, strict: bool) -> bool:
    if strict:
        return _words(text) == _words(gold)
    words, golds = set(_words(text)), set(_words(gold))
    if len(words) == len(golds) == 1:
        [word], [right] = words, golds
        if word in right or right in word:
            return True
    return bool(words & golds) and 2 * len(words & golds) / (len(words) + len(golds)) >= 0.5


def _words(text: str) -> list[str]:
    return text.replace("[", "").replace("]", "").lower().split()
