"""Rows: one question about one picture or several, read from files and checked before anything is trained.

| column | value |
|---|---|
| `question` | text |
| `answer` | text, or a list of accepted texts |
| `image` | path of the original, relative to the data file |
| `images` | list of such paths instead, for a question about several pictures |
| `choices` | optional list of option texts, shown as A, B, C, ... |
| `targets` | optional nested boxes, inner to outer, `[x1, y1, x2, y2]` in pixels of the original (after its EXIF rotation); or a list of such regions for a question about several objects |
| `target_images` | where there are several pictures: the number of the picture of each region, from 1 |
| `id` | optional text or whole number, unique; the row number otherwise |
| `shown_size` | optional `[width, height]` at which the picture is shown; `lfpc select-resolution` writes it |
| `shown_sizes` | where there are several pictures: a list of such sizes, one for each |

Columns that `lfpc select-resolution` adds and columns whose name starts with `x_` are carried along.
"""  # noqa: E501 - a table row cannot be wrapped

import contextlib
import dataclasses
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
from lfpc_trl.data.boxes import BOX_LAYOUTS, Sample, in_pixels, likely_layout
from lfpc_trl.data.columns import (
    COLUMNS,
    NEEDED,
    OTHER_NAMES,
    Columns,
    as_option,
    has_needed,
    listed,
    recognised,
    without_index,
)
from lfpc_trl.data.files import data_files
from lfpc_trl.data.sources import TABLES, Record, read_records
from lfpc_trl.errors import DataError, nearest, one_line
from lfpc_trl.files import atomic_file
from lfpc_trl.json_values import json_problem
from lfpc_trl.pictures.crops import MAX_CROP_ASPECT
from lfpc_trl.pictures.inside import embedded_path
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


class Picture(NamedTuple):
    """One picture of a row.

    Attributes:
        image: absolute path of the original.
        size: (width, height) of the original after EXIF rotation.
        shown_size: (width, height) at which the model sees the picture; None until it is chosen.
    """

    image: Path
    size: Size
    shown_size: Size | None = None


class Target(NamedTuple):
    """One region that a question is about.

    Attributes:
        boxes: (n, 4) nested boxes, inner to outer, pixels of the original.
        image: the number of the picture that it is on, from 1.
    """

    boxes: Boxes
    image: int


@dataclasses.dataclass(frozen=True, eq=False, slots=True)  # slots: there may be many rows
class Row:
    """One question, checked.

    What handles rows reads `pictures` and `targets`. Beside them stands the short form for one picture, as in
    files: `image`, `size` and `shown_size` are those of the first picture.

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
        others: the pictures behind the first.
        target_images: the number of each region's picture, from 1; empty where all are on the first.
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
    others: tuple[Picture, ...] = ()
    target_images: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """How error messages call the row."""
        return self.place or f"row {self.id}"

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures, in the order in which they are shown; picture 1 is the first."""
        return (Picture(self.image, self.size, self.shown_size), *self.others)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The regions with the picture that each is on; empty where the row has no targets."""
        regions = self.regions or ()
        images = self.target_images or (1,) * len(regions)
        return tuple(map(Target, regions, images))

    @property
    def shown_sizes(self) -> tuple[Size, ...] | None:
        """The size at which each picture is shown; None until they are chosen."""
        sizes = [picture.shown_size for picture in self.pictures]
        known = tuple(size for size in sizes if size is not None)
        return known if len(known) == len(sizes) else None

    def shown_at(self, sizes: Sequence[Size]) -> "Row":
        """The row with its pictures shown at these sizes, one for each."""
        first, *rest = sizes
        others = tuple(
            picture._replace(shown_size=size) for picture, size in zip(self.others, rest, strict=True)
        )
        return dataclasses.replace(self, shown_size=first, others=others)


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
    picture_size = functools.lru_cache(_REMEMBERED)(_picture_size)  # rows about one picture stand together
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
        targets, images = raw.get("targets"), _images_of(raw)
        if columns is None or columns.layout is None or images is None or not isinstance(targets, list):
            return raw
        numbers = _target_images(raw.get("target_images"), len(targets), len(images))
        sizes = [picture_size((folder / image).absolute()) for image in images]
        raw["targets"] = [
            in_pixels(region, columns.layout, sizes[number - 1]).tolist()
            for region, number in zip(targets, numbers or (1,) * len(targets), strict=True)
        ]
    except DataError as error:
        raise _RuleError(str(error)) from None
    return raw


def _images_of(raw: Record) -> list[str] | None:
    """The paths of a row of which nothing is checked yet; None if they are none."""
    images = raw.get("images") if raw.get("image") is None else [raw["image"]]
    if isinstance(images, list) and images and all(isinstance(image, str) for image in images):
        return images
    return None


def check_row(
    record: dict[str, Any],
    folder: Path,
    size: Size | Sequence[Size] | None = None,
    *,
    number: int = 1,
    require_targets: bool = False,
) -> Row:
    """Check one row that stands in no file yet, by the rules of `read_rows`.

    Args:
        record: its columns; the image's path is relative to `folder`.
        folder: where the file would be.
        size: of the picture, or of each of several, if it is known already; read otherwise.
        number: the row's number, its id where it has none.
        require_targets: refuse a row without `targets`.

    Raises:
        DataError: "rule, got X" for the first rule that it breaks, without the file and the row.
    """
    broken: list[str] = []
    row = _check_row(record, str(number), folder, _known_sizes(size), broken, require_targets=require_targets)
    if row is None:
        raise DataError(broken[0])
    return row


def row_problems(record: dict[str, Any], folder: Path, size: Size | Sequence[Size]) -> list[str]:
    """Every rule that one row breaks, each as "rule, got X"; the arguments are those of `check_row`."""
    broken: list[str] = []
    _check_row(record, "1", folder, _known_sizes(size), broken, require_targets=False)
    return broken


def _known_sizes(size: Size | Sequence[Size] | None) -> Callable[[Path], Size]:
    """Gives the sizes of a row's pictures in their order; without sizes it reads them."""
    if size is None:
        return _picture_size
    sizes = iter(_sizes_in(size))
    return lambda _: next(sizes)


