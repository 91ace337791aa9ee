"""The parser of the commands' options: an unknown one is refused with the one that was probably meant."""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from lfpc_trl.errors import UserError, did_you_mean, not_one_of

QUIET, JSON = "--quiet", "--json"
EVERYWHERE = {
    QUIET: "no command tells how far it is",
    JSON: "standard output holds the result alone, as JSON, and the rest goes to standard error",
}
"""The options of every command, and what they do; `cli` sees to them."""
FRAMES = ("family", "shown", "relative_1000")
"""How a user names the frame in which a model counts; "family": as it was taught."""


class _SeenTo(argparse.Action):
    """An option that leaves nothing behind: `cli` has seen to it."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002, ARG002
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, *_: Any) -> None:
        """Nothing."""


class Parser(argparse.ArgumentParser):
    """Argparse's, with suggestions; what is wrong is a `UserError`, as everywhere."""

    def __init__(self, **options: Any) -> None:
        epilog = f"Every command takes {' and '.join(EVERYWHERE)}, too; lfpc --help tells what they do."
        super().__init__(epilog=epilog, **options)
        for option in EVERYWHERE:
            self.add_argument(option, action=_SeenTo, help=argparse.SUPPRESS)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; what is left over is named with the nearest option."""
        words = sys.argv[1:] if args is None else list(args)
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

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Say what is not known."""
        known = [name for action in self._actions for name in action.option_strings]
        word = unknown[0].partition("=")[0]
        near = [name for name in known if word.startswith("--") and name.startswith(word)]
        hint = f", did you mean {near[0]}?" if near else did_you_mean(word.replace("_", "-"), known)
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")

    def error(self, message: str) -> NoReturn:
        """In one line, without the usage text of argparse."""
        raise UserError(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Argparse's own has no suggestion before Python 3.15."""
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings) or str(action.metavar or action.dest)
            raise UserError(not_one_of(name, str(value), map(str, action.choices)))


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
