"""Journals: what is finished is written down at once, so that a killed run goes on where it stopped.

A journal is a JSONL file. Its first line, the header, says what the records were made with; each further line
is one record. A kill can cut off the last line: it is dropped, and that piece of work is done again. Several
runs may read a journal, one may write it.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lfpc_trl.errors import UserError
from lfpc_trl.json_values import json_line, parse_json

try:
    import fcntl
except ImportError:  # not a POSIX system: two runs on one journal go unnoticed there
    fcntl = None  # type: ignore[assignment]

Record = dict[str, Any]
"""One finished piece of work, plain JSON values."""

_SYNC_SECONDS = 5.0
"""A record survives a kill at once; a power failure costs at most the records of this time. Our choice."""


def difference(before: Any, now: Any, name: str = "") -> str | None:
    """The first difference between two JSON values, as "NAME was X and is Y"; None if they are equal.

    Example:
        >>> difference({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
        'a.b was 1 and is 3'
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            place = f"{name}.{key}" if name else key
            found = difference(before.get(key), now.get(key), place)
            if found is not None:
                return found
        return None
    return None if before == now else f"{name} was {before!r} and is {now!r}"


def read_journal(path: Path, header: Mapping[str, Any]) -> list[Record]:
    """The whole records of a journal, also of one that another run is writing.

    Raises:
        UserError: the file is no journal, is damaged, or was made with another header; the first
            difference is named.
    """
    return _read(path, header)[0]


def _read(path: Path, header: Mapping[str, Any]) -> tuple[list[Record], int]:
    """The records, and how many bytes the whole lines take."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    lines = []
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            value = parse_json(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UserError(f"{path} line {number}: damaged; delete the file, or this line, to go on without")
        lines.append(value)
    if lines:
        changed = difference(lines[0], json.loads(json.dumps(header)))
        if changed is not None:
            raise UserError(f"{path}: was written by another run, {changed}")
    return lines[1:], whole


class Journal:
    """A journal open for writing.

    Args:
        path: the file; made, with its folder, unless it is there.
        header: what the records depend on, as JSON values.

    Attributes:
        records: those that were there already.

    Raises:
        UserError: as `read_journal`, or another run is writing the file.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._synced = time.monotonic()
        try:
            self._lock(path)
            self.records, whole = _read(path, header)
            self._file.truncate(whole)
            if whole == 0:
                self.append([dict(header)])
        except BaseException:
            self._file.close()
            raise

    def _lock(self, path: Path) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another run is writing here") from None
        except OSError:
            pass  # a network file system without locks

    def append(self, records: Iterable[Record]) -> None:
        """Write records down; they survive a kill when this returns."""
        for record in records:
            self._file.write(json_line(record))
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
