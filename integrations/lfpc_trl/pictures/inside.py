"""Pictures embedded in data files: addressed by an extended path and read one at a time.

The path of an embedded picture extends that of its file: `train.parquet/12.images.0` is the first entry of
the list `images` in row 12 of `train.parquet`, counted from 1. No other file can have such a path, so it is
passed, cached and saved like any path.

Supported are Parquet, Arrow (as written by `save_to_disk` of the datasets library) and tar (WebDataset).
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
"""Bytes of a column in memory at a time: a row group may have gigabytes. Our choice."""
_OPEN = 16
"""Columns and tables kept open per process. Our choice."""


def container_file(path: Path) -> Path:
    """Return the file that holds a picture: `path` itself, or the file that the path extends."""
    if path.exists():
        return path
    return next((parent for parent in path.parents if parent.is_file()), path)


def embedded_path(holder: str | Path, number: int, column: str) -> str:
    """Return the path of an embedded picture.

    Args:
        holder: the file.
        number: row number, from 1.
        column: column of the row; `images.0` is the first entry of a list.
    """
    return f"{holder}/{number}.{column}"


def read_embedded(holder: Path, path: Path) -> bytes:
    """Read the bytes of an embedded picture.

    Args:
        holder: the file, from `container_file`.
        path: path of the picture.

    Raises:
        OSError: there is no such picture in the file.
    """
    number, _, column = path.relative_to(holder).as_posix().partition(".")
    data = None
    if number.isdigit() and int(number) > 0:
        try:
            data = _cell(holder, int(number) - 1, column)
        except (LookupError, ValueError) as error:  # base classes of pyarrow's and tarfile's errors
            raise OSError(f"cannot read it inside {holder} ({error})") from None
    if isinstance(data, dict):
        data = data.get("bytes")
    if not isinstance(data, bytes):
        raise OSError(f"{holder.name} holds no picture in {column or 'no column'!r} of row {number}")
    return data


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
    """A column of a Parquet file with a few rows in memory.

    A row group can only be read from its start. Rows accessed in order are read once; going back within a row
    group reads it again from its start.
    """

    def __init__(self, path: str, column: str) -> None:
        from pyarrow import parquet

        # Read through a buffer instead of loading whole column chunks.
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
            raise IndexError(f"the file has {self._starts[-1]} rows")
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
    """Memory-map the table of an Arrow file or stream.

    Raises:
        ValueError: it is neither.
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
    """Location of a tar member.

    Attributes:
        name: its path in the tar file.
        start: offset of its data in bytes.
        length: length of its data in bytes.
    """

    name: str
    start: int
    length: int


class Sample(NamedTuple):
    """A WebDataset sample: the tar members whose names are equal up to the first dot.

    Attributes:
        key: the common part of their names.
        fields: the members by the rest of their names, in lower case.
    """

    key: str
    fields: dict[str, Entry]


def tar_samples(path: Path) -> list[Sample]:
    """List the samples of a tar file in order; only names and offsets are kept in memory.

    Raises:
        ValueError: it is not a tar file, or a compressed one, which has no random access.
        OSError: it cannot be read.
    """
    stat = path.stat()
    return _samples(str(path), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(_OPEN)
def _samples(path: str, changed: int, length: int) -> list[Sample]:  # noqa: ARG001 - part of the key
    samples: list[Sample] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps all members
                folder, _, name = member.name.rpartition("/")
                stem, _, field = name.partition(".")
                if not member.isreg() or not stem or not field:  # folders, links, hidden files
                    continue
                key = f"{folder}/{stem}" if folder else stem
                if not samples or samples[-1].key != key:
                    samples.append(Sample(key, {}))
                samples[-1].fields[field.lower()] = Entry(member.name, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise ValueError(f"not a readable uncompressed tar file: {error}") from None
    return samples


if hasattr(os, "register_at_fork"):  # a lock held during the fork would stay locked in the child

    def _clear_caches() -> None:
        for cache in (_column, _table, _samples):
            cache.cache_clear()

    os.register_at_fork(after_in_child=_clear_caches)
