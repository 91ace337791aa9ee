"""Python literals in the texts of models, read without evaluating anything.

Some originals call Python's evaluator on what a model wrote. What such a text can hold honestly are literals:
texts, numbers, None, True, False, and tuples, lists and dicts of these. Anything else, a call above all, is
no literal.
"""

from __future__ import annotations

import re
from typing import Any

_DEEPEST = 50
_SPACE = re.compile(r"(?:[ \t\f\r\n]|#[^\n]*)*")
_SPACE_ON_LINE = re.compile(r"[ \t\f]*")
_NUMBER = re.compile(
    r"0[xX](?:_?[\da-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|(?:\d(?:_?\d)*)?\.?(?:\d(?:_?\d)*)?(?:[eE][+-]?\d(?:_?\d)*)?",
    re.ASCII,
)
_TEXT = re.compile(
    r"([rRuU]?)(?:'''((?:[^\\]|\\.)*?)'''|\"\"\"((?:[^\\]|\\.)*?)\"\"\""
    r"|'((?:[^'\\\n]|\\.)*)'|\"((?:[^\"\\\n]|\\.)*)\")",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(\n|[0-7]{1,3}|x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|.)", re.DOTALL)
_ESCAPES = dict(
    zip("\n\\'\"abfnrtv", ("", "\\", "'", '"', "\a", "\b", "\f", "\n", "\r", "\t", "\v"), strict=True)
)
_WORD = re.compile(r"(?:None|True|False)\b|\.\.\.")
_WORDS = {"None": None, "True": True, "False": False, "...": ...}


class NotLiteralError(ValueError):
    """The text is no Python literal."""


def python_literal(text: str) -> Any:
    r"""The value of a Python literal; raises `NotLiteralError` for any other text.

    Not read, though they are literals: bytes, sets, complex numbers, named characters (``\N{..}``), and
    tuples without brackets.
    """
    if "\0" in text:
        raise NotLiteralError(text)
    value, place = _value(text, _skip(text, 0), 0)
    if _skip(text, place) != len(text):
        raise NotLiteralError(text)
    return value


def _skip(text: str, place: int, depth: int = 1) -> int:
    """The place behind white space; outside of brackets (depth 0) a line ends what stands on it."""
    found = (_SPACE if depth else _SPACE_ON_LINE).match(text, place)
    return found.end() if found else place


def _value(text: str, place: int, depth: int) -> tuple[Any, int]:
    """The value that starts at a place, and the place behind it."""
    if depth > _DEEPEST:
        raise NotLiteralError("nested too deeply")
    mark = text[place : place + 1]
    if mark in ("[", "("):
        return _items(text, place, depth)
    if mark == "{":
        return _pairs(text, place, depth)
    if word := _WORD.match(text, place):
        return _WORDS[word[0]], word.end()
    if mark and mark in "'\"rRuU":
        return _joined(text, place, depth)
    return _signed(text, place, depth)


def _items(text: str, place: int, depth: int) -> tuple[Any, int]:
    close = "]" if text[place] == "[" else ")"
    place = _skip(text, place + 1)
    values: list[Any] = []
    commas = 0
    while text[place : place + 1] != close:
        if len(values) > commas:
            raise NotLiteralError("a comma is missing")
        value, place = _value(text, place, depth + 1)
        values.append(value)
        place = _skip(text, place)
        if text[place : place + 1] == ",":
            commas += 1
            place = _skip(text, place + 1)
    if close == "]":
        return values, place + 1
    return (values[0] if len(values) == 1 and not commas else tuple(values)), place + 1


def _pairs(text: str, place: int, depth: int) -> tuple[dict[Any, Any], int]:
    place = _skip(text, place + 1)
    pairs: dict[Any, Any] = {}
    following = True
    while text[place : place + 1] != "}":
        if not following:
            raise NotLiteralError("a comma is missing")
        key, place = _value(text, place, depth + 1)
        place = _skip(text, place)
        if text[place : place + 1] != ":":
            raise NotLiteralError("a colon is missing")
        value, place = _value(text, _skip(text, place + 1), depth + 1)
        try:
            pairs[key] = value
        except TypeError:
            raise NotLiteralError("a key cannot be hashed") from None
        place = _skip(text, place)
        following = text[place : place + 1] == ","
        if following:
            place = _skip(text, place + 1)
    return pairs, place + 1


def _joined(text: str, place: int, depth: int) -> tuple[str, int]:
    """Texts that stand side by side are one."""
    parts: list[str] = []
    after = place
    while found := _TEXT.match(text, place):
        inside = next(part for part in found.groups()[1:] if part is not None)
        parts.append(inside if found[1] in ("r", "R") else _ESCAPE.sub(_unescaped, inside))
        after = found.end()
        place = _skip(text, after, depth)
    if not parts:
        raise NotLiteralError("a text is not closed")
    return "".join(parts), after


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    if code in _ESCAPES:
        return _ESCAPES[code]
    if code[0] in "01234567":
        return chr(int(code, 8))
    if len(code) > 1:
        try:
            return chr(int(code[1:], 16))
        except (ValueError, OverflowError):
            raise NotLiteralError("no such character") from None
    if code in "xuUN":
        raise NotLiteralError("a cut escape, or a named character")
    return found[0]


def _signed(text: str, place: int, depth: int) -> tuple[int | float, int]:
    sign = 1
    while text[place : place + 1] in ("+", "-"):
        sign = -sign if text[place] == "-" else sign
        place = _skip(text, place + 1, depth)
    found = _NUMBER.match(text, place)
    digits = found[0] if found else ""
    behind = text[place + len(digits) : place + len(digits) + 1]
    if digits.strip(".") == "" or behind.isalnum() or behind in ("_", "."):
        raise NotLiteralError("no value")
    try:
        whole = digits[:2].lower() in ("0x", "0o", "0b") or not set(digits.lower()) & set(".e")
        return sign * (int(digits, 0) if whole else float(digits)), place + len(digits)
    except ValueError:  # zeros in front, or digits beyond Python's limit
        raise NotLiteralError("no number") from None
