"""What is annotated: rows of a file or the pictures of a folder, with the changes of their journal."""

import dataclasses
import statistics
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lfpc_rewards import Frame
from lfpc_trl.annotate.journal import (
    Change,
    ChangeLog,
    Conflict,
    Content,
    Origin,
    Status,
    origins_as_json,
    parse_origins,
)
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
from lfpc_trl.pictures.crops import BoxError, crop_box
from lfpc_trl.pictures.opening import find_picture_files, readable_suffixes
from lfpc_trl.pictures.sizes import Size

Stage = Literal[1, 2]
"""What the rows are for: stage 2 needs boxes, stage 1 does not."""
PROPOSED = "x_proposed"
"""The column of an exported row that says which targets began as a model's box: `Content.proposed`."""


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
        after: for a question that was added on the page, the row that it follows.
        others: the pictures behind the first.
    """

    id: str
    image: Path
    name: str
    size: Size
    start: Content
    carried: dict[str, Any]
    shown_size: Size | None
    after: str | None = None
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
class Blocker:
    """Why a row is not finished; `region` counts from 0 and is None where the whole row is meant."""

    sentence: str
    region: int | None = None


class LeftOut(NamedTuple):
    """A file of a folder that is not annotated, and why."""

    name: str
    reason: str


class Project:
    """Items and their journal.

    Attributes:
        source: the data file or the folder.
        stage: for which the rows are made.
        items: of the source in the order of the file, or of the names; then the added questions, as they
            came. The list only grows, so an item keeps its number as long as the project is open.
        pictures: every picture once.
        left_out: the files of a folder that are not annotated.
        warning: what the boxes of a data file seem to count in, if not in pixels.
        journal: `SOURCE.annotations.jsonl`.
        unusable: a line for every row of a file that was left out.

    Args:
        source: the data file or the folder.
        stage: 1 lets rows without boxes be finished.
        leave_out: leave out rows that cannot be used instead of refusing everything. So work that is done is
            not held up by one broken picture.
    """

    def __init__(self, source: Path, *, stage: Stage = 2, leave_out: bool = False) -> None:
        self.source, self.stage = source, stage
        if not source.exists():
            raise not_found(source, "file or folder")
        self.left_out: list[LeftOut] = []
        self.unusable: list[str] = []
        self.warning: str | None = None
        if source.is_dir():
            items, self.left_out = _items_of_folder(source)
            if not items:
                raise UserError("\n".join([_no_pictures(source), *self.left_out_lines()]))
        else:
            items, self.unusable, self.warning = _items_of_file(source)
        self.journal = ChangeLog(journal_path(source))
        names = {item.id: item.name for item in items}
        moved = {
            change.row: f"{self.journal.path}: row {change.row} was annotated on {change.image}, "
            f"but in {source} it shows {names[of]}; give the rows an id of their own"
            for change in self.journal.latest.values()
            if (of := change.after or change.row) in names and names[of] != change.image
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
        pictures = (picture.image for item in self.items for picture in item.pictures)
        self.pictures = list(dict.fromkeys(pictures))
        self._lock = threading.Lock()
        self._followed = 0
        self.refresh()

    def left_out_lines(self, at_most: int | None = None) -> list[str]:
        """The files that were left out with their reasons, under a line that counts them; [] without any."""
        if not self.left_out:
            return []
        count = len(self.left_out)
        lines = [f"{self.source}: left out {count} file{'s' if count > 1 else ''}"]
        lines += [f"  {name}: {reason}" for name, reason in self.left_out[:at_most]]
        if at_most is not None and count > at_most:
            lines.append(f"  and {count - at_most} more")
        return lines

    # --- rows ----------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read what other servers have appended; questions that they added become items.

        Raises:
            DataError: as for `ChangeLog.refresh`.
        """
        self.journal.refresh()
        with self._lock:
            fresh = self.journal.changes[self._followed :]
            self._followed += len(fresh)
            for change in fresh:
                origin = self.number.get(change.after or "")
                if change.row in self.number or change.after is None or origin is None:
                    continue
                base = self.items[origin]
                if base.name == change.image:
                    added = dataclasses.replace(
                        base,
                        id=change.row,
                        start=Content(),
                        carried={},
                        shown_size=None,
                        after=change.after,
                        others=tuple(picture._replace(shown_size=None) for picture in base.others),
                    )
                    self.items.append(added)
                    self.number[added.id] = len(self.items) - 1

    def in_order(self) -> list[Item]:
        """The rows of the source, each followed by the questions that were added to it."""
        added: dict[str, list[Item]] = {}
        for item in self.items:
            if item.after is not None:
                added.setdefault(item.after, []).append(item)
        return [each for item in self.items if item.after is None for each in (item, *added.get(item.id, ()))]

    def content(self, item: Item) -> Content:
        """The row as it is now."""
        change = self.journal.latest.get(item.id)
        return item.start if change is None else change.content

    def revision(self, item: Item) -> int:
        """How often the row was changed."""
        change = self.journal.latest.get(item.id)
        return 0 if change is None else change.revision

    def problems(self, item: Item, content: Content) -> list[Blocker]:
        """Everything that keeps a row from being finished, in the words of `read_rows`."""
        found = []
        if not content.targets and self.stage == 2 and not content.without_boxes:
            found.append(Blocker("targets are needed for stage 2, got none"))
        if content.targets and content.without_boxes:
            found.append(Blocker("the row is marked as one without boxes, but has some"))
        images: list[int | None] = [*content.target_images]
        images += [None] * (len(content.targets) - len(images))
        for number, (region, image) in enumerate(zip(content.targets, images, strict=False)):
            try:
                check_targets([[list(box) for box in region]], item.sizes, image)
                _check_that_it_is_cut(region, item.sizes[(image or 1) - 1])
            except DataError as error:
                found.append(Blocker(str(error), number))
        found += [
            Blocker(f"targets must differ, got {list(box)} twice on one picture", number)
            for number, box in _twice(content.targets, images)
        ]
        record = self._record(item, dataclasses.replace(content, targets=(), target_images=(), proposed=()))
        return found + [Blocker(each) for each in row_problems(record, item.image.parent, item.sizes)]

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
        if content.proposed:
            record[PROPOSED] = origins_as_json(content.proposed)
        return record | item.carried

    def as_asked(self, item: Item, content: Content) -> Row:
        """The row as a model is asked it: question and choices, whether it is finished or not.

        Raises:
            DataError: they break a rule.
        """
        known = dataclasses.replace(
            content, answer=(content.choices or ("-",))[:1], targets=(), target_images=(), proposed=()
        )
        return check_row(self._record(item, known), item.image.parent, item.sizes)

    # --- changes -------------------------------------------------------------------------------------

    def save(
        self, item: Item, base: int, annotator: str, content: Content, *, seconds: float = 0.0
    ) -> tuple[Change, list[Blocker]]:
        """Save a change of a row.

        Returns:
            The change and what keeps the row from being finished.

        Raises:
            DataError: the row is to be done but is not finished, or a row of the source is to be deleted;
                nothing is written.
            Conflict: somebody else changed the row first; nothing is written.
        """
        problems = self.problems(item, content)
        if content.status == "done" and problems:
            raise DataError(problems[0].sentence)
        if content.status == "deleted" and item.after is None:
            raise DataError(f"a row of {self.source.name} can be skipped, not deleted")
        change = self.journal.append(
            item.id, item.name, base, annotator, content, after=item.after, seconds=seconds
        )
        return change, problems

    def add_question(self, item: Item, annotator: str) -> Item:
        """Add an empty question about the picture of a row; its id is that of the row with `#2`, `#3`, ...

        Raises:
            DataError: as for `ChangeLog.append`.
        """
        origin = item.after or item.id
        place = 2
        while True:
            name = f"{origin}#{place}"
            place += 1
            if name in self.number or name in self.journal.latest:
                continue
            try:
                self.journal.append(name, item.name, 0, annotator, Content(), after=origin)
            except Conflict:  # somebody else added a question at the same moment
                continue
            self.refresh()
            return self.items[self.number[name]]

    # --- what is finished ----------------------------------------------------------------------------

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
        """The rows that are done, in order, checked; and a line for every other one that was called done.

        For stage 2 rows without boxes are in neither: `unfinished` names them.
        """
        rows = []
        refused = [
            f"row {change.row}: done, but it cannot be exported, {self.source} has no usable row of this id "
            f"(its picture was {change.image})"
            for change in self.journal.latest.values()
            if change.content.status == "done" and change.row not in self.number
        ]
        for number, item in enumerate(self.in_order(), start=1):
            content = self.content(item)
            if content.status != "done" or self._lacks_boxes(content):
                continue
            try:
                if item.id in self.journal.latest:  # what the data file says needs no look at the page
                    for problem in self.problems(item, content):
                        raise DataError(problem.sentence)
                rows.append(
                    check_row(self._record(item, content), item.image.parent, item.sizes, number=number)
                )
            except DataError as error:
                refused.append(f"row {item.id}: {error}")
        return rows, refused

    def _lacks_boxes(self, content: Content) -> bool:
        return self.stage == 2 and not content.targets

    def unfinished(self) -> list[str]:
        """A line for every row that is not exported as it is not done: its status, and why."""
        lines = []
        for item in self.in_order():
            content = self.content(item)
            if content.status == "deleted" or (content.status == "done" and not self._lacks_boxes(content)):
                continue
            if content.status == "done":
                reason = "without boxes, so for stage 1 alone"
            elif content.note:
                reason = content.note
            else:
                problems = self.problems(item, content)
                reason = problems[0].sentence if problems else "not marked as done"
            lines.append(f"row {item.id}: {content.status}, {reason}")
        return lines

    def counts(self) -> dict[str, int]:
        """How many rows have each status."""
        return dict(Counter(self.content(item).status for item in self.items))

    def median_seconds(self) -> float | None:
        """Seconds of work on a row that is done, the median; None where the page measured none."""
        spent = [
            seconds
            for row, seconds in self.journal.seconds.items()
            if seconds and self.journal.latest[row].content.status == "done"
        ]
        return statistics.median(spent) if spent else None


