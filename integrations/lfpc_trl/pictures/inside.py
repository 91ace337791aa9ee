"""Pictures inside data files: named by a path that goes on behind the file, read one at a time.

A picture that is a file is named by its path. One inside a file has a path too, which goes on where that of
the file ends: `train.parquet/12.images.0` is the first of the list `images` in row 12 of `train.parquet`,
counted from 1. No other file can have such a path, so it travels, is kept and is written wherever a path is.

Parquet, Arrow (as `save_to_disk` of the library datasets writes it) and tar (as WebDataset has it) are known.
"""

import bisect
import functools
import itertools
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ARROW, PARQUET, TAR = ".arrow", ".parquet", ".tar"
_BATCH_BYTES = 1 << 24
"""Bytes of a column that are held at a time: a row group may be gigabytes. Our choice."""
_OPEN = 16
"""Columns and tables that stay open in a process. Our choice."""


def holder_of(path: Path) -> Path:
    """The file on the disk in which a picture is: the one behind which its path goes on, else the path."""
    if path.exists():
        return path
    return next((parent for parent in path.parents if parent.is_file()), path)


def place_inside(holder: str | Path, number: int, column: str) -> str:
    """The path of a picture inside a file.

    Args:
        holder: the file.
        number: of the row, from 1.
        column: where in the row; `images.0` is the first of a list.
    """
    return f"{holder}/{number}.{column}"


def read_inside(holder: Path, path: Path) -> bytes:
    """The bytes of a picture inside a file.

    Args:
        holder: the file, from `holder_of`.
        path: of the picture.

    Raises:
        OSError: there is no such picture in the file.
    """
    number, _, column = path.relative_to(holder).as_posix().partition(".")
    found = None
    if number.isdigit() and int(number) > 0:
        try:
            found = _cell(holder, int(number) - 1, column)
        except (LookupError, ValueError) as error:  # also what pyarrow and tarfile raise
            raise OSError(f"cannot read it inside {holder} ({error})") from None
    if isinstance(found, dict):
        found = found.get("bytes")
    if not isinstance(found, bytes):
        raise OSError(f"{holder.name} holds no picture in {column or 'no column'!r} of row {number}")
    return found


def _cell(holder: Path, row: int, column: str) -> Any:
    stat = holder.stat()
    state = (str(holder), stat.st_mtime_ns, stat.st_size)
    if holder.suffix == TAR:
        entry = _samples(*state)[row].fields[column]
        with holder.open("rb") as file:
            file.seek(entry.start)
            return file.read(entry.length)
    column, item = _column_and_item(column)
    values: Any = _table(*state).column(column) if holder.suffix == ARROW else _column(*state, column)
    value = values[row].as_py()
    return value if item is None else value[item]


def _column_and_item(text: str) -> tuple[str, int | None]:
    column, _, item = text.rpartition(".")
    return (column, int(item)) if column and item.isdigit() else (text, None)


# --- Parquet -----------------------------------------------------------------------------------------


class _Column:
    """One column of a Parquet file, of which a few rows are held.

    A row group can only be read from its start. Rows asked for in order are read once; going back in a row
    group costs reading it up to there again.
    """

    def __init__(self, path: str, column: str) -> None:
        from pyarrow import parquet

        # A buffer instead of whole column chunks.
        self._file = parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
        self._column = column
        groups = [self._file.metadata.row_group(i) for i in range(self._file.metadata.num_row_groups)]
        self._starts = list(itertools.accumulate((group.num_rows for group in groups), initial=0))
        total = sum(
            part.total_uncompressed_size
            for group in groups
            for part in map(group.column, range(group.num_columns))
            if part.path_in_schema.split(".")[0] == column
        )
        self._rows = max(1, min(256, _BATCH_BYTES * self._starts[-1] // max(total, 1)))
        self._lock = threading.Lock()
        self._group, self._next = -1, 0
        self._batches: Iterator[Any] = iter(())
        self._held: Any = ()

    def __getitem__(self, row: int) -> Any:
        if not 0 <= row < self._starts[-1]:
            raise IndexError(f"there are {self._starts[-1]} rows")
        group = bisect.bisect_right(self._starts, row) - 1
        with self._lock:
            if group != self._group or row < self._next - len(self._held):
                self._start(group)
            while row >= self._next:
                self._held = next(self._batches).column(self._column)
                self._next += len(self._held)
            return self._held[row - (self._next - len(self._held))]

    def _start(self, group: int) -> None:
        self._group, self._next, self._held = group, self._starts[group], ()
        self._batches = self._file.iter_batches(
            self._rows, row_groups=[group], columns=[self._column], use_threads=False
        )


@functools.lru_cache(_OPEN)
def _column(path: str, changed: int, length: int, column: str) -> _Column:  # noqa: ARG001 - part of the key
    return _Column(path, column)


# --- Arrow -------------------------------------------------------------------------------------------


def open_arrow(path: str | Path) -> Any:
    """The table of an Arrow file or stream, mapped: what is not looked at is not in memory.

    Raises:
        ValueError: it is none.
    """
    import pyarrow as pa

    mapped = pa.memory_map(str(path))
    is_file = mapped.read(6) == b"ARROW1"
    mapped.seek(0)
    return (pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)).read_all()


@functools.lru_cache(_OPEN)
def _table(path: str, changed: int, length: int) -> Any:  # noqa: ARG001 - part of the key
    return open_arrow(path)


# --- tar ---------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """Where a member of a tar file stands.

    Attributes:
        name: its path in the tar file.
        start: of its bytes.
        length: in bytes.
    """

    name: str
    start: int
    length: int


class Sample(NamedTuple):
    """The members of a tar file that belong together, as WebDataset has it: equal up to the first dot.

    Attributes:
        key: what their names have in common.
        fields: the members by the rest of their names, in lower case.
    """

    key: str
    fields: dict[str, Entry]


def tar_samples(path: Path) -> list[Sample]:
    """The samples of a tar file in its order; nothing but names and places is held.

    Raises:
        ValueError: it is no tar file, or a compressed one, which can only be read from its start.
        OSError: it cannot be read.
    """
    stat = path.stat()
    return _samples(str(path), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(_OPEN)
def _samples(path: str, changed: int, length: int) -> list[Sample]:  # noqa: ARG001 - part of the key
    found: list[Sample] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                folder, _, name = member.name.rpartition("/")
                stem, _, field = name.partition(".")
                if not member.isreg() or not stem or not field:  # folders, links, hidden files
                    continue
                key = f"{folder}/{stem}" if folder else stem
                if not found or found[-1].key != key:
                    found.append(Sample(key, {}))
                found[-1].fields[field.lower()] = Entry(member.name, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise ValueError(f"not a readable tar file without compression: {error}") from None
    return found


if hasattr(os, "register_at_fork"):  # a lock that is held stays locked in the child

    def _start_anew() -> None:
        for cache in (_column, _table, _samples):
            cache.cache_clear()

    os.register_at_fork(after_in_child=_start_anew)
