"""Rows of LOCUS from any boxes: a picture, and a small part of it that has to be found again.

A cue is a row like any other (`lfpc_trl.data.rows`): its one target is the box that is cut, in whole pixels
of the original. The column `x_cue_scale` says by how much the cut is enlarged before it is shown.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lfpc_trl.data.rows import Row, check_row
from lfpc_trl.errors import DataError
from lfpc_trl.pictures.crops import PixelBox
from lfpc_trl.pictures.originals import check_picture
from lfpc_trl.pictures.sizes import Size

QUESTION = "Where in image 1 is image 2?"
SCALE = "x_cue_scale"
TINY, SMALL = 0.01, 0.05
"""Shares of the picture's area below which a box is tiny, and small. LOCUS."""
TINY_SHARE = 0.7
"""Share of tiny cues. LOCUS."""
MIN_SIDE = 16
"""Shortest side of a box in pixels. LOCUS."""
PADDING, SCALES = 0.10, (0.8, 2.0)
"""Of tiny cues: most padding of each side, as a share of the box; range of the scale. LOCUS."""


@dataclass(frozen=True)
class Source:
    """A box to cut.

    Attributes:
        image: absolute path of the picture.
        size: (width, height) of the picture.
        box: xyxy in pixels of the picture.
    """

    image: Path
    size: Size
    box: tuple[float, float, float, float]

    @property
    def share(self) -> float:
        """Of the picture's area."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0) / (self.size[0] * self.size[1])


@dataclass(frozen=True)
class Cues:
    """The rows, and what became of the boxes.

    Attributes:
        rows: the cues, shuffled.
        counts: boxes found, too thin (`MIN_SIDE`), too large (`SMALL`), tiny, small; cues tiny, small.
        note: what was asked for and could not be had; empty if nothing.
    """

    rows: list[Row]
    counts: dict[str, int]
    note: str


def boxes_of_rows(rows: Sequence[Row]) -> Iterator[Source]:
    """Every target box of the rows, each once."""
    seen = set()
    for row in rows:
        for box in (tuple(box) for region in row.regions or () for box in region.tolist()):
            if (row.image, box) not in seen:
                seen.add((row.image, box))
                yield Source(row.image, row.size, box)


def boxes_of_coco(path: Path, images: Path) -> Iterator[Source]:
    """Every box of a file of COCO annotations; groups (`iscrowd`) are left out.

    Args:
        path: the JSON file.
        images: the folder of its pictures.

    Raises:
        DataError: the file is no such file, or a picture is missing or broken.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        names = {picture["id"]: picture["file_name"] for picture in data["images"]}
        boxes = [
            (names[each["image_id"]], tuple(float(side) for side in each["bbox"]))
            for each in data["annotations"]
            if not each.get("iscrowd")
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no file of COCO annotations ({type(error).__name__}: {error})") from None
    sizes: dict[str, Size] = {}
    for name, box in boxes:
        if name not in sizes:
            try:
                sizes[name] = check_picture(images / name)
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: {error}") from None
        if len(box) != 4:
            raise DataError(f"{path}: bbox must be [x, y, width, height], got {list(box)}")
        x, y, width, height = box
        yield Source((images / name).absolute(), sizes[name], (x, y, x + width, y + height))


def build_cues(sources: Sequence[Source], *, count: int | None = None, seed: int = 0) -> Cues:
    """Choose boxes and make cues of them, 70 % tiny and 30 % small.

    A box is cut outwards to whole pixels. The box of a tiny cue is first grown on each side by up to a tenth
    of its width or height, and the cut is shown 0.8 to 2 times as large. The box that is cut is the one to
    find.

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
    wide = [source for source in sources if _shortest(source) >= MIN_SIDE]
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


def _shortest(source: Source) -> float:
    x0, y0, x1, y1 = source.box
    return min(x1 - x0, y1 - y0)


def _cue(rng: np.random.Generator, kind: str, source: Source, number: int) -> Row:
    box, scale = source.box, 1.0
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
    return check_row(record, source.image.parent, source.size)


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
        DataError: it has not exactly one target, or no scale.
    """
    if row.regions is None or len(row.regions) != 1 or len(row.regions[0]) != 1:
        raise DataError(f"{row.name}: a cue has one target box; make cues with lfpc locus-data")
    scale = row.extras.get(SCALE)
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale < 100:
        raise DataError(f"{row.name}: {SCALE} must be a positive number, got {scale!r}")


def cue_box(row: Row) -> PixelBox:
    """The box of a cue in whole pixels of the original."""
    assert row.regions is not None
    return _whole(row.regions[0][0].tolist(), row.size)
