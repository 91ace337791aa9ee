"""Journals: results are saved as soon as they are finished, so that a killed run can resume.

A journal is a JSONL file. Its first line, the header, holds the settings of the records; each further line is
one record. A kill can truncate the last line: it is dropped, and that piece of work is repeated. Several runs
may read a journal, one may write it.
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
except ImportError:  # not a POSIX system: two runs writing one journal are not detected there
    fcntl = None  # type: ignore[assignment]

Record = dict[str, Any]
"""One finished piece of work, plain JSON values."""

_SYNC_SECONDS = 5.0
"""Records survive a kill immediately; a power failure loses at most the records of this time. Our choice."""


def difference(before: Any, now: Any, name: str = "") -> str | None:
    """The first difference between two JSON values, as "NAME was X and is Y"; None if they are equal.

    Example:
        >>> difference({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
        'a.b was 1 and is 3'
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            path = f"{name}.{key}" if name else key
            change = difference(before.get(key), now.get(key), path)
            if change is not None:
                return change
        return None
    return None if before == now else f"{name} was {before!r} and is {now!r}"


def read_journal(path: Path, header: Mapping[str, Any]) -> list[Record]:
    """Read the complete records of a journal, even while another run is writing it.

    Raises:
        UserError: the file is not a journal, is damaged, or has a different header; the first difference is
            named.
    """
    return _read(path, header)[0]


def _read(path: Path, header: Mapping[str, Any]) -> tuple[list[Record], int]:
    """The records, and the number of bytes of the complete lines."""
    data = path.read_bytes()
    size = data.rfind(b"\n") + 1
    lines = []
    for number, line in enumerate(data[:size].splitlines(), start=1):
        try:
            value = parse_json(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UserError(f"{path} line {number}: damaged; delete the file or this line to continue")
        lines.append(value)
    if lines:
        changed = difference(lines[0], json.loads(json.dumps(header)))
        if changed is not None:
            raise UserError(f"{path}: was written by a run with other settings, {changed}")
    return lines[1:], size


class Journal:
    """A journal open for writing.

    Args:
        path: the file; created if missing, with its folder.
        header: the settings that the records depend on, as JSON values.

    Attributes:
        records: the records already in the file.

    Raises:
        UserError: as in `read_journal`, or another run is writing the file.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._synced = time.monotonic()
        try:
            self._lock(path)
            self.records, size = _read(path, header)
            self._file.truncate(size)
            if size == 0:
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
        """Write records; they survive a kill once this returns."""
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
