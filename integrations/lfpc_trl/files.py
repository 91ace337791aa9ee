"""Final files: whole under their name, or not there at all.

A kill or a full disk in the middle of writing must not leave half a file that the next command takes for a
whole one. So what is written goes to a file beside it, which gets the name when it is on the disk. The
commands refuse an output that exists already; what a killed one leaves has another name, and the next one
writes over it.
"""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from lfpc_trl.errors import UserError


def draft_of(path: Path) -> Path:
    """Where a file is written before it gets its name: beside it, hidden, always the same."""
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the name `path` when the block ends without an error.

    The block should do nothing but write. If it fails, the draft is removed and an older file of the name
    stays as it was.

    Args:
        path: of the file; its folder must be there.

    Raises:
        UserError: the file cannot be written, such as on a full disk.
    """
    draft = draft_of(path)
    try:
        try:
            yield draft
            publish(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None


def write_whole(path: Path, text: str) -> None:
    """Write a text as UTF-8, or leave the file that is there. Half a surrogate pair becomes a question mark.

    Args:
        path: of the file; its folder must be there.
        text: what it is to hold.

    Raises:
        UserError: the file cannot be written.
    """
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="replace")


def publish(draft: Path, path: Path) -> None:
    """Give a written file its name once its bytes are on the disk; both lie in one folder.

    Raises:
        OSError: the disk has no room, or the name cannot be given.
    """
    # Some file systems put the name on the disk before the bytes: a power cut would leave an empty file.
    with draft.open("rb+") as file:
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """The name of a file is on the disk only when its folder is; Windows has no such call."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- what a killed process leaves --------------------------------------------------------------------


def scratch_prefix(name: str) -> str:
    """How temporary files of this process begin: they tell whose they are, for `clear_scratch`."""
    return f".{name}-{socket.gethostname()}-{os.getpid()}-"


def clear_scratch(folder: Path, name: str) -> None:
    """Remove the temporary files and folders that processes of this machine left when they were killed.

    Args:
        folder: where they lie.
        name: as in `scratch_prefix`.
    """
    for path in folder.glob(f".{name}-*"):
        host, _, rest = path.name.removeprefix(f".{name}-").rpartition("-")[0].rpartition("-")
        if rest.isdecimal() and (host != socket.gethostname() or _runs(int(rest))):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether a process of this machine still runs; where that cannot be asked, it does."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
