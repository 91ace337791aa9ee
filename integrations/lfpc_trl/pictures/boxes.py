"""Boxes as stored in data files: the only place that applies the EXIF rotation of the picture to them.

Originals are upright (`lfpc_trl.pictures.originals`), but the boxes in most files refer to the pixels as
stored.
"""

import numpy as np
from numpy.typing import NDArray

from lfpc_trl.errors import DataError
from lfpc_trl.pictures.originals import Header
from lfpc_trl.pictures.sizes import Size

CLIP_TOLERANCE = 1.0
"""A box may exceed its picture by this many pixels and is clipped: annotations are rounded. Our choice."""

_AXES = {2: "-x y", 3: "-x -y", 4: "x -y", 5: "y x", 6: "-y x", 7: "-y -x", 8: "y -x"}
"""For every EXIF orientation: the axes of the stored picture that run right and down in the upright one."""


def boxes_are_upright(file_size: Size | None, header: Header, size: Size) -> bool:
    """Whether boxes refer to the upright picture, judged by the picture size in their file.

    Args:
        file_size: (width, height) in the file; None if it has none, which means the picture as stored.
        header: header of the picture.
        size: size of the picture after its EXIF rotation.

    Raises:
        DataError: the size is neither: the boxes belong to another copy of the picture.
    """
    if file_size is None or file_size == header.stored:
        return False
    if file_size != size:
        raise DataError(
            f"boxes must be for this picture of {list(size)} pixels, got boxes for {list(file_size)}"
        )
    return True


def clip_rounding(boxes: NDArray[np.float64], size: Size) -> NDArray[np.float64]:
    """Move box sides that exceed the picture by at most `CLIP_TOLERANCE` to its edge.

    Args:
        boxes: (n, 4) xyxy in pixels.
        size: (width, height) of the picture that they refer to.
    """
    clipped = boxes.clip(0, np.array([*size, *size], dtype=np.float64))
    return np.where(abs(clipped - boxes) <= CLIP_TOLERANCE, clipped, boxes)


def turn_upright(boxes: NDArray[np.float64], header: Header) -> NDArray[np.float64]:
    """Convert boxes on the stored picture to boxes on the upright one.

    Args:
        boxes: (n, 4) xyxy in pixels of the stored picture.
        header: header of the picture.

    Raises:
        DataError: a rotated picture in a format whose header does not give the rotation reliably.
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