def journal_path(source: Path) -> Path:
    """Where the changes of a data file or folder are kept: beside it."""
    return source.with_name(f"{source.resolve().name}.annotations.jsonl")


def _check_that_it_is_cut(region: Sequence[Sequence[float]], size: Size) -> None:
    """Refuse a box of which a model could never get exactly the crop: one that is too small.

    Raises:
        DataError: with the box and the tool's own sentence.
    """
    for box in region:
        try:
            crop_box(list(box), frame=Frame.ORIGINAL, shown_size=size, original_size=size)
        except BoxError as error:
            raise DataError(
                f"targets must be boxes that the crop tool cuts, got {list(box)}: {error}"
            ) from None


def _twice(
    targets: Sequence[Sequence[Sequence[float]]], images: Sequence[int | None]
) -> list[tuple[int, Sequence[float]]]:
    """The boxes that were there before on their picture, each with the number of its region."""
    seen: set[tuple[object, ...]] = set()
    found = []
    for number, (region, image) in enumerate(zip(targets, images, strict=False)):
        for box in region:
            if (place := (image or 1, *box)) in seen:
                found.append((number, box))
            seen.add(place)
    return found


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
        carried = dict(row.extras)
        start = Content(
            row.question,
            row.answer,
            row.choices,
            targets,
            status,
            target_images=images,
            proposed=_origins_of(carried, targets),
        )
        name = record["image"] if "image" in record else " + ".join(record["images"])
        items.append(
            Item(row.id, row.image, name, row.size, start, carried, row.shown_size, others=row.others)
        )
    warning = frame_warning(path, samples)
    return items, list(map(str, problems)), None if warning is None else str(warning)


