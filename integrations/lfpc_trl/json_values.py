"""JSON from files of others, and values that can be written as JSON.

JSON allows what neither a file in UTF-8 nor a model can take: half a surrogate pair, and brackets nested
until the stack of the interpreter is full. Both are found when something is read, not when it is written.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MAX_DEPTH = 64
"""Brackets inside each other. Our choice: a row with several regions has 4, and whoever walks through values
calls himself once per bracket."""
_NESTED = (dict, list, tuple)


def parse_json(text: str | bytes) -> Any:
    """The value in a JSON text.

    Raises:
        ValueError: it is no JSON, no UTF-8, or nested deeper than `MAX_DEPTH`.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    if is_deep(value):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return value


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: it is not there or cannot be read.
        ValueError: as `parse_json`, or it is no regular file: reading a pipe or a device may never end.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    return parse_json(path.read_bytes())


def is_deep(value: Any) -> bool:
    """Whether lists and objects are nested deeper than `MAX_DEPTH`."""
    level = [value] if isinstance(value, _NESTED) else []
    for _ in range(MAX_DEPTH):
        level = [inner for each in level for inner in _inside(each) if isinstance(inner, _NESTED)]
        if not level:
            return False
    return bool(level)


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def not_plain(value: Any) -> str | None:
    """Why a value cannot be kept as JSON, in words that go on from "must be"; None if it can."""
    if is_deep(value):
        return f"nested at most {MAX_DEPTH} deep"
    return _not_plain(value)


def _not_plain(value: Any) -> str | None:
    if isinstance(value, str):
        return None if _is_whole(value) else "text without halves of surrogate pairs"
    if value is None or isinstance(value, bool | int | float):
        return None
    if isinstance(value, dict):
        parts = [*value, *value.values()]
        if not all(isinstance(name, str) for name in value):
            return "plain JSON (texts, numbers, lists, objects)"
        return next(filter(None, map(_not_plain, parts)), None)
    if isinstance(value, list | tuple):
        return next(filter(None, map(_not_plain, value)), None)
    return "plain JSON (texts, numbers, lists, objects)"


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_line(record: Mapping[str, Any]) -> bytes:
    """A record as one line in UTF-8; half a surrogate pair stays as its escape, which every reader knows."""
    try:
        text = json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        text = json.dumps(record).encode()
    return text + b"\n"
