"""`lfpc check-data`: what is wrong with a data file, row by row."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfpc_trl.errors import UserError
from lfpc_trl.options import FRAMES, Parser, add_columns
from lfpc_trl.results import tell_result

if TYPE_CHECKING:
    from lfpc_trl.train.check_data import DataReport

_SHOWN = 5
"""Warnings of one kind that are printed; --json holds all."""


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc check-data",
        description="List every bad row with its rule, and what else a training should know of its data.",
        allow_abbrev=False,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="rows: a file or a folder")
    add_columns(parser)
    parser.add_argument(
        "--method", choices=("lfpc", "locus"), default="lfpc", help="locus for cues; default: lfpc"
    )
    parser.add_argument("--stage", type=int, choices=(1, 2), default=1, help="2 needs targets; default: 1")
    parser.add_argument("--model", type=Path, metavar="DIR", help="check that the rows fit this model, too")
    parser.add_argument(
        "--frame",
        choices=FRAMES,
        default="family",
        help="in which that model's boxes count; default: family, as it was taught",
    )
    parser.add_argument("--shown-tokens", type=int, metavar="N", help="show every picture at N visual tokens")
    parser.add_argument(
        "--crop-tokens", type=int, default=1024, metavar="N", help="of the largest crop; default: 1024"
    )
    parser.add_argument(
        "--min-side", type=int, default=8, metavar="N", help="of a crop, in pixels; default: 8"
    )
    parser.add_argument(
        "--trajectory-tokens", type=int, metavar="N", help="of a whole rollout; default: not checked"
    )
    parser.add_argument(
        "--rows",
        type=_number_or_all,
        default=64,
        metavar="N|all",
        help="rows whose pictures go through the model's processor; default: 64",
    )
    return parser


def _number_or_all(text: str) -> int | None:
    return None if text == "all" else int(text)


_number_or_all.__name__ = "number of rows"  # argparse names it in its error message


def main(arguments: Sequence[str]) -> None:
    """Check; prints every problem, then warnings and figures.

    Raises:
        UserError: some rows are bad, or the file or the model cannot be used at all.
    """
    args = make_parser().parse_args(arguments)
    for name in ("shown_tokens", "crop_tokens", "min_side", "trajectory_tokens", "rows"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")

    if args.trajectory_tokens is not None and args.model is None:
        raise UserError("--trajectory-tokens needs --model")

    from lfpc_rewards import Frame
    from lfpc_trl.data.columns import columns_of
    from lfpc_trl.rollouts.crop_tool import CropSettings
    from lfpc_trl.train.check_data import check_data

    processor, context, frame, side = None, None, Frame.ORIGINAL, 28
    if args.model is not None:
        from lfpc_trl.models.processors import factor, load_processor
        from lfpc_trl.models.weights import context_length

        processor, context = load_processor(args.model), context_length(args.model)
        frame, side = processor.family.resolve_frame(args.frame), factor(processor)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        print(f"\rrows {done}", end="", file=sys.stderr, flush=True)

    report = check_data(
        args.data,
        columns=columns_of(args.columns),
        method=args.method,
        stage=args.stage,
        processor=processor,
        crops=CropSettings(frame, side, crop_tokens=args.crop_tokens, min_side=args.min_side),
        shown_tokens=args.shown_tokens,
        trajectory_tokens=args.trajectory_tokens,
        context=context,
        sample=args.rows,
        progress=progress if sys.stderr.isatty() else None,
    )
    if done:
        print(file=sys.stderr)
    print("\n".join(_lines(report, args.method)))
    tell_result(_record(report))
    if report.bad_rows:
        raise UserError(f"{args.data}: {report.bad_rows} of {report.rows} rows are bad")
    if report.problems:
        raise UserError(str(report.problems[0]))


def _record(report: "DataReport") -> dict[str, Any]:
    """A report as plain JSON values."""
    record = {
        "rows": report.rows,
        "bad_rows": report.bad_rows,
        "problems": [problem._asdict() for problem in report.problems],
        "warnings": {kind: [each._asdict() for each in found] for kind, found in report.warnings.items()},
        "statistics": report.statistics,
    }
    if report.preflight is not None:
        names = ("decoded", "longest_prompt", "longest_row", "rollout_tokens")
        record["model"] = {name: getattr(report.preflight, name) for name in names}
    return record


def _lines(report: "DataReport", method: str) -> list[str]:
    """A report for people."""
    lines = [str(problem) for problem in report.problems]
    for kind, found in report.warnings.items():
        lines.append(f"warning, {kind} ({len(found)}):")
        lines += [f"  {problem}" for problem in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"  and {len(found) - _SHOWN} more, --json lists them")
    lines.append(f"rows: {report.rows}, bad: {report.bad_rows}")
    for name, value in report.statistics.items():
        if value not in (None, {}):
            lines.append(f"{name.replace('_', ' ')}: {_readable(value)}")
    if report.preflight is not None and report.preflight.decoded:
        checked = report.preflight
        shortest = "rollout with the largest crop" if method == "lfpc" else "answer"  # cues have no crops
        lines += [
            f"rows that went through the model's processor: {checked.decoded}",
            f"longest prompt: {checked.longest_prompt} tokens ({checked.longest_row})",
            f"shortest {shortest}: {checked.rollout_tokens} tokens",
        ]
    return lines


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_readable(each)}" for name, each in value.items())
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
