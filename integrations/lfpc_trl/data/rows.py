"""Rows: one question about one picture, read from JSONL or Parquet and checked before anything is trained.

| column | value |
|---|---|
| `question` | text |
| `answer` | text, or a list of accepted texts |
| `image` | path of the original, relative to the data file |
| `choices` | optional list of option texts, shown as A, B, C, ... |
| `targets` | optional nested boxes, inner to outer, `[x1, y1, x2, y2]` in pixels of the original (after its EXIF rotation); or a list of such regions for a question about several objects |
| `id` | optional text or whole number, unique; the row number otherwise |
| `shown_size` | optional `[width, height]` at which the picture is shown; `lfpc select-resolution` writes it |

Columns that `lfpc select-resolution` adds and columns whose name starts with `x_` are carried along.
"""  # noqa: E501 - a table row cannot be wrapped

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import itertools
import json
import numbers
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards import answers_match
from lfpc_trl.data.boxes import LAYOUTS, Sample, in_pixels, likely_layout
from lfpc_trl.data.columns import (
    COLUMNS,
    NEEDED,
    OTHER_NAMES,
    Columns,
    as_option,
    listed,
    recognised,
    without_index,
)
from lfpc_trl.data.files import data_files
from lfpc_trl.data.sources import TABLES, Record, read_records
from lfpc_trl.errors import DataError, one_line
from lfpc_trl.files import whole_file
from lfpc_trl.json_values import not_plain
from lfpc_trl.pictures.crops import MAX_CROP_ASPECT
from lfpc_trl.pictures.inside import place_inside
from lfpc_trl.pictures.originals import check_picture
from lfpc_trl.pictures.sizes import MAX_ASPECT, Size, shown_size

Boxes = NDArray[np.float64]
"""(n, 4) boxes of one region, inner to outer, pixels of the original."""

METADATA = ("selected_level", "diverged", "right_at_full")
"""Columns that our own tools write beside a row and that no training reads."""
SUFFIXES = (".jsonl", ".parquet")
_LARGEST = sys.float_info.max
MAX_SHOWN_PIXELS = 16384 * 32**2
"""Pixels of the largest `shown_size`: the most visual tokens that a model is shown, of the largest side."""
_CONVERSATIONS = ("messages", "prompt", "conversation", "conversations", "completion")


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One question, checked.

    Attributes:
        id: unique in its file.
        question: the question alone, without the options.
        answer: every accepted answer, at least one.
        choices: option texts, or None for an open question.
        image: absolute path of the original.
        size: (width, height) of the original after EXIF rotation.
        regions: nested target boxes per object, pixels of the original; None where the row has no targets.
        shown_size: (width, height) at which the model sees the picture; None until it is chosen.
        extras: further columns, carried along.
        place: file and row number, for error messages; empty for a row that was not read from a file.
    """

    id: str
    question: str
    answer: tuple[str, ...]
    choices: tuple[str, ...] | None
    image: Path
    size: Size
    regions: tuple[Boxes, ...] | None = None
    shown_size: Size | None = None
    extras: dict[str, Any] = dataclasses.field(default_factory=dict)
    place: str = ""

    @property
    def name(self) -> str:
        """How error messages call the row."""
        return self.place or f"row {self.id}"


class Problem(NamedTuple):
    """What is wrong with one row.

    Attributes:
        place: file and row number, or what else the row is called.
        rule: the rule that it breaks, and what came instead.
    """

    place: str
    rule: str

    def __str__(self) -> str:
        return f"{self.place}: {self.rule}"


def in_one_line(problems: Sequence[Problem]) -> str:
    """The first of several problems, with the number of the others."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return str(problems[0]) + more


class _RuleError(Exception):
    """Broken rules inside one row, before the file and the row are known: each argument is one."""


# --- reading -----------------------------------------------------------------------------------------


