"""Write down with which versions the whole test suite has just passed; both runs of CI end with it.

    python .ci/tested_versions.py newest     # after .ci/run
    python .ci/tested_versions.py oldest     # after .ci/run-oldest

The versions are those of the environment whose Python runs this. They go to `tested_versions.json`, which
`lfpc doctor` reads, and to the table in the docs.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from oldest import declared, read_project

from lfpc_trl.versions import MATRIX, TESTED_FILE, Package, installed, is_in, numbers, range_tested

End = Literal["oldest", "newest"]
Tested = Mapping[str, Mapping[str, str]]

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "prepare-model-and-data.md"
TABLE = re.compile(r"(?<=\| package \| supported \| tested \|\n\| --- \| --- \| --- \|\n)(?:\|.*\n)+")


def updated(tested: Tested, found: Mapping[str, str], end: End, supported: Mapping[str, str]) -> Tested:
    """The tested versions after one more run that has passed.

    The newest never goes down: a machine may be behind the last. What is not let in any more is forgotten.

    Args:
        tested: package: its `oldest` and `newest` version so far.
        found: package: the version of this run.
        end: which of the two runs it was.
        supported: package: the versions that are let in.
    """
    result = {}
    for name, version in found.items():
        kept = {key: old for key, old in tested.get(name, {}).items() if is_in(old, supported[name])}
        result[name] = {
            "oldest": version if end == "oldest" else kept.get("oldest", version),
            "newest": max(kept.get("newest", version), version, key=numbers),
        }
    return result


def as_json(tested: Tested) -> str:
    """The text of the file, a line for each package."""
    lines = (f"  {json.dumps(name)}: {json.dumps(ends)}" for name, ends in tested.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def with_table(page: str, matrix: Iterable[Package]) -> str:
    """The page with the rows of its table written anew.

    Raises:
        ValueError: the page has no such table.
    """
    rows = "".join(
        f"| `{package.name}` | `{package.supported}` | {' to '.join(package.tested) or 'none yet'} |\n"
        for package in matrix
    )
    if not TABLE.search(page):
        raise ValueError("the page has no table with the columns package, supported, tested")
    return TABLE.sub(lambda _: rows, page)


def main() -> None:
    """Write both files from what is installed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("end", choices=["oldest", "newest"])
    end = parser.parse_args().end
    names = declared(read_project(), "test")  # other packages may be there, but no test needs them
    found = {
        package.name: version.partition("+")[0]
        for package in MATRIX
        if package.name in names and (version := installed(package.name)) is not None
    }
    before = json.loads(TESTED_FILE.read_text(encoding="utf-8"))
    tested = updated(before, found, end, {package.name: package.supported for package in MATRIX})
    TESTED_FILE.write_text(as_json(tested), encoding="utf-8")
    matrix = [package._replace(tested=range_tested(tested, package.name)) for package in MATRIX]
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), matrix), encoding="utf-8")
    changed = [name for name, ends in tested.items() if ends != before.get(name)]
    new = [f"{name} {' to '.join(range_tested(tested, name))}" for name in changed]
    sys.stdout.write(f"newly tested, to be committed: {', '.join(new)}\n" if new else "no version is new\n")


if __name__ == "__main__":
    main()
