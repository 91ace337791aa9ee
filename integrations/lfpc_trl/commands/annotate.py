"""`lfpc annotate`: nested boxes, questions and answers on a local page."""

import argparse
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path

from lfpc_trl.errors import UserError
from lfpc_trl.options import Parser
from lfpc_trl.results import tell_result


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc annotate",
        description="Draw nested target boxes on the originals, on a local page.",
        allow_abbrev=False,
    )
    parser.add_argument("source", type=Path, metavar="FILE", help="rows, or a folder of pictures")
    parser.add_argument("--export", type=Path, metavar="OUT", help="write the finished rows to OUT and stop")
    parser.add_argument(
        "--stage",
        type=int,
        choices=(1, 2),
        default=2,
        help="what the rows are for: 1 lets rows without boxes be finished and exported; default: 2",
    )
    parser.add_argument(
        "--annotator", metavar="NAME", help="written beside every change; default: your login"
    )
    parser.add_argument("--prefill", type=Path, metavar="RUN", help="trajectories whose crops are proposed")
    parser.add_argument(
        "--factor", type=int, default=28, metavar="N", help="pixels per visual token; default: 28"
    )
    parser.add_argument(
        "--shown-tokens", type=int, default=256, metavar="N", help="of the overview; default: 256"
    )
    parser.add_argument("--crop-tokens", type=int, default=1024, metavar="N", help="of a crop; default: 1024")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=8021, help="0 takes a free one; default: 8021")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Serve the page, or export."""
    args = make_parser().parse_args(arguments)
    for name in ("factor", "shown_tokens", "crop_tokens"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")

    from lfpc_trl.annotate.project import Project
    from lfpc_trl.data.frames import tell

    project = Project(args.source, stage=args.stage, leave_out=args.export is not None)
    for line in project.left_out_lines(at_most=None if args.export else 20):
        print(line, file=sys.stderr)
    tell(project.warning)
    if project.journal.skipped:
        print(
            f"{project.journal.path}: skipped {project.journal.skipped} line(s) that hold no change, "
            "such as a write that was cut short and never confirmed",
            file=sys.stderr,
        )
    if args.export is not None:
        _export(project, args.export)
        return

    from lfpc_trl.annotate.app import ModelView, make_annotator
    from lfpc_trl.html.server import Access, serve
    from lfpc_trl.runs.reading import crops_by_row

    access = Access.listening_on(args.host)
    app = make_annotator(
        project,
        access,
        annotator=args.annotator or getpass.getuser(),
        view=ModelView(args.factor, args.shown_tokens, args.crop_tokens),
        suggestions=None if args.prefill is None else crops_by_row(args.prefill),
    )
    serve(app, access, args.port)
    print(f"every change is in {project.journal.path}")


def _export(project, output: Path) -> None:  # type: ignore[no-untyped-def]
    from lfpc_trl.data.rows import write_rows

    if output.exists():
        raise UserError(f"{output}: already exists")
    rows, refused = project.exported()
    unfinished = project.unfinished()
    for line in (*project.unusable, *refused, *unfinished):
        print(line, file=sys.stderr)
    if not rows:
        raise UserError(f"{project.source}: no row is done, nothing to export")
    write_rows(rows, output)
    lost = f" (and {len(refused)} that are done but cannot be used, see above)" if refused else ""
    print(f"{output}: {len(rows)} rows, left out {len(unfinished)}{lost}")
    left_out = {"unfinished": unfinished, "refused": refused, "unusable": project.unusable}
    tell_result({"output": str(output), "rows": len(rows)} | {k: list(v) for k, v in left_out.items()})
