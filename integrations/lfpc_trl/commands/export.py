"""`lfpc export`: a trained model as one directory for others."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lfpc_trl.options import Parser
from lfpc_trl.results import tell_result


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc export",
        description="Write a trained model as one directory that stock tools load, with a model card.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="output directory of a training"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new directory")
    parser.add_argument(
        "--evaluation", type=Path, metavar="DIR", help="output directory of lfpc eval, for the card"
    )
    parser.add_argument(
        "--weights", choices=("copy", "link"), default="copy", help="link needs no space; default: copy"
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Export; prints how to serve the model."""
    args = make_parser().parse_args(arguments)

    from lfpc_trl.runs.export import CARD, export_model

    serve = export_model(args.model, args.output, evaluation=args.evaluation, weights=args.weights)
    print(f"exported model: {args.output} (its card: {args.output / CARD})")
    print(f"serve it: {serve}")
    tell_result({"output": str(args.output), "card": str(args.output / CARD), "serve": serve})