def read_rows(
    path: str | Path, *, require_targets: bool = False, columns: Columns | None = None
) -> list[Row]:
    """Read and check a data set. Every row is checked before the first error is raised.

    Args:
        path: a file or a folder, see `data_files`; images are found relative to the file of their row.
        require_targets: refuse rows without `targets` (stage 2 needs them).
        columns: where the columns are, if they have other names.

    Returns:
        The rows in file order.

    Raises:
        DataError: "FILE row N: rule, got X" for the first problem, with the number of further ones. Rows
            count from 1; in a JSONL file the number is the line's.
    """
    rows, problems = scan_rows(path, require_targets=require_targets, columns=columns)
    if problems:
        raise DataError(in_one_line(problems))
    return rows


def scan_rows(
    path: str | Path,
    *,
    require_targets: bool = False,
    columns: Columns | None = None,
    samples: list[Sample] | None = None,
) -> tuple[list[Row], list[Problem]]:
    """Read and check a data set, and collect what is wrong instead of stopping at it.

    Args:
        path: as for `read_rows`.
        require_targets: as for `read_rows`.
        columns: as for `read_rows`.
        samples: gets the innermost box of every region, of bad rows too, whatever it counts in.

    Returns:
        The good rows, and every problem of the bad ones, both in file order.

    Raises:
        DataError: the data set cannot be read at all, holds no rows, or has other columns.
    """
    path = Path(path)
    files = data_files(path)
    problems: list[Problem] = []
    rows: list[Row] = []
    first_use: dict[str, str] = {}
    picture_size = functools.cache(_picture_size)  # many rows may ask about one picture
    records = _records(files)
    first = next(records, None)
    if first is None:
        raise DataError(f"{path}: the file holds no rows")
    if columns is None:
        _check_names(path, first, records)
    for file, number, record in _records(files):
        place = f"{file} row {number}"
        broken: list[str] = []
        row = None
        with _collected(broken):
            raw = _read(record, columns, file.parent, picture_size)
            if samples is not None:
                samples += _samples(raw, file.parent, picture_size)
            name = str(number) if len(files) == 1 else f"{file.stem}-{number}"
            row = _check_row(raw, name, file.parent, picture_size, broken, require_targets=require_targets)
        with _collected(broken):
            if row is not None and row.id in first_use:
                before = first_use[row.id].removeprefix(f"{file} ")
                raise _RuleError(f"id must be unique, got {row.id!r} as in {before}")
        if row is None or broken:
            problems += [Problem(place, rule) for rule in broken]
            continue
        first_use[row.id] = place
        rows.append(dataclasses.replace(row, place=place))
    return rows, problems


def _read(
    record: Record | DataError, columns: Columns | None, folder: Path, picture_size: Callable[[Path], Size]
) -> Record:
    """The columns of a row, boxes in pixels where the mapping says what they are.

    Raises:
        _RuleError: the record cannot be read, or not as it is mapped.
    """
    try:
        if isinstance(record, DataError):
            raise record
        raw = mapped(record, columns)
        targets, image = raw.get("targets"), raw.get("image")
        if columns is None or columns.layout is None or not isinstance(image, str):
            return raw
        if isinstance(targets, list):
            size = picture_size((folder / image).absolute())
            raw["targets"] = [in_pixels(region, columns.layout, size).tolist() for region in targets]
    except DataError as error:
        raise _RuleError(str(error)) from None
    return raw


def check_row(
    record: dict[str, Any],
    folder: Path,
    size: Size | None = None,
    *,
    number: int = 1,
    require_targets: bool = False,
) -> Row:
    """Check one row that stands in no file yet, by the rules of `read_rows`.

    Args:
        record: its columns; the image's path is relative to `folder`.
        folder: where the file would be.
        size: of the picture, if it is known already; read otherwise.
        number: the row's number, its id where it has none.
        require_targets: refuse a row without `targets`.

    Raises:
        DataError: "rule, got X" for the first rule that it breaks, without the file and the row.
    """
    read_size = _picture_size if size is None else lambda _: size
    broken: list[str] = []
    row = _check_row(record, str(number), folder, read_size, broken, require_targets=require_targets)
    if row is None:
        raise DataError(broken[0])
    return row


