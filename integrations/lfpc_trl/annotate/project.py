"""What is annotated: rows of a file or the pictures of a folder, with the changes of their journal."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfpc_trl.annotate.journal import Change, Content, Journal, Status
from lfpc_trl.data.boxes import Sample
from lfpc_trl.data.frames import frame_warning
from lfpc_trl.data.rows import (
    Picture,
    Row,
    as_record,
    check_row,
    check_targets,
    one_or_all,
    row_problems,
    scan_rows,
)
from lfpc_trl.errors import DataError, UserError, not_found
from lfpc_trl.pictures.opening import find_picture_files, in_one_line, readable_suffixes
from lfpc_trl.pictures.sizes import Size


@dataclass(frozen=True)
class Item:
    """A question with its picture, or its pictures, as it was before anybody annotated it.

    Attributes:
        id: unique in the project.
        image: absolute path of the picture, of the first of several.
        name: the path as the data file would hold it; of several all of them.
        size: of the original.
        start: what the data file says.
        carried: columns that are no part of the page and go to the export as they are.
        shown_size: at which the model sees the picture, if that is chosen.
        others: the pictures behind the first.
    """

    id: str
    image: Path
    name: str
    size: Size
    start: Content
    carried: dict[str, Any]
    shown_size: Size | None
    others: tuple[Picture, ...] = ()

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures, in their order."""
        return (Picture(self.image, self.size, self.shown_size), *self.others)

    @property
    def sizes(self) -> list[Size]:
        """The size of each original."""
        return [picture.size for picture in self.pictures]


@dataclass(frozen=True)
class Problem:
    """Why a row is not finished; `region` counts from 0 and is None where the whole row is meant."""

    sentence: str
    region: int | None = None


class Project:
    """Items and their journal.

    Attributes:
        source: the data file or the folder.
        items: in the order of the file, or of the names.
        left_out: one line about the files of a folder that are no pictures; None where there are none.
        warning: what the boxes of a data file seem to count in, if not in pixels.
        journal: `SOURCE.annotations.jsonl`.
        unusable: a line for every row and every picture that was left out.

    Args:
        source: the data file or the folder.
        leave_out: leave out what cannot be used instead of refusing everything. So work that is done is not
            held up by one broken picture.
    """

    def __init__(self, source: Path, *, leave_out: bool = False) -> None:
        self.source = source
        if not source.exists():
            raise not_found(source, "file or folder")
        self.left_out: str | None = None
        self.warning: str | None = None
        if source.is_dir():
            files, others = find_picture_files(source)
            self.left_out = in_one_line(source, others) if others else None
            if not files:
                more = "" if self.left_out is None else f"; {self.left_out}"
                raise UserError(f"{source}: holds no pictures ({', '.join(readable_suffixes())}){more}")
            items, self.unusable = _items_of_folder(source, files)
        else:
            items, self.unusable, self.warning = _items_of_file(source)
        self.journal = Journal(journal_path(source))
        names = {item.id: item.name for item in items}
        moved = {
            change.row: f"{self.journal.path}: row {change.row} was annotated on {change.image}, "
            f"but in {source} it shows {names[change.row]}; give the rows an id of their own"
            for change in self.journal.latest.values()
            if change.row in names and names[change.row] != change.image
        }
        if not leave_out:
            if self.unusable:
                more = f" (and {len(self.unusable) - 1} more)" if len(self.unusable) > 1 else ""
                raise DataError(self.unusable[0] + more)
            for sentence in moved.values():
                raise DataError(sentence)
        self.unusable += moved.values()
        self.items = [item for item in items if item.id not in moved]
        self.number = {item.id: number for number, item in enumerate(self.items)}

    def content(self, item: Item) -> Content:
        """The row as it is now."""
        change = self.journal.latest.get(item.id)
        return item.start if change is None else change.content

    def revision(self, item: Item) -> int:
        """How often the row was changed."""
        change = self.journal.latest.get(item.id)
        return 0 if change is None else change.revision

    def problems(self, item: Item, content: Content) -> list[Problem]:
        """Everything that keeps a row from being finished, in the words of `read_rows`."""
        found = []
        if not content.targets:
            found.append(Problem("targets are needed for stage 2, got none"))
        images: list[int | None] = [*content.target_images]
        images += [None] * (len(content.targets) - len(images))
        for number, (region, image) in enumerate(zip(content.targets, images, strict=False)):
            try:
                check_targets([[list(box) for box in region]], item.sizes, image)
            except DataError as error:
                found.append(Problem(str(error), number))
        record = self._record(item, dataclasses.replace(content, targets=(), target_images=()))
        return found + [Problem(each) for each in row_problems(record, item.image.parent, item.sizes)]

    def _record(self, item: Item, content: Content) -> dict[str, Any]:
        several = bool(item.others)
        shown = [picture.shown_size for picture in item.pictures]
        record: dict[str, Any] = {
            "id": item.id,
            "question": content.question,
            "answer": list(content.answer),
            "images" if several else "image": one_or_all([str(each.image) for each in item.pictures]),
            "choices": None if content.choices is None else list(content.choices),
            "targets": [[list(box) for box in region] for region in content.targets] or None,
            "target_images": list(content.target_images) or None,
            "shown_sizes" if several else "shown_size": None
            if None in shown
            else one_or_all([list(size) for size in shown if size is not None]),
        }
        return record | item.carried

    def save(self, item: Item, base: int, annotator: str, content: Content) -> tuple[Change, list[Problem]]:
        """Save a change of a row.

        Returns:
            The change and what keeps the row from being finished.

        Raises:
            DataError: the row is to be done but is not finished; nothing is written.
            Conflict: somebody else changed the row first; nothing is written.
        """
        problems = self.problems(item, content)
        if content.status == "done" and problems:
            raise DataError(problems[0].sentence)
        return self.journal.append(item.id, item.name, base, annotator, content), problems

    def finished(self) -> list[Row]:
        """The rows that are done, in order, checked.

        Raises:
            DataError: a row that is done breaks a rule.
        """
        rows, refused = self.exported()
        if refused:
            raise DataError(refused[0])
        return rows

    def exported(self) -> tuple[list[Row], list[str]]:
        """The rows that are done, in order, checked; and a line for every other one that was called done."""
        rows = []
        refused = [
            f"row {change.row}: done, but it cannot be exported, {self.source} has no usable row of this id "
            f"(its picture was {change.image})"
            for change in self.journal.latest.values()
            if change.content.status == "done" and change.row not in self.number
        ]
        for number, item in enumerate(self.items, start=1):
            content = self.content(item)
            if content.status == "done":
                record = self._record(item, content)
                try:
                    row = check_row(
                        record, item.image.parent, item.sizes, number=number, require_targets=True
                    )
                except DataError as error:
                    refused.append(f"row {item.id}: {error}")
                    continue
                rows.append(row)
        return rows, refused

    def unfinished(self) -> list[str]:
        """A line for every row that is not done: its status, and what is missing or the annotator's note."""
        lines = []
        for item in self.items:
            content = self.content(item)
            if content.status != "done":
                problems = self.problems(item, content)
                reason = content.note or (problems[0].sentence if problems else "not marked as done")
                lines.append(f"row {item.id}: {content.status}, {reason}")
        return lines

    def counts(self) -> dict[str, int]:
        """How many rows have each status."""
        return dict(Counter(self.content(item).status for item in self.items))


