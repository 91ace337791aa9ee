"""`lfpc demo`: both stages on a small model."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lfpc_trl.errors import InterruptedRun
from lfpc_trl.options import Parser
from lfpc_trl.results import tell_result


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc demo",
        description="Train both stages on a small model on this machine and write a report.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output", type=Path, default=Path("lfpc-demo"), metavar="DIR", help="default: lfpc-demo"
    )
    parser.add_argument("--seed", type=int, default=0, help="of pictures, sampling and training; default: 0")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything in about a minute")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output")
    parser.add_argument(
        "--from-scratch", action="store_true", help="train the warm checkpoint too, from nothing (two hours)"
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Run the demo."""
    options = vars(make_parser().parse_args(arguments))
    from lfpc_trl.demo.run import run

    try:
        results = run(**options)
    except KeyboardInterrupt:
        raise InterruptedRun("go on with --resume") from None
    report = options["output"] / "report.html"
    tell_result({"output": str(options["output"]), "page": str(report), "results": results})
