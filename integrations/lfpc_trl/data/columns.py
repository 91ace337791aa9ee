"""Column mappings: where a data set keeps what our rows call question, answer, image.

A mapping is written as `question=problem answer=solution image=images.0 targets=bbox:xywh`. After `=` comes
the path of the value: a column and, after dots, keys or indices inside it (`objects.bbox`,
`conversations.1.value`).
"""

import ast
import dataclasses
import itertools
import re
import shlex
from collections.abc import Iterable, Mapping
from string import ascii_uppercase
from typing import Any

from lfpc_trl.data.boxes import BOX_LAYOUTS, BoxLayout
from lfpc_trl.data.sources import Record, short
from lfpc_trl.errors import DataError, UserError, did_you_mean, not_one_of
from lfpc_trl.json_values import parse_json

COLUMNS = (
    *("question", "answer", "image", "images", "choices", "targets", "target_images"),
    *("id", "shown_size", "shown_sizes"),
)
"""The columns of a row that training reads."""
NEEDED = ("question", "answer", "image", "images")
"""Required columns; of the last two, one."""
IMAGE_TOKEN = "<image>"
"""The placeholder of a picture in many data sets."""
INDEX = "index"
"""As in `answer=label:index`: the answer is the index of an option, from 0."""
_PANDAS = re.compile(r"|Unnamed: \d+(?:\.\d+)*|__index_level_\d+__")
"""Index columns that pandas adds; in a CSV file the name is empty."""
_ANSWER_TAG = re.compile(r".*<answer>(.*)</answer>\s*", re.DOTALL)
_MAX_LISTED = 100_000
"""Most characters of a list in a cell: parsing it builds a tree. Our choice."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """A mapping from the columns of a row to paths in the records of a data set.

    Attributes:
        places: paths by the row's column; several only for `choices` spread over columns.
        layout: what the numbers of `targets` mean, if the mapping says so; each box of a list is then an
            object of its own. Otherwise the column is read like `targets`.
        by_index: whether the answer is the index of an option, from 0.
    """

    places: Mapping[str, tuple[str, ...]]
    layout: BoxLayout | None = None
    by_index: bool = False

    def record(self, found: Record) -> Record:
        """A record with the columns of a row; columns that are neither mapped nor a row's are dropped.

        Raises:
            DataError: a required column is missing, or cannot be read as mapped.
        """
        kept = {name: value for name, value in found.items() if name in COLUMNS or name.startswith("x_")}
        if {"image", "images"} & set(self.places):  # a mapped column replaces both
            kept = {name: value for name, value in kept.items() if name not in ("image", "images")}
        row = kept | {name: self._value(name, found) for name in self.places}
        if "question" in self.places and isinstance(row["question"], str):
            images = row.get("images")
            row["question"] = without_marks(row["question"], len(images) if isinstance(images, list) else 1)
        return row

    def _value(self, name: str, found: Record) -> Any:
        values = [value_at(found, place) for place in self.places[name]]
        if name in NEEDED and values[0] is None:
            there = ", ".join(map(repr, list(found)[:12])) or "none"
            raise DataError(f"{name} must be in {self.places[name][0]!r}, got the columns {there}")
        value = values[0]
        if name == "choices" and (len(values) > 1 or isinstance(value, dict)):
            return _options(values if len(values) > 1 else value)
        if name == "images":
            value = listed(value)
            return value if isinstance(value, list) else [value]
        if name == "image" and isinstance(value, list):
            if len(value) != 1:
                raise DataError(
                    f"image must be one picture, got {len(value)} of them in {short(value)}; "
                    "map several to images"
                )
            return value[0]
        if name == "answer":
            return _option_at(value) if self.by_index else _answer(value)
        return self._regions(value) if name == "targets" else value

    def _regions(self, value: Any) -> Any:
        value = listed(value)
        if isinstance(value, dict):
            value = [value]
        if not isinstance(value, list) or not value:
            return None if value in (None, []) else value
        value = [_box_of(each) for each in value]
        if all(isinstance(each, int | float) for each in value):
            return [[value]]
        several = all(isinstance(each, list) and each and not isinstance(each[0], list) for each in value)
        return [[each] for each in value] if several and self.layout is not None else value


def columns_of(mapping: Iterable[str] | Mapping[str, str] | None) -> Columns | None:
    """Parse the mapping of an option or a recipe; None without one.

    Args:
        mapping: `["question=problem", ...]`, or the same as names and values.

    Raises:
        UserError: it is malformed.

    Example:
        >>> columns_of(["targets=objects.bbox:xywh-1"])
        Columns(places={'targets': ('objects.bbox',)}, layout='xywh-1', by_index=False)
    """
    if not mapping:
        return None
    pairs = list(mapping.items()) if isinstance(mapping, Mapping) else list(map(_pair, mapping))
    places: dict[str, tuple[str, ...]] = {}
    layout: BoxLayout | None = None
    by_index = False
    for name, text in pairs:
        if name not in COLUMNS:
            hint = did_you_mean(name, COLUMNS)
            raise UserError(f"--columns {name}={text}: a row has the columns {', '.join(COLUMNS)}{hint}")
        if name in places:
            raise UserError(f"--columns names {name} twice")
        place, colon, how = text.rpartition(":")
        if name == "targets" and colon:
            layout = next((each for each in BOX_LAYOUTS if each == how), None)
            if layout is None:
                raise UserError(not_one_of(f"--columns {name}={text}: boxes", how, BOX_LAYOUTS))
        elif name == "answer" and colon and how == INDEX:
            by_index = True
        else:
            place = text
        places[name] = tuple(place.split(",")) if name == "choices" else (place,)
        if not all(places[name]):
            raise UserError(f"--columns {name}={text}: behind '=' stands a column")
    return Columns(places, layout, by_index)


def _pair(word: str) -> tuple[str, str]:
    name, equals, place = word.partition("=")
    if not equals:
        raise UserError(f"--columns takes NAME=COLUMN, such as question=problem, got {word!r}")
    return name, place


def without_index(record: Record) -> Record:
    """A record without pandas' index column."""
    return {name: value for name, value in record.items() if not _PANDAS.fullmatch(name)}


