"""COCO's `instances` JSON: boxes of categories become the question which of these can be seen.

COCO annotates every instance of its categories, so a category without a box is absent from a picture, and
the question has one right option. A category with one instance gives a row; with several, which one is meant
would not be certain. What makes a category absent is in `_Classes`.
"""

import contextlib
import hashlib
import json
import random
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lfpc_trl.convert.drafts import Draft, Place
from lfpc_trl.convert.scratch import scratch_table
from lfpc_trl.data.sources import Numbered, Record, read_members, short
from lfpc_trl.errors import DataError

QUESTION = "Which of these is in the picture?"
_OPTIONS = 4


class _Category(NamedTuple):
    name: str
    parent: str | None


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


class _Classes:
    """What is known of the categories of a file.

    A category is absent from a picture if it is annotated on another one (a root that nothing is annotated
    with, as Roboflow writes it, is no class), if it is neither above nor below a category on the picture
    (whoever shows a car shows a vehicle) and if it has another name.

    Args:
        categories: by id.
        annotated: ids of those that any annotation has.
    """

    def __init__(self, categories: dict[int, _Category], annotated: Collection[int]) -> None:
        self.names = {number: each.name for number, each in categories.items()}
        self._annotated = sorted(number for number in categories if number in annotated)
        by_name = defaultdict(list)
        for number, each in categories.items():
            by_name[_plain(each.name)].append(number)
        self._above: dict[int, set[int]] = {}
        for number in categories:
            above: set[int] = set()
            todo = [number]
            while todo:
                found = self._parents(todo.pop(), categories, by_name)
                todo += found - above
                above |= found
            self._above[number] = above - {number}

    def _parents(
        self, number: int, categories: dict[int, _Category], by_name: dict[str, list[int]]
    ) -> set[int]:
        """What a supercategory may mean: of equal names the one that is no class, if there is one."""
        parent = categories[number].parent
        named = set() if parent is None else set(by_name.get(_plain(parent), ())) - {number}
        return named - set(self._annotated) or named

    def key(self, number: int) -> int | str:
        """Equal for categories of one name."""
        return _plain(self.names[number]) if number in self.names else number

    def below(self, number: int, others: Collection[int]) -> list[int]:
        """Those of `others` that are kinds of a category."""
        return [other for other in others if number in self._above.get(other, ())]

    def absent_from(self, present: Collection[int]) -> list[str]:
        """Names of the categories that are surely not on a picture, each once."""
        seen = {self.key(number) for number in present}
        related = set().union(*(self._above.get(number, ()) for number in present))
        found: dict[int | str, str] = {}
        for number in self._annotated:
            if number not in related and not self._above[number] & set(present):
                found.setdefault(self.key(number), self.names[number])
        return [name for key, name in found.items() if key not in seen]


def read_coco(path: Path) -> Numbered:
    """One record per picture and category on it, in the order of the pictures' ids."""
    categories: dict[int, _Category] = {}
    with (
        contextlib.closing(scratch_table("id INTEGER PRIMARY KEY, record TEXT")) as pictures,
        contextlib.closing(scratch_table("image INTEGER, category INTEGER, record TEXT")) as boxes,
    ):
        for name, item in read_members(path):
            if not isinstance(item, dict):
                raise DataError(f"{path}: {name} must hold objects, got {short(item)}")
            try:
                if name == "categories":
                    parent = item.get("supercategory")
                    categories[int(item["id"])] = _Category(
                        str(item["name"]), None if parent is None else str(parent)
                    )
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
        yield from enumerate(_grouped(_Classes(categories, annotated), pictures, boxes), start=1)


_SEEN = ("file_name", "width", "height")


def _packed(item: Record, *names: str) -> str:
    return json.dumps({name: item.get(name) for name in names})


def _grouped(classes: _Classes, pictures: sqlite3.Connection, boxes: sqlite3.Connection) -> Iterator[Any]:
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
    """A picture and one category on it."""
    if record["category"] is None:
        raise DataError(f"category_id must be among the categories, got {record['id']!r}")
    if len(record["instances"]) > 1:
        raise DataError(f"a category must have one instance on the picture, got {len(record['instances'])}")
    [instance] = record["instances"]
    if instance["iscrowd"]:
        raise DataError("an instance must not be a crowd, got iscrowd 1")
    if not record["absent"]:
        raise DataError(
            "another category of the file must surely be absent from the picture, got none that is"
        )
    # The same options in every run, and others for the next row.
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
