"""Formats, frames and sizes: what the four numbers of a box mean.

A *format* says which four numbers are written (two corners, corner and size, centre and size). A
*frame* says in which units: pixels of the original image, pixels of the image the model was
shown, or a fraction of the image. Nothing is guessed: the caller names both.

These functions only compute: a bad box stays a bad box, NaN stays NaN. Geometry and rewards check boxes.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Literal, TypeAlias

import numpy as np

from lfpc_rewards._checks import as_boxes, as_positive_sizes
from lfpc_rewards._typing import Boxes, BoxesLike, Floats, SizesLike

BoxFormat: TypeAlias = Literal["xyxy", "xywh", "cxcywh"]
"""Two corners; the upper left corner and the size; the centre and the size."""


class Frame(StrEnum):
    """The units of a box's four numbers.

    Example:
        >>> Frame("relative_1000") is Frame.RELATIVE_1000
        True
    """

    ORIGINAL = "original"
    """Pixels of the image file, before any resizing. Targets and rewards use this frame."""
    SHOWN = "shown"
    """Pixels of the image that the model was shown (Qwen2.5-VL writes these)."""
    RELATIVE = "relative"
    """0 to 1 of the image's width and height."""
    RELATIVE_1000 = "relative_1000"
    """0 to 1000 of the image's width and height (Qwen2-VL and Qwen3-VL write these)."""


FrameName: TypeAlias = Literal["original", "shown", "relative", "relative_1000"]
"""The value of a `Frame`, so that an editor and mypy refuse a misspelt one."""


def convert_boxes(boxes: BoxesLike, source: BoxFormat, target: BoxFormat) -> Boxes:
    """Rewrite boxes from one format into another; the frame stays the same.

    Args:
        boxes: (..., 4) numbers in the format `source`.
        source: "xyxy" (x0, y0, x1, y1), "xywh" (x0, y0, width, height) or "cxcywh" (centre x,
            centre y, width, height).
        target: The format of the result.

    Returns:
        (..., 4) a new array.

    Raises:
        ValueError: A format is none of the three, or the last axis is not 4.

    Source:
        Definition; "xywh" is how COCO and V* store boxes.

    Example:
        >>> convert_boxes([[10, 20, 30, 40]], "xywh", "xyxy")
        array([[10., 20., 40., 60.]])
        >>> convert_boxes([10, 20, 40, 60], "xyxy", "cxcywh")
        array([25., 40., 30., 40.])
    """
    for name, value in (("source", source), ("target", target)):
        if value not in ("xyxy", "xywh", "cxcywh"):
            raise ValueError(f'{name} must be "xyxy", "xywh" or "cxcywh", got {value!r}')
    a = as_boxes(boxes, "boxes").copy()
    if source == target:
        return a
    first, second = a[..., :2], a[..., 2:]  # views: writing to them changes `a`
    if source == "xywh":
        second += first
    elif source == "cxcywh":
        first -= second / 2
        second += first
    if target != "xyxy":
        second -= first
        if target == "cxcywh":
            first += second / 2
    return a


def clip_boxes(boxes: BoxesLike, image_sizes: SizesLike) -> Boxes:
    """Move every corner into the image: x to [0, width], y to [0, height].

    Args:
        boxes: (..., 4) boxes in pixels.
        image_sizes: (..., 2) width and height in the same pixels; broadcast against `boxes`.

    Returns:
        (..., 4) a new array. A box that lies outside becomes a box of zero area on the border; an
        inverted box stays inverted or becomes empty; NaN stays NaN.

    Raises:
        ValueError: A size is not positive and finite, or the shapes do not broadcast.

    Source:
        Definition.

    Example:
        >>> clip_boxes([[-5, 10, 50, 200], [120, 10, 130, 20]], (100, 80))
        array([[  0.,  10.,  50.,  80.],
               [100.,  10., 100.,  20.]])
    """
    a, sizes = as_boxes(boxes, "boxes"), as_positive_sizes(image_sizes, "image_sizes")
    try:
        return np.clip(a, a.dtype.type(0), np.concatenate([sizes, sizes], -1).astype(a.dtype))
    except ValueError:
        raise ValueError(
            f"boxes and image_sizes must broadcast, got shapes {a.shape} and {sizes.shape}"
        ) from None