def value_at(record: Any, place: str) -> Any:
    """The value at a path of a record; None if there is none.

    Example:
        >>> value_at({"objects": {"bbox": [[1, 2, 3, 4]]}}, "objects.bbox.0")
        [1, 2, 3, 4]
        >>> value_at({"a.b": 1}, "a.b")
        1
    """
    if isinstance(record, dict) and place in record:
        return record[place]
    value = record
    for part in place.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def listed(value: Any) -> Any:
    """The list in a text, written as JSON or a Python literal as in CSV files; else the value itself.

    Example:
        >>> listed("['red', 'blue']"), listed("[[1, 2], [3, 4]]"), listed("[sic]")
        (['red', 'blue'], [[1, 2], [3, 4]], '[sic]')
    """
    if not isinstance(value, str) or value[:1] not in ("[", "{") or len(value) > _MAX_LISTED:
        return value
    for read in (parse_json, ast.literal_eval):
        try:
            found = read(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list | dict):
            return found
    return value


def image_name(number: int) -> str:
    """The name of a picture in a question about several.

    Args:
        number: its number, from 1.
    """
    return f"Image {number}"


def without_marks(text: str, pictures: int) -> str:
    """A question without the placeholders of its pictures.

    In a question about several pictures, a placeholder between words becomes the name of its picture.

    Args:
        text: the question.
        pictures: the number of its pictures.

    Raises:
        DataError: there are more placeholders than pictures.

    Example:
        >>> without_marks("<image><image>Is the sign of <image> in another?", 3)
        'Is the sign of Image 3 in another?'
    """
    marks = text.count(IMAGE_TOKEN)
    if marks > pictures:
        about = "one picture" if pictures == 1 else f"its {pictures} pictures"
        raise DataError(f"question must be about {about}, got {marks} times {IMAGE_TOKEN}")
    if pictures == 1:
        return text.replace(IMAGE_TOKEN, "").strip()
    before = _MARKS_BEFORE.match(text)
    numbers = itertools.count(1 if before is None else before[0].count(IMAGE_TOKEN) + 1)
    words = _MARKS_BEHIND.sub("", _MARKS_BEFORE.sub("", text))
    return re.sub(IMAGE_TOKEN, lambda _: image_name(next(numbers)), words).strip()


