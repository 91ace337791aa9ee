"""Follows a page of the docs: runs its `lfpc` commands in their order and compares what the page shows."""

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from lfpc_trl import cli

DOCS = Path(__file__).parents[2] / "docs"


class Step(NamedTuple):
    """A command of a page: the words behind `lfpc`, and the lines that the page shows of its output."""

    words: list[str]
    shown: list[str]


def steps_of(page: str) -> list[Step]:
    """The commands of a page; what a `text` block shows is of the last command above it.

    Other programs, such as a download, are left out.
    """
    steps: list[Step] = []
    text = (DOCS / page).read_text(encoding="utf-8")
    for kind, block in re.findall(r"^```(bash|text)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if kind == "text":
            steps[-1].shown.extend(block.splitlines())
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["lfpc"]:
                steps.append(Step(words[1:], []))
    return steps


def follow(
    page: str, capsys, served: Mapping[tuple[str, ...], Callable[[], None]] | None = None
) -> list[list[str]]:
    """Run a page in the current folder; every line that it shows must be printed, an error as the only one.

    Args:
        page: below `docs`.
        capsys: the fixture.
        served: commands that serve until they are stopped, and what is done in place of each: it starts a
            server, does the work of a person, and stops it.

    Returns:
        The words of the commands that were run.
    """
    steps = steps_of(page)
    for words, shown in steps:
        if served and tuple(words) in served:
            served[tuple(words)]()
            continue
        fails = any(line.startswith("lfpc: error:") for line in shown)
        status = cli.main(words)
        told = capsys.readouterr()
        assert status == (2 if fails else 0), (words, told.err)
        printed = [line.rpartition("\r")[2] for line in (told.err if fails else told.out).splitlines()]
        assert [line for line in shown if line not in printed] == [], (words, printed)
    return [step.words for step in steps]