def row_problems(record: dict[str, Any], folder: Path, size: Size) -> list[str]:
    """Every rule that one row breaks, each as "rule, got X"; the arguments are those of `check_row`."""
    broken: list[str] = []
    _check_row(record, "1", folder, lambda _: size, broken, require_targets=False)
    return broken


def check_targets(value: object, size: Size) -> tuple[Boxes, ...]:
    """Check the column `targets` alone, for a picture of `size`.

    Raises:
        DataError: "rule, got X" for every bad box, with semicolons between them.
    """
    try:
        return _regions(value, size)
    except _RuleError as error:
        raise DataError("; ".join(error.args)) from None


def read_columns(path: Path) -> Iterator[tuple[int, Record | DataError]]:
    """The records of a data set with their numbers, pictures inside its files as their paths; not checked.

    Raises:
        DataError: as for `data_files`, or a file breaks off.
    """
    files = data_files(path)
    for count, found in enumerate(_records(files), start=1):
        yield (found.number if len(files) == 1 else count), found.record


class _Found(NamedTuple):
    """A record of a data set, with where it stands.

    Attributes:
        file: of the data set.
        number: of the record in its file.
        record: its columns, pictures inside the file as their paths; or why it cannot be read.
    """

    file: Path
    number: int
    record: Record | DataError


def _records(files: Iterable[Path]) -> Iterator[_Found]:
    for file in files:
        for number, record in read_records(file):
            yield _Found(
                file, number, record if isinstance(record, DataError) else _plain(file, number, record)
            )


def _plain(file: Path, number: int, record: Record) -> Record:
    """A record with places for pictures, and without what its kind of file adds."""
    found = {name: _placed(value, file, number, name) for name, value in without_index(record).items()}
    if file.suffix in TABLES:  # an empty cell
        found = {name: value or None for name, value in found.items()}
    if file.stem == "metadata" and "image" not in found and "file_name" in found:  # imagefolder
        found["image"] = found.pop("file_name")
    return found


def _placed(value: Any, file: Path, number: int, column: str) -> Any:
    """A value with the places of pictures for the pictures."""
    if isinstance(value, list):
        return [_placed(each, file, number, f"{column}.{i}") for i, each in enumerate(value)]
    data, path = value, None
    if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
        data, path = value["bytes"], value["path"]
    elif not isinstance(value, bytes):
        return value
    return place_inside(file.absolute(), number, column) if data else path


def mapped(record: Record, columns: Columns | None) -> Record:
    """The columns of a row in a record; lists that a table holds as text are lists.

    Raises:
        DataError: a column that is mapped is not there.
    """
    found = record if columns is None else columns.record(record)
    lists = ("choices", "targets", "shown_size")
    return {name: listed(value) if name in lists else value for name, value in found.items()}


def _check_names(path: Path, first: _Found, records: Iterable[_Found]) -> None:
    """Refuse a data set whose columns have other names, with the mapping that they seem to need.

    Raises:
        DataError: all columns that a row needs can be told by their names.
    """
    if isinstance(first.record, DataError) or all(first.record.get(name) is not None for name in NEEDED):
        return
    places = recognised(first.record)
    if not set(NEEDED) <= set(places):
        return
    layout = None
    if "targets" in places:
        guess = likely_layout(_guessed_samples([first, *itertools.islice(records, _LOOKED_AT)], places))
        in_objects = "xywh" if places["targets"].startswith("objects") else None  # as COCO has them
        layout = in_objects if guess is None else guess.layout
    others = {name: place for name, place in places.items() if name != place or name in NEEDED}
    raise DataError(
        f"{path}: the columns are {', '.join(map(repr, first.record))}, not those of a row; if they mean "
        f"what their names say, add: {as_option(others, layout)}"
    )


_LOOKED_AT = 100
"""Records whose boxes are looked at to tell what they count in. Our choice."""