def journal_path(source: Path) -> Path:
    """Where the changes of a data file or folder are kept: beside it."""
    return source.with_name(f"{source.resolve().name}.annotations.jsonl")


def _items_of_file(path: Path) -> tuple[list[Item], list[str], str | None]:
    """The rows of a file, every problem of the others, and what the boxes seem to count in."""
    items = []
    folder = path.parent.absolute()
    samples: list[Sample] = []
    rows, problems = scan_rows(path, samples=samples)
    for row in rows:
        record = as_record(row, folder)
        targets = tuple(
            tuple(tuple(map(_whole, box)) for box in region.tolist()) for region in row.regions or ()
        )
        # A row that comes with targets is finished unless somebody changes it.
        status: Status = "done" if targets else "open"
        images = tuple(target.image for target in row.targets) if row.others else ()
        start = Content(row.question, row.answer, row.choices, targets, status, target_images=images)
        name = record["image"] if "image" in record else " + ".join(record["images"])
        items.append(Item(row.id, row.image, name, row.size, start, row.extras, row.shown_size, row.others))
    warning = frame_warning(path, samples)
    return items, list(map(str, problems)), None if warning is None else str(warning)


def _whole(side: float) -> float:
    """A whole number as int, so that pages and files show 12, not 12.0."""
    return int(side) if side == int(side) else side


def _items_of_folder(folder: Path, files: Sequence[Path]) -> tuple[list[Item], list[str]]:
    """The pictures of a folder, and a line for every one that cannot be read."""
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    items, problems = [], []
    for name in names:
        try:
            # Question and answer are still to be written: these stand in while the picture is checked.
            row = check_row({"question": "-", "answer": "-", "image": name}, folder.absolute())
        except DataError as error:
            problems.append(f"{folder / name}: {error}")
            continue
        items.append(Item(name, row.image, name, row.size, Content(), {}, None))
    return items, problems
