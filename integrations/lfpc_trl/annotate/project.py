"""What is annotated: rows of a file or the pictures of a folder, with the changes of their journal."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfpc_trl.annotate.journal import Change, Content, Journal
from lfpc_trl.data.rows import Row, as_record, check_row, check_targets, read_rows
from lfpc_trl.errors import DataError, UserError
from lfpc_trl.pictures.opening import find_picture_files, in_one_line, readable_suffixes
from lfpc_trl.pictures.sizes import Size


@dataclass(frozen=True)
class Item:
    """One picture with one question, as it was before anybody annotated it.

    Attributes:
        id: unique in the project.
        image: absolute path of the picture.
        name: the path as the data file would hold it.
        size: of the original.
        start: what the data file says.
        carried: columns that are no part of the page and go to the export as they are.
        shown_size: at which the model sees the picture, if that is chosen.
    """

    id: str
    image: Path
    name: str
    size: Size
    start: Content
    carried: dict[str, Any]
    shown_size: Size | None


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
        journal: `SOURCE.annotations.jsonl`.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self.left_out: str | None = None
        if source.is_dir():
            files, others = find_picture_files(source)
            self.left_out = in_one_line(source, others) if others else None
            if not files:
                more = "" if self.left_out is None else f"; {self.left_out}"
                raise UserError(f"{source}: holds no pictures ({', '.join(readable_suffixes())}){more}")
            self.items = _items_of_folder(source, files)
        else:
            self.items = _items_of_file(source)
        self.number = {item.id: number for number, item in enumerate(self.items)}
        self.journal = Journal(journal_path(source))
        for change in self.journal.latest.values():
            self._check_picture(change)

    def _check_picture(self, change: Change) -> None:
        number = self.number.get(change.row)
        if number is not None and self.items[number].name != change.image:
            raise DataError(
                f"{self.journal.path}: row {change.row} was annotated on {change.image}, "
                f"but in {self.source} it shows {self.items[number].name}; give the rows an id of their own"
            )

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
        for number, region in enumerate(content.targets):
            try:
                check_targets([[list(box) for box in region]], item.size)
            except DataError as error:
                found.append(Problem(str(error), number))
        try:
            check_row(
                self._record(item, dataclasses.replace(content, targets=())), item.image.parent, item.size
            )
        except DataError as error:
            found.append(Problem(str(error)))
        return found

    def _record(self, item: Item, content: Content) -> dict[str, Any]:
        record: dict[str, Any] = {
            "id": item.id,
            "question": content.question,
            "answer": list(content.answer),
            "image": str(item.image),
            "choices": None if content.choices is None else list(content.choices),
            "targets": [[list(box) for box in region] for region in content.targets] or None,
            "shown_size": None if item.shown_size is None else list(item.shown_size),
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
        rows = []
        for number, item in enumerate(self.items, start=1):
            content = self.content(item)
            if content.status == "done":
                record = self._record(item, content)
                try:
                    row = check_row(record, item.image.parent, item.size, number=number, require_targets=True)
                except DataError as error:
                    raise DataError(f"row {item.id}: {error}") from None
                rows.append(row)
        return rows

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


def _items_of_file(path: Path) -> list[Item]:
    items = []
    folder = path.parent.absolute()
    for row in read_rows(path):
        record = as_record(row, folder)
        targets = tuple(
            tuple(tuple(map(_whole, box)) for box in region.tolist()) for region in row.regions or ()
        )
        # A row that comes with targets is finished unless somebody changes it.
        start = Content(row.question, row.answer, row.choices, targets, "done" if targets else "open")
        items.append(Item(row.id, row.image, record["image"], row.size, start, row.extras, row.shown_size))
    return items


def _whole(side: float) -> float:
    """A whole number as int, so that pages and files show 12, not 12.0."""
    return int(side) if side == int(side) else side


def _items_of_folder(folder: Path, files: Sequence[Path]) -> list[Item]:
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
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)
    return items
