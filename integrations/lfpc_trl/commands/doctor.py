"""`lfpc doctor`: is this machine fit to train on, and does a checkpoint work?"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lfpc_trl.doctor import diagnose
from lfpc_trl.errors import UserError
from lfpc_trl.options import Parser
from lfpc_trl.results import tell_result


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
        problems, what = _told(lines, (8, width)), "this machine"
    else:
        from lfpc_trl.conformance.checks import CHECKS, examine

        verdicts = (_Line(*verdict) for verdict in examine(args.model))
        problems = _told(verdicts, (12, max(map(len, CHECKS))))
        what = str(args.model)
    if problems:
        raise UserError(f"{what} has problems: {', '.join(problems)}")


class _Line(NamedTuple):
    """A line of either report."""

    level: str
    name: str
    text: str
    advice: str = ""


def _told(lines: Iterable[_Line], widths: tuple[int, int]) -> list[str]:
    """Print a report, line by line as it comes; the names of the problems in it.

    Args:
        lines: of the report.
        widths: of the columns with the level and the name.
    """
    (level, name), kept = widths, []
    for line in lines:
        kept.append(line)
        advice = f": {line.advice}" if line.advice else ""
        print(f"{line.level:<{level}} {line.name:<{name}}  {line.text}{advice}", flush=True)
    tell_result({"findings": [line._asdict() for line in kept]})
    return [line.name for line in kept if line.level == "problem"]