def _sizes_in(size: Size | Sequence[Size]) -> Sequence[Size]:
    """The sizes of a row's pictures, given as a list or, of one picture, without the list around it."""
    return cast("Sequence[Size]", [size] if isinstance(size[0], int) else size)


def check_targets(
    value: object, size: Size | Sequence[Size], images: object = None
) -> tuple[tuple[Boxes, ...], tuple[int, ...]]:
    """Check the columns `targets` and `target_images` alone.

    Args:
        value: the column `targets`.
        size: of the picture, or of each of several.
        images: the column `target_images`.

    Returns:
        `Row.regions` and `Row.target_images`.

    Raises:
        DataError: "rule, got X" for every bad box, with semicolons between them.
    """
    try:
        return _regions(value, _sizes_in(size), images)
    except _RuleError as error:
        raise DataError("; ".join(error.args)) from None


def check_target_images(value: object, regions: int, pictures: int) -> tuple[int, ...]:
    """Check the column `target_images` alone; the number of each region's picture.

    Raises:
        DataError: "rule, got X".
    """
    try:
        return _target_images(value, regions, pictures) or (1,) * regions
    except _RuleError as error:
        raise DataError(str(error)) from None


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
    return embedded_path(file.absolute(), number, column) if data else path


def mapped(record: Record, columns: Columns | None) -> Record:
    """The columns of a row in a record; lists that a table holds as text are lists.

    Raises:
        DataError: a column that is mapped is not there.
    """
    found = record if columns is None else columns.record(record)
    lists = ("choices", "images", "targets", "target_images", "shown_size", "shown_sizes")
    return {name: listed(value) if name in lists else value for name, value in found.items()}


def _check_names(path: Path, first: _Found, records: Iterable[_Found]) -> None:
    """Refuse a data set whose columns have other names, with the mapping that they seem to need.

    Raises:
        DataError: all columns that a row needs can be told by their names.
    """
    if isinstance(first.record, DataError) or has_needed(first.record):
        return
    places = recognised(first.record)
    if not has_needed(places):
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


_REMEMBERED = 1024
"""Pictures whose size is remembered while rows are read: not all, each row may have its own. Our choice."""
_LOOKED_AT = 100
"""Records whose boxes are looked at to tell what they count in. Our choice."""


def _guessed_samples(found: Iterable[_Found], places: Mapping[str, str]) -> list[Sample]:
    named = [name for name in ("image", "images", "targets") if name in places]
    guess = Columns({name: (places[name],) for name in named}, BOX_LAYOUTS[0])
    samples: list[Sample] = []
    for file, _, record in found:
        with contextlib.suppress(DataError):
            raw = mapped({} if isinstance(record, DataError) else record, guess)
            samples += _samples(raw, file.parent, _picture_size)
    return samples