def _guessed_samples(found: Iterable[_Found], places: Mapping[str, str]) -> list[Sample]:
    guess = Columns({name: (places[name],) for name in ("image", "targets")}, LAYOUTS[0])
    samples: list[Sample] = []
    for file, _, record in found:
        with contextlib.suppress(DataError):
            raw = mapped({} if isinstance(record, DataError) else record, guess)
            samples += _samples(raw, file.parent, _picture_size)
    return samples


def _samples(raw: dict[str, Any], folder: Path, picture_size: Callable[[Path], Size]) -> list[Sample]:
    """The innermost boxes of a row of which nothing is checked yet: those that can be read."""
    targets, image = raw.get("targets"), raw.get("image")
    if not isinstance(targets, list) or not targets or not isinstance(image, str):
        return []
    try:
        size = picture_size((folder / image).absolute())
    except (_RuleError, ValueError):  # a path with a NUL
        return []
    regions = targets if _are_several(targets) else [targets]
    boxes = [region[0] for region in regions if isinstance(region, list) and region]
    return [Sample(box, size) for box in boxes if _is_box(box)]


def _are_several(targets: list[Any]) -> bool:
    """Whether targets are regions and not one: the depth tells."""
    first = targets[0]
    return isinstance(first, list) and bool(first) and isinstance(first[0], list)


def _is_box(box: object) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


@contextlib.contextmanager
def _collected(broken: list[str]) -> Iterator[None]:
    """Adds the rules that the block breaks to the others."""
    try:
        yield
    except _RuleError as error:
        broken += error.args


def _check_row(
    raw: Record,
    default_id: str,
    folder: Path,
    picture_size: Callable[[Path], Size],
    broken: list[str],
    *,
    require_targets: bool,
) -> Row | None:
    """The row, or None with every rule that it breaks added to `broken`.

    A rule that cannot be looked at, because another one is broken before it, is not reported: the targets
    of a picture that cannot be read.
    """
    carried = [name for name in raw if name in METADATA or name.startswith("x_")]
    for name, value in raw.items():
        with _collected(broken):
            _check_column(name, value, known=name in COLUMNS or name in carried)
    if broken:  # what follows could not even print such values
        return None
    # A Parquet column has a value in every row: there, absent is None.
    given = {name: value for name, value in raw.items() if value is not None}
    for name in ("question", "answer", "image"):
        with _collected(broken):
            if name not in given:
                raise _RuleError(f"{name} is missing")
    question, identifier, size, regions, shown = "", default_id, None, None, None
    choices: tuple[str, ...] | None = None
    answer: tuple[str, ...] = ()
    image = folder
    with _collected(broken):
        question = _text(given.get("question", "-"), "question")
    with _collected(broken):
        if "image" in given:
            image = (folder / _text(given["image"], "image")).absolute()
            size = picture_size(image)
            _check_aspect("image", size)
    with _collected(broken):
        if "targets" in given and size is not None:
            regions = _regions(given["targets"], size)
        elif "targets" not in given and require_targets:
            raise _RuleError("targets are needed for stage 2, got none")
    with _collected(broken):
        if "answer" in given:
            value = given["answer"]
            values = value if isinstance(value, list) else _as_text(value)
            answer = _texts([values] if isinstance(values, str) else values, "answer")
    with _collected(broken):
        if "choices" in given:
            choices = _texts(given["choices"], "choices")
            if not 2 <= len(choices) <= 26:
                raise _RuleError(f"choices must be 2 to 26 texts, got {len(choices)}")
        _check_answer(answer, choices)
    with _collected(broken):
        identifier = _identifier(given.get("id"), default_id)
    with _collected(broken):
        shown = _shown(given["shown_size"]) if "shown_size" in given else None
    if broken or size is None:
        return None
    return Row(
        id=identifier,
        question=question,
        answer=answer,
        choices=choices,
        image=image,
        size=size,
        regions=regions,
        shown_size=shown,
        extras={name: given[name] for name in carried if name in given},
    )


