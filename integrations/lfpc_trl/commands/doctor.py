"""`lfpc doctor`: is this machine fit to train on?"""

import argparse
import json
from collections.abc import Sequence

from lfpc_trl.doctor import diagnose
from lfpc_trl.errors import UserError
from lfpc_trl.options import Parser


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc doctor",
        description="Look at versions, GPU, disk and settings of this machine; changes nothing.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Look; prints one line per check.

    Raises:
        UserError: something stops a training.
    """
    args = make_parser().parse_args(arguments)
    checks = diagnose()
    if args.json:
        print(json.dumps([check._asdict() for check in checks], indent=1))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            advice = f": {check.advice}" if check.advice else ""
            print(f"{check.level:<8} {check.name:<{width}}  {check.text}{advice}")
    problems = [check.name for check in checks if check.level == "problem"]
    if problems:
        raise UserError(f"this machine has problems: {', '.join(problems)}")
