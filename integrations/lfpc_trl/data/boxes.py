"""What the four numbers of a box mean: as the user says, converted to pixels, or guessed from many boxes.

A box in 0 to 1, in 0 to 1000 or as [x, y, width, height] is often a valid pixel box too, only in another
place, so a file's boxes are judged together. The thresholds are our choice: evenly placed pixel boxes are
misjudged in fewer than one file in a thousand, and a warning never stops a command.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards import BoxFormat, Frame, convert_boxes, convert_frame
from lfpc_trl.data.sources import short
from lfpc_trl.errors import DataError
from lfpc_trl.pictures.boxes import clip_rounding
from lfpc_trl.pictures.sizes import Size

# fmt: off
BoxLayout = Literal[
    "xyxy", "xywh", "cxcywh",
    "xyxy-1", "xywh-1", "cxcywh-1",
    "xyxy-100", "xywh-100", "cxcywh-100",
    "xyxy-1000", "xywh-1000", "cxcywh-1000",
]
# fmt: on
"""What the four numbers of a box mean: two corners, corner and size, or middle and size; in pixels of the
picture, or as a share of its width and height in units of 1, 1/100 (percent) or 1/1000."""
BOX_LAYOUTS: tuple[BoxLayout, ...] = get_args(BoxLayout)

DIGITS = 6
"""Decimals of a pixel to keep, so that a box survives a round trip through percent."""
_ROUNDING = 3 * 10.0**-DIGITS


def in_pixels(boxes: object, layout: BoxLayout, size: Size) -> NDArray[np.float64]:
    """Boxes of one region in pixels of the picture they were drawn on.

    Args:
        boxes: list of four numbers each, in `layout`.
        layout: what the numbers mean.
        size: (width, height) of the picture.

    Returns:
        (n, 4) boxes [x1, y1, x2, y2]. What sticks out by a rounding error is clipped.

    Raises:
        DataError: not four finite numbers.
    """
    numbers = [four_numbers(box) for box in boxes] if isinstance(boxes, list) and boxes else None
    if numbers is None:
        raise DataError(f"boxes must be a list of lists of four numbers, got {short(boxes)}")
    kind, _, whole = layout.partition("-")
    corners = convert_boxes(np.array(numbers), cast("BoxFormat", kind), "xyxy")
    if whole:
        relative = corners / int(whole)
        corners = convert_frame(relative, Frame.RELATIVE, Frame.ORIGINAL, original_size=size)
    pixels = clip_rounding(np.asarray(corners, dtype=np.float64).round(DIGITS), size)
    # Rounding may push an outer edge a millionth of a pixel inside an inner one.
    for inner, outer in itertools.pairwise(pixels):
        mended = np.concatenate([np.minimum(inner[:2], outer[:2]), np.maximum(inner[2:], outer[2:])])
        outer[:] = np.where(abs(mended - outer) <= _ROUNDING, mended, outer)
    return pixels


def four_numbers(box: object) -> list[float]:
    """A box of any source as four finite numbers.

    Raises:
        DataError: it is anything else.
    """
    if isinstance(box, list | tuple) and len(box) == 4:
        try:
            numbers = [float(side) for side in box if not isinstance(side, bool | str)]
        except (TypeError, ValueError, OverflowError):
            numbers = []
        if len(numbers) == 4 and all(map(math.isfinite, numbers)):
            return numbers
    raise DataError(f"a box must be four finite numbers, got {short(box)}")


# --- guessing ----------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """An unchecked target, as written in its file.

    Attributes:
        box: four numbers; the innermost of its region.
        size: (width, height) of the picture.
    """

    box: Sequence[float]
    size: Size


_CHANCE = 1e-3
"""Probability below which evenly placed pixel boxes are ruled out."""
_INVERTED = 1 / 3
"""Share of boxes that are impossible as corners, above which they are read as corner and size."""
_FEW, _MANY = 3, 8
"""Distinct boxes needed for a guess, if some cannot be pixels and if all could be: one box in four has its
center in the upper left quarter, eight in a row do in one file of 65,000."""


class Guess(NamedTuple):
    """What the boxes of a file seem to be.

    Attributes:
        layout: what their numbers mean.
        why: the evidence.
    """

    layout: BoxLayout
    why: str


def likely_layout(samples: Iterable[Sample]) -> Guess | None:
    """What the boxes of a file seem to be; None for corners in pixels, or too few boxes to tell.

    Example:
        >>> likely_layout([Sample((0.1, 0.2, 0.4, 0.5), (640, 480))])
        Guess(layout='xyxy-1', why='all numbers are at most 1')
        >>> likely_layout([Sample((64, 96, 256, 240), (640, 480))])
    """
    numbers = itertools.chain.from_iterable((*sample.box, *sample.size) for sample in samples)
    rows = np.fromiter(numbers, dtype=np.float64).reshape(-1, 6)
    if not len(rows):
        return None
    distinct = np.unique(rows, axis=0)
    boxes, sizes = distinct[:, :4], distinct[:, 4:]
    if not np.isfinite(boxes).all() or boxes.min() < -1:
        return None
    inverted = float((boxes[:, :2] >= boxes[:, 2:]).any(axis=1).mean())
    # As [x, y, width, height]: where each box would end.
    ends = boxes[:, :2] + boxes[:, 2:]
    if boxes.max() <= 1:
        sides = inverted >= _INVERTED and ends.max() <= 1 + 1e-3
        return Guess("xywh-1" if sides else "xyxy-1", "all numbers are at most 1")
    return _thousandths(boxes, sizes, inverted, ends) or _corner_and_size(sizes, inverted, ends)


_Numbers = NDArray[np.float64]


def _thousandths(boxes: _Numbers, sizes: _Numbers, inverted: float, ends: _Numbers) -> Guess | None:
    if boxes.max() > 1000 or len(boxes) < _FEW:
        return None
    reach = np.maximum(boxes[:, :2], boxes[:, 2:]).max(axis=0)
    outside = float((boxes[:, 2:] > sizes + 1).any(axis=1).mean())
    chance = float(np.minimum(1, 1000 / sizes).prod())  # that they all end before 1000
    if outside >= _INVERTED and reach.min() >= 750:
        why = f"none is above 1000, and {outside:.0%} of the boxes leave their picture"
    elif chance <= _CHANCE and reach.min() >= 500 and sizes.max(axis=0).min() > 1000:
        # The reach separates boxes all over the picture from, say, a menu that is always in its corner.
        why = "none is above 1000, in pictures that are larger"
    else:
        return None
    if ends.max() <= 1000 and inverted >= _INVERTED:
        return Guess("xywh-1000", why)
    if ends.max() <= 1000 and len(boxes) >= _MANY:
        return None  # none on the right or at the bottom: corner and size
    return Guess("xyxy-1000", why)


def _corner_and_size(sizes: _Numbers, inverted: float, ends: _Numbers) -> Guess | None:
    if (ends > sizes + 1).any():
        return None
    if inverted >= _INVERTED and len(ends) >= _FEW:
        return Guess("xywh", f"{inverted:.0%} of the boxes have x1 >= x2 or y1 >= y2")
    # Boxes in one corner of every picture would, read this way, end before a third of it.
    if len(ends) >= _MANY and ((ends / sizes).max(axis=0) >= 1 / 3).all():
        return Guess("xywh", "as corners, all boxes would have their center in the upper left quarter")
    return None
