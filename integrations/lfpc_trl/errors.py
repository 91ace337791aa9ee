"""Errors shown to the user of a command as one line, without a traceback."""

import difflib
import platform
import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

CPU_TORCH = (
    "without a GPU, install PyTorch's CPU build first, see pytorch.org/get-started: the CUDA build is 6 GB"
)


class UserError(Exception):
    """Something the user can fix: one clear line. The command line prints it and exits with 2."""


class DataError(UserError):
    """A row or a picture cannot be used: the line names the file, the row and the rule."""


class InterruptedRun(Exception):  # noqa: N818 - not an error
    """Ctrl-C in a run: the text says what is saved and how to resume."""


_MAX_LENGTH = 160
"""Most characters shown of another library's error; some list every known class. Our choice."""
_SENTENCE = re.compile(rf".{{20,{_MAX_LENGTH}}}?[.!?](?=\s)")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, shortened; its class name if it has no text."""
    return _cut((str(error).strip().splitlines() or [type(error).__name__])[0])


def one_line(error: BaseException) -> str:
    """An error's text without line breaks, shortened; its class name if it has no text."""
    return _cut(" ".join(str(error).split()) or type(error).__name__)


def _cut(text: str) -> str:
    if len(text) <= _MAX_LENGTH:
        return text
    sentence = _SENTENCE.match(text)
    return sentence[0] if sentence else text[: _MAX_LENGTH - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, ignoring case; None if none is close."""
    names = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return names[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: a suggestion, or nothing if no known name is close.

    Example:
        >>> did_you_mean("Predcited", ["predicted", "target"])
        ', did you mean predicted?'
    """
    near = nearest(name, known)
    return "" if near is None else f", did you mean {near}?"


def not_one_of(what: str, given: str, known: Iterable[str]) -> str:
    """The error for a value that is not among the known ones.

    Example:
        >>> not_one_of("--engine", "vlm", ["transformers", "vllm"])
        "--engine must be one of transformers, vllm, got 'vlm', did you mean vllm?"
    """
    known = list(known)
    return f"{what} must be one of {', '.join(known)}, got {given!r}{did_you_mean(given, known)}"


def not_some_of(what: str, given: Collection[str], known: Iterable[str]) -> str:
    """The error for values that are not all among the known ones, or for an empty list.

    Example:
        >>> not_some_of("--questions", ["single", "pairs"], ["single", "pair"])
        "--questions must be some of single, pair, got 'pairs', did you mean pair?"
    """
    known = list(known)
    wrong = [each for each in given if each not in known]
    hint = did_you_mean(wrong[0], known) if wrong else ""
    return f"{what} must be some of {', '.join(known)}, got {', '.join(map(repr, wrong)) or 'none'}{hint}"


def did_you_mean_beside(path: Path) -> str:
    """The end of an error about a missing path: a similar name in its folder, if there is one."""
    try:
        names = [each.name for each in path.parent.iterdir()]
    except OSError:
        names = []
    near = nearest(path.name, names) if path.name else None
    return f", did you mean {str(path.with_name(near))!r}?" if near else ""


def not_found(path: Path, what: str = "file") -> UserError:
    """The error for a path that does not exist or is of another kind."""
    if path.exists():
        return DataError(f"{path}: not a {what}")
    return DataError(f"{path}: no such {what}{did_you_mean_beside(path)}")


def how_to_install(extra: str = "") -> str:
    """How to install the package with an extra, from the clone's folder, since it is not on an index."""
    what = f"'.[{extra}]'" if extra else "."
    return f"in the folder of your clone: pip install {what}"


def pip_installs_cuda() -> bool:
    """Whether pip would install torch with gigabytes of CUDA on a machine without an NVIDIA GPU."""
    return platform.system() == "Linux" and shutil.which("nvidia-smi") is None
