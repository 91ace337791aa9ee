"""Where compiled kernels are kept between processes, and when they may be used again.

Numba's own cache asks whether the file of a kernel has changed. But a kernel is made of code from other
files as well, and after a change in one of those it would still give yesterday's rewards. So the kernels of
this package, and nobody else's, are kept by these rules:

* One key covers the source of the whole package, its version and those of Python, numba, llvmlite and
  numpy. Each key has a folder of its own, so nothing old is ever met there, whichever process died when.
* A kernel has one file per types of arguments and kind of CPU, complete from the moment it has its name, with
  a digest over what it is and what it holds. There is no index: numba's can name a file that another process
  overwrites meanwhile with the code for other types or another CPU.
* The source is hashed at the first use, not at import, and counts only while it is still what was imported.
  A process whose source changes under it (``git pull`` beside a notebook) compiles for itself.

A cache that fails costs seconds, never a reward.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import shutil
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba import config

FOLDERS_KEPT = 8
"""How many keys a place keeps, those used last. Our choice: some branches and environments at a time."""

_MODULE = re.compile(r"\w+\.pyc?")
_FOLDER = re.compile(r"lfpc_rewards-[0-9a-f]{16}")
_DIGEST_SIZE = hashlib.sha256().digest_size

State = tuple[tuple[Path, int, int], ...]
"""Paths of files with their time of change (ns) and size (bytes)."""


class Store:
    """The folders for a package in the state in which its source is when this is made.

    Args:
        package: its folder; where there is none, the package lies in an archive.
    """

    def __init__(self, package: Path) -> None:
        self._package = package
        self._imported = _state(package)
        self._key = ""
        self._folders: list[Path] = []

    def folders(self) -> list[Path]:
        """Where to look for kernels, in turn; new ones go into the last, if it can be written.

        Empty where no place can be used, and from when the source is seen to have changed: what is in memory
        may then be of either state, or of both.
        """
        if not self._imported:
            return []
        try:
            key = self._key or _key(self._package, self._imported)
        except OSError:
            key = ""
        if not key or _state(self._package) != self._imported:  # looked at after all was read
            self._imported = ()
            return []
        if not self._key:
            self._key = key
            self._folders = list(_usable(f"lfpc_rewards-{key[:16]}", places(self._package)))
        return self._folders


class KernelCache:
    """What numba's dispatcher asks for code that it has no need to compile; in place of its own cache.

    Args:
        function: the kernel as plain Python.
        store: where it is kept.
    """

    def __init__(self, function: Callable[..., Any], store: Store) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}"
        # Its own bytecode too: an import hook may have changed what the source says.
        self._bytecode = hashlib.sha256(function.__code__.co_code).hexdigest()
        self._store = store

    @property
    def cache_path(self) -> str | None:
        """The folder, for numba's statistics."""
        folders = self._store.folders()
        return str(folders[-1]) if folders else None

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The kernel for the types of arguments of `signature`, None where it has to be compiled."""
        with _harmless():
            from numba.core.compiler import CompileResult

            target.refresh()
            identity = self._identity(signature, target)
            for folder in self._store.folders():
                content = _read(folder / self._file(identity), identity)
                if content is not None:
                    return CompileResult._rebuild(target, *pickle.loads(content))  # noqa: SLF001
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was just compiled."""
        with _harmless():
            from numba.core.serialize import dumps

            if result.library.has_dynamic_globals:
                raise ValueError(f"{self._name} holds addresses of this process")
            folders = self._store.folders()
            if folders:
                identity = self._identity(signature, result.target_context)
                _write(folders[-1] / self._file(identity), identity, dumps(result._reduce()))  # noqa: SLF001

    def flush(self) -> None:
        """Forget the kernel, for numba's `recompile`."""
        with _harmless():
            for folder in self._store.folders():
                for path in folder.glob(f"{self._name}-*.nbc"):
                    path.unlink(missing_ok=True)

    def _identity(self, signature: Any, target: Any) -> bytes:
        # The CPU stands here and not in the key, so that machines of several kinds share a folder.
        made_for = (target.codegen().magic_tuple(), str(config.OPT), config.BOUNDSCHECK)
        return repr((self._name, self._bytecode, str(signature), *made_for)).encode()

    def _file(self, identity: bytes) -> str:
        return f"{self._name}-{hashlib.sha256(identity).hexdigest()[:16]}.nbc"


