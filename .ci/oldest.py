"""Print the oldest versions that pyproject.toml lets in, as constraints: `numpy>=1.26` gives `numpy==1.26`.

What `constraints.txt` holds already (the CPU build of torch) is left to that file.
"""

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def read_project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def declared(project: Mapping[str, Any], extra: str) -> dict[str, str]:
    """Package: its range, in the core and in an extra with all the extras that this one includes.

    Args:
        project: the table `project` of a pyproject.toml.
        extra: such as "test".

    Raises:
        ValueError: one package has two ranges.
    """
    lines, waiting, seen = list(project["dependencies"]), [extra], set()
    while waiting:
        name = waiting.pop()
        for line in project["optional-dependencies"][name] if name not in seen else []:
            ours = re.fullmatch(rf"{re.escape(project['name'])}\[([\w,-]+)\]", line)
            if ours:
                waiting += ours.group(1).split(",")
            else:
                lines.append(line)
        seen.add(name)
    ranges: dict[str, str] = {}
    for line in lines:
        package, versions = re.fullmatch(r"([\w-]+)(?:\[[\w,-]+\])?(.*)", line).groups()
        if ranges.setdefault(package, versions) != versions:
            raise ValueError(f"{package} has two ranges: {ranges[package]} and {versions}")
    return ranges


def lowest(versions: str) -> str:
    """The version with which a range such as ">=1.16,<1.17" begins.

    Raises:
        ValueError: it has no lower bound, or not at its start.
    """
    found = re.match(r"(?:>=|==)([\w.]+)(?:,|$)", versions)
    if found is None:
        raise ValueError(f"a range must begin with its lower bound, got {versions!r}")
    return found.group(1)


def names(constraints: str) -> set[str]:
    """The packages that a constraints file names."""
    return set(re.findall(r"^[\w-]+", constraints, re.MULTILINE))


if __name__ == "__main__":
    held = names((ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8"))
    ranges = declared(read_project(), "test")
    sys.stdout.writelines(f"{name}=={lowest(ranges[name])}\n" for name in ranges if name not in held)
