"""The formats that are read: how their records become drafts, and what their boxes count in.

Where each layout was seen stands in docs/reference/converters.md.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lfpc_trl.convert.coco import from_coco, read_coco
from lfpc_trl.convert.drafts import Draft, Layout, Place
from lfpc_trl.convert.label_studio import from_label_studio
from lfpc_trl.convert.text import (
    cell,
    listed_boxes,
    option_columns,
    plain_answers,
    plain_question,
    question_with_choices,
    shuffle_options,
)
from lfpc_trl.convert.verl import from_verl, only_picture
from lfpc_trl.data.sources import Numbered, Record, one_line, read_records, short
from lfpc_trl.errors import DataError
from lfpc_trl.json_values import parse_json


class Format(NamedTuple):
    """A format that is read.

    Attributes:
        convert: makes a draft of a record.
        layout: what the numbers of its boxes mean; None if it has no boxes.
        read: yields the records of a path.
        skip: folders that its picture paths name and that may not exist, see `PictureStore.add_path`.
    """

    convert: Callable[[Record], Draft]
    layout: Layout | None = None
    read: Callable[[Path], Numbered] = read_records
    skip: int = 0


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{name} must be a text, got {short(value)}")
    return value


def _whole(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def from_rows(record: Record) -> Draft:
    """Our own rows; columns that do not exist are refused with the row."""
    targets = record.get("targets")
    if targets is not None:
        first = targets[0] if isinstance(targets, list) and targets else None
        several = isinstance(first, list) and bool(first) and isinstance(first[0], list)
        targets = targets if several else [targets]
    known = ("question", "answer", "image", "choices", "targets", "id", "shown_size")
    answer = record.get("answer")
    return Draft(
        question=record.get("question") or "",
        answer=[answer] if isinstance(answer, str) else answer or [],
        picture=Place(path=_text(record.get("image"), "image")),
        id=record.get("id"),
        choices=record.get("choices"),
        regions=targets,
        upright=True,
        shown_size=record.get("shown_size"),
        extras={name: value for name, value in record.items() if name not in known},
    )


def _open_or_choice(question: object, answer: object, picture: Place, **rest: Any) -> Draft:
    answers = plain_answers(answer)
    text, choices = question_with_choices(plain_question(question), answers)
    return Draft(question=text, answer=answers, choices=choices, picture=picture, **rest)


def from_pixel_reasoner(record: Record) -> Draft:
    """`question, image` (paths), `answer` (boxed texts), `is_video, qid`."""
    if record.get("is_video"):
        raise DataError("a question must be about a picture, got a video")
    picture = only_picture(record.get("image"))
    return _open_or_choice(
        record.get("question"), record.get("answer"), picture, id=_whole(record.get("qid"))
    )


def from_cof(record: Record) -> Draft:
    """Chain-of-Focus: the published Parquet has verl's columns, the JSON behind it names its own."""
    if "groundtruth" not in record:
        return from_verl(record)
    picture = only_picture(record.get("image_name"))
    extras = {"x_source": record.get("data_source")}
    return _open_or_choice(record.get("question"), record["groundtruth"], picture, extras=extras)


def from_thinklite(record: Record) -> Draft:
    """ThinkLite-VL: `id, problem, answer, image` (bytes)."""
    extras = {"x_id": _whole(record.get("id"))}
    picture = only_picture(record.get("image"))
    return _open_or_choice(record.get("problem"), record.get("answer"), picture, extras=extras)


def from_visualprobe(record: Record) -> Draft:
    """Mini-o3's VisualProbe and DeepEyes-4K: `problem, solution, images, data_source, doc_id`."""
    extras = {"x_source": record.get("data_source")}
    picture = only_picture(record.get("images"))
    number = _whole(record.get("doc_id"))
    return _open_or_choice(record.get("problem"), record.get("solution"), picture, id=number, extras=extras)


_REFERRED = re.compile(r"this sentence describes:?\s*(.+)", re.DOTALL | re.IGNORECASE)
LOOK = "Find this in the picture: {}. Answer with the word seen once you see it clearly."
"""What a referring expression becomes. It has a box and no answer in words, so every rollout can answer it,
and the grounding reward alone tells them apart."""


def from_vlm_r1(record: Record) -> Draft:
    """VLM-R1: `problem, solution, image`, or JSON lines with `image, conversations`."""
    picture = only_picture(record.get("image"))
    question, solution = record.get("problem"), record.get("solution")
    talk = record.get("conversations")
    if isinstance(talk, list) and len(talk) == 2 and all(isinstance(turn, dict) for turn in talk):
        question, solution = (turn.get("value") for turn in talk)
    extras = {"x_id": _whole(record.get("id")), "x_source": record.get("dataset")}
    box = _box_in(solution)
    if box is None:
        return _open_or_choice(question, solution, picture, extras=extras)
    found = _REFERRED.search(_text(question, "problem"))
    caption = _whole(record.get("normal_caption")) or plain_question(found[1] if found else question)
    return Draft(
        question=LOOK.format(caption.rstrip(". ")),
        answer=["seen"],
        picture=picture,
        regions=[[box]],
        extras=extras,
    )


