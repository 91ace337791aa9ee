"""Crops: from the box that the model requests to the pixels that are cut from the original.

Boxes are (x1, y1, x2, y2), half-open, in pixels of the original unless a frame says otherwise.
"""

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
from PIL import Image

from lfpc_rewards import Frame, convert_frame
from lfpc_trl.pictures.sizes import Size, fit, show

PixelBox = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in whole pixels of the original, half-open."""

BOX_ERRORS = {
    "form": "bbox_2d must be four numbers: [x1, y1, x2, y2].",
    "inverted": "The box needs x1 < x2 and y1 < y2.",
    "outside": "The box is outside the image.",
    "thin": "The box is too small or too narrow.",
    "limit": "No more crops. Answer now.",
}
"""Every refusal message of the crop tool. Fixed texts, so that a small model can learn them."""

IMAGE_ERROR = {"image": "There is no image of that number."}
"""An additional refusal message for questions about several pictures."""


class BoxError(ValueError):
    """A box that cannot be cut; the message is shown to the model."""

    def __init__(self, rule: str) -> None:
        super().__init__((BOX_ERRORS | IMAGE_ERROR)[rule])


MIN_SIDE = 8
"""Minimum side of a crop in pixels of the original; smaller crops show nothing. Our choice."""

MAX_CROP_ASPECT = 100.0
"""Maximum aspect ratio of a crop, well within what processors accept after rounding to whole tokens."""


def crop_box(
    bbox: object, *, frame: Frame, shown_size: Size, original_size: Size, min_side: int = MIN_SIDE
) -> PixelBox:
    """Convert a requested box to the box that is cut; the crop tool and the scores both use this function.

    The corners are converted from `frame` to pixels of the original, rounded outwards and clipped to the
    picture.

    Args:
        bbox: the model's output, of any type. Four finite numbers x1, y1, x2, y2 are accepted.
        frame: the frame of the model's coordinates.
        shown_size: size of the picture shown to the model.
        original_size: size of the original.
        min_side: minimum side in pixels of the original.

    Returns:
        Whole pixels of the original, inside it.

    Raises:
        BoxError: with one of `BOX_ERRORS`.
    """
    if not isinstance(bbox, (list, tuple)) or len(bbox) != 4:
        raise BoxError("form")
    # bool is a subclass of int, but True is not a coordinate.
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in bbox):
        raise BoxError("form")
    # A 400-digit integer is valid JSON but overflows a float; anything above 1e9 is outside every picture.
    limit = 10**9
    if not all(value == value and abs(value) <= limit for value in cast("Sequence[float]", bbox)):
        raise BoxError("outside" if all(value == value for value in bbox) else "form")
    x1, y1, x2, y2 = (float(value) for value in bbox)
    if x1 >= x2 or y1 >= y2:
        raise BoxError("inverted")
    converted = convert_frame(
        np.array([[x1, y1, x2, y2]]),
        frame,
        Frame.ORIGINAL,
        original_size=original_size,
        shown_size=shown_size,
    )[0]
    left, top = (math.floor(value) for value in converted[:2])
    right, bottom = (math.ceil(value) for value in converted[2:])
    width, height = original_size
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if left >= right or top >= bottom:
        raise BoxError("outside")
    wide, tall = right - left, bottom - top
    if min(wide, tall) < min_side or max(wide, tall) > MAX_CROP_ASPECT * min(wide, tall):
        raise BoxError("thin")
    return left, top, right, bottom


def crop_size(box: PixelBox, *, factor: int, max_tokens: int) -> Size:
    """Return the size of the delivered crop: the box in whole tokens, downscaled only above `max_tokens`."""
    return fit((box[2] - box[0], box[3] - box[1]), max_tokens, factor)


def cut(original: Image.Image, box: PixelBox, *, factor: int, max_tokens: int) -> Image.Image:
    """Cut `box` from the original at native resolution; see `crop_size` for the resulting size."""
    return show(original.crop(box), crop_size(box, factor=factor, max_tokens=max_tokens))
