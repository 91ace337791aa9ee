"""The command `lfpc`. What a command needs is imported when it runs: torch and TRL take seconds."""

import argparse
import dataclasses
import importlib.util
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from lfpc_trl.errors import UserError

if TYPE_CHECKING:
    from lfpc_trl.stages import Stage1Settings

COMMANDS = {
    "demo": "train both stages on a small model on this machine and write a report",
    "train": "train one stage on your rows",
    "select-resolution": "choose per row how coarsely its picture is shown in stage 1",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0, 2 for what the user can put right, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser(arguments).parse_args(arguments)
    try:
        _run(args)
    except UserError as error:
        print(f"lfpc: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"lfpc: interrupted{_saved(args)}", file=sys.stderr)
        return 130
    return 0


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lfpc", description="Train models to crop where they need to look.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        # Options of other commands are not needed, and theirs may take long to import.
        if name == asked:
            _check_installed(name)
            _add_arguments(name, command)
    return parser


def _check_installed(command: str) -> None:
    extra, needed = "trl", ["PIL", "torch", "transformers", "trl"]
    if command == "demo":
        extra, needed = "demo", [*needed, "skimage", "matplotlib"]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"lfpc: error: {', '.join(missing)} not installed; "
            f"install with: pip install 'lfpc-rewards[{extra}]'",
            file=sys.stderr,
        )
        raise SystemExit(2)


def _add_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    if name == "demo":
        from lfpc_trl.demo.run import add_arguments

        add_arguments(parser)
    elif name == "train":
        _train_arguments(parser)
    else:
        _select_arguments(parser)


def _run(args: argparse.Namespace) -> None:
    if args.command == "demo":
        from lfpc_trl.demo.run import run

        run(args)
    elif args.command == "train":
        _train(args)
    else:
        _select(args)


def _saved(args: argparse.Namespace) -> str:
    if args.command == "demo":
        return "; go on with --resume"
    if args.command != "train":
        return ""
    from lfpc_trl.train import last_step

    step = last_step(args.output)
    return f"; saved up to step {step}, go on with --resume" if step else "; nothing was saved yet"


# --- lfpc train --------------------------------------------------------------------------------------


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    from lfpc_trl.stages import STAGES

    parser.add_argument("--stage", type=int, choices=sorted(STAGES), required=True)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a Qwen2.5-VL or Qwen3-VL")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="rows, .jsonl or .parquet")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new directory for the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output")
    parser.add_argument("--shown-tokens", type=int, metavar="N", help="show every picture at N visual tokens")
    settings = parser.add_argument_group("settings", "stage 1 / stage 2; their sources: lfpc_trl/stages.py")
    hints = typing.get_type_hints(STAGES[1])
    for field in dataclasses.fields(STAGES[1]):
        if field.name != "stage":
            defaults = dict.fromkeys(str(getattr(stage(), field.name)) for stage in STAGES.values())
            _add_setting(settings, field.name, hints[field.name], " / ".join(defaults))


def _add_setting(group: Any, name: str, hint: Any, default: str) -> None:
    """One option for one field; only options that were given appear in the parsed arguments."""
    option = "--" + name.replace("_", "-")
    common: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": f"default: {default}"}
    choices = typing.get_args(hint)
    if hint is bool:
        group.add_argument(option, action=argparse.BooleanOptionalAction, **common)
    elif typing.get_origin(hint) is typing.Literal:
        group.add_argument(option, choices=choices, **common)
    elif NoneType in choices:
        kind = next(choice for choice in choices if choice is not NoneType)
        group.add_argument(option, type=_or_none(kind), metavar=f"{kind.__name__.upper()}|none", **common)
    else:
        group.add_argument(option, type=hint, metavar=hint.__name__.upper(), **common)


def _or_none(kind: type[Any]) -> Any:
    def parse(text: str) -> Any:
        return None if text == "none" else kind(text)

    parse.__name__ = kind.__name__  # argparse names it in its error message
    return parse


def _settings(args: argparse.Namespace) -> "Stage1Settings":
    from lfpc_trl.stages import STAGES

    settings_class = STAGES[args.stage]
    names = {field.name for field in dataclasses.fields(settings_class)} - {"stage"}
    return settings_class(**{name: value for name, value in vars(args).items() if name in names})


def _train(args: argparse.Namespace) -> None:
    from lfpc_trl.rows import read_rows, with_shown_tokens

    settings = _settings(args)
    settings.check()
    # Rows first: reading them needs no torch, so a mistake in the data shows at once.
    rows = read_rows(args.data, require_targets=settings.grounding_weight != 0)

    from lfpc_trl.models import factor_of
    from lfpc_trl.train import train

    if args.shown_tokens is not None:
        if args.shown_tokens < 1:
            raise UserError(f"--shown-tokens must be at least 1, got {args.shown_tokens}")
        rows = with_shown_tokens(rows, args.shown_tokens, factor=factor_of(args.model))
    result = train(settings, args.model, rows, args.output, resume=args.resume, on_step=print_step)
    print(f"trained model: {result.output_dir}")


def print_step(step: int, total: int, metrics: dict[str, Any]) -> None:
    """One line per step."""
    names = ("reward", "accuracy", "format", "tool_calls", "failed_calls", "iou", "overlap", "bbox_ratio")
    values = [f"{name} {metrics[name]:.3f}" for name in names if metrics[name] is not None]
    print(f"step {step}/{total}  " + "  ".join(values), flush=True)


# --- lfpc select-resolution --------------------------------------------------------------------------


def _select_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="the model to be trained")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="rows, .jsonl or .parquet")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="new file of rows")
    parser.add_argument("--method", choices=("answer", "hard", "random"), default="answer")
    parser.add_argument(
        "--finest", type=int, metavar="N", help="visual tokens at most; default: the picture's"
    )
    parser.add_argument(
        "--coarsest", type=int, default=64, metavar="N", help="visual tokens at least; default: 64"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=2048, metavar="N", help="of one answer; default: 2048"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="questions at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the method random; default: 0")
    parser.add_argument("--threads", type=int, help="torch threads")


def _select(args: argparse.Namespace) -> None:
    from lfpc_trl.rows import SUFFIXES, read_rows, write_rows

    rows = read_rows(args.data)
    if args.output.exists():
        raise UserError(f"{args.output}: already exists")
    if args.output.suffix not in SUFFIXES:
        raise UserError(f"{args.output}: rows are written to a .jsonl or .parquet file")
    if not 1 <= args.coarsest <= (args.finest or args.coarsest):
        raise UserError(f"needs 1 <= --coarsest <= --finest, got {args.coarsest} and {args.finest}")
    for name in ("batch_size", "max_new_tokens"):
        if getattr(args, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(args, name)}")

    import torch

    from lfpc_trl.models import default_device, load_model, load_processor
    from lfpc_trl.resolution import select_resolution

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    processor = load_processor(args.model)
    model = None
    if args.method == "answer":
        device = default_device()
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        model = load_model(args.model, dtype=dtype, device=device)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        print(f"\rrows {done}/{len(rows)}", end="", file=sys.stderr, flush=True)

    selection = select_resolution(
        model,
        processor,
        rows,
        method=args.method,
        finest=args.finest,
        coarsest=args.coarsest,
        seed=args.seed,
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
        progress=progress,
    )
    print(file=sys.stderr)
    write_rows(selection.rows, args.output)
    for name, value in selection.summary.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    sys.exit(main())
