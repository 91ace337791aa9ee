"""Rows of LOCUS from any boxes: a picture, and a small part of it that has to be found again.

A cue is a row like any other (`lfpc_trl.data.rows`): its one target is the box that is cut, in whole pixels
of the original. The column `x_cue_scale` says by how much the cut is enlarged before it is shown.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lfpc_trl.data.rows import Row, check_row
from lfpc_trl.errors import DataError, one_line
from lfpc_trl.json_values import read_json
from lfpc_trl.pictures.boxes import clip_rounding, count_upright, turn_upright
from lfpc_trl.pictures.crops import MAX_CROP_ASPECT, PixelBox
from lfpc_trl.pictures.originals import Header, check_picture, read_header
from lfpc_trl.pictures.sizes import MAX_ASPECT, Size

QUESTION = "Where in image 1 is image 2?"
SCALE = "x_cue_scale"
TINY, SMALL = 0.01, 0.05
"""Shares of the picture's area below which a box is tiny, and small. LOCUS."""
TINY_SHARE = 0.7
"""Share of tiny cues. LOCUS."""
MIN_SIDE = 16
"""Shortest side in pixels of the part of a box that lies inside its picture. LOCUS."""
PADDING, SCALES = 0.10, (0.8, 2.0)
"""Of tiny cues: most padding of each side, as a share of the box; range of the scale. LOCUS."""


@dataclass(frozen=True)
class Source:
    """A box to cut.

    Attributes:
        image: absolute path of the picture.
        size: (width, height) of the picture.
        box: xyxy in pixels of the picture after its EXIF rotation.
        place: where the box stands, for messages.
    """

    image: Path
    size: Size
    box: tuple[float, float, float, float]
    place: str = ""

    @property
    def inside(self) -> tuple[float, float, float, float]:
        """The part of the box that lies in the picture: all that can be cut. Inverted if there is none."""
        x0, y0, x1, y1 = self.box
        return max(x0, 0.0), max(y0, 0.0), min(x1, float(self.size[0])), min(y1, float(self.size[1]))

    @property
    def share(self) -> float:
        """Of the picture's area."""
        x0, y0, x1, y1 = self.inside
        return (x1 - x0) * (y1 - y0) / (self.size[0] * self.size[1])

    @property
    def wide_enough(self) -> bool:
        """Whether what is cut, padded or not, has no side that is too short, and is no strip."""
        x0, y0, x1, y1 = self.inside
        short, long = sorted((x1 - x0, y1 - y0))
        # A side may grow by twice the padding, and by a pixel at each end.
        return short >= MIN_SIDE and (1 + 2 * PADDING) * long + 2 <= MAX_CROP_ASPECT * short


@dataclass(frozen=True)
class Cues:
    """The rows, and what became of the boxes.

    Attributes:
        rows: the cues, shuffled.
        counts: boxes found, too thin (`Source.wide_enough`), too large (`SMALL`), tiny, small; cues tiny,
            small.
        note: what was asked for and could not be had; empty if nothing.
    """

    rows: list[Row]
    counts: dict[str, int]
    note: str


def boxes_of_rows(rows: Sequence[Row]) -> Iterator[Source]:
    """Every target box of the rows, each once."""
    seen = set()
    for row in rows:
        for target in row.targets:
            picture = row.pictures[target.image - 1]
            for box in map(tuple, target.boxes.tolist()):
                if (picture.image, box) not in seen:
                    seen.add((picture.image, box))
                    yield Source(picture.image, picture.size, box, row.name)


def boxes_of_coco(
    path: Path, images: Path, left_out: Callable[[str], object] | None = None
) -> Iterator[Source]:
    """Every box of a file of COCO annotations; groups (`iscrowd`) are left out.

    Boxes count on the pixels as they are stored, unless the file gives the size of the picture after its EXIF
    rotation. What sticks out by a rounding is clipped.

    Args:
        path: the JSON file.
        images: the folder of its pictures.
        left_out: called with a line for every annotation that cannot be used, which is then left out; without
            it the first one raises.

    Raises:
        DataError: the file is no such file, or an annotation cannot be used: "FILE annotation N: rule, got
            X".
    """
    try:
        data = read_json(path)
        pictures = {picture["id"]: picture for picture in data["images"]}
        annotations = [each for each in data["annotations"] if not each.get("iscrowd")]
        numbers = {id(each): number for number, each in enumerate(data["annotations"], start=1)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no file of COCO annotations ({type(error).__name__}: {one_line(error)})"
        ) from None
    known: dict[str, tuple[Header, Size] | DataError] = {}
    for each in annotations:
        place = f"{path} annotation {numbers[id(each)]}"
        try:
            yield _source_of(each, pictures, images, known, place)
        except DataError as error:
            if left_out is None:
                raise DataError(f"{place}: {error}") from None
            left_out(f"{place}: {error}")


def _source_of(
    annotation: dict[str, Any],
    pictures: dict[Any, Any],
    images: Path,
    known: dict[str, tuple[Header, Size] | DataError],
    place: str,
) -> Source:
    try:
        picture = pictures[annotation["image_id"]]
        name = str(picture["file_name"])
        sides = annotation["bbox"]
        x, y, width, height = (float(side) for side in sides if not isinstance(side, bool | str))
        said = picture.get("width"), picture.get("height")
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise DataError(
            "an annotation must have a bbox of four numbers and the image_id of a picture, "
            f"got {str(annotation)[:80]} ({type(error).__name__}: {error})"
        ) from None
    if name not in known:
        known[name] = _picture(images / name)
    found = known[name]
    if isinstance(found, DataError):
        raise found
    header, size = found
    upright = count_upright(said if all(said) else None, header, size)
    box = clip_rounding(np.array([[x, y, x + width, y + height]]), size if upright else header.stored)
    if not np.isfinite(box).all() or width < 0 or height < 0:
        raise DataError(f"bbox must be [x, y, width, height], finite, got {sides}")
    x0, y0, x1, y1 = (box if upright else turn_upright(box, header))[0].tolist()
    if x0 < 0 or y0 < 0 or x1 > size[0] or y1 > size[1]:
        raise DataError(
            f"bbox must lie inside the picture ({name}, {size[0]} x {size[1]} pixels), got {sides}"
        )
    return Source((images / name).absolute(), size, (x0, y0, x1, y1), place)


