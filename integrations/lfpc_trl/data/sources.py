"""Records of a file, one at a time: JSON lines, one JSON array, Parquet, Arrow, tables of text, WebDataset.

Every reader yields (number, record), counting from 1; in JSON lines the number is the line's. A record that
cannot be read is yielded as the `DataError` that says why, and the next one follows. Where a file breaks off
so that nothing behind the place can be read, the reader raises. Memory is bounded by the largest record, not
by the file.
"""

import codecs
import csv
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lfpc_trl.errors import DataError, not_found, one_line
from lfpc_trl.json_values import MAX_DEPTH, is_deep, parse_json
from lfpc_trl.pictures.inside import ARROW, PARQUET, TAR, open_arrow, tar_samples
from lfpc_trl.pictures.opening import FORMATS

Record = dict[str, Any]
Numbered = Iterator[tuple[int, Record | DataError]]

MAX_RECORD = 1 << 28
"""Bytes of the longest record: a missing quote must not read a whole file into memory. Our choice."""
TABLES = {".csv": ",", ".tsv": "\t"}
"""Tables of text, by their suffix: what stands between two cells."""
_CHUNK = 1 << 18
_BATCH_BYTES = 1 << 24


def read_records(path: Path) -> Numbered:
    """The records of a file. Its first bytes decide what it is, not its suffix, as far as they can.

    Tables of text need `.csv` or `.tsv`, Arrow `.arrow`, and WebDataset `.tar`.
    """
    if not path.is_file():
        raise not_found(path)
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"PAR1") or path.suffix == PARQUET:
        return _parquet(path)
    if path.suffix in TABLES:
        return _table(path)
    if path.suffix == ARROW:
        return _arrow(path)
    if path.suffix == TAR:
        return _tar(path)
    start = head.removeprefix(codecs.BOM_UTF8).strip()
    if start.startswith((b"{\n", b"{\r\n")):
        raise DataError(
            f"{path}: each row must stand on one line, got '{{' alone on the first; "
            f"join them, for example with: jq -c . {path.name}"
        )
    return _array(path) if start[:1] == b"[" else _lines(path)


def _object(value: object) -> Record | DataError:
    if is_deep(value):
        return DataError(f"each record must be nested at most {MAX_DEPTH} deep")
    if isinstance(value, dict):
        return value
    return DataError(f"each record must be a JSON object, got {short(value)}")


def short(value: object) -> str:
    """A value in a message: at most 80 characters, without the pixels of a picture."""
    text = repr(value[:60] if isinstance(value, str | bytes | list) else value)
    return text if len(text) <= 80 else text[:77] + "..."


# --- JSON lines --------------------------------------------------------------------------------------


def _lines(path: Path) -> Numbered:
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(MAX_RECORD)
            if not line:
                return
            if len(line) == MAX_RECORD and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_RECORD)) and not rest.endswith(b"\n"):
                    pass
                yield number, DataError(f"a line must be shorter than {MAX_RECORD} bytes")
            elif line.strip():
                yield number, _line(line.removeprefix(codecs.BOM_UTF8))


def _line(line: bytes) -> Record | DataError:
    try:
        return _object(parse_json(line))
    except ValueError as error:  # bad JSON, bad UTF-8, endless brackets
        return DataError(f"each line must be JSON in UTF-8, got {short(line)} ({one_line(error)})")


# --- one big JSON value ------------------------------------------------------------------------------


class _Stream:
    """JSON values of a file one after another; the file is read in pieces.

    Bytes that are not UTF-8 become lone surrogates, so that the values around them can still be read; the
    writer of rows refuses such text.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._json = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._whole = False
        self._more(_CHUNK)
        self._text = self._text.removeprefix("\ufeff")

    def _more(self, size: int) -> None:
        data = self._file.read(size)
        self._whole = len(data) < size
        self._text = self._text[self._at :] + self._decode(data, self._whole)
        self._at = 0

    def peek(self) -> str:
        """The next character that is no space; empty at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or self._whole:
                return self._text[self._at : self._at + 1]
            self._more(_CHUNK)

    def take(self, expected: str) -> bool:
        """Step over the next character if it is `expected`."""
        found = self.peek() == expected
        self._at += found
        return found

    def value(self) -> Any:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - 16
                if self._whole or not cut:
                    raise self.broken(one_line(error)) from None
            except (ValueError, RecursionError) as error:  # a number of 5,000 digits, endless brackets
                raise self.broken(one_line(error)) from None
            else:
                # A number near the end of the piece ("1", "1.", "1e+") may go on in the next one.
                if end < len(self._text) - 3 or self._whole:
                    self._at = end
                    return value
            if len(self._text) - self._at > MAX_RECORD:
                raise self.broken(f"a value must be shorter than {MAX_RECORD} characters")
            self._more(max(_CHUNK, len(self._text) - self._at))

    def items(self) -> Iterator[Any]:
        """The items of the array that comes next."""
        if not self.take("["):
            raise self.broken("an array was expected")
        if self.take("]"):
            return
        while True:
            yield self.value()
            if self.take("]"):
                return
            if not self.take(","):
                raise self.broken("a comma between two items was expected")

    def broken(self, reason: str) -> DataError:
        return DataError(f"{self._path}: the JSON breaks off ({reason}); nothing behind that place was read")


