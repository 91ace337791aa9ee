"""The layouts in which benchmarks are published: what one record says, before it is checked.

Where each layout was seen stands in docs/reference/benchmarks.md.
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
from lfpc_trl.data.boxes import Layout as BoxLayout
from lfpc_trl.data.choices import split_choices
from lfpc_trl.data.sources import Record, read_records, short
from lfpc_trl.errors import DataError, one_line
from lfpc_trl.json_values import read_json

Placed = Iterator[tuple[str, Record | DataError]]
"""Records, or why one cannot be read, each with its file and row."""

_MAX_REFERENCE = 64
"""Characters up to which VLMEvalKit reads the cell of a picture as the index of another row."""


class Source(NamedTuple):
    """What a record is read with.

    Attributes:
        folder: where paths of pictures start.
        kept: picture files of the rows before it, by index.
        seed: decides on the order of options that are shuffled.
    """

    folder: Path
    kept: Mapping[str, str]
    seed: int


class Item(NamedTuple):
    """A record as its layout reads it.

    Attributes:
        draft: the row to be; its answer is a letter.
        category: the subset.
        order: which of the orders of its options a row shows; None if a question has one row.
        boxes: the column of the boxes, for messages.
        box_layout: what the numbers of the boxes mean.
    """

    draft: Draft
    category: str | None
    order: str | None = None
    boxes: str = ""
    box_layout: BoxLayout = "xyxy"


class Layout(NamedTuple):
    """A layout that is read.

    Attributes:
        needs: columns by which it is recognised; for a folder, the folders in it.
        convert: reads a record; None for our own rows, which have a reader.
        rows: of the published benchmark; None if there is no one benchmark.
    """

    needs: tuple[str, ...]
    convert: Callable[[Record, Source], Item] | None
    rows: int | None = None


# --- multiple choice in a table ----------------------------------------------------------------------


def _from_table(record: Record, source: Source) -> Item:
    """VLMEvalKit's table: `index, question, A, B, ..., answer, category, image`; TreeBench adds boxes."""
    draft = from_choice_table(record, _pictures(record.get("image"), source))
    draft.answer = [_letter(cell(record, "answer"), draft.choices, "answer")]
    return Item(draft, draft.extras.pop("x_category"), boxes="target_instances")


_SUBSETS: Mapping[str | None, str] = {"single": "FSP", "cross": "FCP"}
"""Fine-grained single-instance and cross-instance perception, as the paper names the subsets."""


def _from_hr_bench(record: Record, source: Source) -> Item:
    """The same with `cycle_category`: each question stands in four rows, its options in cyclic orders."""
    item = _from_table(record, source)
    order = cell(record, "cycle_category")
    if order is None:
        raise DataError("cycle_category is missing")
    return item._replace(category=_SUBSETS.get(item.category, item.category), order=order)


def _pictures(images: object, source: Source) -> Place | list[Place]:
    """The picture of a row, or its pictures, as VLMEvalKit lists them, also in a text."""
    found = items_of(images)
    return [_picture(image, source) for image in found] if len(found) > 1 else _picture(images, source)


def _picture(image: object, source: Source) -> Place:
    """A picture as base64, as bytes, as `{bytes, path}`, or as the index of an earlier row; one of them."""
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
    """The letter of the right option. A text might name two options, or be the letter of another one."""
    if not choices:
        raise DataError("A, B, ... must hold the options, got empty cells, and the question lists none")
    letters = ascii_uppercase[: len(choices)]
    found = re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", answer or "")
    if not found or found[1].upper() not in letters:
        raise DataError(f"{name} must be a letter from A to {letters[-1]}, got {short(answer)}")
    return found[1].upper()


# --- V* ----------------------------------------------------------------------------------------------

VSTAR_FOLDERS = ("direct_attributes", "relative_position")
"""The subsets of the benchmark. Further folders of the download (GPT4V-hard, OCR) are no part of it."""


def read_vstar_folders(folder: Path) -> Placed:
    """The JSON files of V*, their pictures beside them."""
    for name in VSTAR_FOLDERS:
        if not (folder / name).is_dir():
            continue
        for _, record in read_vstar(folder / name):
            if isinstance(record, DataError):
                yield str(folder / name), record
            else:
                record["image"] = str(folder / name / record["image"])
                yield str(folder / name / f"{record['id']}.json"), record


def _from_vstar(record: Record, source: Source) -> Item:
    """`question, options, bbox`: the options are shuffled by the seed and the row's own id."""
    category = record["category"]
    draft = from_vstar(record, f"{source.seed}/{category}/{record['id']}")
    return Item(draft, category, boxes="bbox", box_layout="xywh")


def _from_vstar_questions(record: Record, source: Source) -> Item:
    """`image, text, category, label, question_id`: the options stand in the text, in the authors' order.

    The boxes come from the JSON file beside the picture, if it is there.
    """
    text = plain_question(record.get("text"))
    found = split_choices(text)
    if found is None:
        raise DataError(f"text must list its options as (A), (B), ..., got {short(text)}")
    question, choices = found
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
    return Item(draft, category, boxes="bbox", box_layout="xywh")


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


# --- all ---------------------------------------------------------------------------------------------

FOLDER = "vstar"
"""The one layout that is a folder of its own kind."""
ROWS = "rows"
"""Rows of our own, or what a mapping makes of others."""
LAYOUTS = {
    "hr-bench": Layout(
        ("index", "question", "A", "B", "answer", "image", "cycle_category"), _from_hr_bench, 800
    ),
    FOLDER: Layout(VSTAR_FOLDERS, _from_vstar, 191),
    "vstar-questions": Layout(("image", "text", "category", "label"), _from_vstar_questions, 191),
    "treebench": Layout(("index", "question", "answer", "image", "target_instances"), _from_table, 405),
    "vlmevalkit": Layout(("index", "question", "A", "B", "answer", "image"), _from_table),
    ROWS: Layout(("question", "answer", "image"), None),
}
"""The layouts by name. A file is of the first one whose columns it has."""


def read_placed(path: Path) -> Placed:
    """The records of a file, each with its place."""
    return ((f"{path} row {number}", record) for number, record in read_records(path))
