"""The layouts in which benchmarks are published: converters from a record to an unchecked row.

docs/reference/benchmarks.md names the source of each layout.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

from lfpc_trl.convert.drafts import Draft, Place
from lfpc_trl.convert.formats import from_choice_table, from_vstar, read_vstar
from lfpc_trl.convert.text import cell, plain_question
from lfpc_trl.convert.verl import items_of, only_of_list, only_picture
from lfpc_trl.data.boxes import BoxLayout
from lfpc_trl.data.choices import split_choices
from lfpc_trl.data.sources import Record, read_records, short
from lfpc_trl.errors import DataError, one_line
from lfpc_trl.json_values import read_json

Placed = Iterator[tuple[str, Record | DataError]]
"""Pairs of (file and row, record or the error that occurred while reading it)."""

_MAX_REFERENCE = 64
"""Maximum length in characters at which VLMEvalKit reads an image cell as the index of another row."""


class Source(NamedTuple):
    """Context for reading a record.

    Attributes:
        folder: picture paths are relative to it.
        kept: picture files of the preceding rows, by index.
        seed: seed of the option shuffle.
    """

    folder: Path
    kept: Mapping[str, str]
    seed: int


class BenchmarkRow(NamedTuple):
    """A benchmark record, converted but not yet checked.

    Attributes:
        draft: the unchecked row; its answer is a letter.
        category: the subset.
        order: which order of its options the row shows; None if a question has only one row.
        boxes: name of the box column, for error messages.
        box_layout: what the four numbers of a box mean.
    """

    draft: Draft
    category: str | None
    order: str | None = None
    boxes: str = ""
    box_layout: BoxLayout = "xyxy"


class BenchmarkLayout(NamedTuple):
    """A supported file layout.

    Attributes:
        needs: columns that identify it; for a folder, its subfolders.
        convert: converts a record; None for our own rows, which have their own reader.
        rows: number of rows of the published benchmark; None if several benchmarks use the layout.
    """

    needs: tuple[str, ...]
    convert: Callable[[Record, Source], BenchmarkRow] | None
    rows: int | None = None


# --- multiple choice in a table ----------------------------------------------------------------------


def _from_table(record: Record, source: Source) -> BenchmarkRow:
    """Convert a row of VLMEvalKit's table: `index, question, A, B, ..., answer, category, image`.

    TreeBench adds boxes.
    """
    draft = from_choice_table(record, _pictures(record.get("image"), source))
    draft.answer = [_letter(cell(record, "answer"), draft.choices, "answer")]
    return BenchmarkRow(draft, draft.extras.pop("x_category"), boxes="target_instances")


_SUBSETS: Mapping[str | None, str] = {"single": "FSP", "cross": "FCP"}
"""The paper's names of the subsets: fine-grained single-instance and cross-instance perception."""


def _from_hr_bench(record: Record, source: Source) -> BenchmarkRow:
    """The same with `cycle_category`: each question has four rows, its options rotated in each."""
    item = _from_table(record, source)
    order = cell(record, "cycle_category")
    if order is None:
        raise DataError("cycle_category is missing")
    return item._replace(category=_SUBSETS.get(item.category, item.category), order=order)


def _pictures(images: object, source: Source) -> Place | list[Place]:
    """Return the picture or pictures of a row; VLMEvalKit stores a list as a list or as text."""
    listed = items_of(images)
    return [_picture(image, source) for image in listed] if len(listed) > 1 else _picture(images, source)


def _picture(image: object, source: Source) -> Place:
    """Return a picture given as base64, bytes, `{bytes, path}` or the index of an earlier row."""
    image = only_of_list(image)
    if not isinstance(image, str) or not image.strip():
        return _inside(image)
    if len(image) > _MAX_REFERENCE:
        return Place(base64=image)
    if image.strip() not in source.kept:
        raise DataError(f"image must be base64, or the index of a good row before it, got {image!r}")
    return Place(path=source.kept[image.strip()])


def _inside(image: object) -> Place:
    place = only_picture(image)
    if place.path is not None:
        raise DataError(f"image must hold the bytes of the picture, got the path {short(place.path)}")
    return place


