"""The command `lfpc`: finds the command's module and turns its errors into exit codes.

A command is a module of `lfpc_trl.commands` with `make_parser()`, for `--help` and the tests of the docs, and
`main(arguments)`. It is imported when it runs: torch and TRL take seconds.
"""

import errno
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from lfpc_trl.errors import (
    CPU_TORCH,
    InterruptedRun,
    UserError,
    did_you_mean,
    how_to_install,
    pip_installs_cuda,
)
from lfpc_trl.options import EVERYWHERE, JSON, QUIET
from lfpc_trl.progress import quiet
from lfpc_trl.results import for_programs, is_json, is_told, tell_result


class Command(NamedTuple):
    """What is known of a command before it is imported.

    Attributes:
        summary: one line for `lfpc --help`.
        extra: the extra of the distribution that installs what the command needs.
        needs: the packages of that extra whose absence is reported before anything is imported.
    """

    summary: str
    extra: str
    needs: tuple[str, ...]


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_TRAINING = ("PIL", "torch", "transformers", "trl")
_PAGES = ("PIL", "filelock", "pyarrow", "starlette", "uvicorn")
_DATA = ("PIL", "pyarrow")
COMMANDS = {
    "demo": Command(
        "train both stages on a small model on this machine and write a report",
        "demo",
        (*_TRAINING, "skimage", "matplotlib"),
    ),
    "doctor": Command("look whether this machine is fit to train on", "trl", ()),
    "prepare-model": Command("write a model directory that every tool loads alike", "trl", _TRAINING),
    "export": Command("write a trained model as one directory for others", "trl", _TRAINING),
    "check-data": Command("list every bad row of a data file with its rule", "trl", _TRAINING),
    "train": Command("train one stage on your rows", "trl", _TRAINING),
    "select-resolution": Command(
        "choose per row how coarsely its picture is shown in stage 1", "trl", _TRAINING
    ),
    "eval": Command(
        "evaluate a model on benchmarks, and what its crops do for it",
        "eval",
        (*_TRAINING, "jinja2", "matplotlib"),
    ),
    "ask": Command("ask a model about a picture and see what it looks at", "trl", _TRAINING),
    "locus-data": Command("make rows of LOCUS, parts of pictures to be found again", "trl", ("PIL", "numpy")),
    "compare": Command(
        "compare evaluations of models over the same questions",
        "eval",
        ("PIL", "jinja2", "matplotlib", "pyarrow"),
    ),
    "split": Command(
        "divide rows into parts that share no picture", "split", ("PIL", "pyarrow", "imagehash", "scipy")
    ),
    "annotate": Command("draw nested target boxes on a local page", "pages", _PAGES),
    "view": Command("look at trajectories and curves of a run on a local page", "pages", _PAGES),
    "convert": Command("convert data of other systems to rows and back", "trl", _DATA),
    "synthesize": Command("make pictures and questions with nested boxes", "trl", _DATA),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0, 2 for what the user can put right, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else None
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name in ("-V", "--version"):
        print(f"lfpc {_version()}")
        return 0
    if name not in COMMANDS:
        hint = did_you_mean(name or "", COMMANDS)
        problem = "a command is needed" if name is None else f"unknown command {name!r}{hint}"
        print(f"{_help()}\n\nlfpc: error: {problem}", file=sys.stderr)
        return 2
    with quiet(QUIET in arguments), for_programs(JSON in arguments):
        status, problem = _run(name, arguments[1:])
        if problem:
            print(f"lfpc: {problem}", file=sys.stderr)
        if problem and is_json() and not is_told():
            tell_result({"error": problem.removeprefix("error: ")})
    return status


def _run(name: str, words: Sequence[str]) -> tuple[int, str]:
    """Run a command: the exit status, and what the user can put right."""
    try:
        load(name).main(words)
    except UserError as error:
        return 2, f"error: {' '.join(str(error).split())}"
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        where = f" ({error.filename})" if error.filename else ""
        return 2, f"error: cannot write, {error.strerror}{where}"
    except InterruptedRun as interrupted:
        return 130, f"interrupted; {interrupted}"
    except KeyboardInterrupt:
        return 130, "interrupted"
    return 0, ""


def load(name: str) -> Any:
    """The module of a command.

    Raises:
        UserError: a package that it needs is not installed.
    """
    command = COMMANDS[name]
    missing = [package for package in command.needs if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)} not installed; {how_to_install(command.extra)}"
            + (f" ({CPU_TORCH})" if "torch" in missing and pip_installs_cuda() else "")
        )
    return importlib.import_module(f"lfpc_trl.commands.{name.replace('-', '_')}")


def _version() -> str:
    """Of the installed distribution; a source folder that is not installed has none."""
    try:
        return importlib.metadata.version("lfpc-rewards")
    except importlib.metadata.PackageNotFoundError:
        return "of a source folder that is not installed"


def _help() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: lfpc COMMAND [options]",
            "",
            "Train models to crop where they need to look.",
            "",
            *(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()),
            "",
            "lfpc COMMAND --help shows its options, lfpc --version the version.",
            *(f"With {option} {what}." for option, what in EVERYWHERE.items()),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
