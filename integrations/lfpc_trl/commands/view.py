"""`lfpc view`: trajectories and curves of a run, or of two side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lfpc_trl.errors import UserError
from lfpc_trl.options import Parser


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc view",
        description="Look at trajectories and curves of a run, or of two side by side, on a local page.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="a run directory or a .parquet file"
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="the rows, to show their originals")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=8022, help="0 takes a free one; default: 8022")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Serve the page."""
    args = make_parser().parse_args(arguments)
    if len(args.runs) > 2:
        raise UserError(f"one run or two side by side, got {len(args.runs)}")
    for path in args.runs:
        if not path.exists():
            raise UserError(f"{path}: no such file or directory")

    from lfpc_trl.data.frames import read_with_warning, tell
    from lfpc_trl.html.server import Access, serve
    from lfpc_trl.runs.reading import Run
    from lfpc_trl.view.app import make_viewer

    access = Access.listening_on(args.host)
    rows, boxes = ([], None) if args.data is None else read_with_warning(args.data)
    tell(boxes)
    serve(make_viewer([Run(path) for path in args.runs], access, rows=rows), access, args.port)
