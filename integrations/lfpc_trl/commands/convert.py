"""`lfpc convert`: data of other systems to rows, and rows to what others read."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lfpc_trl.errors import UserError

if TYPE_CHECKING:
    from lfpc_trl.convert.run import Summary

from lfpc_trl.options import Parser, add_columns
from lfpc_trl.progress import Progress
from lfpc_trl.results import tell_result


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    from lfpc_trl.convert.formats import FORMATS
    from lfpc_trl.convert.run import TARGETS
    from lfpc_trl.data.boxes import BOX_LAYOUTS

    parser = Parser(
        prog="lfpc convert",
        description="Convert data of other systems to rows, or rows to what others read.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--from", dest="source", choices=tuple(FORMATS), required=True, help="format of --input"
    )
    parser.add_argument(
        "--input", type=Path, nargs="+", required=True, metavar="PATH", help="files; for vstar a folder"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="new file")
    parser.add_argument(
        "--to", choices=tuple(TARGETS), default="rows", help="format of --output; default: rows"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="where picture paths start; default: the input's folder"
    )
    parser.add_argument(
        "--rejects", type=Path, metavar="FILE", help="new file; default: OUTPUT.rejects.jsonl"
    )
    parser.add_argument("--box-layout", choices=BOX_LAYOUTS, help="of the boxes; default: the format's own")
    add_columns(parser)
    parser.add_argument(
        "--data-source", default="lfpc", metavar="NAME", help="the column of --to verl; default: lfpc"
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Convert; prints the counts.

    Raises:
        UserError: no record became a row.
    """
    args = make_parser().parse_args(arguments)
    from lfpc_trl.convert.run import convert
    from lfpc_trl.data.columns import columns_of

    rejects = args.rejects or args.output.with_suffix(".rejects.jsonl")
    progress = Progress(None)
    summary = convert(
        args.input,
        args.output,
        source=args.source,
        to=args.to,
        images=args.images,
        rejects=rejects,
        layout=args.box_layout,
        columns=columns_of(args.columns),
        data_source=args.data_source,
        progress=lambda count: progress.show(count, f"records {count}"),
    )
    progress.end()
    print(f"converted: {summary.converted}")
    print(f"rejected: {summary.rejected}" + (f", see {rejects}" if summary.rejected else ""))
    for reason, count in summary.reasons.most_common(10):
        print(f"  {count} x {reason}")
    if summary.need_judge:
        print(f"answers that are formulas or sentences, for a judge: {summary.need_judge}")
    tell_result(
        {
            "output": str(args.output),
            "converted": summary.converted,
            "rejected": summary.rejected,
            "rejects": str(rejects) if summary.rejected else None,
            "reasons": dict(summary.reasons.most_common()),
            "need_judge": summary.need_judge,
        }
    )
    if not summary.converted:
        raise UserError(_nothing(summary, args.input, rejects))


def _nothing(summary: "Summary", inputs: Sequence[Path], rejects: Path) -> str:
    if not summary.rejected:
        return f"{inputs[0]}: there are no records"
    [(reason, count)] = summary.reasons.most_common(1)
    return f"none of the {summary.rejected} records became a row, {count} because {reason}; see {rejects}"
