"""`lfpc locus-data`: rows of LOCUS from any boxes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lfpc_trl.errors import UserError
from lfpc_trl.options import Parser
from lfpc_trl.results import tell_result

_SHOWN = 20
"""Annotations that cannot be used and are named one by one."""


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc locus-data",
        description="Make rows for LOCUS: parts of pictures that are to be found again.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FILE",
        help="rows with targets, .jsonl or .parquet, or COCO annotations, .json",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="pictures of COCO annotations")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="new file of rows")
    parser.add_argument("--count", type=int, metavar="N", help="cues; default: as many as there can be")
    parser.add_argument("--seed", type=int, default=0, help="of the choice and the sizes; default: 0")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Make the rows; prints the counts."""
    args = make_parser().parse_args(arguments)
    if (args.data.suffix == ".json") != (args.images is not None):
        raise UserError("--images is for COCO annotations (.json), and they need it")
    if args.count is not None and args.count < 1:
        raise UserError(f"--count must be at least 1, got {args.count}")
    if args.output.exists():
        raise UserError(f"{args.output}: already exists")

    from lfpc_trl.data.frames import read_with_warning, tell
    from lfpc_trl.data.rows import SUFFIXES, write_rows
    from lfpc_trl.locus.cues import boxes_of_coco, boxes_of_rows, build_cues

    if args.output.suffix not in SUFFIXES:
        raise UserError(f"{args.output}: rows are written to a .jsonl or .parquet file")
    left_out: list[str] = []
    if args.images is None:
        rows, boxes = read_with_warning(args.data, require_targets=True)
        tell(boxes)
        sources = list(boxes_of_rows(rows))
    else:
        sources = list(boxes_of_coco(args.data, args.images, left_out.append))
    for line in left_out[:_SHOWN]:
        print(f"left out: {line}", file=sys.stderr)
    if len(left_out) > _SHOWN:
        print(f"left out: {len(left_out) - _SHOWN} more", file=sys.stderr)
    cues = build_cues(sources, count=args.count, seed=args.seed)
    write_rows(cues.rows, args.output)
    for name, value in cues.counts.items():
        print(f"{name}: {value}")
    if left_out:
        print(f"left out: {len(left_out)}")
    if cues.note:
        print(f"note: {cues.note}")
    counts = {"counts": dict(cues.counts), "left_out": left_out, "note": cues.note}
    tell_result({"output": str(args.output)} | counts)