_MARKS_BEFORE = re.compile(rf"\A(?:\s*{IMAGE_TOKEN})+")
_MARKS_BEHIND = re.compile(rf"(?:{IMAGE_TOKEN}\s*)+\Z")


def _answer(value: Any) -> Any:
    """The text inside the answer tags, if a data set writes them, alone or after a thought."""
    if isinstance(value, list):
        return [_answer(each) for each in value]
    found = _ANSWER_TAG.fullmatch(value) if isinstance(value, str) else None
    return value if found is None else found[1].strip()


def _option_at(value: Any) -> str:
    number = value
    if isinstance(value, str | float) and str(value).removesuffix(".0").isdigit():
        number = int(float(value))
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(ascii_uppercase):
        raise DataError(f"answer must be the index of an option, from 0, got {short(value)}")
    return ascii_uppercase[number]


def _options(values: list[Any] | dict[str, Any]) -> list[Any]:
    """The options of several columns, or of an object keyed by letters, up to the last non-empty one."""
    if isinstance(values, dict):
        values = [values[letter] for letter in sorted(values)]
    while values and values[-1] in (None, ""):
        values = values[:-1]
    return values


def _box_of(item: Any) -> Any:
    if isinstance(item, dict):
        return next((item[name] for name in ("bbox_2d", "bbox", "box_2d", "box") if name in item), item)
    return item


# --- common names ------------------------------------------------------------------------------------

OTHER_NAMES = {
    "question": ("query", "problem", "instruction", "text", "question_text"),
    "answer": ("solution", "label", "gt", "ground_truth", "groundtruth", "response", "answers"),
    "image": (
        *("images", "image_path", "img", "file", "file_name", "picture", "image_file"),
        *("jpg", "jpeg", "png", "webp"),  # members of a WebDataset sample
    ),
    "choices": ("options", "candidates"),
    "targets": ("bbox", "bboxes", "box", "boxes", "regions", "objects.bbox"),
    "id": ("qid", "question_id", "idx", "index", "uid"),
}
"""Common names of the columns in other data sets."""
_TALKS = ("conversations", "conversation", "messages")
_ASKING, _ANSWERING = ("human", "user"), ("gpt", "assistant")


def recognised(record: Record) -> dict[str, str]:
    """Guess a mapping from the common names of columns.

    Example:
        >>> recognised({"problem": "What?", "solution": "KR", "images": ["a.png"], "bbox": [1, 2, 3, 4]})
        {'question': 'problem', 'answer': 'solution', 'image': 'images.0', 'targets': 'bbox'}
    """
    found = _in_talk(record)
    for name, others in OTHER_NAMES.items():
        inside = [f"json.{each}" for each in (name, *others)]  # member of a WebDataset sample
        for place in (name, *others, *inside):
            value = listed(value_at(record, place))
            if value is None or name in found or (name == "id" and place != name):
                continue
            if name == "image" and isinstance(value, list):
                if len(value) > 1:
                    found["images"] = place
                    break
                place += ".0"
            found[name] = place
    return {name: found[name] for name in COLUMNS if name in found}


def has_needed(found: Mapping[str, Any]) -> bool:
    """Whether all required columns are there."""
    there = {name for name in NEEDED if found.get(name) is not None}
    return {"question", "answer"} <= there and len(there) > 2


def _in_talk(record: Record) -> dict[str, str]:
    """Paths of question and answer in a conversation: the first turn of each side."""
    found: dict[str, str] = {}
    name = next((each for each in _TALKS if isinstance(record.get(each), list)), None)
    for number, turn in enumerate(record[name] if name is not None else ()):
        if isinstance(turn, dict):
            who, words = ("from", "value") if "from" in turn else ("role", "content")
            side = {**dict.fromkeys(_ASKING, "question"), **dict.fromkeys(_ANSWERING, "answer")}.get(
                str(turn.get(who))
            )
            if side is not None and isinstance(turn.get(words), str):
                found.setdefault(side, f"{name}.{number}.{words}")
    return found


def as_option(places: Mapping[str, str], layout: str | None) -> str:
    """The option `--columns` for a mapping, quoted for a shell."""
    words = [
        f"{name}={place}" + (f":{layout}" if name == "targets" and layout is not None else "")
        for name, place in places.items()
    ]
    return "--columns " + shlex.join(words)
