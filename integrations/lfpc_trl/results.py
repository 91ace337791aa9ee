"""What a command has found, for programs: with `--json` standard output holds that and nothing else.

A command prints for people, as it does without `--json`, and tells its result here. With `--json` all that is
printed goes to standard error, also what a library or a started process prints.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_JSON = "LFPC_JSON"
"""Set in the environment, so that a program that takes the place of a command knows it, too."""
_STDOUT, _STDERR = 1, 2


class _Output:
    """Where results go.

    Attributes:
        stream: where they are written.
        kept: a descriptor of standard output, whose own number is that of standard error meanwhile: started
            processes, and libraries that write past Python, know the number alone. None where standard output
            is a stand-in of the caller's.
        told: whether there was one.
    """

    def __init__(self) -> None:
        self.told = False
        self.stream: TextIO = sys.stdout
        self.kept: int | None = None
        if sys.stdout is sys.__stdout__:
            self.stream.flush()
            self.kept = os.dup(_STDOUT)
            os.dup2(_STDERR, _STDOUT)
            self.stream = os.fdopen(os.dup(self.kept), "w", encoding="utf-8")

    def tell(self, value: Any) -> None:
        self.told = True
        print(json.dumps(value, ensure_ascii=False), file=self.stream, flush=True)

    def close(self) -> None:
        if self.kept is not None:
            self.stream.close()
            os.dup2(self.kept, _STDOUT)
            os.close(self.kept)
            self.kept = None


_output: _Output | None = None


def is_json() -> bool:
    """Whether a program reads the results."""
    return _output is not None


def is_told() -> bool:
    """Whether a result was told."""
    return _output is not None and _output.told


def tell_result(value: Any) -> None:
    """Print what the command has found, if a program reads it: a JSON document in one line.

    Args:
        value: JSON values. Every command tells one result, but for `lfpc ask`, which tells one per question.
    """
    if _output is not None:
        _output.tell(value)


@contextlib.contextmanager
def for_programs(wanted: bool) -> Iterator[None]:
    """Keep standard output for results.

    Args:
        wanted: whether `--json` was given here; the environment may want it, too.
    """
    global _output
    if not wanted and _JSON not in os.environ:
        yield
        return
    before = os.environ.get(_JSON)
    os.environ[_JSON], _output = "1", _Output()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        hand_over()
        if before is None:
            del os.environ[_JSON]


def hand_over() -> None:
    """Give standard output back, such as to a program that takes the place of this one."""
    global _output
    if _output is not None:
        _output.close()
        _output = None
