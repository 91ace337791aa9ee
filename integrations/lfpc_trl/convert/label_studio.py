"""Label Studio's tasks: rectangles in percent, read from exports and written as pre-annotations.

An export is the JSON of whole tasks, or JSON-MIN, in which a task is flat and each control tag is a field. A
task holds `image`, `question`, `answer` and `choices` in `data`. Nesting is inferred from the boxes: a
box with no other box inside is the innermost box of a region, and every box around it belongs to that
region. Rectangles that we export are named `r1b1` (region 1, innermost box), `r1b2`, ...; if all names still
have that form, the names decide instead.
"""

import json
import re
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import numpy as np

from lfpc_trl.convert.drafts import Draft
from lfpc_trl.convert.verl import only_picture
from lfpc_trl.data.boxes import four_numbers
from lfpc_trl.data.rows import METADATA, Row, as_record
from lfpc_trl.data.sources import Record, short
from lfpc_trl.errors import DataError

CONFIG = """<View>
  <Image name="image" value="$image" zoom="true" zoomControl="true"/>
  <Text name="task" value="$question"/>
  <RectangleLabels name="box" toName="image" canRotate="false">
    <Label value="B1"/><Label value="B2"/><Label value="B3"/><Label value="B4"/>
  </RectangleLabels>
  <TextArea name="answer" toName="image" maxSubmissions="0" editable="true"/>
</View>"""
"""The labeling interface for the exported tasks: B1 is the innermost box."""
CONFIG_OF_SEVERAL = CONFIG.replace('value="$image"', 'valueList="$images"')
"""The same for questions about several pictures, shown one per page."""

_LOCAL = re.compile(r"^/data/(?:local-files/\?d=|upload/)")
_NAME = re.compile(r"r(\d+)b(\d+)")
_SLACK = 1e-3
"""Percent by which a box may stick out of the one around it and still count as inside. The outer box is
enlarged to hold it. Our choice: 0.04 pixels at 4K, which only absorbs rounding."""


# --- reading -----------------------------------------------------------------------------------------


def from_label_studio(record: Record) -> Draft:
    """A task with its last annotation that was not canceled; without one, its last prediction.

    A task without `data` is one of JSON-MIN.
    """
    if "data" not in record and ("image" in record or "images" in record):
        record = _whole_task(record)
    data = record.get("data")
    if not isinstance(data, dict):
        raise DataError(f"a task must have data, got {short(data)}")
    results = _results(record)
    texts = _texts(results)
    question: Any = texts["question"][0] if "question" in texts else data.get("question")
    answer: Any = texts.get("answer") or data.get("answer")
    rectangles = [each for each in results if each.get("type") in ("rectanglelabels", "rectangle")]
    images = data["images"] if isinstance(data.get("images"), list) else [data.get("image")]
    images = [_LOCAL.sub("", image) if isinstance(image, str) else image for image in images] or [None]
    several = len(images) > 1
    regions, on = _regions(rectangles) if rectangles else (None, None)
    number = data.get("id", record.get("id"))
    return Draft(
        question=question,
        answer=[answer] if isinstance(answer, str) else answer,  # checked with the row
        picture=[only_picture(each) for each in images] if several else only_picture(images[0]),
        id=None if number is None else str(number),
        choices=data.get("choices") or None,
        regions=regions,
        upright=True,  # browsers apply the EXIF rotation before anyone draws
        shown_size=data.get("shown_sizes" if several else "shown_size"),
        target_images=on if several else None,
        extras={name: value for name, value in data.items() if name in METADATA or name.startswith("x_")},
    )


def _whole_task(flat: Record) -> Record:
    """A JSON-MIN task in the form of the full export. Rectangles and text areas are fields, named by tags."""
    results: list[Record] = []
    data: Record = {}
    for name, value in flat.items():
        if _are_rectangles(value):
            results += [
                {"type": "rectanglelabels", "value": each}
                | {name: each.get(name) for name in ("image_rotation", "item_index")}
                for each in value
            ]
        else:
            text = value["text"] if isinstance(value, dict) and set(value) == {"text"} else value
            data[name] = text
    return {"data": data, "annotations": [{"result": results}]}


def _are_rectangles(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and {"x", "y", "width", "height"} <= set(each) for each in value)
    )


def _results(record: Record) -> list[Record]:
    def listed(name: str) -> list[Record]:
        found = record.get(name) or []
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    for drawn in (
        [each for each in listed("annotations") if not each.get("was_cancelled")],
        listed("predictions"),
    ):
        if drawn:
            results = drawn[-1].get("result")
            return [each for each in results if isinstance(each, dict)] if isinstance(results, list) else []
    return []


def _texts(results: list[Record]) -> dict[str, list[str]]:
    """What annotators wrote into the text areas `question` and `answer`."""
    return {
        result["from_name"]: result["value"]["text"]
        for result in results
        if result.get("type") == "textarea"
        and result.get("from_name") in ("question", "answer")
        and isinstance(result.get("value"), dict)
        and isinstance(result["value"].get("text"), list)
        and result["value"]["text"]
    }