def convert_frame(
    boxes: BoxesLike,
    source: Frame | FrameName,
    target: Frame | FrameName,
    *,
    original_size: SizesLike | None = None,
    shown_size: SizesLike | None = None,
) -> Boxes:
    """Rewrite boxes from one frame into another; works for every box format, as it only scales x and y.

    Take `shown_size` from what the processor made (``image_grid_thw`` times the patch size): an
    image may be resized twice on its way to the model.

    Args:
        boxes: (..., 4) numbers in the frame `source`.
        source: A `Frame` or its value, such as "shown".
        target: The frame of the result.
        original_size: (..., 2) width and height of the original image. Needed when a frame is "original".
        shown_size: (..., 2) width and height of the shown image. Needed when a frame is "shown".

    Returns:
        (..., 4) a new array of floats; round only to cut pixels.

    Raises:
        ValueError: A frame is unknown, a size that is needed is missing or not positive, or the
            shapes do not broadcast.

    Source:
        Linear scaling; relative_1000 divides by 1000 (not 999), as in the Qwen3-VL cookbooks.

    Example:
        >>> photo, thumbnail = (200, 100), (100, 50)
        >>> convert_frame([7, 14, 28, 56], "shown", "original", original_size=photo, shown_size=thumbnail)
        array([ 14.,  28.,  56., 112.])
        >>> convert_frame([[250, 500, 1000, 1000]], Frame.RELATIVE_1000, "original", original_size=(80, 60))
        array([[20., 30., 80., 60.]])
        >>> convert_frame([0, 0, 1, 1], "shown", "original", original_size=(80, 60))
        Traceback (most recent call last):
            ...
        ValueError: shown_size is needed to convert from shown to original, got None
    """
    a = as_boxes(boxes, "boxes")
    before, after = _frame(source, "source"), _frame(target, "target")
    if before is after:
        return a.copy()
    sizes = {Frame.ORIGINAL: original_size, Frame.SHOWN: shown_size}
    scales: list[Floats | float] = []
    for frame in (before, after):
        if frame is Frame.RELATIVE:
            scales.append(1.0)
        elif frame is Frame.RELATIVE_1000:
            scales.append(1000.0)
        else:
            name, size = f"{frame.value}_size", sizes[frame]
            if size is None:
                raise ValueError(f"{name} is needed to convert from {before} to {after}, got None")
            pair = as_positive_sizes(size, name)
            scales.append(np.concatenate([pair, pair], -1))
    try:
        return np.asarray(a * scales[1] / scales[0], dtype=a.dtype)  # multiply first: integers stay exact
    except ValueError:
        raise ValueError(f"boxes {a.shape} and the sizes must broadcast") from None


def smart_resize(
    height: int, width: int, *, factor: int = 28, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """The size to which the Qwen-VL processors resize an image before they show it to the model.

    Both sides become multiples of `factor`, the area comes between `min_pixels` and `max_pixels` where
    the shape allows it, and the aspect ratio is kept as far as possible.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        factor: Side of a visual token in pixels: patch size times merge size. 28 for Qwen2-VL and
            Qwen2.5-VL, 32 for Qwen3-VL.
        min_pixels: Smallest area. It has no default because checkpoints differ: read the processor.
        max_pixels: Largest area.

    Returns:
        (height, width), height first as in transformers.

    Raises:
        ValueError: A number is not positive, min_pixels > max_pixels, or one side is
            more than 200 times the other.

    Source:
        The contract of `smart_resize` in transformers 5.23 (Qwen2-VL); halves round to even.

    Example:
        >>> smart_resize(480, 640, min_pixels=3136, max_pixels=12845056)
        (476, 644)
        >>> smart_resize(3000, 4000, min_pixels=3136, max_pixels=1024 * 28 * 28)
        (756, 1008)
    """
    for name, value in (("height", height), ("width", width), ("factor", factor), ("min_pixels", min_pixels)):
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    if min_pixels > max_pixels:
        raise ValueError(f"min_pixels must be at most max_pixels, got {min_pixels} and {max_pixels}")
    if max(height, width) > 200 * min(height, width):
        raise ValueError(f"height and width must differ by a factor of at most 200, got {height} and {width}")
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


def visual_tokens(height: int, width: int, *, factor: int = 28, min_pixels: int, max_pixels: int) -> int:
    """How many visual tokens an image costs after `smart_resize`: one per factor x factor pixels.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        factor: Side of a visual token in pixels, as in `smart_resize`.
        min_pixels: Smallest area, as in `smart_resize`.
        max_pixels: Largest area, as in `smart_resize`.

    Returns:
        The number of tokens, without the tokens that mark the image's start and end.

    Raises:
        ValueError: As `smart_resize`.

    Source:
        Qwen2-VL: patches of 14 pixels, merged 2 x 2.

    Example:
        >>> visual_tokens(3000, 4000, min_pixels=3136, max_pixels=1024 * 28 * 28)
        972
    """
    rows, columns = smart_resize(height, width, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)
    return (rows // factor) * (columns // factor)


def _frame(value: Frame | FrameName, name: str) -> Frame:
    try:
        return Frame(value)
    except ValueError:
        known = ", ".join(frame.value for frame in Frame)
        raise ValueError(f"{name} must be one of {known}, got {value!r}") from None
