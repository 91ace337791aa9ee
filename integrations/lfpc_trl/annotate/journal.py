"""The journal: every change of every annotator, one line each, never rewritten.

A line is the whole state of one row after a change, as JSON, with a revision that counts up from 1. It is on
the disk before the page is told that it is saved. A write that a kill cuts short leaves a line that is no
JSON: it was never confirmed, and is skipped. Several servers may write to one journal: a lock file beside it
lets one of them at a time read what is new and append.
"""

import dataclasses
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

from filelock import FileLock

from lfpc_trl.errors import DataError
from lfpc_trl.files import sync_folder
from lfpc_trl.json_values import json_line, parse_json

Status = Literal["open", "done", "skipped", "flagged", "deleted"]
STATUSES: tuple[Status, ...] = get_args(Status)
_AGAIN = "nothing is saved any more; put the file back in its place and start again"
_REMEMBERED = 4096
"""Bytes before the place up to which the file was read. They tell whether it was rewritten. Our choice."""


Sides = tuple[float, ...]
"""A box `(x1, y1, x2, y2)` in pixels of the original."""


class Origin(NamedTuple):
    """What a target began as, where an annotator accepted the box of a model.

    Attributes:
        by: the model, or the run that held its crop.
        box: as it was proposed; the target may have been changed since.
    """

    by: str
    box: Sides


@dataclass(frozen=True)
class Content:
    """What an annotator writes about one row. Only its types are checked: a draft may break every other rule.

    Attributes:
        question: the question, may be empty.
        answer: accepted answers.
        choices: the options, None for an open question.
        targets: boxes `(x1, y1, x2, y2)` per region, inner to outer, pixels of the original.
        status: "open", "done", "skipped", "flagged" for another look, or "deleted" (added questions alone).
        note: a remark of the annotator.
        without_boxes: whether the annotator says that the row is for stage 1 alone, which needs no boxes.
        target_images: the number of the picture that each region is on, from 1; empty where there is one.
        proposed: for each box of `targets` what it began as, None for one that was drawn; empty if all were.
    """

    question: str = ""
    answer: tuple[str, ...] = ()
    choices: tuple[str, ...] | None = None
    targets: tuple[tuple[Sides, ...], ...] = ()
    status: Status = "open"
    note: str = ""
    without_boxes: bool = False
    target_images: tuple[int, ...] = ()
    proposed: tuple[tuple[Origin | None, ...], ...] = ()

    @classmethod
    def parse(cls, record: object) -> "Content":
        """The content of a JSON object; further keys are ignored.

        Raises:
            DataError: a value has the wrong type.
        """
        if not isinstance(record, dict):
            raise DataError("a change must be a JSON object")
        choices = record.get("choices")
        status = record.get("status", "open")
        if status not in STATUSES:
            raise DataError(f"status must be one of {', '.join(STATUSES)}, got {status!r}")
        without_boxes = record.get("without_boxes", False)
        if not isinstance(without_boxes, bool):
            raise DataError(f"without_boxes must be true or false, got {without_boxes!r}")
        targets = tuple(_region(region) for region in _list(record.get("targets", []), "targets"))
        return cls(
            question=_text(record.get("question", ""), "question"),
            answer=_texts(record.get("answer", []), "answer"),
            choices=None if choices is None else _texts(choices, "choices"),
            targets=targets,
            status=cast("Status", status),
            note=_text(record.get("note", ""), "note"),
            without_boxes=without_boxes,
            target_images=tuple(map(_number, _list(record.get("target_images", []), "target_images"))),
            proposed=parse_origins(record.get("proposed", []), targets),
        )

    def as_record(self) -> dict[str, Any]:
        """Plain JSON values, as `parse` reads them."""
        record = dataclasses.asdict(self)
        record["targets"] = [[list(box) for box in region] for region in self.targets]
        record["answer"] = list(self.answer)
        record["choices"] = None if self.choices is None else list(self.choices)
        record["target_images"] = list(self.target_images)
        record["proposed"] = origins_as_json(self.proposed)
        for name in ("target_images", "proposed"):
            if not record[name]:
                del record[name]
        return record


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{name} must be a text, got {value!r}")
    return writable(value)