def _regions(rectangles: list[Record]) -> tuple[list[list[list[float]]], list[int]]:
    """The regions, and the number of each one's picture."""
    boxes, items = [_box(each) for each in rectangles], [_item(each) for each in rectangles]
    names = [_NAME.fullmatch(str(each.get("id"))) for each in rectangles]
    if all(names):
        named: dict[int, dict[int, list[float]]] = {}
        on: dict[int, int] = {}
        for name, box, item in zip(names, boxes, items, strict=True):
            assert name is not None
            named.setdefault(int(name[1]), {})[int(name[2])] = box
            if on.setdefault(int(name[1]), item) != item:
                raise DataError("the boxes of a region must be on one image, got some on another")
        if any(sorted(region) != list(range(1, len(region) + 1)) for region in named.values()):
            raise DataError("the boxes of a region must be b1, b2, ..., got a region without some of them")
        regions = [[region[place] for place in sorted(region)] for _, region in sorted(named.items())]
        return regions, [on[name] for name in sorted(named)]
    found: list[list[list[float]]] = []
    numbers: list[int] = []
    for item in sorted(set(items)):
        places = [place for place, each in enumerate(items) if each == item]
        own = _by_containment([boxes[place] for place in places], [rectangles[place] for place in places])
        found += own
        numbers += [item] * len(own)
    return found, numbers


def _item(rectangle: Record) -> int:
    """The number of the rectangle's picture. Label Studio counts from 0 and omits it for a single picture."""
    index = rectangle.get("item_index") or 0
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise DataError(f"item_index must be the index of an image, got {short(index)}")
    return index + 1


def _box(rectangle: Record) -> list[float]:
    value = rectangle.get("value")
    if not isinstance(value, dict):
        raise DataError(f"a rectangle must have a value, got {short(rectangle)}")
    if value.get("rotation") or rectangle.get("image_rotation"):
        raise DataError(f"a rectangle must not be rotated, got {short(value)}")
    return four_numbers([value.get(name) for name in ("x", "y", "width", "height")])


def _by_containment(boxes: list[list[float]], rectangles: list[Record]) -> list[list[list[float]]]:
    corners = np.array(boxes)
    corners[:, 2:] += corners[:, :2]
    # inside[i, j]: box i lies inside box j; of two equal boxes the first one does.
    inside = (corners[:, None, :2] >= corners[None, :, :2] - _SLACK).all(-1)
    inside &= (corners[:, None, 2:] <= corners[None, :, 2:] + _SLACK).all(-1)
    inside &= ~(inside.T & np.tri(len(boxes), dtype=bool))
    regions = []
    for i in np.flatnonzero(~inside.any(0)):
        labels = rectangles[i]["value"].get("rectanglelabels")
        if isinstance(labels, list) and labels and re.fullmatch("B[2-9]", str(labels[0])):
            raise DataError(f"a box labelled {labels[0]} must have a box inside it, got {boxes[i]} alone")
        around = np.flatnonzero(inside[i])
        chain = [i, *around[np.argsort(inside[:, around].sum(0), kind="stable")]]
        region = [corners[chain[0]]]
        for j in chain[1:]:
            before, box = region[-1], corners[j]
            region.append(np.concatenate([np.minimum(before[:2], box[:2]), np.maximum(before[2:], box[2:])]))
            if abs(region[-1] - box).max() > _SLACK:
                raise DataError(
                    f"boxes around one box must be nested, got {boxes[j]} beside {boxes[chain[0]]}"
                )
        regions.append([[*box[:2].tolist(), *(box[2:] - box[:2]).tolist()] for box in region])
    return regions


# --- writing -----------------------------------------------------------------------------------------


class LabelStudioWriter:
    """Writes rows as a JSON array of tasks; targets become pre-annotations for a person to correct.

    `data.image` is the picture's path behind `/data/local-files/?d=`, percent-encoded and relative to the
    folder of the output: serve that folder with Label Studio's local storage.

    Args:
        path: of the new file.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path.parent.absolute()
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._file.write("[")
        self._first = True

    def write(self, row: Row) -> None:
        """Add a row."""
        record = as_record(row, self._folder)
        data = {name: value for name, value in record.items() if name != "targets"}
        if "images" in record:
            data["images"] = [f"/data/local-files/?d={quote(image)}" for image in record["images"]]
            data.pop("target_images", None)
        else:
            data["image"] = f"/data/local-files/?d={quote(record['image'])}"
        task: dict[str, Any] = {"data": data}
        if row.regions is not None:
            result = [
                _rectangle(box, row, target.image, region, place)
                for region, target in enumerate(row.targets, start=1)
                for place, box in enumerate(target.boxes.tolist(), start=1)
            ]
            task["predictions"] = [{"model_version": "lfpc", "result": result}]
        self._file.write(("\n" if self._first else ",\n") + json.dumps(task, ensure_ascii=False))
        self._first = False

    def close(self) -> None:
        """Close the JSON array."""
        self._file.write("\n]\n")
        self._file.close()


def _rectangle(box: list[float], row: Row, image: int, region: int, place: int) -> Record:
    x1, y1, x2, y2 = box
    width, height = row.pictures[image - 1].size
    return ({"item_index": image - 1} if len(row.pictures) > 1 else {}) | {
        "id": f"r{region}b{place}",
        "type": "rectanglelabels",
        "from_name": "box",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "x": 100 * x1 / width,
            "y": 100 * y1 / height,
            "width": 100 * (x2 - x1) / width,
            "height": 100 * (y2 - y1) / height,
            "rotation": 0,
            "rectanglelabels": [f"B{place}"],
        },
    }
