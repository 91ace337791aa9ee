"""Makes rows for LOCUS from boxes: a picture, and a small cut-out of it that the model must locate.

A cue is an ordinary row (`lfpc_trl.data.rows`) with one target, the box of the cut-out, in whole pixels of
the original. The column `x_cue_scale` holds the factor by which the cut-out is scaled before it is shown.
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
from lfpc_trl.pictures.boxes import boxes_are_upright, clip_rounding, turn_upright
from lfpc_trl.pictures.crops import MAX_CROP_ASPECT, PixelBox
from lfpc_trl.pictures.originals import Header, check_picture, read_header
from lfpc_trl.pictures.sizes import MAX_ASPECT, Size

QUESTION = "Where in image 1 is image 2?"
SCALE = "x_cue_scale"
TINY, SMALL = 0.01, 0.05
"""Shares of the picture's area below which a box is tiny or small. LOCUS."""
TINY_SHARE = 0.7
"""Share of tiny cues. LOCUS."""
MIN_SIDE = 16
"""Minimum side in pixels of a box, clipped to its picture. LOCUS."""
PADDING, SCALES = 0.10, (0.8, 2.0)
"""For tiny cues: maximum padding per side, as a share of the box; range of the scale. LOCUS."""


@dataclass(frozen=True)
class Source:
    """A box to cut.

    Attributes:
        image: absolute path of the picture.
        size: (width, height) of the picture.
        box: xyxy in pixels of the picture after its EXIF rotation.
        place: where the box comes from, for error messages.
    """

    image: Path
    size: Size
    box: tuple[float, float, float, float]
    place: str = ""

    @property
    def inside(self) -> tuple[float, float, float, float]:
        """The box clipped to the picture, which is what can be cut; inverted if they do not overlap."""
        x0, y0, x1, y1 = self.box
        return max(x0, 0.0), max(y0, 0.0), min(x1, float(self.size[0])), min(y1, float(self.size[1]))

    @property
    def share(self) -> float:
        """Share of the picture's area."""
        x0, y0, x1, y1 = self.inside
        return (x1 - x0) * (y1 - y0) / (self.size[0] * self.size[1])

    @property
    def can_be_cut(self) -> bool:
        """Whether the cut-out, with any padding, has no side that is too short and is not a strip."""
        x0, y0, x1, y1 = self.inside
        short, long = sorted((x1 - x0, y1 - y0))
        # A side can grow by the padding and by one pixel at each end.
        return short >= MIN_SIDE and (1 + 2 * PADDING) * long + 2 <= MAX_CROP_ASPECT * short


@dataclass(frozen=True)
class Cues:
    """Cues, and how many boxes were used.

    Attributes:
        rows: the cues, shuffled.
        counts: numbers of boxes in total, too thin (`Source.can_be_cut`), too large (`SMALL`), tiny, small;
            of cues tiny, small.
        note: why there are fewer cues than requested; empty otherwise.
    """

    rows: list[Row]
    counts: dict[str, int]
    note: str


def boxes_of_rows(rows: Sequence[Row]) -> Iterator[Source]:
    """Yield every distinct target box of the rows."""
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
    """Yield every box of a COCO annotation file, except groups (`iscrowd`).

    Boxes refer to the stored pixels, unless the file gives the size of the picture after its EXIF rotation.
    Boxes that exceed the picture by rounding are clipped.

    Args:
        path: the JSON file.
        images: the folder of its pictures.
        left_out: called with a line for every invalid annotation, which is then skipped; if None, the first
            one raises.

    Raises:
        DataError: not a COCO annotation file, or an invalid annotation: "FILE annotation N: rule, got X".
    """
    try:
        data = read_json(path)
        pictures = {picture["id"]: picture for picture in data["images"]}
        annotations = [each for each in data["annotations"] if not each.get("iscrowd")]
        numbers = {id(each): number for number, each in enumerate(data["annotations"], start=1)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a COCO annotation file ({type(error).__name__}: {one_line(error)})"
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
        stated_size = picture.get("width"), picture.get("height")
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise DataError(
            "an annotation must have a bbox of four numbers and the image_id of a picture, "
            f"got {str(annotation)[:80]} ({type(error).__name__}: {error})"
        ) from None
    if name not in known:
        known[name] = _picture(images / name)
    loaded = known[name]
    if isinstance(loaded, DataError):
        raise loaded
    header, size = loaded
    upright = boxes_are_upright(stated_size if all(stated_size) else None, header, size)
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
    """Header and upright size, or the error for all boxes of an unusable picture."""
    try:
        size = check_picture(path)
        header = read_header(path)
    except Exception as error:  # Pillow's decoders raise various errors on damaged files
        return DataError(f"image must be readable, got {str(path)!r} ({one_line(error)})")
    if max(size) >= MAX_ASPECT * min(size):
        return DataError(f"image must be less than {MAX_ASPECT:g} times as long as wide, got {list(size)}")
    return header, size


def build_cues(sources: Sequence[Source], *, count: int | None = None, seed: int = 0) -> Cues:
    """Sample boxes and make cues from them, 70 % tiny and 30 % small.

    Boxes are clipped to their picture and rounded outwards to whole pixels. The box of a tiny cue is first
    padded on each side by up to a tenth of its width or height, and the cut-out is scaled by 0.8 to 2. The
    box that is cut is the target.

    Args:
        sources: the boxes.
        count: number of cues; None for as many as the mixture allows.
        seed: same seed and sources, same cues.

    Returns:
        The cues. If one kind is too rare there are fewer of both, in the same mixture, and `note` says so.

    Raises:
        DataError: too few boxes for one cue of each kind.

    Source:
        LOCUS (arXiv 2606.16586). Using the padded box as the target is our choice.
    """
    rng = np.random.default_rng(seed)
    wide = [source for source in sources if source.can_be_cut]
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
        note = f"{count} cues were requested, {total} were made: too few {rare} boxes for the mixture"
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
    cut = _rounded_outwards(box, source.size)
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


def _rounded_outwards(box: Sequence[float], size: Size) -> PixelBox:
    return (
        max(math.floor(box[0]), 0),
        max(math.floor(box[1]), 0),
        min(math.ceil(box[2]), size[0]),
        min(math.ceil(box[3]), size[1]),
    )


def check_cue(row: Row) -> None:
    """Check that a row is a cue.

    Raises:
        DataError: it does not have exactly one picture, one target and a scale.
    """
    if len(row.pictures) > 1:
        raise DataError(f"{row.name}: a cue must have one picture, got {len(row.pictures)}")
    if row.regions is None or len(row.regions) != 1 or len(row.regions[0]) != 1:
        raise DataError(f"{row.name}: a cue must have one target box; make cues with lfpc locus-data")
    scale = row.extras.get(SCALE)
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale < 100:
        raise DataError(f"{row.name}: {SCALE} must be a positive number, got {scale!r}")


def cue_box(row: Row) -> PixelBox:
    """The box of a cue in whole pixels of the original."""
    assert row.regions is not None
    return _rounded_outwards(row.regions[0][0].tolist(), row.size)
