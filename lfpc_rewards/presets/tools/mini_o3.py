"""Mini-o3's tool: ``<grounding>{"bbox_2d": [x0, y0, x1, y1], "source": "original_image"}</grounding>``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from lfpc_rewards._json import json_or_none

_REQUEST = re.compile(
    r".*<grounding>{\"bbox_2d\": (.*),.*\"source\": [\',\"](.*)[\',\"]}</grounding>", re.DOTALL
)
_OBSERVATION = re.compile("observation_([0-9]*)")
_LARGEST_ASPECT = 200
_SMALLEST_SIDE = 28


class Request(NamedTuple):
    """The crop that a turn requests.

    Attributes:
        box: Four numbers as written; None if it is not a list of numbers.
        source: "original_image" or "observation_i".
    """

    box: tuple[float, ...] | None
    source: str


def parse_request(text: str) -> Request | None:
    """Parse the last request of a turn; None if there is none in the format that the original requires.

    The original evaluates the list as Python code; here it is parsed as JSON, so an expression such as
    ``[0.1 + 0.1, ...]`` is not a box.

    Source:
        `process_tool_call` of Mini-o3.

    Example:
        >>> parse_request('<grounding>{"bbox_2d": [0, 0, 0.5, 1], "source": "observation_1"}</grounding>')
        Request(box=(0, 0, 0.5, 1), source='observation_1')
    """
    found = _REQUEST.match(text)
    if not found:
        return None
    numbers = json_or_none(found[1])
    if isinstance(numbers, list) and all(type(n) in (int, float) for n in numbers):
        return Request(tuple(numbers), found[2])
    return Request(None, found[2])


def crop_box(
    box: Any,
    source: str,
    observation_sizes: Sequence[tuple[int, int]],
    *,
    used_sizes: Sequence[tuple[int, int]] | None = None,
) -> tuple[int, int, int, int] | None:
    """Return the pixels that the tool cuts from an observation; None if it refuses.

    Args:
        box: A list of four numbers: fractions of the observation's sides, or pixels with `used_sizes`.
        source: "original_image" or "observation_i".
        observation_sizes: Width and height of each observation, the original image first.
        used_sizes: Shown sizes of the observations; if given, the box is in their pixels.

    Returns:
        Whole pixels of the observation, at most its last column and row; None for an unknown observation,
        not four numbers, a box outside the image, or one side 200 times the other.

    Source:
        `prepare_grounding_inputs_multi_turn` of Mini-o3.

    Example:
        >>> crop_box([0.1, 0.2, 0.3, 0.4], "observation_1", [(4000, 3000), (800, 600)])
        (80, 120, 240, 240)
        >>> crop_box([0.5, 0.5, 0.4, 0.6], "original_image", [(800, 600)]) is None
        True
    """
    index = _index(source)
    if index is None or index >= len(observation_sizes) or not isinstance(box, list) or len(box) != 4:
        return None
    width, height = observation_sizes[index]
    scale: tuple[float, float] = (width, height)
    if used_sizes is not None:
        scale = (width / used_sizes[index][0], height / used_sizes[index][1])
    try:
        x0, y0, x1, y1 = (int(n * scale[axis % 2]) for axis, n in enumerate(box))
    except (TypeError, ValueError, OverflowError):
        return None
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width - 1), min(y1, height - 1)
    if x1 - x0 < 1 or y1 - y0 < 1:
        return None
    longest, shortest = max(x1 - x0, y1 - y0), min(x1 - x0, y1 - y0)
    return None if longest / shortest >= _LARGEST_ASPECT else (x0, y0, x1, y1)


def shown_size(
    size: tuple[int, int], *, max_pixels: int = 2048 * 2048, min_pixels: int = 512 * 512
) -> tuple[int, int] | None:
    """Return the width and height at which a picture is shown; None if a side is below 28 pixels.

    Source:
        `process_image` of Mini-o3: both sides scaled and truncated to whole pixels, first down, then up.

    Example:
        >>> shown_size((1415, 1415), max_pixels=2_000_000, min_pixels=40_000)
        (1414, 1414)
    """
    width, height = size
    for limit, beyond in ((max_pixels, width * height > max_pixels), (min_pixels, None)):
        if beyond or (beyond is None and width * height < limit):
            factor = math.sqrt(limit / (width * height))
            width, height = int(width * factor), int(height * factor)
    return (width, height) if min(width, height) >= _SMALLEST_SIDE else None


def _index(source: Any) -> int | None:
    if source == "original_image":
        return 0
    found = _OBSERVATION.match(source) if isinstance(source, str) else None
    return int(found[1]) if found and found[1] and len(found[1]) < 10 else None