def writable(text: str) -> str:
    """A text with question marks for halves of surrogate pairs: legal in JSON, impossible in UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"{name} must be a list, got {value!r}")
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise DataError(f"target_images must be whole numbers, got {value!r}")
    return value


def _texts(value: object, name: str) -> tuple[str, ...]:
    return tuple(_text(item, name) for item in _list(value, name))


def _region(value: object) -> tuple[Sides, ...]:
    return tuple(_box(box, "targets") for box in _list(value, "targets"))


def _box(value: object, name: str) -> Sides:
    sides = _list(value, name)
    if len(sides) != 4 or not all(map(_is_side, sides)):
        raise DataError(f"{name} must be lists of boxes [x1, y1, x2, y2], got {str(sides)[:80]}")
    return tuple(sides)


def parse_origins(value: object, targets: Sequence[Sequence[Sides]]) -> tuple[tuple[Origin | None, ...], ...]:
    """What the boxes of some targets began as; empty where all were drawn.

    Args:
        value: a list for each region of null or `{"by": NAME, "box": BOX}` for each of its boxes.
        targets: the regions.

    Raises:
        DataError: it is something else, or has not one entry for each box.
    """
    regions = [_list(region, "proposed") for region in _list(value, "proposed")]
    if regions and list(map(len, regions)) != list(map(len, targets)):
        raise DataError("proposed must have one entry for each box of targets")
    found = tuple(tuple(map(_origin, region)) for region in regions)
    return found if any(map(any, found)) else ()


def _origin(value: object) -> Origin | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DataError(f"proposed must hold null or objects with 'by' and 'box', got {str(value)[:80]}")
    return Origin(_text(value.get("by"), "by"), _box(value.get("box"), "box"))


def origins_as_json(proposed: Sequence[Sequence[Origin | None]]) -> list[list[dict[str, Any] | None]]:
    """Plain JSON values, as `parse_origins` reads them."""
    return [
        [None if origin is None else {"by": origin.by, "box": list(origin.box)} for origin in region]
        for region in proposed
    ]


def _is_side(value: object) -> bool:
    # JSON in Python knows NaN, infinity and numbers of any length; no picture has a billion pixels on a side.
    return type(value) in (int, float) and abs(cast("float", value)) <= 1e9


@dataclass(frozen=True)
class Change:
    """One line of the journal.

    Attributes:
        row: id of the row.
        image: its picture as the data file names it, so that ids that moved to other pictures are noticed.
        revision: 1 for the first change of a row.
        annotator: who made it.
        time: when, UTC, ISO 8601.
        content: the row after the change.
        after: for a question that was added to a picture: the row of the data file that it follows.
        seconds: of work on the row since its last change, as the page measured them.
    """

    row: str
    image: str
    revision: int
    annotator: str
    time: str
    content: Content
    after: str | None = None
    seconds: float = 0.0


class Conflict(Exception):  # noqa: N818 - not a failure
    """Somebody else changed the row first; `latest` is what they made of it."""

    def __init__(self, latest: Change) -> None:
        super().__init__(f"row {latest.row} is at revision {latest.revision} by {latest.annotator}")
        self.latest = latest


class ChangeLog:
    """The changes in one file, read as far as they are written.

    Attributes:
        path: the file; made by the first change.
        changes: every change read so far, in the order of the file.
        latest: the newest change per row.
        seconds: of work per row, over all its changes.
        skipped: lines that hold no change.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changes: list[Change] = []
        self.latest: dict[str, Change] = {}
        self.seconds: dict[str, float] = {}
        self.skipped = 0
        self._offset = 0
        self._file: tuple[int, int] | None = None
        self._last = b""
        self._thread_lock = threading.Lock()
        self._file_lock = FileLock(f"{path}.lock")
        self.refresh()

    def refresh(self) -> None:
        """Read what other servers have appended.

        Raises:
            DataError: the file is gone, is another one, or no longer holds what was read.
        """
        with self._thread_lock:
            self._read()

    def append(
        self,
        row: str,
        image: str,
        base: int,
        annotator: str,
        content: Content,
        *,
        after: str | None = None,
        seconds: float = 0.0,
    ) -> Change:
        """Save a change.

        Args:
            row: id of the row.
            image: its picture as the data file names it.
            base: revision of the row on which the change was made, 0 for none.
            annotator: who made it.
            content: the row after it.
            after: for an added question, the row that it follows.
            seconds: of work since the last change.

        Returns:
            The change, on the disk.

        Raises:
            Conflict: the row has another revision by now; nothing is written.
            DataError: the file cannot be written, or is not the one that was read.
        """
        try:
            with self._thread_lock, self._file_lock:
                return self._append(Change(row, image, base, annotator, "", content, after, seconds))
        except OSError as error:
            raise DataError(f"{self.path} cannot be written ({error.strerror or error})") from None

    def _append(self, wanted: Change) -> Change:
        """Write a change, given with the revision on which it was made."""
        torn = self._read()
        before = self.latest.get(wanted.row)
        if before is not None and before.revision != wanted.revision:
            raise Conflict(before)
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        revision = 1 if before is None else before.revision + 1
        change = dataclasses.replace(wanted, revision=revision, time=time)
        is_new = not self.path.exists()
        with self.path.open("ab") as file:
            # A write cut short by a kill left no end of line; what follows it must start a new one.
            file.write(b"\n" * torn + _as_line(change))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(self.path.parent)
        self._read()
        return change

    def _read(self) -> bool:
        """Read the whole lines from `_offset` on; whether something follows them."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            if self._file is None:
                return False
            raise DataError(f"{self.path}: was removed by another program; {_AGAIN}") from None
        with file:
            found = os.fstat(file.fileno())
            if self._file not in (None, (found.st_dev, found.st_ino)):
                raise DataError(f"{self.path}: was replaced by another program; {_AGAIN}")
            if found.st_size < self._offset:
                raise DataError(f"{self.path}: was cut short by another program; {_AGAIN}")
            file.seek(self._offset - len(self._last))
            if file.read(len(self._last)) != self._last:
                raise DataError(f"{self.path}: was rewritten by another program; {_AGAIN}")
            self._file = found.st_dev, found.st_ino
            data = file.read()
        end = data.rfind(b"\n") + 1
        for line in data[:end].splitlines():
            change = _of_line(line)
            if change is not None:
                self.changes.append(change)
                self.latest[change.row] = change
                self.seconds[change.row] = self.seconds.get(change.row, 0.0) + change.seconds
            elif line.strip():
                self.skipped += 1
        self._offset += end
        if end:
            self._last = data[max(0, end - _REMEMBERED) : end]
        return end < len(data)


def _as_line(change: Change) -> bytes:
    record = {name: getattr(change, name) for name in ("row", "image", "revision", "annotator", "time")}
    if change.after is not None:
        record["after"] = change.after
    if change.seconds:
        record["seconds"] = change.seconds
    return json_line(record | change.content.as_record())


def _of_line(line: bytes) -> Change | None:
    try:
        record = parse_json(line)
        place = {name: record[name] for name in ("row", "image", "annotator", "time")}
        after, seconds = record.get("after"), record.get("seconds", 0.0)
        texts = [*place.values(), "" if after is None else after]
        if not all(isinstance(value, str) for value in texts) or not is_duration(seconds):
            return None
        content = Content.parse(record)
        return Change(
            **place, revision=int(record["revision"]), content=content, after=after, seconds=seconds
        )
    except (ValueError, TypeError, KeyError, DataError):
        return None


def is_duration(value: object) -> bool:
    """Whether a value is seconds of work between two changes: a number from 0 to the seconds of a day."""
    return type(value) in (int, float) and 0 <= cast("float", value) <= 86_400
