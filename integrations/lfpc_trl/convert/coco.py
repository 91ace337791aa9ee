"""COCO's `instances` JSON, turned into questions of the form "which of these is in the picture?".

COCO annotates every instance of its categories, so a category without a box is absent from the picture and
makes a wrong option. Only categories with exactly one instance give a row; with several, the target would be
ambiguous. `lfpc_trl.data.categories` decides which categories count as absent.
"""

import contextlib
import hashlib
import json
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lfpc_trl.convert.drafts import Draft, Place
from lfpc_trl.convert.scratch import scratch_table
from lfpc_trl.data.categories import Categories, Category
from lfpc_trl.data.sources import Numbered, Record, read_members, short
from lfpc_trl.errors import DataError

QUESTION = "Which of these is in the picture?"
_OPTIONS = 4


def read_coco(path: Path) -> Numbered:
    """One record per picture and category on it, in the order of the pictures' ids."""
    categories: dict[int, Category] = {}
    with (
        contextlib.closing(scratch_table("id INTEGER PRIMARY KEY, record TEXT")) as pictures,
        contextlib.closing(scratch_table("image INTEGER, category INTEGER, record TEXT")) as boxes,
    ):
        for name, item in read_members(path):
            if not isinstance(item, dict):
                raise DataError(f"{path}: {name} must hold objects, got {short(item)}")
            try:
                if name == "categories":
                    categories[int(item["id"])] = Category.of(item)
                elif name == "images":
                    pictures.execute(
                        "INSERT OR IGNORE INTO t VALUES (?, ?)", (int(item["id"]), _packed(item, *_SEEN))
                    )
                elif name == "annotations":
                    values = (
                        int(item["image_id"]),
                        int(item["category_id"]),
                        _packed(item, "bbox", "iscrowd"),
                    )
                    boxes.execute("INSERT INTO t VALUES (?, ?, ?)", values)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise DataError(
                    f"{path}: {name} must have the fields of COCO, got {short(item)} ({error})"
                ) from None
        boxes.execute("CREATE INDEX place ON t (image, category)")
        annotated = {number for (number,) in boxes.execute("SELECT DISTINCT category FROM t")}
        yield from enumerate(_grouped(Categories(categories, annotated), pictures, boxes), start=1)


_SEEN = ("file_name", "width", "height")


def _packed(item: Record, *names: str) -> str:
    return json.dumps({name: item.get(name) for name in names})


def _grouped(classes: Categories, pictures: sqlite3.Connection, boxes: sqlite3.Connection) -> Iterator[Any]:
    for image, record in pictures.execute("SELECT id, record FROM t ORDER BY id"):
        found: dict[int, list[Record]] = {}
        for category, box in boxes.execute(
            "SELECT category, record FROM t WHERE image = ? ORDER BY category", (image,)
        ):
            found.setdefault(category, []).append(json.loads(box))
        absent = classes.absent_from(found)
        of_name: dict[int | str, list[int]] = {}
        for category in found:
            of_name.setdefault(classes.key(category), []).append(category)
        for category, *twins in of_name.values():
            kinds = {category, *twins}
            kinds |= {kind for each in kinds for kind in classes.below(each, found)}
            yield json.loads(record) | {
                "id": f"{image}-{category}",
                "category": classes.names.get(category),
                "absent": absent,
                "instances": [instance for kind in sorted(kinds) for instance in found[kind]],
            }
    orphans = "SELECT DISTINCT image FROM t"
    for (image,) in boxes.execute(orphans):
        if pictures.execute("SELECT 1 FROM t WHERE id = ?", (image,)).fetchone() is None:
            yield DataError(f"annotations must belong to a picture, got image_id {image}")


def from_coco(record: Record) -> Draft:
    """A draft from one picture and one of its categories."""
    if record["category"] is None:
        raise DataError(f"category_id must be among the categories, got {record['id']!r}")
    if len(record["instances"]) > 1:
        raise DataError(f"a category must have one instance on the picture, got {len(record['instances'])}")
    [instance] = record["instances"]
    if instance["iscrowd"]:
        raise DataError("an instance must not be a crowd, got iscrowd 1")
    if not record["absent"]:
        raise DataError("another category of the file must be certainly absent from the picture, got none")
    # The options are the same in every run but differ between rows.
    rng = random.Random(hashlib.sha256(record["id"].encode()).digest())
    options = [record["category"], *rng.sample(record["absent"], min(_OPTIONS - 1, len(record["absent"])))]
    rng.shuffle(options)
    width, height = record["width"], record["height"]
    return Draft(
        id=record["id"],
        question=QUESTION,
        answer=["ABCD"[options.index(record["category"])]],
        choices=options,
        picture=Place(path=str(record["file_name"])),
        regions=[[instance["bbox"]]],
        size=(width, height) if width and height else None,
    )
