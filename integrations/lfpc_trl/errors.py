"""Errors that are meant for the person who runs a command, not for a traceback."""

import difflib
import platform
import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

CPU_TORCH = (
    "without a GPU, install PyTorch's CPU build first, see pytorch.org/get-started: the other one is 6 GB"
)


class UserError(Exception):
    """Something the user can put right: one clear line. The command line prints it and exits with 2."""


class DataError(UserError):
    """A row or a picture is not usable: the line names the file, the row and the rule."""


class InterruptedRun(Exception):  # noqa: N818 - not an error
    """Ctrl-C in a run: the text says what is safe and how to go on."""


_LONGEST = 160
"""Characters of another library's error that are read; some list every class they know. Our choice."""
_SENTENCE = re.compile(rf".{{20,{_LONGEST}}}?[.!?](?=\s)")


def first_line(error: BaseException) -> str:
    """The first line of an error's text as a short sentence, its class where it has none."""
    return _cut((str(error).strip().splitlines() or [type(error).__name__])[0])


def one_line(error: BaseException) -> str:
    """An error's text without line breaks, cut to a short sentence; its class where it has none."""
    return _cut(" ".join(str(error).split()) or type(error).__name__)


def _cut(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    sentence = _SENTENCE.match(text)
    return sentence[0] if sentence else text[: _LONGEST - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant; None where no one is near. Case does not count."""
    names = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return names[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error about a name that is not known; empty where no known one is near.

    Example:
        >>> did_you_mean("Predcited", ["predicted", "target"])
        ', did you mean predicted?'
    """
    near = nearest(name, known)
    return "" if near is None else f", did you mean {near}?"


def not_one_of(what: str, given: str, known: Iterable[str]) -> str:
    """An error about a value that is none of the known ones.

    Example:
        >>> not_one_of("--engine", "vlm", ["transformers", "vllm"])
        "--engine must be one of transformers, vllm, got 'vlm', did you mean vllm?"
    """
    known = list(known)
    return f"{what} must be one of {', '.join(known)}, got {given!r}{did_you_mean(given, known)}"


def not_some_of(what: str, given: Collection[str], known: Iterable[str]) -> str:
    """An error about values of which some, or all, are none of the known ones; or about none at all.

    Example:
        >>> not_some_of("--questions", ["single", "pairs"], ["single", "pair"])
        "--questions must be some of single, pair, got 'pairs', did you mean pair?"
    """
    known = list(known)
    wrong = [each for each in given if each not in known]
    hint = did_you_mean(wrong[0], known) if wrong else ""
    return f"{what} must be some of {', '.join(known)}, got {', '.join(map(repr, wrong)) or 'none'}{hint}"


def did_you_mean_beside(path: Path) -> str:
    """The end of an error about a path that is not there: the name beside it that was probably meant."""
    try:
        names = [each.name for each in path.parent.iterdir()]
    except OSError:
        names = []
    near = nearest(path.name, names) if path.name else None
    return f", did you mean {str(path.with_name(near))!r}?" if near else ""


def not_found(path: Path, what: str = "file") -> UserError:
    """An error for a path that is not there, or is something else."""
    if path.exists():
        return DataError(f"{path}: not a {what}")
    return DataError(f"{path}: no such {what}{did_you_mean_beside(path)}")


def how_to_install(extra: str = "") -> str:
    """What installs the package with an extra: it is on no index, so pip needs the folder of the clone."""
    what = f"'.[{extra}]'" if extra else "."
    return f"in the folder of your clone: pip install {what}"


def brings_cuda() -> bool:
    """Whether pip's torch brings gigabytes of CUDA to a machine without a GPU that it could use."""
    return platform.system() == "Linux" and shutil.which("nvidia-smi") is None