def _origins_of(
    carried: dict[str, Any], targets: Sequence[Sequence[tuple[float, ...]]]
) -> tuple[tuple[Origin | None, ...], ...]:
    """What the targets of a row began as, taken out of its further columns where it is of this kind."""
    try:
        found = parse_origins(carried.get(PROPOSED, []), targets)
    except DataError:
        return ()
    carried.pop(PROPOSED, None)
    return found


def _whole(side: float) -> float:
    """A whole number as int, so that pages and files show 12, not 12.0."""
    return int(side) if side == int(side) else side


def _no_pictures(folder: Path) -> str:
    return f"{folder}: holds no pictures that can be read ({', '.join(readable_suffixes())})"


def _items_of_folder(folder: Path) -> tuple[list[Item], list[LeftOut]]:
    """The pictures of a folder, and every other file with the reason why it is left out."""
    files, others = find_picture_files(folder)
    left_out = [LeftOut(path.relative_to(folder).as_posix(), reason) for path, reason in others]
    items = []
    for name in sorted(path.relative_to(folder).as_posix() for path in files):
        try:
            # Question and answer are still to be written: these stand in while the picture is checked.
            row = check_row({"question": "-", "answer": "-", "image": name}, folder.absolute())
        except DataError as error:
            left_out.append(LeftOut(name, str(error)))
            continue
        items.append(Item(name, row.image, name, row.size, Content(), {}, None))
    return items, sorted(left_out)
