"""`lfpc split`: parts of a data set that share no picture, and which rows are in another data set, too."""

import argparse
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfpc_trl.errors import DataError, UserError, one_line
from lfpc_trl.options import Parser, add_columns
from lfpc_trl.results import tell_result

if TYPE_CHECKING:
    from lfpc_trl.data.rows import Row
    from lfpc_trl.data.split import Fingerprints, Leak, Parts
    from lfpc_trl.pictures.near_duplicates import Fingerprint

_PARTS = ("train=0.9", "test=0.1")
_SHOWN = 5
"""Groups and leaks that are printed; --json holds all."""


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc split",
        description="Divide rows into parts such as train and test. All rows of a picture and of its "
        "near-duplicates come into one part.",
        allow_abbrev=False,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="rows: a file or a folder")
    add_columns(parser)
    parser.add_argument(
        "--against",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="rows of other data sets, such as benchmarks: rows about one of their pictures are left out",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        metavar="NAME=SHARE",
        help="shares of the rows; default: train=0.9 test=0.1",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="for NAME.jsonl of each part; default: only tell"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--distance",
        type=int,
        default=64,
        metavar="N",
        help="bits of 256 in which the hashes of near-duplicates differ at most; default: 64",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Divide; prints what was found and what is written where.

    Raises:
        UserError: the options or the rows are bad, or a part would be empty.
    """
    args = make_parser().parse_args(arguments)
    shares = _shares(args.parts or _PARTS)
    if not 0 <= args.distance < 128:  # half of the bits: so far are two pictures that have nothing in common
        raise UserError(f"--distance must be 0 to 127, got {args.distance}")
    files = {} if args.output is None else {name: args.output / f"{name}.jsonl" for name in shares}
    for file in files.values():
        if file.exists():
            raise UserError(f"{file}: already exists")

    from lfpc_trl.data.columns import columns_of
    from lfpc_trl.data.rows import read_rows, write_rows
    from lfpc_trl.data.split import find_leaks, split

    rows = read_rows(args.data, columns=columns_of(args.columns))
    others = {path: read_rows(path) for path in args.against or ()}
    prints = _fingerprints(
        picture.image for some in (rows, *others.values()) for row in some for picture in row.pictures
    )
    leaks = {path: find_leaks(rows, found, prints, distance=args.distance) for path, found in others.items()}
    leaked = {leak.row.id for found in leaks.values() for leak in found}
    kept = [row for row in rows if row.id not in leaked]
    if not kept:
        raise UserError(f"{args.data}: every row is about a picture of {', '.join(map(str, others))}")
    parts = split(kept, shares, prints, seed=args.seed, distance=args.distance)
    for name, file in files.items():
        write_rows(parts.rows[name], file)
    print("\n".join([*_leak_lines(leaks), *_part_lines(parts, len(kept), files)]))
    tell_result({"files": {name: str(file) for name, file in files.items()}} | _record(parts, leaks))


def _shares(texts: Sequence[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for text in texts:
        found = re.fullmatch(r"([\w-]+)=(0?\.\d+|1|1\.0*)", text)
        if found is None:
            raise UserError(
                f"--parts must be names with shares of 1, such as train=0.9 test=0.1, got {text!r}"
            )
        if found[1] in shares:
            raise UserError(f"--parts must name every part once, got {found[1]!r} twice")
        shares[found[1]] = float(found[2])
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise UserError(f"--parts must sum to 1, got {sum(shares.values()):g}")
    return shares


def _fingerprints(paths: Iterable[Path]) -> "Fingerprints":
    """Of every picture, read in threads: decoding lets go of Python's lock.

    Raises:
        DataError: a picture cannot be read.
    """
    from lfpc_trl.pictures.near_duplicates import fingerprint
    from lfpc_trl.progress import Progress
    from lfpc_trl.threads import in_threads

    def readable(path: Path) -> "Fingerprint":
        try:
            return fingerprint(path)
        except OSError as error:
            raise DataError(f"image must be readable, got {str(path)!r} ({one_line(error)})") from None

    pictures = list(dict.fromkeys(paths))
    progress = Progress(len(pictures))
    found = {}
    for path, made in in_threads(readable, pictures):
        found[path] = made
        progress.show(len(found), f"{len(found)} of {len(pictures)} pictures")
    return found


def _leak_lines(leaks: "dict[Path, list[Leak]]") -> list[str]:
    lines = []
    for path, found in leaks.items():
        lines.append(f"rows left out, their picture is in {path}: {len(found)}")
        lines += [
            f"  {leak.row.name}: {leak.image.name} is {leak.other.name}"
            + (f" ({leak.distance} bits apart)" if leak.distance else "")
            for leak in found[:_SHOWN]
        ]
        lines += _more(found)
    return lines


def _part_lines(parts: "Parts", rows: int, files: dict[str, Path]) -> list[str]:
    pictures = sum(map(_pictures, parts.rows.values()))
    lines = [f"pictures: {pictures}; groups of near-duplicates, each kept in one part: {len(parts.alike)}"]
    lines += [
        "  "
        + ", ".join(path.name for path in itertools.islice(group, _SHOWN))
        + ", ..." * (len(group) > _SHOWN)
        for group in parts.alike[:_SHOWN]
    ]
    lines += _more(parts.alike)
    for name, found in parts.rows.items():
        where = f" -> {files[name]}" if files else ""
        lines.append(
            f"{name}: {len(found)} rows ({len(found) / rows:.1%}), {_pictures(found)} pictures{where}"
        )
    return lines


def _pictures(rows: "Sequence[Row]") -> int:
    return len({picture.image for row in rows for picture in row.pictures})


def _more(found: Sequence[Any]) -> list[str]:
    return [f"  and {len(found) - _SHOWN} more, --json lists them"] if len(found) > _SHOWN else []


def _record(parts: "Parts", leaks: "dict[Path, list[Leak]]") -> dict[str, Any]:
    return {
        "parts": {name: [row.id for row in rows] for name, rows in parts.rows.items()},
        "alike": [[str(path) for path in group] for group in parts.alike],
        "leaks": {
            str(path): [
                {
                    "row": each.row.id,
                    "image": str(each.image),
                    "other": str(each.other),
                    "distance": each.distance,
                }
                for each in found
            ]
            for path, found in leaks.items()
        },
    }
