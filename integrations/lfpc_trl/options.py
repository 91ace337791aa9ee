"""The parser of the commands' options: an unknown one is refused with the one that was probably meant."""

import argparse
import difflib
import itertools
import sys
from pathlib import Path
from typing import Any, NoReturn

FRAMES = ("family", "shown", "relative_1000")
"""How a user names the frame in which a model counts; "family": as it was taught."""


class Parser(argparse.ArgumentParser):
    """Argparse's, with suggestions."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; what is left over is named with the nearest option."""
        given = sys.argv[1:] if args is None else list(args)
        words = [word for word in given if word != "--quiet"]  # of every command: `cli` has seen to it
        # First of all: argparse would only say that the option which was misspelt is missing.
        for at, word in enumerate(words):
            if word.startswith("--") and word.partition("=")[0] not in ("--", *self._option_string_actions):
                self.refuse(
                    [word, *itertools.takewhile(lambda each: not each.startswith("-"), words[at + 1 :])]
                )
        found, unknown = self.parse_known_args(words, namespace)
        if unknown:
            self.refuse(unknown)
        return found

    def refuse(self, unknown: list[str]) -> NoReturn:
        """Say what is not known."""
        known = [name for action in self._actions for name in action.option_strings]
        word = unknown[0].partition("=")[0]
        near = [name for name in known if word.startswith("--") and name.startswith(word)]
        near = near or difflib.get_close_matches(word.replace("_", "-"), known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


def add_respondent(parser: argparse.ArgumentParser, *, model: str) -> None:
    """The options that say who is asked: a model directory, or a server.

    Args:
        parser: of the command.
        model: what `--model` is.
    """
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help=f"{model}; with --endpoint its processor alone"
    )
    server = parser.add_argument_group("a model behind a server", "any that speaks as OpenAI's does")
    server.add_argument("--endpoint", metavar="URL", help="its address, such as http://localhost:8000/v1")
    server.add_argument("--endpoint-model", metavar="NAME", help="default: the one that the server has")
    server.add_argument(
        "--endpoint-timeout",
        type=float,
        metavar="S",
        help="seconds for a turn before it is asked again; default: 300",
    )
    server.add_argument(
        "--endpoint-crops", choices=("tool", "user"), help="whose message holds a crop; default: tool"
    )
    server.add_argument(
        "--endpoint-price", metavar="READ,WRITTEN", help="of a million tokens, to sum the cost"
    )
    server.add_argument(
        "--token-side",
        type=int,
        default=32,
        metavar="N",
        help="pixels of a visual token, without --model; default: 32",
    )


def add_columns(parser: argparse.ArgumentParser) -> None:
    """The option that says where a data set has the columns of a row."""
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="NAME=COLUMN",
        help="where the data has them under other names, such as question=problem targets=bbox:xywh",
    )
