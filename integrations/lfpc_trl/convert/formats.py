"""The supported input formats: how their records become drafts, and the frame of their boxes.

docs/reference/converters.md gives the source of each layout.
"""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lfpc_trl.convert.coco import from_coco, read_coco
from lfpc_trl.convert.drafts import Draft, Place
from lfpc_trl.convert.label_studio import from_label_studio
from lfpc_trl.convert.text import (
    MAX_LISTED,
    cell,
    listed_boxes,
    option_columns,
    plain_answers,
    plain_question,
    question_with_choices,
    shuffle_options,
)
from lfpc_trl.convert.verl import all_pictures, count_of, from_verl, only_of_list
from lfpc_trl.data.boxes import BoxLayout
from lfpc_trl.data.columns import COLUMNS
from lfpc_trl.data.rows import read_columns
from lfpc_trl.data.sources import Numbered, Record, read_records, short
from lfpc_trl.errors import DataError, one_line
from lfpc_trl.json_values import parse_json, read_json


class Format(NamedTuple):
    """A supported input format.

    Attributes:
        convert: makes a draft of a record.
        layout: what the numbers of its boxes mean; None if it has no boxes.
        read: yields the records of a path.
        skip: leading folders of its picture paths that may be missing, see `PictureStore.add_path`.
    """

    convert: Callable[[Record], Draft]
    layout: BoxLayout | None = None
    read: Callable[[Path], Numbered] = read_records
    skip: int = 0


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{name} must be a text, got {short(value)}")
    return value


def _only(images: object) -> object:
    """The item of a list of one."""
    return images[0] if isinstance(images, list) and len(images) == 1 else images


