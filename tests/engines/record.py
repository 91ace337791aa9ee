"""What ran with what: a row for each path through the engines, written by the tests that have proven it.

A test says `record(...)` as its last line. Where `LFPC_ENGINES_RECORD` names a
file the row is kept there, and

    python -m tests.engines.record FILE

merges the file into `docs/results/engines.jsonl` and writes the tables of `docs/results/engines.md` from it.
"""

import argparse
import dataclasses
import datetime as dt
import json
import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

from lfpc_trl.versions import installed

PAGE = Path(__file__).parents[2] / "docs" / "results" / "engines.md"
ROWS = PAGE.with_suffix(".jsonl")
TABLES = re.compile(r"(?<=<!-- rows: written by tests/engines/record.py -->\n).*", re.DOTALL)
PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "deepspeed", "vllm")


@dataclasses.dataclass(frozen=True)
class Row:
    """One path through one engine.

    Attributes:
        path: what was done, such as "one step, full weights".
        engine: on what, such as "ZeRO-3, 2 processes" or "vLLM, colocate".
        equals: what it was compared with; empty where it was only seen to run.
        difference: the largest difference that was found, in the unit of `limit`.
        limit: above this the test fails.
        unit: what the two count.
        resumes: what a run equals that was killed and went on; empty where that does not apply.
        versions: package: version, of those that took part.
        date: ISO 8601.
    """

    path: str
    engine: str
    equals: str = ""
    difference: float | None = None
    limit: float | None = None
    unit: str = ""
    resumes: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    date: str = ""

    def place(self) -> tuple[str, str, str]:
        """Rows at one place are the same claim."""
        return self.path, self.engine, json.dumps(self.versions, sort_keys=True)

    def claims(self) -> "Row":
        """Without what differs between two runs of one test."""
        return dataclasses.replace(self, difference=None, date="")


def record(
    path: str,
    engine: str,
    *,
    equals: str = "",
    difference: float | None = None,
    limit: float | None = None,
    unit: str = "",
    resumes: str = "",
) -> None:
    """Keep a row, if this run keeps any; the last line of the test that has proven it.

    Args:
        path: see `Row`, as are the others.
    """
    file = os.environ.get("LFPC_ENGINES_RECORD")
    if not file:
        return
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        version = installed(package)
        if version is not None and (package != "vllm" or "vLLM" in engine):
            versions[package] = version.partition("+")[0]
    row = Row(
        path,
        engine,
        equals,
        None if difference is None else float(f"{difference:.1e}"),
        limit,
        unit,
        resumes,
        versions,
        dt.datetime.now(dt.UTC).date().isoformat(),
    )
    with Path(file).open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(dataclasses.asdict(row)) + "\n")


def read(file: Path) -> list[Row]:
    """The rows of a file."""
    return [Row(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Old rows and new ones; a row that claims what it claimed before stays as it was, with its date."""
    rows = {row.place(): row for row in old}
    for row in new:
        before = rows.get(row.place())
        if before is None or before.claims() != row.claims():
            rows[row.place()] = row
    return sorted(rows.values(), key=Row.place)


def tables(rows: Iterable[Row]) -> str:
    """The rows as Markdown: a table for each set of versions, the newest first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(
            ", ".join(f"{name} {version}" for name, version in row.versions.items()), []
        ).append(row)
    text = ""
    for versions, members in sorted(
        groups.items(), key=lambda group: max(row.date for row in group[1]), reverse=True
    ):
        text += f"\n{versions}:\n\n"
        text += "| path | engine | equals | largest difference | a resumed run | date |\n"
        text += "| --- | --- | --- | --- | --- | --- |\n"
        for row in members:
            found = "-" if row.difference is None else f"{row.difference:.1e}"
            if row.limit is not None:
                found += f" (limit {row.limit:g}{f', {row.unit}' if row.unit else ''})"
            cells = (row.path, row.engine, row.equals or "runs", found, row.resumes or "-", row.date)
            text += f"| {' | '.join(cells)} |\n"
    return text


def main() -> None:
    """Merge a run's rows into the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    rows = merged(read(ROWS) if ROWS.exists() else [], read(parser.parse_args().file))
    ROWS.write_text("".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows), encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLES.sub(lambda _: tables(rows), page), encoding="utf-8")


if __name__ == "__main__":
    main()
