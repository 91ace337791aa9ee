"""`lfpc synthesize`: pictures and questions with nested boxes by construction."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from lfpc_trl.errors import UserError, not_some_of
from lfpc_trl.options import Parser
from lfpc_trl.progress import Progress
from lfpc_trl.results import tell_result


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc synthesize",
        description="Make pictures of signs, and questions about them with nested boxes.",
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--rows", type=int, required=True, metavar="N", help="pictures, one question each")
    parser.add_argument("--seed", type=int, default=0, help="row i depends on it and on i alone; default: 0")
    parser.add_argument(
        "--backgrounds", type=Path, metavar="DIR", help="photographs; default: made-up houses"
    )
    parser.add_argument(
        "--objects", type=Path, metavar="PATH", help="folder of cut-outs or COCO file; default: words"
    )
    parser.add_argument(
        "--size", default="3840x2160", metavar="WxH", help="or as-background; default: 3840x2160"
    )
    parser.add_argument(
        "--questions",
        default="single,pair,attribute,spatial",
        metavar="KINDS",
        help="in turn; default: single,pair,attribute,spatial",
    )
    parser.add_argument(
        "--overview-tokens", type=int, default=256, metavar="N", help="of the overview; default: 256"
    )
    parser.add_argument(
        "--target-pixels",
        default="2-6",
        metavar="A-B",
        help="height of the innermost target on the overview; default: 2-6",
    )
    parser.add_argument("--quality", type=int, default=90, metavar="Q", help="of the JPEG files; default: 90")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes; default: 1")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Make the data set; prints where its rows are."""
    args = make_parser().parse_args(arguments)
    from lfpc_trl.pictures.opening import find_picture_files, in_one_line
    from lfpc_trl.pictures.originals import check_picture
    from lfpc_trl.synthesize.contents import find_objects, find_pictures
    from lfpc_trl.synthesize.questions import KINDS
    from lfpc_trl.synthesize.run import Settings, readable, synthesize

    size = None
    if args.size != "as-background":
        found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", args.size)
        if found is None:
            raise UserError(f"--size must be as 3840x2160, or as-background, got {args.size!r}")
        size = (int(found[1]), int(found[2]))
    heights = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", args.target_pixels)
    if heights is None:
        raise UserError(f"--target-pixels must be as 2-6, got {args.target_pixels!r}")
    wanted = args.questions.split(",")
    kinds = tuple(kind for kind in KINDS if kind in wanted)
    if set(wanted) - set(KINDS):
        raise UserError(not_some_of("--questions", wanted, KINDS))
    if len(kinds) != len(wanted):
        raise UserError(f"--questions must name each kind once, got {args.questions!r}")
    photos, bad = find_pictures(args.backgrounds) if args.backgrounds else ([], [])
    objects, unread = find_objects(args.objects, args.seed) if args.objects else ([], [])
    for folder in (args.backgrounds, args.objects):
        _, others = find_picture_files(folder) if folder and folder.is_dir() else ([], [])
        if others:
            print(in_one_line(folder, others), file=sys.stderr)
    for path, reason in bad + unread:
        print(f"{path}: left out, {reason}", file=sys.stderr)
    settings = Settings(
        size=size,
        kinds=kinds,
        overview_tokens=args.overview_tokens,
        target_pixels=(float(heights[1]), float(heights[2])),
        quality=args.quality,
        seed=args.seed,
        objects=tuple(objects),
    )
    small = [path for path in photos if size is None and not readable(check_picture(path), settings)]
    for path in small:
        print(f"{path}: left out, too small for --target-pixels {args.target_pixels}", file=sys.stderr)
    photos = [path for path in photos if path not in small]
    if args.backgrounds and not photos:
        raise UserError(f"{args.backgrounds}: no picture that can be used")
    settings = settings._replace(backgrounds=tuple(photos))
    progress = Progress(args.rows)
    path = synthesize(
        args.output,
        args.rows,
        settings,
        workers=args.workers,
        progress=lambda count: progress.show(count, f"rows {count}/{args.rows}"),
    )
    print(f"rows: {path}")
    left_out = [{"file": str(file), "reason": reason} for file, reason in bad + unread]
    left_out += [{"file": str(file), "reason": "too small for --target-pixels"} for file in small]
    tell_result({"output": str(path), "rows": args.rows, "left_out": left_out})