def _array(path: Path) -> Numbered:
    with path.open("rb") as file:
        for number, value in enumerate(_Stream(path, file).items(), start=1):
            yield number, _object(value)


def read_members(path: Path) -> Iterator[tuple[str, Any]]:
    """(name, item) for every item of every array that is a member of the one JSON object in a file.

    Members that are no arrays are stepped over.

    Raises:
        DataError: there is no such file, it breaks off, or an item is nested too deep.
    """
    if not path.is_file():
        raise not_found(path)
    with path.open("rb") as file:
        stream = _Stream(path, file)
        if not stream.take("{"):
            raise stream.broken("an object was expected")
        while not stream.take("}"):
            name = stream.value()
            if not stream.take(":"):
                raise stream.broken("a colon was expected")
            if stream.peek() == "[":
                for item in stream.items():
                    if is_deep(item):
                        raise DataError(f"{path}: each item must be nested at most {MAX_DEPTH} deep")
                    yield name, item
            else:
                stream.value()
            if not stream.take(",") and stream.peek() != "}":
                raise stream.broken("a comma between two members was expected")


# --- Parquet, Arrow and tables ------------------------------------------------------------------------------


def _parquet(path: Path) -> Numbered:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        # A buffer instead of whole column chunks: published files have row groups of gigabytes.
        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            meta = file.metadata
            size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            rows = max(1, min(1024, _BATCH_BYTES * meta.num_rows // max(size, 1)))
            for batch in file.iter_batches(batch_size=rows, use_threads=False):
                for record in _batch(batch):
                    number += 1
                    yield number, record
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({one_line(error)})") from None


def _batch(batch: Any) -> Iterator[Record | DataError]:
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError):  # some row of these; nothing was yielded yet
        pass
    for i in range(len(batch)):
        try:
            yield from batch.slice(i, 1).to_pylist()
        except UnicodeDecodeError as error:
            yield DataError(f"text must be UTF-8, got {short(error.object)}")
        except (ValueError, OverflowError) as error:  # a timestamp in the year 300,000
            yield DataError(f"each value must be one that Python can hold, got another ({one_line(error)})")


def _table(path: Path) -> Numbered:
    csv.field_size_limit(MAX_RECORD)
    with (
        path.open("rb") as binary,
        io.TextIOWrapper(binary, "utf-8-sig", "surrogateescape", newline="") as file,
    ):
        reader = csv.DictReader(file, delimiter=TABLES[path.suffix])
        try:
            for number, record in enumerate(reader, start=1):
                spare = record.pop(None, None)
                yield (
                    number,
                    record if spare is None else DataError(f"more cells than columns, got {short(spare)}"),
                )
        except csv.Error as error:
            raise DataError(f"{path}: the table breaks off ({one_line(error)})") from None


def _arrow(path: Path) -> Numbered:
    try:
        batches = open_arrow(path).to_batches(max_chunksize=64)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not a readable Arrow file ({one_line(error)})") from None
    yield from enumerate(itertools.chain.from_iterable(map(_batch, batches)), start=1)


# --- WebDataset --------------------------------------------------------------------------------------

_PICTURES = tuple(suffix.removeprefix(".") for suffixes in FORMATS.values() for suffix in suffixes)


def _tar(path: Path) -> Numbered:
    """The samples of a tar file: the members up to the first dot of their names, by the rest of the names.

    A member `json` gives an object, a picture `{"bytes", "path"}` as in Parquet, any other its text.
    """
    try:
        samples = tar_samples(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: {one_line(error)}") from None
    with path.open("rb") as file:
        for number, sample in enumerate(samples, start=1):
            record: Record = {"__key__": sample.key}
            try:
                for field, entry in sample.fields.items():
                    if entry.length > MAX_RECORD:
                        raise DataError(f"{entry.name} must be shorter than {MAX_RECORD} bytes")
                    file.seek(entry.start)
                    record[field] = _member(field, entry.name, file.read(entry.length))
            except DataError as error:
                yield number, error
            else:
                yield number, record


def _member(field: str, name: str, data: bytes) -> Any:
    suffix = field.rpartition(".")[2]
    if suffix in _PICTURES:
        return {"bytes": data, "path": name}
    try:
        return parse_json(data) if suffix == "json" else data.decode().strip()
    except ValueError as error:
        wanted = "JSON" if suffix == "json" else "text in UTF-8"
        raise DataError(f"{name} must be {wanted}, got {short(data)} ({one_line(error)})") from None
