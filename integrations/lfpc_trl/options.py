"""The parser of the commands' options: an unknown one is refused with the one that was probably meant."""

import argparse
import difflib
import itertools
import sys
from typing import Any, NoReturn

FRAMES = ("family", "shown", "relative_1000")
"""How a user names the frame in which a model counts; "family": as it was taught."""


class Parser(argparse.ArgumentParser):
    """Argparse's, with suggestions."""

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

    def refuse(self, unknown: list[str]) -> NoReturn:
        """Say what is not known."""
        known = [name for action in self._actions for name in action.option_strings]
        word = unknown[0].partition("=")[0]
        near = [name for name in known if word.startswith("--") and name.startswith(word)]
        near = near or difflib.get_close_matches(word.replace("_", "-"), known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


def add_columns(parser: argparse.ArgumentParser) -> None:
    """The option that says where a data set has the columns of a row."""
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="NAME=COLUMN",
        help="where the data has them under other names, such as question=problem targets=bbox:xywh",
    )
