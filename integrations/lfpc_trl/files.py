"""Atomic output files: complete under their name, or not there at all.

A kill or a full disk during writing must not leave a partial file that the next command takes for a complete
one. So everything is written to a temporary file in the same folder, which is renamed once it is on disk. The
commands refuse existing output; the leftovers of a killed command have another name, and the next command
overwrites them.
"""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from lfpc_trl.errors import UserError


def temporary_path(path: Path) -> Path:
    """The temporary path of a file: hidden, in the same folder, always the same."""
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to `path` when the block ends without an error.

    The block should do nothing but write. If it fails, the temporary file is removed and an existing file at
    `path` is unchanged.

    Args:
        path: the file; its folder must exist.

    Raises:
        UserError: the file cannot be written, for example on a full disk.
    """
    draft = temporary_path(path)
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


def write_atomic(path: Path, text: str) -> None:
    """Write a text file atomically as UTF-8. Lone surrogates become question marks.

    Args:
        path: the file; its folder must exist.
        text: the content.

    Raises:
        UserError: the file cannot be written; an existing file is unchanged.
    """
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="replace")


def publish(draft: Path, path: Path) -> None:
    """Sync a written file and rename it to `path`, in the same folder.

    Raises:
        OSError: the disk is full, or the file cannot be renamed.
    """
    # Some file systems write the name to disk before the bytes: a power failure would leave an empty file.
    with draft.open("rb+") as file:
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync a folder, without which a new file name may not be on disk; Windows has no such call."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- leftovers of killed processes -------------------------------------------------------------------


def scratch_prefix(name: str) -> str:
    """The prefix of this process's temporary files, which identifies it for `clear_scratch`."""
    return f".{name}-{socket.gethostname()}-{os.getpid()}-"


def clear_scratch(folder: Path, name: str) -> None:
    """Remove temporary files and folders that killed processes of this machine left behind.

    Args:
        folder: the folder that holds them.
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
    """Whether a process of this machine is still running; assumed true if that cannot be checked."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
