"""One conversion: records in, rows (or another format) out, and a reason for every rejected record."""

import collections
import contextlib
import dataclasses
import functools
import json
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from lfpc_trl.convert.drafts import as_row
from lfpc_trl.convert.formats import FORMATS, Format
from lfpc_trl.convert.label_studio import LabelStudioWriter
from lfpc_trl.convert.pictures import PictureStore
from lfpc_trl.convert.scratch import scratch_table
from lfpc_trl.convert.text import needs_judge
from lfpc_trl.convert.verl import VerlWriter
from lfpc_trl.data.boxes import BoxLayout
from lfpc_trl.data.columns import Columns
from lfpc_trl.data.rows import Row, as_record, mapped, read_columns
from lfpc_trl.data.sources import Record
from lfpc_trl.errors import DataError, InterruptedRun, UserError, not_found
from lfpc_trl.files import clear_scratch, publish, scratch_prefix

TARGETS = {"rows": ".jsonl", "verl": ".parquet", "label-studio": ".json"}
"""The output formats and their file suffixes."""


@dataclasses.dataclass
class Summary:
    """The outcome of a conversion.

    Attributes:
        converted: rows written.
        rejected: records that did not become rows; the rejects file gives the reasons.
        reasons: how often each rule was violated.
        need_judge: rows whose answer is a formula or a sentence.
    """

    converted: int = 0
    rejected: int = 0
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    need_judge: int = 0


class Writer(Protocol):
    """Takes rows one at a time."""

    def write(self, row: Row) -> None:
        """Add a row."""

    def close(self) -> None:
        """Close the file."""