def _picture(path: Path) -> tuple[Header, Size] | DataError:
    """Header and upright size, or why the picture cannot be used; the answer holds for all of its boxes."""
    try:
        size = check_picture(path)
        header = read_header(path)
    except Exception as error:  # Pillow's decoders raise what they like on damaged files
        return DataError(f"image must be readable, got {str(path)!r} ({one_line(error)})")
    if max(size) >= MAX_ASPECT * min(size):
        return DataError(f"image must be less than {MAX_ASPECT:g} times as long as wide, got {list(size)}")
    return header, size


def build_cues(sources: Sequence[Source], *, count: int | None = None, seed: int = 0) -> Cues:
    """Choose boxes and make cues of them, 70 % tiny and 30 % small.

    Of a box only what lies inside its picture counts; it is cut outwards to whole pixels. The box of a tiny
    cue is first grown on each side by up to a tenth of its width or height, and the cut is shown 0.8 to 2
    times as large. The box that is cut is the one to find.

    Args:
        sources: the boxes.
        count: cues; None makes as many as the mixture allows.
        seed: same seed and sources, same cues.

    Returns:
        The cues. Where one kind is too rare there are fewer of both, in the same mixture, and `note` says so.

    Raises:
        DataError: there are too few boxes for a single cue of each kind.

    Source:
        LOCUS (arXiv 2606.16586). That the padded box is the one to find is our choice.
    """
    rng = np.random.default_rng(seed)
    wide = [source for source in sources if source.wide_enough]
    pools = {
        "tiny": [source for source in wide if source.share < TINY],
        "small": [source for source in wide if TINY <= source.share < SMALL],
    }
    most = math.floor(min(len(pools["tiny"]) / TINY_SHARE, len(pools["small"]) / (1 - TINY_SHARE)) + 1e-9)
    counts = {
        "boxes": len(sources),
        "too thin": len(sources) - len(wide),
        "too large": len(wide) - len(pools["tiny"]) - len(pools["small"]),
        "tiny boxes": len(pools["tiny"]),
        "small boxes": len(pools["small"]),
    }
    total = most if count is None else min(count, most)
    kinds = {"tiny": round(total * TINY_SHARE)}
    kinds["small"] = total - kinds["tiny"]
    rare = "tiny" if len(pools["tiny"]) / TINY_SHARE < len(pools["small"]) / (1 - TINY_SHARE) else "small"
    if not all(kinds.values()):
        raise DataError(
            f"needs a tiny box and a small one (below {TINY:.0%} and {SMALL:.0%} of the picture, sides of "
            f"{MIN_SIDE} pixels at least), got {len(pools['tiny'])} and {len(pools['small'])}"
        )
    note = ""
    if count is not None and count > total:
        note = f"{count} cues were asked for, {total} were made: too few {rare} boxes for the mixture"
    chosen = [
        (kind, pools[kind][index])
        for kind, number in kinds.items()
        for index in rng.choice(len(pools[kind]), number, replace=False).tolist()
    ]
    order = rng.permutation(len(chosen)).tolist()
    rows = [_cue(rng, chosen[index][0], chosen[index][1], number) for number, index in enumerate(order)]
    return Cues(rows, counts | {f"{kind} cues": number for kind, number in kinds.items()}, note)


def _cue(rng: np.random.Generator, kind: str, source: Source, number: int) -> Row:
    box, scale = source.inside, 1.0
    if kind == "tiny":
        width, height = box[2] - box[0], box[3] - box[1]
        left, top, right, bottom = rng.uniform(0, PADDING, 4).tolist()
        box = (box[0] - left * width, box[1] - top * height, box[2] + right * width, box[3] + bottom * height)
        scale = float(rng.uniform(*SCALES))
    cut = _whole(box, source.size)
    record: dict[str, Any] = {
        "id": f"cue-{number}",
        "question": QUESTION,
        "answer": str(list(cut)),
        "image": source.image.name,
        "targets": [list(cut)],
        SCALE: round(scale, 3),
    }
    try:
        return check_row(record, source.image.parent, source.size)
    except DataError as error:
        raise DataError(f"{source.place or source.image}: {error}") from None


def _whole(box: Sequence[float], size: Size) -> PixelBox:
    return (
        max(math.floor(box[0]), 0),
        max(math.floor(box[1]), 0),
        min(math.ceil(box[2]), size[0]),
        min(math.ceil(box[3]), size[1]),
    )


def check_cue(row: Row) -> None:
    """Refuse a row that is no cue.

    Raises:
        DataError: it has not exactly one picture and one target, or no scale.
    """
    if len(row.pictures) > 1:
        raise DataError(f"{row.name}: a cue has one picture, got {len(row.pictures)}")
    if row.regions is None or len(row.regions) != 1 or len(row.regions[0]) != 1:
        raise DataError(f"{row.name}: a cue has one target box; make cues with lfpc locus-data")
    scale = row.extras.get(SCALE)
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale < 100:
        raise DataError(f"{row.name}: {SCALE} must be a positive number, got {scale!r}")


def cue_box(row: Row) -> PixelBox:
    """The box of a cue in whole pixels of the original."""
    assert row.regions is not None
    return _whole(row.regions[0][0].tolist(), row.size)
