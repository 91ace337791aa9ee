"""GUI-R1: the right action with the right argument, and a format that the original evaluates as Python.

The original finds the action with regular expressions and calls `eval` on the answer to check its format.
Here the answer is parsed as a literal, so no model output is executed.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lfpc_rewards._checks import same_length
from lfpc_rewards._json import json_or_none
from lfpc_rewards._tags import Tags, both
from lfpc_rewards._typing import Message, Scores
from lfpc_rewards.presets._boxes import as_number, as_numbers, read_golds
from lfpc_rewards.presets._completions import first_texts
from lfpc_rewards.presets._layout import thought_and_answer
from lfpc_rewards.presets._strict import parse_strict_turns
from lfpc_rewards.presets._system import Loophole, Mode, System, is_strict

NEAR = 140.0
"""Maximum distance in pixels between a click and a gold point. Set in the original's code."""

_ACTION = re.compile(r"'action':\s*'(\w+)'")
_INPUT = re.compile(r"'input_text':\s*'(.*?)'")
_POINT = re.compile(r"\{.*\[(\d+),\s*(\d+)]\s*.*\}")
_BACKSLASH = re.compile(r"\\([\n\\'\"abfnrtvxuUN0-7])?")
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
            "The first action and the last point of a line are graded, even from different actions.",
            "The answer must be a list of one action.",
        ),
        Loophole(
            "part of a word",
            "If text and gold are one word each, any part of the word is enough, even one letter.",
            "The words must be the same.",
        ),
        Loophole(
            "half the words",
            "Half of the words are as good as all.",
            "All words must be there in order, and no others.",
        ),
        Loophole(
            "no point is the corner",
            "A click without a point is at 0, 0, which hits a target in the upper left corner.",
            "A click without a point hits nothing.",
        ),
        Loophole(
            "answer in the thinking",
            "The first answer tag is read, even one inside the thinking.",
            "Thinking is never an answer.",
        ),
        Loophole(
            "nothing is well formed",
            "The format checks every action in the list: an empty list has no wrong ones.",
            "The answer must be a list of one action.",
        ),
    ),
    deviations=(
        "The original evaluates the answer as code; here anything but a literal is not well formed.",
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
    """One action, the model's or the gold one.

    Attributes:
        name: Its kind, such as "click".
        target: A point for the model's action; a point or a box for the gold action.
        text: The text to type, or the scroll direction.
    """

    name: str
    target: tuple[float, ...]
    text: str


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
      pixels from the gold point; for "type", "select" and "scroll" a word overlap (F1) of at least 0.5, or,
      for single words, a substring.
    * format: a list of dicts with an action text, a point of two integers and an input text; "type", "select"
      and "open_app" need a text, "scroll" a direction.

    Args:
        completions: (B,) texts, or lists of messages, of which only the first is read.
        answers: (B,) gold actions as JSON text or mappings: "action", "gt_bbox" (a box or a point, in pixels
            of the image as loaded), "input_text".
        mode: "exact", or "strict" with the loopholes of `SYSTEM` closed, which also accepts JSON.

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
    numbered = enumerate(read_golds(answers))
    golds = [_gold(gold, f"answers[{row}]", answers[row]) for row, gold in numbered]
    strict = is_strict(mode)
    if strict:
        read = parse_strict_turns(completions, "tool_call")
        texts, framed = read.texts(), read.well_formed
    else:
        tags = Tags(first_texts(completions), both("think", "answer"))
        texts, framed = tags.stripped(*tags.pair("answer")), thought_and_answer(tags)
    known = {text: (_strict_action if strict else _exact_action)(text) for text in set(texts)}
    given = [known[text] for text in texts]
    right = [
        action is not None and _is_right(action, gold, strict)
        for (action, _), gold in zip(given, golds, strict=True)
    ]
    accuracy = np.array(right, np.float64)
    layout = framed * np.array([complete for _, complete in given], np.float64)
    return GuiR1Parts(accuracy, layout, 0.8 * accuracy + 0.2 * layout)


def _gold(gold: Any, where: str, answer: Any) -> _Action:
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
    return _Action(action.lower(), as_numbers(numbers, len(numbers)), text or "")


def _exact_action(text: str) -> tuple[_Action, bool]:
    """Return the action that the original's patterns find, and whether its `eval` would accept the format."""
    name, words, point = _ACTION.search(text), _INPUT.search(text), _POINT.search(text)
    try:
        target = (as_number(int(point[1])), as_number(int(point[2]))) if point else (0.0, 0.0)
    except ValueError:  # more digits than Python converts
        target = (0.0, 0.0)
    action = _Action(name[1] if name else "no action", target, words[1] if words else _NO_TEXT)
    value = _literal(text)
    return action, isinstance(value, list) and all(map(_is_action, value))


def _strict_action(text: str) -> tuple[_Action | None, bool]:
    """Return the only complete action of the text, in Python or JSON; None for anything else."""
    value = _literal(text) or json_or_none(text)
    if not isinstance(value, list) or len(value) != 1 or not _is_action(value[0]):
        return None, False
    [action] = value
    point = action["point"]
    if not isinstance(point, list | tuple) or len(point) != 2 or bool in map(type, point):
        return None, False
    return _Action(action["action"], tuple(map(as_number, point)), action["input_text"]), True


def _literal(text: str) -> Any:
    """Return the value of a Python literal, None for any other text; nothing is executed."""
    try:
        # Python warns about unknown escapes and keeps the backslash; doubling it avoids the warning.
        return ast.literal_eval(_BACKSLASH.sub(lambda found: found[0] if found[1] else "\\\\", text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _is_action(item: Any) -> bool:
    if not isinstance(item, dict) or not {"action", "point", "input_text"} <= item.keys():
        return False
    name, point, words = item["action"], item["point"], item["input_text"]
    try:
        whole = isinstance(point[0], int) and isinstance(point[1], int)
    except (TypeError, LookupError):
        return False
    return whole and isinstance(name, str) and isinstance(words, str) and _has_argument(name, words)


def _has_argument(name: str, words: str) -> bool:
    if name in ("type", "select", "open_app"):
        return words != _NO_TEXT
    return name != "scroll" or words in _DIRECTIONS


def _is_right(action: _Action, gold: _Action, strict: bool) -> bool:
    if action.name.lower() != gold.name:
        return False
    if gold.name in _WITH_TEXT:
        return _says(action.text, gold.text, strict)
    if gold.name != "click":
        return True
    (x, y), (x0, y0, *corner) = action.target, gold.target
    if corner:
        return x0 < x < corner[0] and y0 < y < corner[1]
    return (x - x0) * (x - x0) + (y - y0) * (y - y0) < NEAR**2


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