def _box_in(solution: object) -> list[Any] | None:
    if isinstance(solution, str):
        try:
            solution = parse_json(solution.replace("<answer>", "").replace("</answer>", ""))
        except ValueError:
            return None
    return solution if isinstance(solution, list) and len(solution) == 4 else None


# --- evaluation sets ---------------------------------------------------------------------------------


def read_vstar(path: Path) -> Numbered:
    """V*: a JSON file beside every picture, in the folders `direct_attributes` and `relative_position`."""
    if not path.is_dir():
        raise DataError(f"{path}: V* is a folder with a JSON file beside every picture")
    for number, file in enumerate(sorted(path.rglob("*.json")), start=1):
        try:
            record = parse_json(file.read_bytes())
        except (ValueError, OSError) as error:
            yield number, DataError(f"{file.name} must be JSON, got {one_line(error)}")
            continue
        pictures = sorted(each for each in file.parent.glob(f"{file.stem}.*") if each.suffix != ".json")
        if not isinstance(record, dict) or len(pictures) != 1:
            yield (
                number,
                DataError(f"{file.name} must be an object with one picture beside it, got {short(record)}"),
            )
            continue
        place = {"category": file.parent.name, "id": file.stem, "image": str(pictures[0].relative_to(path))}
        yield number, record | place


def from_vstar(record: Record, key: str | None = None) -> Draft:
    """`bbox, question, options`: the first option is always the right one, so they are shuffled.

    Args:
        record: with its `id`, `category` and `image`.
        key: decides on the order of the options; the id by default.
    """
    options = record.get("options")
    if not isinstance(options, list) or not 2 <= len(options) <= 26:
        raise DataError(f"options must be a list of 2 to 26 texts, got {short(options)}")
    choices, letter = shuffle_options(options, record["id"] if key is None else key)
    boxes = record.get("bbox")
    if not isinstance(boxes, list | None):
        raise DataError(f"bbox must be a list of boxes, got {short(boxes)}")
    return Draft(
        id=f"{record['category']}/{record['id']}",
        question=_text(record.get("question"), "question"),
        answer=[letter],
        choices=choices,
        picture=Place(path=record["image"]),
        regions=[[box] for box in boxes] if boxes else None,
        extras={"x_category": record["category"]},
    )


def from_treebench(record: Record) -> Draft:
    """`index, image` (base64), `question, A, B, ..., answer, category, target_instances` (boxes, as text)."""
    return from_choice_table(record, Place(base64=_text(record.get("image"), "image")))


def from_choice_table(record: Record, picture: Place) -> Draft:
    """A table of multiple choice as VLMEvalKit reads it; TreeBench adds `target_instances`.

    Where the columns A, B, ... are empty, the options are looked for in TreeBench's column
    `multi-choice options` and in the question. Options that stand in both are taken out of the question.
    """
    answers = plain_answers(record.get("answer"))
    question = _text(record.get("question"), "question").strip()
    hint = cell(record, "hint")
    choices = option_columns(record)
    listed = cell(record, "multi-choice options")
    if not choices and listed is not None:
        choices = question_with_choices(f"{question}\n{listed}", answers)[1] or []
    in_question, parsed = question_with_choices(question, answers)
    if parsed and (not choices or parsed == choices):
        question, choices = in_question, parsed
    boxes = listed_boxes(record, "target_instances")
    return Draft(
        id=cell(record, "index"),
        question=question if hint is None else f"Hint: {hint}\n{question}",
        answer=answers,
        choices=choices or None,
        picture=picture,
        regions=[[box] for box in boxes] if boxes else None,
        extras={"x_category": cell(record, "category")},
    )


FORMATS = {
    "rows": Format(from_rows, "xyxy"),
    "verl": Format(from_verl, "xyxy"),
    "label-studio": Format(from_label_studio, "xywh-100"),
    "deepeyes": Format(from_verl),
    "pixel-reasoner": Format(from_pixel_reasoner),
    "cof": Format(from_cof),
    "thinklite": Format(from_thinklite),
    "visualprobe": Format(from_visualprobe, skip=1),
    "vlm-r1": Format(from_vlm_r1, "xyxy"),
    "coco": Format(from_coco, "xywh", read_coco),
    "vstar": Format(from_vstar, "xywh", read_vstar),
    "treebench": Format(from_treebench, "xyxy"),
}
"""The formats by their names on the command line."""
