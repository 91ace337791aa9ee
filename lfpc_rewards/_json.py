"""JSON in the text of a model."""

from __future__ import annotations

import json
from typing import Any


def json_or_none(text: str) -> Any:
    """The value of JSON text, None for anything that is not JSON; never raises."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not JSON, digits beyond Python's limit, or nested too deeply
        return None
