"""Questions and answers as data sets write them: instructions, options in the question, boxed answers."""

import ast
import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from lfpc_rewards import answers_match
from lfpc_trl.data.choices import split_choices
from lfpc_trl.data.columns import IMAGE_TOKEN, without_marks
from lfpc_trl.data.sources import short
from lfpc_trl.errors import DataError

_CUTS = re.compile(
    r"\s*(?:"
    r"Think first, call \*\*image_zoom_in_tool\*\*"  # DeepEyes
    r"|Think in the mind first, and then decide whether to call tools"  # Chain-of-Focus
    r"|Guidelines: Understand the given visual information"  # Pixel-Reasoner
    r"|You FIRST think about the reasoning process"  # verl's geometry3k
    r"|Reason in your mind and then give the final answer"  # DeepEyes, without a tool
    r").*",
    re.DOTALL,
)
"""Instructions that systems append to a question to fix the form of the answer."""
_SENTENCES = re.compile(
    r"\s*(?:Answer with the option's letter from the given choices directly\."
    r"|Answer the question using a single word or phrase\.)"
)
_LEAD = re.compile(r"^\s*Question:\s*", re.IGNORECASE)
_LETTERS = re.compile(r"\(?[A-Z]\)?(?:\s*(?:,|;|&|and|\s)\s*\(?[A-Z]\)?)+|[A-Z]{2,6}")


def plain_question(text: object, pictures: int = 1) -> str:
    """A question without picture tokens (see `without_marks`) and without a system's own instructions."""
    if not isinstance(text, str):
        raise DataError(f"question must be a text, got {short(text)}")
    if text.count(IMAGE_TOKEN) > pictures == 1:
        raise DataError(f"a question must have one picture, got {text.count(IMAGE_TOKEN)} times <image>")
    text = text.replace(IMAGE_TOKEN, "") if pictures == 1 else without_marks(text, pictures)
    text = _SENTENCES.sub("", _CUTS.sub("", text))
    return _LEAD.sub("", text).strip()


def question_with_choices(text: str, answer: Sequence[str]) -> tuple[str, list[str] | None]:
    """Split the options out of a question if the answer names exactly one; else return the text unchanged.

    Raises:
        DataError: the answer names several options at once; a row has one right option.
    """
    found = split_choices(text)
    if found is None:
        return text, None
    question, options = found
    check_single(answer, options)
    try:
        for each in answer:
            answers_match(each, [each], options)
    except ValueError:
        return text, None
    return question, options


def check_single(answer: Sequence[str], options: Sequence[str]) -> None:
    """Refuse "A, C" and "AC" as the answer to a question with options."""
    for each in answer:
        letters = {letter for letter in each if letter in ascii_uppercase}
        named = letters <= set(ascii_uppercase[: len(options)])
        if len(letters) > 1 and named and _LETTERS.fullmatch(each.strip()) and each not in options:
            raise DataError(f"answer must name one option, got {each!r}")


def plain_answers(value: object) -> list[str]:
    r"""Accepted answers: a text, a number or a list of them, each inside `\boxed{...}` or not.

    A box that holds a Python list of texts, as Pixel-Reasoner writes several accepted answers, gives its
    items. Any other list is the answer: an interval, a point.

    Example:
        >>> plain_answers([r"\boxed{['12', 'twelve']}"])
        ['12', 'twelve']
        >>> plain_answers("[0, 5]")
        ['[0, 5]']
        >>> plain_answers(r"\boxed{\frac{1}{2}}")
        ['\\frac{1}{2}']
    """
    found: list[str] = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise DataError(f"answer must be a text or a list of texts, got {short(value)}")
        text = _unboxed(str(item)).strip()
        boxed = text != str(item).strip()
        found += (listed_texts(text) if boxed else None) or [text]
    if not all(found) or not found:
        raise DataError(f"answer must be a text that is not empty, got {short(value)}")
    return list(dict.fromkeys(found))


def _unboxed(text: str) -> str:
    r"""The content of the last `\boxed{...}`, with balanced braces; the whole text without one."""
    _, box, rest = text.rpartition("\\boxed{")
    if not box:
        return text
    depth = 1
    for i, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:i]
    return text


_MOST_LISTED = 1000
"""Most items of a list written as text; `ast.literal_eval` builds a tree of them. Our choice."""


def listed_texts(text: str) -> list[str] | None:
    """The items of a list of texts written as a Python or JSON literal; None for anything else."""
    if not text.lstrip().startswith("[") or text.count(",") >= _MOST_LISTED:
        return None
    try:
        items = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        return None
    return [item.strip() for item in items]


def needs_judge(answer: Sequence[str]) -> bool:
    """Whether rules compare an answer badly: a formula, or more than six words (our choice)."""
    return all("\\" in each or "$" in each or len(each.split()) > 6 for each in answer)


# --- tables ------------------------------------------------------------------------------------------

MAX_LISTED = 100_000
"""Most characters of a list in a cell; `ast.literal_eval` builds a tree of it. Our choice."""
_LEAD_LETTER = r"(?:\({0}\)|{0}[.):])\s*(?=\S)"


def cell(record: Mapping[str, Any], name: str) -> str | None:
    """A cell of a table as text; None for an empty one, which pandas writes as nothing or as NaN.

    Raises:
        DataError: it is neither text nor a number.
    """
    value = record.get(name)
    if isinstance(value, float) and value.is_integer():  # pandas: an empty cell makes whole numbers floats
        value = int(value)
    if value is None or value != value:
        return None
    if not isinstance(value, str | int | float):
        raise DataError(f"{name} must be a text or a number, got {short(value)}")
    return str(value).strip() or None


def option_columns(record: Mapping[str, Any]) -> list[str]:
    """The options in the columns A, B, ... up to the last that is not empty.

    Letters before the options are dropped ("(A) red", "A. red") if every option begins with its own.

    Raises:
        DataError: an option is empty and a later one is not; dropping it would shift the letters.
    """
    options = [cell(record, letter) for letter in ascii_uppercase]
    while options and options[-1] is None:
        options.pop()
    plain, bare = [], []
    for letter, option in zip(ascii_uppercase, options, strict=False):
        if option is None:
            raise DataError(f"{letter} must be a text, because a later option is one, got an empty cell")
        plain.append(option)
        lead = re.match(_LEAD_LETTER.format(letter), option)
        bare += [option[lead.end() :]] if lead else []
    return bare if len(bare) == len(plain) else plain


def listed_boxes(record: Mapping[str, Any], name: str) -> list[Any] | None:
    """The boxes in a cell such as "[[10, 20, 110, 220]]", or in a list; None if there are none.

    Raises:
        DataError: it is not a list, or too long for a list of boxes.
    """
    boxes = record.get(name)
    if not isinstance(boxes, list):
        text = cell(record, name) or "[]"
        try:
            boxes = ast.literal_eval(text) if len(text) <= MAX_LISTED else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            boxes = None
        if not isinstance(boxes, list):
            raise DataError(f"{name} must be a list of boxes, got {short(text)}")
    return boxes or None


def shuffle_options(options: Sequence[str], key: str) -> tuple[list[str], str]:
    """Shuffle options by `key` alone; returns them with the letter of the option that was first.

    Example:
        >>> shuffle_options(["right", "wrong", "not it"], "sa_1")
        (['wrong', 'right', 'not it'], 'B')
    """
    order = list(range(len(options)))
    random.Random(hashlib.sha256(key.encode()).digest()).shuffle(order)
    return [options[i] for i in order], ascii_uppercase[order.index(0)]
