"""Final files: whole under their name, or not there at all.

A kill or a full disk in the middle of writing must not leave half a file that the next command takes for a
whole one. So what is written goes to a file beside it, which gets the name when it is on the disk. The
commands refuse an output that exists already; what a killed one leaves has another name, and the next one
writes over it.
"""

import contextlib
import os
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