def _whole(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def from_rows(record: Record) -> Draft:
    """Our own rows; a row with unknown columns is rejected."""
    targets = record.get("targets")
    if targets is not None:
        first = targets[0] if isinstance(targets, list) and targets else None
        several = isinstance(first, list) and bool(first) and isinstance(first[0], list)
        targets = targets if several else [targets]
    images = record.get("images")
    listed = isinstance(images, list) and len(images) > 1
    image = _only(images) if record.get("image") is None else record.get("image")
    answer = record.get("answer")
    return Draft(
        question=record.get("question") or "",
        answer=[answer] if isinstance(answer, str) else answer or [],
        picture=[Place(path=_text(each, "image")) for each in images]
        if listed and isinstance(images, list)
        else Place(path=_text(image, "image")),
        id=record.get("id"),
        choices=record.get("choices"),
        regions=targets,
        upright=True,
        shown_size=record.get("shown_sizes") if listed else record.get("shown_size"),
        target_images=record.get("target_images"),
        extras={name: value for name, value in record.items() if name not in COLUMNS},
    )


def _open_or_choice(question: object, answer: object, picture: Place | list[Place], **rest: Any) -> Draft:
    answers = plain_answers(answer)
    text, choices = question_with_choices(plain_question(question, count_of(picture)), answers)
    return Draft(question=text, answer=answers, choices=choices, picture=picture, **rest)


def from_pixel_reasoner(record: Record) -> Draft:
    """`question, image` (paths), `answer` (boxed texts), `is_video, qid`."""
    if record.get("is_video"):
        raise DataError("a question must be about a picture, got a video")
    picture = all_pictures(record.get("image"))
    return _open_or_choice(
        record.get("question"), record.get("answer"), picture, id=_whole(record.get("qid"))
    )


def from_cof(record: Record) -> Draft:
    """Chain-of-Focus: the published Parquet has verl's columns, the JSON behind it names its own."""
    if "groundtruth" not in record:
        return from_verl(record)
    picture = all_pictures(record.get("image_name"))
    extras = {"x_source": record.get("data_source")}
    return _open_or_choice(record.get("question"), record["groundtruth"], picture, extras=extras)


def from_thinklite(record: Record) -> Draft:
    """ThinkLite-VL: `id, problem, answer, image` (bytes)."""
    extras = {"x_id": _whole(record.get("id"))}
    picture = all_pictures(record.get("image"))
    return _open_or_choice(record.get("problem"), record.get("answer"), picture, extras=extras)


def from_visualprobe(record: Record) -> Draft:
    """Mini-o3's VisualProbe and DeepEyes-4K: `problem, solution, images, data_source, doc_id`."""
    extras = {"x_source": record.get("data_source")}
    picture = all_pictures(record.get("images"))
    number = _whole(record.get("doc_id"))
    return _open_or_choice(record.get("problem"), record.get("solution"), picture, id=number, extras=extras)


_REFERRED = re.compile(r"this sentence describes:?\s*(.+)", re.DOTALL | re.IGNORECASE)
_BOX_OF = re.compile(
    r"(?:coordinates?|bounding box(?:es)?|bbox)\s+(?:of|for)\s+(.+?)"
    r"(?:\s+in\s+(?:JSON|the form)\b|[.?!\n]|$)",
    re.IGNORECASE,
)
LOOK = "Find this in the picture: {}. Answer with the word seen once you see it clearly."
"""The question made from a referring expression. It has a box but no answer in words, so every rollout can
answer it and only the grounding reward separates them."""
_SEEN = "Answer with the word seen once you see it clearly."
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_ABOUT_THE_FORM = re.compile(
    r"\b(?:json|coordinates?|bounding box(?:es)?|bbox(?:_2d)?|output|format|report)\b", re.IGNORECASE
)
"""Words of a sentence that only describes the output format."""


def from_vlm_r1(record: Record) -> Draft:
    """VLM-R1: `problem, solution, image`, or JSON lines with `image` (also a list) and `conversations`."""
    picture = all_pictures(record.get("image"))
    question, solution = record.get("problem"), record.get("solution")
    if "conversations" in record:
        question, solution = _question_and_answer(record["conversations"])
    extras = {"x_id": _whole(record.get("id")), "x_source": record.get("dataset")}
    boxes = boxes_in(solution)
    if boxes is None:
        if isinstance(solution, str):
            solution = _ANSWER_TAG.sub("", solution)
        return _open_or_choice(question, solution, picture, extras=extras)
    if not isinstance(picture, Place):
        raise DataError(
            f"boxes must be on one picture, since the format cannot say which, got {len(picture)}"
        )
    return Draft(
        question=_look(plain_question(question), _whole(record.get("normal_caption"))),
        answer=["seen"],
        picture=picture,
        regions=[[box] for box in boxes],
        extras=extras,
    )


def _question_and_answer(talk: object) -> tuple[object, object]:
    turns = [turn for turn in talk if isinstance(turn, dict)] if isinstance(talk, list) else []
    turns = [turn for turn in turns if turn.get("from") != "system"]
    if len(turns) != 2:
        raise DataError(f"conversations must be one question and its answer, got {len(turns)} turns")
    return turns[0].get("value"), turns[1].get("value")


def _look(question: str, caption: str | None) -> str:
    """The question that makes the model look: made from a caption or referring prompt, else the prompt.

    Raises:
        DataError: the prompt only describes the output format.
    """
    found = _REFERRED.search(question) or _BOX_OF.search(question)
    caption = caption or (found[1] if found else None)
    if caption is not None:
        return LOOK.format(caption.strip().rstrip(". "))
    sentences = [each.strip() for each in _SENTENCE.split(question) if not _ABOUT_THE_FORM.search(each)]
    asked = " ".join(filter(None, sentences))
    if not asked:
        raise DataError(f"problem must say what to look for, got {short(question)}")
    return f"{asked}{'' if asked[-1] in '.?!' else '.'} {_SEEN}"


_ANSWER_TAG = re.compile(r"</?answer>")
_FENCE = re.compile(r"```\w*\s*(.*?)\s*```", re.DOTALL)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?")
_NUMBERS = re.compile(r"[(\[][\s\d.,;+\-()\[\]]*[)\]]")
_BOX_WORDS = re.compile(r"bbox|<box>|box_start|bounding box", re.IGNORECASE)


def boxes_in(solution: object) -> list[Any] | None:
    """The boxes in a solution; None if the solution is an answer in words.

    Read are `[x1, y1, x2, y2]`, lists of such boxes, `{"bbox_2d": box}` and lists of these, as values or as
    text, between `<answer>` tags or in a fenced block, and two points `(x1, y1), (x2, y2)`.

    Raises:
        DataError: it looks like boxes but has none of these forms.
    """
    refused = DataError(
        f"solution must be an answer in words, or boxes [x1, y1, x2, y2], got {short(solution)}"
    )
    value, written = solution, False
    if isinstance(solution, str):
        text = _ANSWER_TAG.sub("", solution).strip()
        fence = _FENCE.search(text)
        text = fence[1] if fence else text
        written = fence is None
        value = _value_in(text)
        if value is None and _NUMBERS.fullmatch(text) and len(_NUMBER.findall(text)) >= 4:
            value = [float(number) for number in _NUMBER.findall(text)]
            if len(value) != 4:
                raise refused
        if not isinstance(value, list | dict):
            if fence or _BOX_WORDS.search(text):
                raise refused
            return None
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return None
    if len(value) == 4 and not any(isinstance(each, list | dict | str) for each in value):
        return [value]
    if value and all(isinstance(each, list | dict) for each in value):
        boxes = [_box_of(each) for each in value]
        if all(isinstance(box, list) and len(box) == 4 for box in boxes):
            return boxes
        raise refused
    if (written and value) or (value and all(isinstance(each, str) for each in value)):
        return None  # such as an interval, or several accepted answers
    raise refused


def _value_in(text: str) -> Any:
    """The value of a JSON or Python literal; None for any other text."""
    for read in (parse_json, ast.literal_eval):
        try:
            return read(text) if len(text) <= MAX_LISTED and text[:1] in "[{" else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def _box_of(item: list[Any] | dict[str, Any]) -> Any:
    if isinstance(item, dict):
        return next((item[name] for name in ("bbox_2d", "bbox", "box_2d", "box") if name in item), None)
    return item


# --- evaluation sets ---------------------------------------------------------------------------------


def read_vstar(path: Path) -> Numbered:
    """V*: a JSON file beside every picture, in the folders `direct_attributes` and `relative_position`."""
    if not path.is_dir():
        raise DataError(f"{path}: V* is a folder with a JSON file beside every picture")
    for number, file in enumerate(sorted(path.rglob("*.json")), start=1):
        try:
            record = read_json(file)
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
        key: determines the order of the options; the id by default.
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
    return from_choice_table(record, Place(base64=_text(only_of_list(record.get("image")), "image")))


def from_choice_table(record: Record, picture: Place | list[Place]) -> Draft:
    """A table of multiple choice as VLMEvalKit reads it; TreeBench adds `target_instances`.

    Where the columns A, B, ... are empty, options are read from TreeBench's column `multi-choice options` and
    from the question. Options found in both are removed from the question.
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
    "rows": Format(from_rows, "xyxy", read_columns),
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
"""The formats, by their names on the command line."""
