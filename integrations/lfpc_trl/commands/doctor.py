"""`lfpc doctor`: is this machine fit to train on, and does a checkpoint work?"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lfpc_trl.doctor import diagnose
from lfpc_trl.errors import UserError
from lfpc_trl.options import Parser


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc doctor",
        description="Look at versions, GPU, disk and settings of this machine, or at a model directory; "
        "changes nothing.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="look at this model directory instead: its files, its chat template, and a small model of its "
        "architecture in one rollout, one update, saved, loaded and resumed",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Look; prints one line per check.

    Raises:
        UserError: something stops a training.
    """
    args = make_parser().parse_args(arguments)
    if args.model is None:
        lines = [_Line(each.level, each.name, each.text, each.advice) for each in diagnose()]
        width = max(len(line.name) for line in lines)
        problems, what = _told(lines, (8, width), as_json=args.json), "this machine"
    else:
        from lfpc_trl.conformance.checks import CHECKS, examine

        verdicts = (_Line(*verdict) for verdict in examine(args.model))
        problems = _told(verdicts, (12, max(map(len, CHECKS))), as_json=args.json)
        what = str(args.model)
    if problems:
        raise UserError(f"{what} has problems: {', '.join(problems)}")


class _Line(NamedTuple):
    """A line of either report."""

    level: str
    name: str
    text: str
    advice: str = ""


def _told(lines: Iterable[_Line], widths: tuple[int, int], *, as_json: bool) -> list[str]:
    """Print a report, line by line as it comes; the names of the problems in it.

    Args:
        lines: of the report.
        widths: of the columns with the level and the name.
        as_json: whether all of it is printed at once, as JSON.
    """
    (level, name), kept = widths, []
    for line in lines:
        kept.append(line)
        if not as_json:
            advice = f": {line.advice}" if line.advice else ""
            print(f"{line.level:<{level}} {line.name:<{name}}  {line.text}{advice}", flush=True)
    if as_json:
        print(json.dumps([line._asdict() for line in kept], indent=1))
    return [line.name for line in kept if line.level == "problem"]