def keep(dispatcher: Any) -> None:
    """Give a function of this package that numba has yet to compile its place on the disk.

    A function inside another, or from elsewhere, is not wholly described by the source of this package and
    is compiled by every process.
    """
    function = dispatcher.py_func
    if function.__module__.startswith(f"{__package__}.") and "<" not in function.__qualname__:
        # What numba's `enable_caching` sets. All else that could be set is shared with the user's functions.
        dispatcher._cache = KernelCache(function, _STORE)  # noqa: SLF001


def places(package: Path) -> list[Path]:
    """Where folders of kernels may lie: the first that can be written is used, those before it are read."""
    found = [Path(config.CACHE_DIR)] if config.CACHE_DIR else []
    found.append(package / "__pycache__")
    with contextlib.suppress(RuntimeError):  # a user without a home
        found.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lfpc_rewards")
    return [place.absolute() for place in found]


def _state(package: Path) -> State:
    """What the files are like from which Python imports; empty where none can be looked at.

    Modules without source count as their ``.pyc``, and a package inside an archive as the archive.
    """
    try:
        found = [(path, path.stat()) for path in _files(package)]
    except OSError:  # one went away meanwhile
        return ()
    return tuple((path, status.st_mtime_ns, status.st_size) for path, status in found)


def _files(package: Path) -> list[Path]:
    if not package.is_dir():
        return [parent for parent in package.parents if parent.is_file()]
    found = []
    for folder, below, names in os.walk(package, followlinks=True):
        below[:] = [name for name in below if name != "__pycache__"]
        # A name that no module can have is what an editor left there.
        found += [Path(folder, name) for name in names if _MODULE.fullmatch(name)]
    return sorted(found)


def _key(package: Path, state: State) -> str:
    from lfpc_rewards import __version__  # it is not there yet while this module is imported

    python = (sys.version, sys.flags.optimize)  # which takes `assert` out
    versions = (__version__, python, numba.__version__, llvmlite.__version__, np.__version__)
    key = hashlib.sha256(repr(versions).encode())
    for path, _, _ in state:
        content = path.read_bytes()
        key.update(repr((os.path.relpath(path, package), len(content))).encode())
        key.update(content)
    return key.hexdigest()


def _usable(name: str, candidates: list[Path]) -> Iterator[Path]:
    """The folders of this name that are there, up to the first that can be written, which is made."""
    for place in candidates:
        folder = place / name
        known = False
        try:
            known = folder.is_dir()
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            os.utime(folder)
        except OSError:
            if known:
                yield folder
            continue
        if not known:
            _forget_old(place)
        yield folder
        return


def _forget_old(place: Path) -> None:
    """Remove the folders that were used least lately. A process that still uses one writes it anew."""
    try:
        folders = [path for path in place.iterdir() if _FOLDER.fullmatch(path.name)]
        folders.sort(key=lambda folder: folder.stat().st_mtime_ns)
    except OSError:  # another process is at it
        return
    for folder in folders[:-FOLDERS_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path, identity: bytes) -> bytes | None:
    """What was kept under this identity; None where nothing was, or not all of it is there."""
    try:
        kept = path.read_bytes()
    except OSError:
        return None
    digest, content = kept[:_DIGEST_SIZE], kept[_DIGEST_SIZE:]
    return content if digest == hashlib.sha256(identity + content).digest() else None


def _write(path: Path, identity: bytes, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # a newer version may have removed it
        try:
            draft.write_bytes(hashlib.sha256(identity + content).digest() + content)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError:  # a full disk, a folder that can only be read
        pass


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    """Numba's inner parts are used here, and asked for here only: another numba may have others."""
    try:
        yield
    except Exception as error:  # whatever it is, numba can still compile
        reason = f"numba {numba.__version__}, {type(error).__name__}: {error}"
        warnings.warn(f"a compiled kernel cannot be kept ({reason})", RuntimeWarning, stacklevel=3)


_STORE = Store(Path(__file__).absolute().parent)
