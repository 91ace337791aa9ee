"""What a format makes of one record, and how it becomes a row. Boxes change their frame here only."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards import Frame, convert_boxes, convert_frame
from lfpc_trl.convert.pictures import Picture, PictureStore
from lfpc_trl.data.rows import Row, check_row
from lfpc_trl.data.sources import short
from lfpc_trl.errors import DataError, one_line
from lfpc_trl.pictures.boxes import clip_rounding, count_upright, turn_upright
from lfpc_trl.pictures.sizes import Size

Layout = Literal["xyxy", "xywh", "xyxy-1", "xywh-1", "xyxy-1000", "xywh-1000", "xywh-100"]
"""What the four numbers of a box mean: two corners, or corner and size; in pixels of the picture, or as a
fraction of its width and height out of 1, 1000 or 100 (percent)."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_DIGITS = 6
"""Decimals of a pixel that are kept, so that a box which went through percent and back is the same."""
_ROUNDING = 3 * 10.0**-_DIGITS


class Place(NamedTuple):
    """Where the pixels of a record are: exactly one of the three."""

    path: str | None = None
    data: bytes | None = None
    base64: str | None = None


@dataclasses.dataclass
class Draft:
    """A row as its source writes it.

    Attributes:
        question: without instructions.
        answer: accepted answers.
        picture: where the pixels are.
        id: unique in its file; None if the source has none that is sure to be.
        choices: option texts.
        regions: nested boxes per object, inner to outer, in the layout of the format.
        size: (width, height) of the picture for which the source says its boxes are.
        upright: the boxes are meant for the picture after its EXIF rotation; before it otherwise.
        shown_size: as in a row.
        extras: columns that start with `x_`, or that our own tools write.
    """

    question: str
    answer: list[str]
    picture: Place
    id: str | None = None
    choices: list[str] | None = None
    regions: list[list[Any]] | None = None
    size: Size | None = None
    upright: bool = False
    shown_size: list[int] | None = None
    extras: dict[str, Any] = dataclasses.field(default_factory=dict)


def as_row(
    draft: Draft, store: PictureStore, folder: Path, *, layout: Layout, name: str, skip: int = 0
) -> Row:
    """Keep the picture of a draft, put its boxes into pixels of the original, and check the whole.

    Args:
        draft: from a format.
        store: keeps the picture.
        folder: of the output.
        layout: of the draft's boxes.
        name: the row's id if the draft has none.
        skip: see `PictureStore.add_path`.

    Raises:
        DataError: "rule, got X".
    """
    place = draft.picture
    if place.path is not None:
        picture = store.add_path(place.path, skip=skip)
    elif place.base64 is not None:
        picture = store.add_base64(place.base64)
    else:
        picture = store.add_bytes(place.data or b"")
    return as_row_about(draft, picture, folder, layout=layout, name=name)


def as_row_about(draft: Draft, picture: Picture, folder: Path, *, layout: Layout, name: str) -> Row:
    """`as_row` for a picture that is kept already; its path is relative to `folder`, or absolute."""
    record: dict[str, Any] = {
        "id": name if draft.id is None else draft.id,
        "question": draft.question,
        "answer": draft.answer,
        "image": picture.path,
        "choices": draft.choices,
        "shown_size": draft.shown_size,
    }
    if draft.regions is not None:
        upright = draft.upright or count_upright(draft.size, picture.header, picture.size)
        record["targets"] = [
            original_boxes(each, layout, picture, upright=upright).tolist() for each in draft.regions
        ]
    record |= {name: value for name, value in draft.extras.items() if value is not None}
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError(f"text must be UTF-8, got {short(draft.question)}") from None
    except (TypeError, ValueError, RecursionError) as error:  # a date or bytes in a Parquet column
        raise DataError(f"columns must hold what JSON can hold ({one_line(error)})") from None
    return check_row(record, folder, picture.size)


def original_boxes(boxes: object, layout: Layout, picture: Picture, *, upright: bool) -> NDArray[np.float64]:
    """Boxes of one region in pixels of the original: the picture after its EXIF rotation.

    Args:
        boxes: list of four numbers each, in `layout`.
        layout: what the numbers mean.
        picture: to which they belong.
        upright: they count on the rotated picture already.

    Returns:
        (n, 4) boxes [x1, y1, x2, y2].

    Raises:
        DataError: not four finite numbers, or a rotation that only JPEG and PNG tell surely.
    """
    numbers = [four_numbers(box) for box in boxes] if isinstance(boxes, list) and boxes else None
    if numbers is None:
        raise DataError(f"boxes must be a list of lists of four numbers, got {short(boxes)}")
    size = picture.size if upright else picture.header.stored
    frame, parts = {
        "xyxy-1": (Frame.RELATIVE, 1),
        "xywh-1": (Frame.RELATIVE, 1),
        "xyxy-1000": (Frame.RELATIVE_1000, 1),
        "xywh-1000": (Frame.RELATIVE_1000, 1),
        "xywh-100": (Frame.RELATIVE, 100),
    }.get(layout, (Frame.ORIGINAL, 1))
    kind: Literal["xyxy", "xywh"] = "xywh" if layout.startswith("xywh") else "xyxy"
    corners = convert_boxes(np.array(numbers) / parts, kind, "xyxy")
    pixels = np.asarray(convert_frame(corners, frame, Frame.ORIGINAL, original_size=size), dtype=np.float64)
    pixels = clip_rounding(pixels.round(_DIGITS), size)
    # Rounding may push an outer edge a millionth of a pixel inside an inner one.
    for inner, outer in itertools.pairwise(pixels):
        mended = np.concatenate([np.minimum(inner[:2], outer[:2]), np.maximum(inner[2:], outer[2:])])
        outer[:] = np.where(abs(mended - outer) <= _ROUNDING, mended, outer)
    return pixels if upright else turn_upright(pixels, picture.header)


def four_numbers(box: object) -> list[float]:
    """A box as it came, as four finite numbers.

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
