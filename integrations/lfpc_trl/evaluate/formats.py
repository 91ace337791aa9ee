"""Read published benchmarks from local files and check them before anything is evaluated.

Pictures embedded in a file are extracted to disk, each once, so that rows about the same picture share it.
Only text is kept in memory: the pictures of HR-Bench 8K alone take gigabytes.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable
from pathlib import Path

from lfpc_trl.convert.drafts import Place, as_row_about, original_boxes
from lfpc_trl.convert.pictures import Picture, PictureStore
from lfpc_trl.convert.text import cell
from lfpc_trl.data.columns import Columns
from lfpc_trl.data.frames import frame_warning, read_with_warning, samples_of
from lfpc_trl.data.rows import (
    Boxes,
    Problem,
    Row,
    check_target_images,
    check_targets,
    in_one_line,
    read_columns,
)
from lfpc_trl.data.sources import Record, read_records, short
from lfpc_trl.errors import DataError, not_one_of, one_line
from lfpc_trl.evaluate.layouts import (
    BENCHMARK_LAYOUTS,
    FOLDER,
    ROWS,
    VSTAR_FOLDERS,
    BenchmarkLayout,
    BenchmarkRow,
    Placed,
    Source,
    read_placed,
    read_vstar_folders,
)
from lfpc_trl.evaluate.questions import Benchmark, Question
from lfpc_trl.pictures.originals import check_picture, read_header

_DIGITS = 12
"""Length of a question id in hexadecimal digits."""


def read_benchmark(
    path: str | Path,
    *,
    pictures: str | Path,
    name: str | None = None,
    layout: str | None = None,
    columns: Columns | None = None,
    boxes: str | Path | None = None,
    seed: int = 0,
) -> Benchmark:
    """Read and check a benchmark. Every row is checked before the first error is raised.

    Args:
        path: a file, or the folder of V*.
        pictures: folder for the pictures embedded in the file. They are written byte for byte and named by a
            hash of their content; existing files are not written again.
        name: name of the benchmark; by default the file name without its suffix.
        layout: a name from `BENCHMARK_LAYOUTS`; by default detected from the columns.
        columns: column names, if our columns have other names in the file; the layout is then `rows`.
        boxes: a file of records with `targets` and one of `index`, `id` (a row) and `question_id`. They
            replace the boxes of the benchmark itself.
        seed: seed for the order of V*'s options, whose files list the right one first.

    Returns:
        The questions, grouped by picture, and notes on what is incomplete; a warning if the boxes of our own
        rows or of `boxes` do not seem to be in pixels. The units of the other layouts are known.

    Raises:
        DataError: "FILE row N: rule, got X" for the first problem, with the number of further ones; or the
            layout cannot be detected.
    """
    path = Path(path)
    chosen, records = _open(path, layout if columns is None else layout or ROWS)
    notes: list[str] = []
    warning: Problem | None = None
    if BENCHMARK_LAYOUTS[chosen].convert is None:
        rows, warning = read_with_warning(path, columns=columns)
        questions = _own_questions(rows)
    else:
        reader = _Reader(BENCHMARK_LAYOUTS[chosen], path, Path(pictures), seed)
        questions, notes = reader.read(records)
    if chosen == FOLDER:
        notes += [f"{path}: folder {each} is missing" for each in VSTAR_FOLDERS if not (path / each).is_dir()]
    if boxes is not None:
        questions, note = _with_boxes(questions, Path(boxes))
        notes += note
        warning = frame_warning(boxes, samples_of(question.row for question in questions), rows=False)
    if name is None:
        name = path.resolve().name if path.is_dir() else path.stem
    return Benchmark(name, tuple(_group_by_picture(questions)), tuple(notes), warning)


# --- detecting the layout ----------------------------------------------------------------------------


def _open(path: Path, layout: str | None) -> tuple[str, Placed]:
    """Return the name of the layout and an iterator over the records."""
    if layout is not None and layout not in BENCHMARK_LAYOUTS:
        raise DataError(not_one_of("layout", layout, BENCHMARK_LAYOUTS))
    if path.is_dir():
        if layout in (None, FOLDER) and any((path / each).is_dir() for each in VSTAR_FOLDERS):
            return FOLDER, read_vstar_folders(path)
        if layout == ROWS or (layout is None and _holds_rows(path)):
            return ROWS, iter(())
        entries = sorted(each.name for each in path.iterdir())
        raise DataError(
            f"{path}: unknown layout. A folder must be V*, with {' and '.join(VSTAR_FOLDERS)}, or hold rows; "
            f"for other benchmarks, name the file itself. Found: {_listed(entries)}"
        )
    if layout == ROWS:
        return ROWS, iter(())
    records = read_placed(path)
    consumed: list[tuple[str, Record | DataError]] = []
    for place, record in records:
        consumed.append((place, record))
        if isinstance(record, dict):
            return _layout_of(path, list(record), layout), itertools.chain(consumed, records)
    if consumed:
        raise DataError(in_one_line([Problem(place, str(reason)) for place, reason in consumed]))
    raise DataError(f"{path}: the file holds no rows")


def _holds_rows(folder: Path) -> bool:
    """Whether the first record in a folder has the columns of our rows."""
    try:
        records = (record for _, record in read_columns(folder))
        columns = next((list(record) for record in records if isinstance(record, dict)), [])
        return _layout_of(folder, columns, None) == ROWS
    except DataError:
        return False


def _layout_of(path: Path, columns: list[str], layout: str | None) -> str:
    for name, each in BENCHMARK_LAYOUTS.items():
        # An option table with a missing column must not be taken for a file of our rows.
        foreign = each.convert is None and "A" in columns
        present = {*columns, "image"} if each.convert is None and "images" in columns else set(columns)
        if name == (layout or name) and not foreign and set(each.needs) <= present:
            return name
    needs = "; ".join(
        f"{name} needs {', '.join(each.needs)}"
        for name, each in BENCHMARK_LAYOUTS.items()
        if name == (layout or name)
    )
    raise DataError(f"{path}: unknown layout. Columns: {_listed(columns)}. {needs}")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "nothing"


# --- rows --------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Group:
    """The rows of one question.

    Attributes:
        right: text of the right option.
        size: number of options, which is also the number of their cyclic orders.
        orders: each order, with the row that has it.
    """

    right: str
    size: int
    orders: dict[str, str] = dataclasses.field(default_factory=dict)


class _Reader:
    """Converts the records of one benchmark to questions."""

    def __init__(self, layout: BenchmarkLayout, path: Path, pictures: Path, seed: int) -> None:
        self._layout = layout
        self._path = path
        self._folder = pictures.absolute()
        self._store = PictureStore(self._folder.parent, self._folder, below=self._folder.name)
        self._seen: dict[bytes, Picture] = {}
        self._kept: dict[str, str] = {}
        self._source = Source(path.parent, self._kept, seed)
        self._first_use: dict[str, str] = {}
        self._groups: dict[str, _Group] = {}

    def read(self, records: Placed) -> tuple[list[Question], list[str]]:
        """Return the questions, and notes on what is incomplete.

        Raises:
            DataError: a record breaks a rule.
        """
        assert self._layout.convert is not None
        problems: list[Problem] = []
        questions: list[Question] = []
        for place, record in records:
            try:
                if isinstance(record, DataError):
                    raise record
                questions.append(self._question(self._layout.convert(record, self._source), place))
            except DataError as error:
                problems.append(Problem(place, str(error)))
        if problems:
            raise DataError(in_one_line(problems))
        if not questions:
            raise DataError(f"{self._path}: no rows found")
        return questions, self._notes(len(questions))

    def _question(self, item: BenchmarkRow, place: str) -> Question:
        row = self._row(item, place)
        if row.id in self._first_use:
            raise DataError(f"the id must be unique, got {row.id!r} as in {self._first_use[row.id]}")
        question_id = row.id if item.order is None else self._add_order(row, item.order, place)
        self._first_use[row.id] = place
        self._kept[row.id] = str(row.image)
        return Question(row, question_id, item.category)

    def _row(self, item: BenchmarkRow, place: str) -> Row:
        draft = item.draft
        if draft.id is None:
            raise DataError("index is missing")
        places = [draft.picture] if isinstance(draft.picture, Place) else draft.picture
        pictures = [self._picture(each) for each in places]
        without_boxes = dataclasses.replace(draft, regions=None)
        row = as_row_about(without_boxes, pictures, self._folder.parent, layout=item.box_layout, name="")
        regions: tuple[Boxes, ...] | None = None
        target_images: tuple[int, ...] = ()
        if draft.regions is not None:
            images = draft.target_images
            try:
                numbers = check_target_images(images, len(draft.regions), len(pictures))
                pixels = [
                    original_boxes(region, item.box_layout, pictures[number - 1], upright=False).tolist()
                    for region, number in zip(draft.regions, numbers, strict=True)
                ]
                sizes = [each.size for each in row.pictures]
                regions, target_images = check_targets(pixels, sizes, images)
            except DataError as error:
                raise DataError(f"{item.boxes}: {error}") from None
        return dataclasses.replace(row, regions=regions, target_images=target_images, place=place)

    def _picture(self, place: Place) -> Picture:
        """Return the file of a picture: embedded pictures are written to disk, files stay where they are.

        The rows of a question repeat their picture; decoding and checking it once halves the time.
        """
        text = place.path or place.base64
        key = None if text is None else hashlib.sha256(text.encode(errors="surrogatepass")).digest()
        if key is not None and key in self._seen:
            return self._seen[key]
        if place.base64 is not None:
            picture = self._store.add_base64(place.base64)
        elif place.path is not None:
            picture = _picture_at(Path(place.path).absolute())
        else:
            picture = self._store.add_bytes(place.data or b"")
        if key is not None:
            self._seen[key] = picture
        return picture

    def _add_order(self, row: Row, order: str, place: str) -> str:
        """Record the option order of a row and return the id of its question.

        Rows belong to the same question if they have the same picture, text and options, in any order.
        """
        choices = row.choices or ()
        names = [picture.image.name for picture in row.pictures]
        key = "\0".join([*names, row.question, *sorted(choices)])
        question_id = hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]
        right = choices[ord(row.answer[0]) - ord("A")]
        group = self._groups.setdefault(question_id, _Group(right, len(choices)))
        if order in group.orders:
            raise DataError(
                f"cycle_category must differ between the rows of a question, got {order!r} as in"
                f" {group.orders[order]}"
            )
        if right != group.right:
            first = next(iter(group.orders.values()))
            raise DataError(
                f"answer must be the same option in all rows of a question, got {short(right)} and"
                f" {short(group.right)} in {first}"
            )
        group.orders[order] = place
        return question_id

    def _notes(self, rows: int) -> list[str]:
        notes = []
        if self._layout.rows is not None and rows != self._layout.rows:
            notes.append(f"{self._path}: {rows} rows, the published benchmark has {self._layout.rows}")
        incomplete = [group for group in self._groups.values() if len(group.orders) < group.size]
        if incomplete:
            first = next(iter(incomplete[0].orders.values()))
            notes.append(
                f"{self._path}: {len(incomplete)} of {len(self._groups)} questions have fewer rows than"
                f" options, so some orders are missing; the first is in {first}"
            )
        return notes


def _picture_at(path: Path) -> Picture:
    try:
        return Picture(str(path), check_picture(path), read_header(path))
    except FileNotFoundError:
        raise DataError(f"image must exist, got {str(path)!r}") from None
    except Exception as error:  # Pillow's decoders raise arbitrary exceptions on damaged files
        raise DataError(f"image must be readable, got {str(path)!r} ({one_line(error)})") from None


def _own_questions(rows: Iterable[Row]) -> list[Question]:
    questions, problems = [], []
    for row in rows:
        try:
            question_id = cell(row.extras, "x_question") or row.id
            questions.append(Question(row, question_id, cell(row.extras, "x_category")))
        except DataError as error:
            problems.append(Problem(row.name, str(error)))
    if problems:
        raise DataError(in_one_line(problems))
    return questions


def _group_by_picture(questions: Iterable[Question]) -> list[Question]:
    """Move rows that share a picture next to the first of them, so that it is decoded once."""
    by_picture: dict[Path, list[Question]] = {}
    for question in questions:
        by_picture.setdefault(question.row.image, []).append(question)
    return [question for rows in by_picture.values() for question in rows]


# --- boxes from a separate file ----------------------------------------------------------------------

_Regions = tuple[tuple[Boxes, ...], tuple[int, ...]]
"""`Row.regions` and `Row.target_images`."""
_ROW, _QUESTION = ("index", "id"), "question_id"


def _with_boxes(questions: list[Question], path: Path) -> tuple[list[Question], list[str]]:
    """Return the questions with the targets of a file, and a note if some have none.

    Targets of a row also apply to the other rows of its question about the same picture, unless the file has
    targets for those rows.
    """
    by_row = {question.row.id: [question] for question in questions}
    by_question: dict[str, list[Question]] = {}
    for question in questions:
        by_question.setdefault(question.question_id, []).append(question)
    own: dict[str, _Regions] = {}
    shared: dict[tuple[str, Path], _Regions] = {}
    implied: dict[tuple[str, Path], _Regions] = {}
    first_use: dict[tuple[bool, str], str] = {}
    problems: list[Problem] = []
    for number, record in read_records(path):
        place = f"{path} row {number}"
        try:
            if isinstance(record, DataError):
                raise record
            name, key = _id_of(record)
            matching = (by_question if name == _QUESTION else by_row).get(key)
            if matching is None:
                raise DataError(f"{name} must be of a row in the benchmark, got {key!r}")
            if (first := first_use.setdefault((name == _QUESTION, key), place)) != place:
                raise DataError(f"{name} must be unique, got {key!r} as in {first}")
            for question in matching:
                sizes = [picture.size for picture in question.row.pictures]
                regions = check_targets(record.get("targets"), sizes, record.get("target_images"))
                if name == _QUESTION:
                    shared[_question_and_picture(question)] = regions
                else:
                    own[question.row.id] = regions
                    implied.setdefault(_question_and_picture(question), regions)
        except DataError as error:
            problems.append(Problem(place, str(error)))
    if problems:
        raise DataError(in_one_line(problems))
    regions_of = [
        own.get(question.row.id)
        or shared.get(_question_and_picture(question))
        or implied.get(_question_and_picture(question))
        for question in questions
    ]
    completed = [
        question
        if regions is None
        else dataclasses.replace(
            question, row=dataclasses.replace(question.row, regions=regions[0], target_images=regions[1])
        )
        for question, regions in zip(questions, regions_of, strict=True)
    ]
    bare = [question.row for question in completed if question.row.regions is None]
    note = f"{path}: {len(bare)} of {len(completed)} rows have no targets, the first is " if bare else ""
    return completed, [note + bare[0].name] if bare else []


def _id_of(record: Record) -> tuple[str, str]:
    """Return the id column that an entry uses, and its value."""
    names = [name for name in (*_ROW, _QUESTION) if cell(record, name) is not None]
    if len(names) != 1:
        got = " and ".join(names) or "none"
        raise DataError(f"an entry must have one of index, id and question_id, got {got}")
    return names[0], cell(record, names[0]) or ""


def _question_and_picture(question: Question) -> tuple[str, Path]:
    return question.question_id, question.row.image