def _letter(answer: str | None, choices: list[str] | None, name: str) -> str:
    """Return the letter of the right option.

    Option texts are refused: one may match two options, or equal the letter of another.
    """
    if not choices:
        raise DataError("A, B, ... must hold the options, got empty cells, and the question lists none")
    letters = ascii_uppercase[: len(choices)]
    match = re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", answer or "")
    if not match or match[1].upper() not in letters:
        raise DataError(f"{name} must be a letter from A to {letters[-1]}, got {short(answer)}")
    return match[1].upper()


# --- V* ----------------------------------------------------------------------------------------------

VSTAR_FOLDERS = ("direct_attributes", "relative_position")
"""The subsets of the benchmark. Other folders of the download (GPT4V-hard, OCR) are not part of it."""


def read_vstar_folders(folder: Path) -> Placed:
    """Read the JSON files of V*; each picture is in the same folder as its file."""
    for name in VSTAR_FOLDERS:
        if not (folder / name).is_dir():
            continue
        for _, record in read_vstar(folder / name):
            if isinstance(record, DataError):
                yield str(folder / name), record
            else:
                record["image"] = str(folder / name / record["image"])
                yield str(folder / name / f"{record['id']}.json"), record


def _from_vstar(record: Record, source: Source) -> BenchmarkRow:
    """Convert `question, options, bbox`; the seed and the row id determine the order of the options."""
    category = record["category"]
    draft = from_vstar(record, f"{source.seed}/{category}/{record['id']}")
    return BenchmarkRow(draft, category, boxes="bbox", box_layout="xywh")


def _from_vstar_questions(record: Record, source: Source) -> BenchmarkRow:
    """Convert `image, text, category, label, question_id`; the text lists the options in the authors' order.

    The boxes come from the JSON file next to the picture, if there is one.
    """
    text = plain_question(record.get("text"))
    split = split_choices(text)
    if split is None:
        raise DataError(f"text must list its options as (A), (B), ..., got {short(text)}")
    question, choices = split
    category, image = cell(record, "category"), record.get("image")
    boxes = None
    if isinstance(image, str):
        if not Path(image).name:
            raise DataError(f"image must be a path, got {image!r}")
        path = source.folder / image
        name = Path(image).with_suffix("").as_posix()
        place = Place(path=str(path))
        boxes = _boxes_beside(path)
    else:
        name = f"{category}/{cell(record, 'question_id')}"
        place = _inside(image)
    draft = Draft(
        id=name,
        question=question,
        answer=[_letter(cell(record, "label"), choices, "label")],
        choices=choices,
        picture=place,
        regions=[[box] for box in boxes] if boxes else None,
    )
    return BenchmarkRow(draft, category, boxes="bbox", box_layout="xywh")


def _boxes_beside(picture: Path) -> list[object] | None:
    path = picture.with_suffix(".json")
    if not path.is_file():
        return None
    try:
        boxes = read_json(path)["bbox"]
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise DataError(f"{path.name} must be a JSON object with bbox, got {one_line(error)}") from None
    if not isinstance(boxes, list):
        raise DataError(f"bbox must be a list of boxes, got {short(boxes)} in {path.name}")
    return boxes


# --- all layouts -------------------------------------------------------------------------------------

FOLDER = "vstar"
"""The only layout that is a folder of files."""
ROWS = "rows"
"""Our own rows, or columns mapped to them."""
BENCHMARK_LAYOUTS = {
    "hr-bench": BenchmarkLayout(
        ("index", "question", "A", "B", "answer", "image", "cycle_category"), _from_hr_bench, 800
    ),
    FOLDER: BenchmarkLayout(VSTAR_FOLDERS, _from_vstar, 191),
    "vstar-questions": BenchmarkLayout(("image", "text", "category", "label"), _from_vstar_questions, 191),
    "treebench": BenchmarkLayout(
        ("index", "question", "answer", "image", "target_instances"), _from_table, 405
    ),
    "vlmevalkit": BenchmarkLayout(("index", "question", "A", "B", "answer", "image"), _from_table),
    ROWS: BenchmarkLayout(("question", "answer", "image"), None),
}
"""The layouts by name. A file has the first layout whose columns it contains."""


def read_placed(path: Path) -> Placed:
    """Read the records of a file, each with its file and row."""
    return ((f"{path} row {number}", record) for number, record in read_records(path))
