"""Drafts: a record as its format reads it, on the way to a row. Boxes change their frame only here."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_trl.convert.pictures import Picture, PictureStore
from lfpc_trl.data.boxes import BoxLayout, in_pixels
from lfpc_trl.data.rows import Row, check_row, check_target_images, one_or_all
from lfpc_trl.data.sources import short
from lfpc_trl.errors import DataError, one_line
from lfpc_trl.pictures.boxes import boxes_are_upright, turn_upright
from lfpc_trl.pictures.sizes import Size


class Place(NamedTuple):
    """Where the pixels of a record come from: exactly one of the three is set."""

    path: str | None = None
    data: bytes | None = None
    base64: str | None = None


@dataclasses.dataclass
class Draft:
    """A row as the source wrote it.

    Attributes:
        question: without instructions.
        answer: accepted answers.
        picture: where the pixels are; a list for a question about several pictures.
        id: unique in its file; None if the source guarantees no unique id.
        choices: option texts.
        regions: nested boxes per object, inner to outer, in the layout of the format.
        size: (width, height) of the picture that the boxes refer to, as the source says; None for several.
        upright: the boxes are meant for the picture after its EXIF rotation; before it otherwise.
        shown_size: as in a row, for several pictures `shown_sizes`.
        target_images: as in a row.
        extras: columns that start with `x_`, or that our own tools write.
    """

    question: str
    answer: list[str]
    picture: Place | list[Place]
    id: str | None = None
    choices: list[str] | None = None
    regions: list[list[Any]] | None = None
    size: Size | None = None
    upright: bool = False
    shown_size: list[Any] | None = None
    target_images: list[int] | None = None
    extras: dict[str, Any] = dataclasses.field(default_factory=dict)


def as_row(
    draft: Draft, store: PictureStore, folder: Path, *, layout: BoxLayout, name: str, skip: int = 0
) -> Row:
    """Store the picture of a draft, convert its boxes to pixels of the original, and check the row.

    Args:
        draft: from a format.
        store: stores the picture.
        folder: of the output.
        layout: of the draft's boxes.
        name: the row's id if the draft has none.
        skip: see `PictureStore.add_path`.

    Raises:
        DataError: "rule, got X".
    """
    places = [draft.picture] if isinstance(draft.picture, Place) else draft.picture
    pictures = [_kept(place, store, skip) for place in places]
    return as_row_about(draft, pictures, folder, layout=layout, name=name)


def _kept(place: Place, store: PictureStore, skip: int) -> Picture:
    if place.path is not None:
        return store.add_path(place.path, skip=skip)
    if place.base64 is not None:
        return store.add_base64(place.base64)
    return store.add_bytes(place.data or b"")


def as_row_about(
    draft: Draft, pictures: Sequence[Picture], folder: Path, *, layout: BoxLayout, name: str
) -> Row:
    """`as_row` for pictures that are already stored; their paths are relative to `folder`, or absolute."""
    several = len(pictures) > 1
    record: dict[str, Any] = {
        "id": name if draft.id is None else draft.id,
        "question": draft.question,
        "answer": draft.answer,
        "images" if several else "image": one_or_all([picture.path for picture in pictures]),
        "choices": draft.choices,
        "shown_sizes" if several else "shown_size": draft.shown_size,
    }
    if draft.regions is not None:
        images = draft.target_images
        on = check_target_images(images, len(draft.regions), len(pictures))
        record["target_images"] = images
        record["targets"] = [
            _in_original(draft, each, pictures[image - 1], layout)
            for each, image in zip(draft.regions, on, strict=True)
        ]
    record |= {name: value for name, value in draft.extras.items() if value is not None}
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError(f"text must be UTF-8, got {short(draft.question)}") from None
    except (TypeError, ValueError, RecursionError) as error:  # a date or bytes in a Parquet column
        raise DataError(f"columns must hold what JSON can hold ({one_line(error)})") from None
    return check_row(record, folder, [picture.size for picture in pictures])


def _in_original(draft: Draft, boxes: object, picture: Picture, layout: BoxLayout) -> list[Any]:
    upright = draft.upright or boxes_are_upright(draft.size, picture.header, picture.size)
    found: list[Any] = original_boxes(boxes, layout, picture, upright=upright).tolist()
    return found


def original_boxes(
    boxes: object, layout: BoxLayout, picture: Picture, *, upright: bool
) -> NDArray[np.float64]:
    """Boxes of one region in pixels of the original: the picture after its EXIF rotation.

    Args:
        boxes: list of four numbers each, in `layout`.
        layout: what the numbers mean.
        picture: the picture they belong to.
        upright: whether they already refer to the rotated picture.

    Returns:
        (n, 4) boxes [x1, y1, x2, y2].

    Raises:
        DataError: not four finite numbers, or a rotation in a format other than JPEG and PNG.
    """
    size = picture.size if upright else picture.header.stored
    pixels = in_pixels(boxes, layout, size)
    return pixels if upright else turn_upright(pixels, picture.header)
