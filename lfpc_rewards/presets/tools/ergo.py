"""ERGO's tool: ``<zoom>[x0, y0, x1, y1]</zoom>``, in whole pixels of the shown image."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from lfpc_rewards.presets._boxes import INTEGER_BOX

_ZOOM = re.compile(r"<zoom>(.*?)</zoom>", re.DOTALL)
_FACTOR = 28


class Crop(NamedTuple):
    """The crop that the tool cuts, and its shown size.

    Attributes:
        box: Pixels of the original image.
        size: Shown size of the crop, as the original passes it to `resize`.
    """

    box: tuple[int, int, int, int]
    size: tuple[int, int]


def parse_zoom(text: str) -> tuple[int, int, int, int] | None:
    """Return the box in the first ``<zoom>``; None unless it has exactly one.

    Source:
        `parse_zoom_bbox_from_text` of ERGO.

    Example:
        >>> parse_zoom("<zoom>sign [10, 20, 100, 200]</zoom>"), parse_zoom("<zoom>[0.5, 2, 3, 4]</zoom>")
        ((10, 20, 100, 200), None)
    """
    found = _ZOOM.search(text)
    boxes = INTEGER_BOX.findall(found[1]) if found else []
    if len(boxes) != 1:
        return None
    try:
        x0, y0, x1, y1 = map(int, boxes[0])
    except ValueError:  # more digits than Python converts
        return None
    return x0, y0, x1, y1


def crop(
    text: str,
    size: tuple[int, int],
    shown_size: tuple[int, int],
    *,
    min_pixels: int = 256,
    max_pixels: int = 1024,
) -> Crop | None:
    """Return the pixels of the original image that a response requests; without a box the whole image.

    Args:
        text: The response.
        size: Width and height of the original image.
        shown_size: Width and height of the shown image.
        min_pixels: Minimum area of a shown crop; the default is the code's.
        max_pixels: Maximum area; the code rounds where others truncate, so a crop may be larger.

    Returns:
        The crop, or None if the original raises, as for most boxes without area.

    Source:
        `crop_with_zoom` of ERGO. It passes the width first to its `smart_resize`, which expects the height
        first.

    Example:
        >>> asked = "<zoom>[10, 20, 100, 200]</zoom>"
        >>> crop(asked, (4000, 3000), (1148, 868), min_pixels=3136, max_pixels=1003520)
        Crop(box=(34, 69, 348, 691), size=(308, 616))
    """
    written = parse_zoom(text)
    if written is None:
        return Crop((0, 0, *size), size)
    try:
        scaled = [number * (size[axis % 2] / shown_size[axis % 2]) for axis, number in enumerate(written)]
        x0, y0, x1, y1 = (int(max(0, min(number, size[axis % 2]))) for axis, number in enumerate(scaled))
        shown = _shown_size(x1 - x0, y1 - y0, min_pixels, max_pixels)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    return Crop((x0, y0, x1, y1), shown) if x0 <= x1 and y0 <= y1 and min(shown) > 0 else None


def _shown_size(width: int, height: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    sides = tuple(max(_FACTOR, round(side / _FACTOR) * _FACTOR) for side in (width, height))
    area = sides[0] * sides[1]
    if area > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        sides = tuple(round(side / shrink / _FACTOR) * _FACTOR for side in (width, height))
    elif area < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        sides = tuple(math.ceil(side * grow / _FACTOR) * _FACTOR for side in (width, height))
    return sides[0], sides[1]