def _check_column(name: str, value: object, *, known: bool) -> None:
    """Refuse an unknown column, with the one that was probably meant, and a value that JSON cannot keep."""
    wanted = not_plain(name)
    if wanted is not None:
        raise _RuleError(f"the name of a column must be {wanted}, got {_short(name)}")
    plain = name.lower()
    if not known and plain in _CONVERSATIONS:
        raise _RuleError(
            f"unknown column {name!r}: a row holds 'question' and 'answer', no conversation; 'lfpc convert' "
            "makes rows of the formats that it knows"
        )
    if not known:
        near = [ours for ours, others in OTHER_NAMES.items() if plain in others]
        near = near or difflib.get_close_matches(plain, COLUMNS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise _RuleError(f"unknown column {name!r}{hint}; a column to carry along starts with 'x_'")
    wanted = not_plain(value)
    if wanted is not None:
        raise _RuleError(f"{name} cannot be written down, it must be {wanted}, got {_kind(value)}")


def _kind(value: object) -> str:
    """What a value is, in a message that may not hold it."""
    return "such a text" if isinstance(value, str) else type(value).__name__


def _check_aspect(name: str, size: Size) -> None:
    if max(size) >= MAX_ASPECT * min(size):
        raise _RuleError(f"{name} must be less than {MAX_ASPECT:g} times as long as wide, got {list(size)}")


def _check_answer(answer: tuple[str, ...], choices: tuple[str, ...] | None) -> None:
    """What the accuracy reward refuses is found here, not in the middle of a training."""
    for text in answer:
        try:
            answers_match(text, [text], choices)
        except ValueError:
            raise _RuleError(f"answer must name one of the choices {_short(choices)}, got {text!r}") from None


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _RuleError(f"{name} must be a text that is not empty, got {_short(value)}")
    return value


def _as_text(value: object) -> object:
    """A number as its digits: `answer: 7` is the answer "7"; pandas makes 7.0 of it beside an empty cell."""
    if not _is_number(value):
        return value
    number = cast("float", value)
    return str(int(number)) if number == int(number) else str(number)


def _texts(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise _RuleError(f"{name} must be a text or a list of texts, got {_short(value)}")
    return tuple(_text(_as_text(item), name) for item in value)


def _identifier(value: object, default: str) -> str:
    if value is None:
        return default
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, "id")


def _picture_size(image: Path) -> Size:
    try:
        return check_picture(image)
    except FileNotFoundError:
        raise _RuleError(f"image must exist, got {str(image)!r}") from None
    except Exception as error:  # Pillow's decoders raise what they like on damaged files
        raise _RuleError(f"image must be readable, got {str(image)!r} ({one_line(error)})") from None


def _shown(value: object) -> Size:
    if isinstance(value, list) and len(value) == 2:
        width, height = value
        if all(_is_number(side) and side == int(side) and side >= 1 for side in value):
            size = int(width), int(height)
            if size[0] * size[1] > MAX_SHOWN_PIXELS:
                raise _RuleError(f"shown_size must have at most {MAX_SHOWN_PIXELS} pixels, got {list(size)}")
            _check_aspect("shown_size", size)
            return size
    raise _RuleError(f"shown_size must be [width, height] in whole pixels, got {_short(value)}")


def _is_number(value: object) -> bool:
    # No math.isfinite: it raises on an integer of 400 digits, which JSON may hold.
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and abs(cast("float", value)) <= _LARGEST


def _regions(value: object, size: Size) -> tuple[Boxes, ...]:
    """One region is a list of boxes, several are a list of such lists: the depth tells."""
    shape_rule = "targets must be a list of boxes [x1, y1, x2, y2], inner to outer, or a list of such lists"
    if not isinstance(value, list) or not value:
        raise _RuleError(f"{shape_rule}, got {_short(value)}")
    regions = value if _are_several(value) else [value]
    if not all(isinstance(region, list) and region for region in regions):
        raise _RuleError(f"{shape_rule}, got {_short(value)}")
    boxes = list(itertools.chain(*regions))
    no_lists = [box for box in boxes if not isinstance(box, list)]
    if no_lists:  # the numbers of a flat box are not four bad boxes
        raise _RuleError(f"{shape_rule}, got {_short(no_lists[0])}")
    broken: list[str] = []
    for box in boxes:
        with _collected(broken):
            if not _is_box(box):
                raise _RuleError(f"{shape_rule}, got {_short(box)}")
            _check_target(box, size)
    if broken:  # how such boxes lie to each other says nothing
        raise _RuleError(*dict.fromkeys(broken))
    found = tuple(np.array(region, dtype=np.float64) for region in regions)
    for region in found:
        for inner, outer in itertools.pairwise(region):
            with _collected(broken):
                _check_nested(inner, outer)
    if broken:
        raise _RuleError(*broken)
    return found


def _check_nested(inner: NDArray[np.float64], outer: NDArray[np.float64]) -> None:
    if (outer[:2] > inner[:2]).any() or (outer[2:] < inner[2:]).any():
        raise _RuleError(
            f"targets must be nested, inner to outer, got {inner.tolist()} before {outer.tolist()}"
        )


def _check_target(box: Sequence[float], size: Size) -> None:
    x1, y1, x2, y2 = box
    if x1 >= x2 or y1 >= y2:
        raise _RuleError(f"targets need x1 < x2 and y1 < y2, got {list(box)}")
    if max(x2 - x1, y2 - y1) > MAX_CROP_ASPECT * min(x2 - x1, y2 - y1):
        raise _RuleError(
            f"targets must be at most {MAX_CROP_ASPECT:g} times as long as wide, got {list(box)}"
        )
    if x1 < 0 or y1 < 0 or x2 > size[0] or y2 > size[1]:
        raise _RuleError(
            f"targets must lie inside the picture ({size[0]} x {size[1]} pixels), got {list(box)}"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# --- writing -----------------------------------------------------------------------------------------


def as_record(row: Row, folder: Path | None = None) -> dict[str, Any]:
    """A row as plain JSON values; its image path relative to `folder`, or its file name alone without one."""
    image = row.image.name if folder is None else Path(os.path.relpath(row.image, folder)).as_posix()
    record: dict[str, Any] = {
        "id": row.id,
        "question": row.question,
        "answer": list(row.answer),
        "image": image,
    }
    if row.choices is not None:
        record["choices"] = list(row.choices)
    if row.regions is not None:
        record["targets"] = [region.tolist() for region in row.regions]
    if row.shown_size is not None:
        record["shown_size"] = list(row.shown_size)
    return record | row.extras


def write_rows(rows: Sequence[Row], path: str | Path) -> None:
    """Write rows as JSONL or Parquet, by the suffix; `read_rows` of the file gives the same rows.

    The file appears whole or not at all.

    Raises:
        DataError: the suffix is neither.
        UserError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: rows are written to a .jsonl or .parquet file")
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [as_record(row, path.parent.absolute()) for row in rows]
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        # A column may start late (extras differ by row): every record names every column.
        names = list(dict.fromkeys(name for record in records for name in record))
        full = [{name: record.get(name) for name in names} for record in records]
        table = pa.Table.from_pylist(full)
        with whole_file(path) as draft:
            parquet.write_table(table, draft)
        return
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def rows_digest(rows: Sequence[Row]) -> str:
    """SHA-256 over what a training reads of its rows; without folders, so that a data set may move."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(as_record(row) | {"size": row.size}, sort_keys=True).encode())
    return digest.hexdigest()


def with_shown_tokens(rows: Sequence[Row], tokens: int, *, factor: int) -> list[Row]:
    """Every row shown at the same budget of visual tokens, in place of resolution selection."""
    return [dataclasses.replace(row, shown_size=shown_size(row.size, tokens, factor=factor)) for row in rows]
