"""`lfpc compare`: several evaluations over the same questions, side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lfpc_trl.errors import UserError
from lfpc_trl.options import Parser
from lfpc_trl.results import tell_result


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc compare",
        description="Compare evaluations over the same questions: tables, paired differences, one page.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "evaluations", nargs="+", metavar="EVAL", help="output of lfpc eval, or NAME=EVAL to name its row"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--baseline", metavar="NAME", help="the one that is subtracted from the others; default: the first"
    )
    parser.add_argument(
        "--poor-overlap",
        type=float,
        default=0.5,
        metavar="X",
        help="overlap below which a crop covers the truth poorly, for the GT test; default: 0.5",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Compare; prints where the tables and the page are."""
    args = make_parser().parse_args(arguments)
    evaluations = _named(args.evaluations)
    if not 0 < args.poor_overlap <= 1:
        raise UserError(f"--poor-overlap must lie above 0 and at most at 1, got {args.poor_overlap:g}")
    if args.output.resolve() in [path.resolve() for path in evaluations.values()]:
        raise UserError(f"{args.output}: --output must not be one of the evaluations")

    from lfpc_trl.evaluate.comparison import COMPARISON, write_comparison
    from lfpc_trl.evaluate.outputs import PAGE, TABLES
    from lfpc_trl.json_values import read_json

    notes = write_comparison(evaluations, args.output, baseline=args.baseline, poor_overlap=args.poor_overlap)
    for note in notes:
        print(f"note: {note}")
    print(f"tables: {args.output / TABLES}")
    print(f"page: {args.output / PAGE}")
    told = {"tables": str(args.output / TABLES), "page": str(args.output / PAGE), "notes": list(notes)}
    tell_result(told | {"comparison": read_json(args.output / COMPARISON)})


def _named(given: Sequence[str]) -> dict[str, Path]:
    """Name to directory; a directory without a name has that of its folder."""
    found: dict[str, Path] = {}
    for text in given:
        name, sign, path = text.partition("=")
        directory = Path(path) if sign and not Path(text).exists() else Path(text)
        if not directory.is_dir():
            raise UserError(f"{directory}: no such directory")
        name = name if directory != Path(text) else directory.resolve().name
        if not name or name in found:
            raise UserError(f"{text}: two evaluations need two names; write NAME={directory}")
        found[name] = directory
    return found