def _samples(raw: dict[str, Any], folder: Path, picture_size: Callable[[Path], Size]) -> list[Sample]:
    """The innermost boxes of a row of which nothing is checked yet: those that can be read."""
    targets, images = raw.get("targets"), _images_of(raw)
    if not isinstance(targets, list) or not targets or images is None:
        return []
    regions = targets if _are_several(targets) else [targets]
    try:
        numbers = _target_images(raw.get("target_images"), len(regions), len(images))
        sizes = [picture_size((folder / image).absolute()) for image in images]
    except (_RuleError, ValueError):  # a path with a NUL
        return []
    return [
        Sample(region[0], sizes[number - 1])
        for region, number in zip(regions, numbers or (1,) * len(regions), strict=True)
        if isinstance(region, list) and region and _is_box(region[0])
    ]


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
            if name not in given and not (name == "image" and "images" in given):
                raise _RuleError(f"{name} is missing")
    question, identifier, regions = "", default_id, None
    choices: tuple[str, ...] | None = None
    answer: tuple[str, ...] = ()
    pictures: list[Picture] = []
    numbers: tuple[int, ...] = ()
    with _collected(broken):
        question = _text(given.get("question", "-"), "question")
    with _collected(broken):
        if "image" in given or "images" in given:
            pictures = _pictures(given, folder, picture_size)
    with _collected(broken):
        if "targets" in given and pictures:
            sizes = [picture.size for picture in pictures]
            regions, numbers = _regions(given["targets"], sizes, given.get("target_images"))
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
        shown = _shown_sizes(given, len(pictures))
        pictures = [each._replace(shown_size=size) for each, size in zip(pictures, shown, strict=False)]
    if broken or not pictures:
        return None
    image, size, shown_as = pictures[0]
    return Row(
        id=identifier,
        question=question,
        answer=answer,
        choices=choices,
        image=image,
        size=size,
        regions=regions,
        shown_size=shown_as,
        extras={name: given[name] for name in carried if name in given},
        others=tuple(pictures[1:]),
        target_images=numbers,
    )


def _pictures(given: Mapping[str, Any], folder: Path, picture_size: Callable[[Path], Size]) -> list[Picture]:
    """The pictures of a row, without the sizes at which they are shown."""
    if "image" in given and "images" in given:
        raise _RuleError("a row has image or images, got both")
    listed = [given["image"]] if "image" in given else given["images"]
    if not isinstance(listed, list) or not listed:
        raise _RuleError(f"images must be a list of paths, got {_short(listed)}")
    found: list[Picture] = []
    broken: list[str] = []
    for value in listed:
        try:
            image = (folder / _text(value, "image")).absolute()
            size = picture_size(image)
            _check_aspect("image", size)
            found.append(Picture(image, size))
        except _RuleError as error:
            broken += error.args
    if broken:
        raise _RuleError(*dict.fromkeys(broken))
    return found


def _check_column(name: str, value: object, *, known: bool) -> None:
    """Refuse an unknown column, with the one that was probably meant, and a value that JSON cannot keep."""
    wanted = json_problem(name)
    if wanted is not None:
        raise _RuleError(f"the name of a column must be {wanted}, got {_short(name)}")
    plain = name.lower()
    if not known and plain in _CONVERSATIONS:
        raise _RuleError(
            f"unknown column {name!r}: a row holds 'question' and 'answer', no conversation; 'lfpc convert' "
            "makes rows of the formats that it knows"
        )
    if not known:
        meant = (ours for ours, others in OTHER_NAMES.items() if plain in others)
        near = next(meant, None) or nearest(plain, COLUMNS)
        hint = f" (did you mean {near!r}?)" if near else ""
        raise _RuleError(f"unknown column {name!r}{hint}; a column to carry along starts with 'x_'")
    wanted = json_problem(value)
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


def _shown_sizes(given: Mapping[str, Any], pictures: int) -> list[Size] | list[None]:
    """The size at which each picture is shown, or None for each."""
    if "shown_size" in given and "shown_sizes" in given:
        raise _RuleError("a row has shown_size or shown_sizes, got both")
    sizes = given.get("shown_sizes")
    if "shown_size" in given:
        sizes = [given["shown_size"]]
    if sizes is None:
        return [None] * pictures
    if not isinstance(sizes, list):
        raise _RuleError(f"shown_sizes must be a list of sizes, one for each image, got {_short(sizes)}")
    found = [_shown(size) for size in sizes]
    if pictures and len(found) != pictures:
        raise _RuleError(f"shown_sizes must have one size for each image, got {len(found)} for {pictures}")
    return found


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


