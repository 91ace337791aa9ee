"""Do the boxes of a data file count in pixels at all? Told by all of them together, since each one may pass.

A box of 0 to 1, of 0 to 1000 or of [x, y, width, height] is often a valid box in pixels, too: of another
place. The numbers are our choice: targets that lie evenly on their pictures are taken for something else in
less than one file of a thousand, and a warning stops nothing.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_trl.data.rows import Problem, Row, Sample, in_one_line, scan_rows
from lfpc_trl.errors import DataError

_WORDS = {
    "xyxy-1": "fractions of the picture (0 to 1)",
    "xywh-1": "fractions of the picture (0 to 1), as [x, y, width, height]",
    "xyxy-1000": "thousandths of the picture (0 to 1000)",
    "xywh-1000": "thousandths of the picture (0 to 1000), as [x, y, width, height]",
    "xywh": "[x, y, width, height]",
}
"""What each layout of `lfpc convert --box-layout` is called here."""

_CHANCE = 1e-3
"""How rarely boxes in pixels, evenly placed, would look as they do."""
_INVERTED = 1 / 3
"""Share of the boxes that no corners can have, from which on they are corner and size."""
_FEW, _MANY = 3, 8
"""Different boxes that are needed where some cannot be pixels, and where all could be: one box of four has
its middle in the upper left quarter, eight in a row have it once in 65,000 files."""


class Guess(NamedTuple):
    """What boxes seem to be.

    Attributes:
        layout: by its name in `lfpc convert --box-layout`.
        why: what gives them away.
    """

    layout: str
    why: str


def likely_layout(samples: Iterable[Sample]) -> Guess | None:
    """What the boxes of a file seem to be, or None: corners in pixels, or too few to tell.

    Example:
        >>> likely_layout([Sample((0.1, 0.2, 0.4, 0.5), (640, 480))])
        Guess(layout='xyxy-1', why='all numbers are at most 1')
        >>> likely_layout([Sample((64, 96, 256, 240), (640, 480))])
    """
    rows = [[*map(float, sample.box), *sample.size] for sample in samples]
    if not rows:
        return None
    distinct = np.unique(np.array(rows), axis=0)
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
    chance = float(np.minimum(1, 1000 / sizes).prod())  # that evenly placed boxes end before 1000
    if outside >= _INVERTED and reach.min() >= 750:
        why = f"none is above 1000, and {outside:.0%} of the boxes leave their picture"
    elif chance <= _CHANCE and reach.min() >= 500 and sizes.max(axis=0).min() > 1000:
        # Reach tells boxes all over the picture from, say, a menu that is always in its corner.
        why = "none is above 1000, in pictures that are larger"
    else:
        return None
    if ends.max() <= 1000 and inverted >= _INVERTED:
        return Guess("xywh-1000", why)
    if ends.max() <= 1000 and len(boxes) >= _MANY:
        return None  # none on the right or below: corner and size
    return Guess("xyxy-1000", why)


def _corner_and_size(sizes: _Numbers, inverted: float, ends: _Numbers) -> Guess | None:
    if (ends > sizes + 1).any():
        return None
    if inverted >= _INVERTED and len(ends) >= _FEW:
        return Guess("xywh", f"{inverted:.0%} of the boxes have x1 >= x2 or y1 >= y2")
    # Boxes in one corner of all pictures end, read so, before a third of them.
    if len(ends) >= _MANY and ((ends / sizes).max(axis=0) >= 1 / 3).all():
        return Guess("xywh", "as corners, all boxes would have their middle in the upper left quarter")
    return None


def samples_of(rows: Iterable[Row]) -> list[Sample]:
    """The innermost box of every region."""
    return [Sample(region[0].tolist(), row.size) for row in rows for region in row.regions or ()]


def frame_warning(path: str | Path, samples: Iterable[Sample], *, rows: bool = True) -> Problem | None:
    """A warning, with the command that converts, where boxes seem to count in something else than pixels.

    Args:
        path: of the data file.
        samples: its boxes, of `samples_of` or of `scan_rows`.
        rows: whether the file holds rows, which `lfpc convert` reads; otherwise no command is named.
    """
    guess = likely_layout(samples)
    if guess is None:
        return None
    how = f": lfpc convert --from rows --input {path} --output NEW.jsonl --box-layout {guess.layout}"
    return Problem(
        str(path),
        f"targets look like {_WORDS[guess.layout]} and are read as [x1, y1, x2, y2] in pixels ({guess.why}); "
        f"if they are, convert them{how if rows else ''}",
    )


def warning_of(rows: Sequence[Row]) -> Problem | None:
    """`frame_warning` for rows that were read from a file."""
    return frame_warning(rows[0].name.rpartition(" row ")[0], samples_of(rows)) if rows else None


def read_with_warning(path: str | Path, *, require_targets: bool = False) -> tuple[list[Row], Problem | None]:
    """The rows of a file as commands read them: with `frame_warning`.

    Args:
        path: as for `read_rows`.
        require_targets: as for `read_rows`.

    Raises:
        DataError: as for `read_rows`. Boxes that count in something else are often refused as pixels: then
            the line ends with the warning.
    """
    samples: list[Sample] = []
    rows, problems = scan_rows(path, require_targets=require_targets, samples=samples)
    warning = frame_warning(path, samples)
    if problems:
        raise DataError(in_one_line(problems) + ("" if warning is None else f"; {warning.rule}"))
    return rows, warning


def tell(warning: Problem | str | None) -> None:
    """Print a warning, if there is one, on standard error."""
    if warning is not None:
        print(f"warning: {warning}", file=sys.stderr)
