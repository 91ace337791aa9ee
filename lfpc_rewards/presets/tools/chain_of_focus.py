"""Chain-of-Focus' tool: ``image_zoom_in_tool``, whose boxes are in pixels of the shown image."""

from __future__ import annotations

from typing import Any


def accepts(box: Any, size: tuple[int, int]) -> bool:
    """Whether the tool accepts a box: four numbers inside the image, in order. Nothing is clamped.

    Args:
        box: The model's x0, y0, x1, y1.
        size: Width and height of the image.

    Source:
        `check_absolute_bbox_format` of Chain-of-Focus.

    Example:
        >>> accepts([10, 20, 640, 480], (640, 480)), accepts([10, 20, 641, 480], (640, 480))
        (True, False)
    """
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(n, int | float) for n in box):
        return False
    (x0, y0, x1, y1), (width, height) = box, size
    return bool(0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height)


def enlarged_box(box: Any, size: tuple[int, int], *, factor: float = 1.5) -> tuple[int, int, int, int] | None:
    """Enlarge a box about its center, within the image, in whole pixels; None if it is not a box.

    Args:
        box: As in `accepts`; not checked for order.
        size: As in `accepts`.
        factor: Scale of width and height; 1 only truncates to whole pixels.

    Source:
        `enlarge_bbox` of Chain-of-Focus.

    Example:
        >>> enlarged_box([10, 20, 100, 200], (640, 480))
        (0, 0, 122, 245)
    """
    try:
        x0, y0, x1, y1 = box
        if factor != 1:
            middle, centre = (x0 + x1) / 2, (y0 + y1) / 2
            width, height = (x1 - x0) * factor, (y1 - y0) * factor
            x0, y0 = max(0, middle - width / 2), max(0, centre - height / 2)
            x1, y1 = min(size[0], middle + width / 2), min(size[1], centre + height / 2)
        return int(x0), int(y0), int(x1), int(y1)
    except (TypeError, ValueError, OverflowError):
        return None


def crop_box(box: Any, size: tuple[int, int], *, factor: float = 1.5) -> tuple[int, int, int, int] | None:
    """Return the pixels that the tool cuts; None if it refuses.

    Args:
        box: As in `accepts`.
        size: As in `accepts`.
        factor: As in `enlarged_box`.

    Source:
        `ZoominVisionTool.execute` of Chain-of-Focus.

    Example:
        >>> crop_box([100, 100, 200, 200], (640, 480)), crop_box([200, 100, 100, 200], (640, 480))
        ((75, 75, 225, 225), None)
    """
    return enlarged_box(box, size, factor=factor) if accepts(box, size) else None