class _RowsWriter:
    def __init__(self, path: Path) -> None:
        self._folder = path.parent.absolute()
        self._file = path.open("w", encoding="utf-8")

    def write(self, row: Row) -> None:
        self._file.write(json.dumps(as_record(row, self._folder), ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class _Rejects:
    """The draft of the rejects file; it exists only if something was rejected."""

    def __init__(self, path: Path) -> None:
        self._path = _part(path)
        self._path.unlink(missing_ok=True)
        self._files = contextlib.ExitStack()
        self._file: Any = None

    def write(self, **entry: object) -> None:
        if self._file is None:
            self._file = self._files.enter_context(self._path.open("w", encoding="utf-8"))
        self._file.write(json.dumps(entry) + "\n")

    def close(self) -> None:
        self._files.close()


class _Ids:
    """Every id and where it was first used, kept on disk: millions of them would not fit in memory."""

    def __init__(self) -> None:
        self._table = scratch_table("id TEXT PRIMARY KEY, place TEXT", "WITHOUT ROWID")

    def add(self, name: str, place: str) -> None:
        try:
            self._table.execute("INSERT INTO t VALUES (?, ?)", (name, place))
        except sqlite3.IntegrityError:
            [first] = self._table.execute("SELECT place FROM t WHERE id = ?", (name,)).fetchone()
            raise DataError(f"id must be unique, got {name!r} as in {first}") from None

    def close(self) -> None:
        self._table.close()


def _part(path: Path) -> Path:
    """The draft that is renamed to `path` when complete; an existing one is left from an interrupted run."""
    return path.with_name(path.name + ".part")


def convert(
    inputs: Sequence[Path],
    output: Path,
    *,
    source: str,
    to: str = "rows",
    images: Path | None = None,
    rejects: Path | None = None,
    layout: BoxLayout | None = None,
    columns: Columns | None = None,
    data_source: str = "lfpc",
    progress: Callable[[int], None] = lambda _: None,
) -> Summary:
    """Convert files of one format. Memory does not grow with the number of records.

    Args:
        inputs: files (for V* folders) of the format `source`.
        output: a new file; pictures go to `images/` beside it.
        source: a name from `FORMATS`.
        to: a name from `TARGETS`; rows on one side at least.
        images: where picture paths start; the folder of the input by default. No path may lead outside.
        rejects: a new file, JSON lines of file, row, id and reason; beside the output by default.
        layout: what the boxes' numbers mean, if it differs from the format's default.
        columns: a mapping for rows whose columns have other names.
        data_source: value of that column in verl's files.
        progress: called with the number of records read, now and then.

    Raises:
        UserError: an argument is invalid, before anything is written; or an input is truncated, after all
            records before that point were written.
    """
    rejects = rejects or output.with_suffix(".rejects.jsonl")
    _check(inputs, output, rejects, source=source, to=to, images=images, layout=layout)
    if columns is not None and source != "rows":
        raise UserError(f"--columns cannot be used with {source}, which has fixed columns; use --from rows")
    output.parent.mkdir(parents=True, exist_ok=True)
    part = _part(output)
    rejects.unlink(missing_ok=True)  # left by a run that was killed while it renamed its files
    summary, broken = Summary(), []
    with contextlib.ExitStack() as stack:
        folder = output.parent
        if to == "verl":  # pictures are inside the file
            clear_scratch(folder, "pictures")
            scratch = tempfile.TemporaryDirectory(dir=folder, prefix=scratch_prefix("pictures"))
            folder = Path(stack.enter_context(scratch))
        writer = stack.enter_context(contextlib.closing(_writer(to, part, data_source)))
        refused = stack.enter_context(contextlib.closing(_Rejects(rejects)))
        ids = stack.enter_context(contextlib.closing(_Ids()))
        try:
            for path in inputs:
                store = PictureStore(folder, images or (path if path.is_dir() else path.parent))
                make = functools.partial(_make_row, FORMATS[source], store, folder, layout, columns, ids)
                try:
                    for number, record in FORMATS[source].read(path):
                        _take(make, path, number, record, writer, refused, summary)
                        if (summary.converted + summary.rejected) % 1000 == 0:
                            progress(summary.converted + summary.rejected)
                except DataError as error:
                    broken.append(str(error))
        except KeyboardInterrupt:
            raise InterruptedRun(
                f"the first {summary.converted} rows are in {part}; the same command starts over"
            ) from None
    if summary.rejected:
        publish(_part(rejects), rejects)
    publish(part, output)
    if broken:
        raise UserError(f"{broken[0]}; {summary.converted} rows are in {output}")
    return summary


def _take(
    make: Callable[[Record, str, str], Row],
    path: Path,
    number: int,
    record: Record | DataError,
    writer: Writer,
    refused: _Rejects,
    summary: Summary,
) -> None:
    """Write one record as a row, or its rejection."""
    name = f"{path.stem}-{number}"
    try:
        if isinstance(record, DataError):
            raise record
        row = make(record, name, f"{path.name} row {number}")
    except DataError as error:
        summary.rejected += 1
        summary.reasons[str(error).split(", got")[0]] += 1
        refused.write(file=str(path), row=number, id=_id_of(record, name), reason=str(error))
        return
    writer.write(row)
    summary.converted += 1
    summary.need_judge += row.choices is None and needs_judge(row.answer)


def _make_row(
    chosen: Format,
    store: PictureStore,
    folder: Path,
    layout: BoxLayout | None,
    columns: Columns | None,
    ids: _Ids,
    record: Record,
    name: str,
    place: str,
) -> Row:
    draft = chosen.convert(mapped(record, columns) if chosen.read is read_columns else record)
    layout = layout or (None if columns is None else columns.layout)
    row = as_row(draft, store, folder, layout=layout or chosen.layout or "xyxy", name=name, skip=chosen.skip)
    ids.add(row.id, place)
    return row


def _id_of(record: Record | DataError, name: str) -> str:
    """The id that the source gives a record, if any."""
    found = record if isinstance(record, dict) else {}
    value = next((found[key] for key in ("id", "qid", "doc_id", "index") if found.get(key) is not None), name)
    return str(value)[:200]


def _writer(to: str, path: Path, data_source: str) -> Writer:
    if to == "verl":
        return VerlWriter(path, data_source)
    return LabelStudioWriter(path) if to == "label-studio" else _RowsWriter(path)


def _check(
    inputs: Sequence[Path],
    output: Path,
    rejects: Path,
    *,
    source: str,
    to: str,
    images: Path | None,
    layout: BoxLayout | None,
) -> None:
    if "rows" not in (source, to):
        raise UserError(f"one side must be rows, got --from {source} --to {to}: convert to rows first")
    if output.suffix != TARGETS[to]:
        raise UserError(f"{output}: {to} is written to a {TARGETS[to]} file")
    if output.exists() or (rejects.exists() and not _part(output).exists()):
        raise UserError(f"{output if output.exists() else rejects}: already exists")
    for path in inputs:
        if not path.exists():
            raise not_found(path)
    if images is not None and not images.is_dir():
        raise UserError(f"{images}: no such folder")
    if layout is not None and FORMATS[source].layout is None:
        raise UserError(f"--box-layout cannot be used with {source}, which has no boxes")
