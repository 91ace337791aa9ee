"""Reading rows with a warning if the boxes of a file do not seem to be in pixels."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lfpc_trl.data.boxes import Sample, likely_layout
from lfpc_trl.data.columns import Columns
from lfpc_trl.data.rows import Problem, Row, in_one_line, scan_rows
from lfpc_trl.errors import DataError

_WORDS = {
    "xyxy-1": "fractions of the picture (0 to 1)",
    "xywh-1": "fractions of the picture (0 to 1), as [x, y, width, height]",
    "xyxy-1000": "thousandths of the picture (0 to 1000)",
    "xywh-1000": "thousandths of the picture (0 to 1000), as [x, y, width, height]",
    "xywh": "[x, y, width, height]",
}
"""Each layout of `lfpc convert --box-layout` in words."""


def samples_of(rows: Iterable[Row]) -> list[Sample]:
    """The innermost box of every region."""
    return [
        Sample(target.boxes[0].tolist(), row.pictures[target.image - 1].size)
        for row in rows
        for target in row.targets
    ]


def frame_warning(
    path: str | Path, samples: Iterable[Sample], *, rows: bool = True, columns: Columns | None = None
) -> Problem | None:
    """A warning with the remedy, if boxes do not seem to be in pixels.

    Args:
        path: of the data file.
        samples: its boxes, from `samples_of` or `scan_rows`.
        rows: whether the file holds rows, which `lfpc convert` can read; otherwise no command is suggested.
        columns: the mapping it was read with, which may state what the boxes are.
    """
    guess = likely_layout(samples)
    if guess is None:
        return None
    if columns is not None and columns.layout is not None:
        return None  # the mapping stated it, and in_pixels has converted the boxes
    convert = f"lfpc convert --from rows --input {path} --output NEW.jsonl --box-layout {guess.layout}"
    how = f"convert them: {convert}"
    if columns is not None:
        [place] = columns.places.get("targets", ("targets",))
        how = f"say so: --columns targets={place}:{guess.layout}"
    return Problem(
        str(path),
        f"targets look like {_WORDS[guess.layout]} and are read as [x1, y1, x2, y2] in pixels ({guess.why}); "
        f"if they are, {how if rows else 'convert them'}",
    )


def warning_of(rows: Sequence[Row]) -> Problem | None:
    """`frame_warning` for rows read from a file."""
    return frame_warning(rows[0].name.rpartition(" row ")[0], samples_of(rows)) if rows else None


def read_with_warning(
    path: str | Path, *, require_targets: bool = False, columns: Columns | None = None
) -> tuple[list[Row], Problem | None]:
    """Read the rows of a file, printing `frame_warning` if there is one.

    Args:
        path: as for `read_rows`.
        require_targets: as for `read_rows`.
        columns: as for `read_rows`.

    Raises:
        DataError: as for `read_rows`. Boxes in another frame are often invalid as pixels; the error then ends
            with the warning.
    """
    samples: list[Sample] = []
    rows, problems = scan_rows(path, require_targets=require_targets, columns=columns, samples=samples)
    warning = frame_warning(path, samples, columns=columns)
    if problems:
        raise DataError(in_one_line(problems) + ("" if warning is None else f"; {warning.rule}"))
    return rows, warning


def tell(warning: Problem | str | None) -> None:
    """Print a warning, if any, to standard error."""
    if warning is not None:
        print(f"warning: {warning}", file=sys.stderr)
