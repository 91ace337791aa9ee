"""Boxes that a file stores for a picture: the one place that turns them with its EXIF rotation.

Originals are upright (`lfpc_trl.pictures.originals`), while most files count on the pixels as they are
stored.
"""

import numpy as np
from numpy.typing import NDArray

from lfpc_trl.errors import DataError
from lfpc_trl.pictures.originals import Header
from lfpc_trl.pictures.sizes import Size

STICKS_OUT = 1.0
"""Pixels by which a box may stick out of its picture and is clipped: annotations round. Our choice."""

_AXES = {2: "-x y", 3: "-x -y", 4: "x -y", 5: "y x", 6: "-y x", 7: "-y -x", 8: "y -x"}
"""For every EXIF orientation: which axis of the stored picture runs to the right and which down on the
upright one."""


def count_upright(said: Size | None, header: Header, size: Size) -> bool:
    """Whether boxes count on the upright picture, told by the size that their file says for it.

    Args:
        said: (width, height) in the file; None if it says none, which means the picture as stored.
        header: of the picture.
        size: of the picture after its EXIF rotation.

    Raises:
        DataError: the size is neither: the boxes belong to another copy of the picture.
    """
    if said is None or said == header.stored:
        return False
    if said != size:
        raise DataError(f"boxes must be for this picture of {list(size)} pixels, got boxes for {list(said)}")
    return True


def clip_rounding(boxes: NDArray[np.float64], size: Size) -> NDArray[np.float64]:
    """Boxes with the sides that stick out of a picture by at most `STICKS_OUT` moved to its edge.

    Args:
        boxes: (n, 4) xyxy in pixels.
        size: (width, height) of the picture on which they count.
    """
    clipped = boxes.clip(0, np.array([*size, *size], dtype=np.float64))
    return np.where(abs(clipped - boxes) <= STICKS_OUT, clipped, boxes)


def turn_upright(boxes: NDArray[np.float64], header: Header) -> NDArray[np.float64]:
    """Boxes on the stored picture as boxes on the upright one.

    Args:
        boxes: (n, 4) xyxy in pixels of the stored picture.
        header: of the picture.

    Raises:
        DataError: a rotated picture of a format whose header does not tell the rotation surely.
    """
    if header.orientation == 1:
        return boxes
    if header.kind not in ("JPEG", "MPO", "PNG"):
        raise DataError(f"boxes need an upright picture or a JPEG or PNG, got a rotated {header.kind}")
    width, height = header.stored
    x1, y1, x2, y2 = boxes.T
    spans = {"x": (x1, x2), "-x": (width - x2, width - x1), "y": (y1, y2), "-y": (height - y2, height - y1)}
    across, down = _AXES[header.orientation].split()
    return np.stack([spans[across][0], spans[down][0], spans[across][1], spans[down][1]], axis=1)