def _regions(
    value: object, sizes: Sequence[Size], images: object = None
) -> tuple[tuple[Boxes, ...], tuple[int, ...]]:
    """The regions, and the picture of each; see `Row.target_images`.

    One region is a list of boxes, several are a list of such lists: the depth tells.
    """
    shape_rule = "targets must be a list of boxes [x1, y1, x2, y2], inner to outer, or a list of such lists"
    if not isinstance(value, list) or not value:
        raise _RuleError(f"{shape_rule}, got {_short(value)}")
    regions = value if _are_several(value) else [value]
    if not all(isinstance(region, list) and region for region in regions):
        raise _RuleError(f"{shape_rule}, got {_short(value)}")
    no_lists = [box for box in itertools.chain(*regions) if not isinstance(box, list)]
    if no_lists:  # the numbers of a flat box are not four bad boxes
        raise _RuleError(f"{shape_rule}, got {_short(no_lists[0])}")
    numbers = _target_images(images, len(regions), len(sizes))
    broken: list[str] = []
    for region, number in zip(regions, numbers or (1,) * len(regions), strict=True):
        for box in region:
            with _collected(broken):
                if not _is_box(box):
                    raise _RuleError(f"{shape_rule}, got {_short(box)}")
                _check_target(box, sizes[number - 1])
    if broken:  # how such boxes lie to each other says nothing
        raise _RuleError(*dict.fromkeys(broken))
    found = tuple(np.array(region, dtype=np.float64) for region in regions)
    for region in found:
        for inner, outer in itertools.pairwise(region):
            with _collected(broken):
                _check_nested(inner, outer)
    if broken:
        raise _RuleError(*broken)
    return found, numbers


def _target_images(value: object, regions: int, pictures: int) -> tuple[int, ...]:
    """The number of each region's picture; empty where there is one picture and nothing is said."""
    if value is None:
        if pictures > 1:
            raise _RuleError(f"target_images are needed: each target is on one of the {pictures} images")
        return ()
    numbers: list[Any] = value if isinstance(value, list) else [value] * regions
    if len(numbers) != regions:
        raise _RuleError(
            f"target_images must have one number for each region of targets, got {len(numbers)} for {regions}"
        )
    for number in numbers:
        if not _is_number(number) or number != int(number) or not 1 <= number <= pictures:
            raise _RuleError(
                f"target_images must be whole numbers from 1 to {pictures}, the number of images, "
                f"got {_short(number)}"
            )
    return tuple(map(int, numbers))


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
    """A row as plain JSON values; image paths relative to `folder`, or the files' names alone without one."""
    images = [
        picture.image.name if folder is None else Path(os.path.relpath(picture.image, folder)).as_posix()
        for picture in row.pictures
    ]
    several = len(images) > 1
    record: dict[str, Any] = {
        "id": row.id,
        "question": row.question,
        "answer": list(row.answer),
        "images" if several else "image": one_or_all(images),
    }
    if row.choices is not None:
        record["choices"] = list(row.choices)
    if row.regions is not None:
        record["targets"] = [region.tolist() for region in row.regions]
    if row.regions is not None and several:
        record["target_images"] = [target.image for target in row.targets]
    if row.shown_sizes is not None:
        record["shown_sizes" if several else "shown_size"] = one_or_all(list(map(list, row.shown_sizes)))
    return record | row.extras


def one_or_all(values: Sequence[Any]) -> Any:
    """What is written about the pictures of a row: the value of one picture alone, the list of several.

    Example:
        >>> one_or_all(["a.png"]), one_or_all(["a.png", "b.png"])
        ('a.png', ['a.png', 'b.png'])
    """
    return values[0] if len(values) == 1 else values


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
        with atomic_file(path) as draft:
            parquet.write_table(table, draft)
        return
    with atomic_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def rows_digest(rows: Sequence[Row]) -> str:
    """SHA-256 over what a training reads of its rows; without folders, so that a data set may move."""
    digest = hashlib.sha256()
    for row in rows:
        sizes = one_or_all([picture.size for picture in row.pictures])
        digest.update(json.dumps(as_record(row) | {"size": sizes}, sort_keys=True).encode())
    return digest.hexdigest()


def with_shown_tokens(rows: Sequence[Row], tokens: int, *, factor: int) -> list[Row]:
    """Every row shown at the same budget of visual tokens, in place of resolution selection."""
    return [
        row.shown_at([shown_size(picture.size, tokens, factor=factor) for picture in row.pictures])
        for row in rows
    ]
