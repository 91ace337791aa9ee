"""Reading untrusted JSON, and checking that values can be written as JSON.

JSON allows lone surrogates, which neither UTF-8 files nor models accept, and nesting deep enough to overflow
the interpreter's stack. Both are detected on reading, not on writing.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MAX_DEPTH = 64
"""Maximum nesting depth. Our choice: a row with several regions has 4, and functions that walk through values
recurse once per level."""
_NESTED = (dict, list, tuple)


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: it is not JSON, not UTF-8, or nested deeper than `MAX_DEPTH`.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    if is_deep(value):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return value


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        OSError: it does not exist or cannot be read.
        ValueError: as in `parse_json`, or not a regular file: reading a pipe or a device may never end.
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


def json_problem(value: Any) -> str | None:
    """Why a value cannot be stored as JSON, worded to follow "must be"; None if it can."""
    if is_deep(value):
        return f"nested at most {MAX_DEPTH} deep"
    return _not_plain(value)


def _not_plain(value: Any) -> str | None:
    if isinstance(value, str):
        return None if _is_encodable(value) else "text without lone surrogates"
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


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_line(record: Mapping[str, Any]) -> bytes:
    """A record as one line of UTF-8; lone surrogates stay escaped, which every JSON reader understands."""
    try:
        text = json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        text = json.dumps(record).encode()
    return text + b"\n"
