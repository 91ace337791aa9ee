"""`lfpc prepare-model`: a model directory that every tool loads alike."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lfpc_trl.options import Parser
from lfpc_trl.results import tell_result


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc prepare-model",
        description="Write a copy of a model directory that vLLM and other tools load as `lfpc train` does.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="of a supported family")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new directory")
    parser.add_argument(
        "--weights", choices=("link", "copy"), default="link", help="link needs no space; default: link"
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Prepare; prints what changed."""
    args = make_parser().parse_args(arguments)

    from lfpc_trl.models.prepare import prepare_model

    changes = prepare_model(args.model, args.output, weights=args.weights)
    for change in changes:
        print(f"{change.file}: {change.what}")
    if not changes:
        print("nothing to change: the directory was prepared already")
    print(f"prepared model: {args.output}")
    told = [{"file": change.file, "what": change.what} for change in changes]
    tell_result({"output": str(args.output), "changes": told})
