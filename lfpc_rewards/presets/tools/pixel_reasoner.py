"""Pixel-Reasoner's tools: ``<tool_call>{"name": "crop_image_normalized", "arguments": {}}</tool_call>``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lfpc_rewards._json import json_or_none

_SMALLEST_SIDE = 28
_LARGEST_PADDING = 600.0


def parse_request(text: str) -> Any:
    """Parse the JSON after the last ``<tool_call>``, up to a closing tag if there is one; None if invalid.

    Source:
        `parse_last_tool` of Pixel-Reasoner.

    Example:
        >>> parse_request('so <tool_call>{"name": "select_frames"}')
        {'name': 'select_frames'}
    """
    return json_or_none(text.split("<tool_call>")[-1].split("</tool_call>")[0])


def crop_box(
    box: Sequence[float], size: tuple[int, int], *, padding: float = 0.1
) -> tuple[float, float, float, float] | None:
    """Return the region that `crop_image_normalized` cuts; None if it refuses.

    If all four numbers are below 1, they are fractions of the sides, else pixels: [0, 0, 1, 1] is one pixel.
    The region is extended on each side by `padding` times the image size, within the image.

    Args:
        box: x0, y0, x1, y1.
        size: Width and height of the image.
        padding: Fraction of the image's sides.

    Returns:
        The region, not rounded; None if a side has 28 whole pixels or fewer.

    Source:
        `crop_image_normalized` of Pixel-Reasoner.

    Example:
        >>> crop_box([100, 200, 300, 400], (1000, 800))
        (0, 120.0, 400.0, 480.0)
    """
    padded = _padded(box, size, (padding, padding))
    return padded if padded and _large_enough(tuple(map(round, padded))) else None


def zoom_box(
    box: Sequence[float], size: tuple[int, int], *, padding: tuple[float, float] = (0.1, 0.1)
) -> tuple[int, int, int, int] | None:
    """Return the region that `zoom_in` cuts: like `crop_box`, in whole pixels, at most 600 pixels of padding.

    Args:
        box: As in `crop_box`.
        size: As in `crop_box`.
        padding: Fractions of the image's width and height.

    Returns:
        The region; None if a side has 28 pixels or fewer.

    Source:
        `ZoomIn` of Pixel-Reasoner.

    Example:
        >>> zoom_box([0.5, 0.5, 0.5, 0.5], (1000, 800))
        (400, 320, 600, 480)
    """
    margins = min(padding[0], _LARGEST_PADDING / size[0]), min(padding[1], _LARGEST_PADDING / size[1])
    padded = _padded(box, size, margins)
    if padded is None:
        return None
    x0, y0, x1, y1 = map(int, padded)
    return (x0, y0, x1, y1) if _large_enough((x0, y0, x1, y1)) else None


def _padded(
    box: Any, size: tuple[int, int], margins: tuple[float, float]
) -> tuple[float, float, float, float] | None:
    try:
        shares = all(number < 1 for number in box[:4])
        numbers = [float(number) / (1 if shares else size[axis % 2]) for axis, number in enumerate(box[:4])]
        x0, y0, x1, y1 = numbers
    except (TypeError, ValueError, OverflowError):
        return None
    (width, height), (right, down) = size, margins
    return (
        _inside(x0 - right) * width,
        _inside(y0 - down) * height,
        _inside(x1 + right) * width,
        _inside(y1 + down) * height,
    )


def _inside(share: float) -> float:
    return min(max(0, share), 1)


def _large_enough(region: tuple[int, ...]) -> bool:
    return region[2] - region[0] > _SMALLEST_SIDE and region[3] - region[1] > _SMALLEST_SIDE
