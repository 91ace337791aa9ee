"""Where compiled kernels are kept between processes, and when they may be used again.

Numba's own cache only checks whether the file of a kernel has changed. But a kernel also contains code from
other files: after a change there, the cache would return old code. So the kernels of this package, and no
others, are kept by these rules:

* One key covers the source of the whole package, its version and those of Python, numba, llvmlite and
  numpy. Each key has its own folder, which never holds older code.
* A kernel has one file for each combination of argument types and CPU, renamed into place when complete, with
  a digest of its identity and content. There is no index: numba's index can name a file that another process
  has overwritten with code for other types or another CPU.
* The source is hashed at the first use, not at import, and counts only while it is still what was imported.
  A process whose source changes under it (``git pull`` beside a notebook) compiles for itself.

When the cache fails, kernels are compiled again; no reward changes.
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
"""How many keys a place keeps, the most recently used. Our choice: a few branches and environments."""

_MODULE = re.compile(r"\w+\.pyc?")
_FOLDER = re.compile(r"lfpc_rewards-[0-9a-f]{16}")
_DIGEST_SIZE = hashlib.sha256().digest_size

State = tuple[tuple[Path, int, int], ...]
"""Paths of files with their time of change (ns) and size (bytes)."""


class Store:
    """The folders for a package whose source is as it is now.

    Args:
        package: Its folder, or the path inside an archive that holds it.
    """

    def __init__(self, package: Path) -> None:
        self._package = package
        self._imported = _state(package)
        self._key = ""
        self._folders: list[Path] = []

    def folders(self) -> list[Path]:
        """Where to look for kernels, in this order; new ones go into the last, if it is writeable.

        Empty if no place can be used, or once the source has changed: the code in memory may then be old, new
        or mixed.
        """
        if not self._imported:
            return []
        try:
            key = self._key or _key(self._package, self._imported)
        except OSError:
            key = ""
        if not key or _state(self._package) != self._imported:  # checked after reading all files
            self._imported = ()
            return []
        if not self._key:
            self._key = key
            self._folders = list(_usable(f"lfpc_rewards-{key[:16]}", places(self._package)))
        return self._folders


class KernelCache:
    """Replaces the cache of a numba dispatcher.

    Args:
        function: the kernel as plain Python.
        store: where it is kept.
    """

    def __init__(self, function: Callable[..., Any], store: Store) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}"
        # The bytecode too: an import hook may have changed it.
        self._bytecode = hashlib.sha256(function.__code__.co_code).hexdigest()
        self._store = store

    @property
    def cache_path(self) -> str | None:
        """The folder, for numba's statistics."""
        folders = self._store.folders()
        return str(folders[-1]) if folders else None

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The kernel for the argument types of `signature`; None if it has to be compiled."""
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
        """Store a kernel that was just compiled."""
        with _harmless():
            from numba.core.serialize import dumps

            if result.library.has_dynamic_globals:
                raise ValueError(f"{self._name} holds addresses of this process")
            folders = self._store.folders()
            if folders:
                identity = self._identity(signature, result.target_context)
                _write(folders[-1] / self._file(identity), identity, dumps(result._reduce()))  # noqa: SLF001

    def flush(self) -> None:
        """Delete the kernel's files, for numba's `recompile`."""
        with _harmless():
            for folder in self._store.folders():
                for path in folder.glob(f"{self._name}-*.nbc"):
                    path.unlink(missing_ok=True)

    def _identity(self, signature: Any, target: Any) -> bytes:
        # The CPU is part of this and not of the key, so that different machines can share a folder.
        made_for = (target.codegen().magic_tuple(), str(config.OPT), config.BOUNDSCHECK)
        return repr((self._name, self._bytecode, str(signature), *made_for)).encode()

    def _file(self, identity: bytes) -> str:
        return f"{self._name}-{hashlib.sha256(identity).hexdigest()[:16]}.nbc"


def keep(dispatcher: Any) -> None:
    """Let numba load and store a kernel of this package through `KernelCache`.

    The source of this package does not fully determine a function inside another, or from elsewhere: every
    process compiles those itself.
    """
    function = dispatcher.py_func
    if function.__module__.startswith(f"{__package__}.") and "<" not in function.__qualname__:
        # As numba's `enable_caching` does. Any other setting would affect the user's functions too.
        dispatcher._cache = KernelCache(function, _STORE)  # noqa: SLF001


def places(package: Path) -> list[Path]:
    """Where folders of kernels may be: the first writeable one is written, those before it are only read."""
    found = [Path(config.CACHE_DIR)] if config.CACHE_DIR else []
    found.append(package / "__pycache__")
    with contextlib.suppress(RuntimeError):  # a user without a home
        found.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lfpc_rewards")
    return [place.absolute() for place in found]


def _state(package: Path) -> State:
    """The state of the files that Python imports from; empty if they cannot be read.

    Modules without source count as their ``.pyc``, and a package inside an archive as the archive.
    """
    try:
        found = [(path, path.stat()) for path in _files(package)]
    except OSError:  # one was deleted meanwhile
        return ()
    return tuple((path, status.st_mtime_ns, status.st_size) for path, status in found)


def _files(package: Path) -> list[Path]:
    if not package.is_dir():
        return [parent for parent in package.parents if parent.is_file()]
    found = []
    for folder, below, names in os.walk(package, followlinks=True):
        below[:] = [name for name in below if name != "__pycache__"]
        # Editors leave files whose names no module can have.
        found += [Path(folder, name) for name in names if _MODULE.fullmatch(name)]
    return sorted(found)


def _key(package: Path, state: State) -> str:
    from lfpc_rewards import __version__  # not defined yet when this module is imported

    python = (sys.version, sys.flags.optimize)  # which takes `assert` out
    versions = (__version__, python, numba.__version__, llvmlite.__version__, np.__version__)
    key = hashlib.sha256(repr(versions).encode())
    for path, _, _ in state:
        content = path.read_bytes()
        key.update(repr((os.path.relpath(path, package), len(content))).encode())
        key.update(content)
    return key.hexdigest()


def _usable(name: str, candidates: list[Path]) -> Iterator[Path]:
    """The existing folders of this name, up to the first writeable one, which is created."""
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
    """Remove the least recently used folders. A process that still uses one writes it again."""
    try:
        folders = [path for path in place.iterdir() if _FOLDER.fullmatch(path.name)]
        folders.sort(key=lambda folder: folder.stat().st_mtime_ns)
    except OSError:  # another process is doing the same
        return
    for folder in folders[:-FOLDERS_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path, identity: bytes) -> bytes | None:
    """The content stored under this identity; None if there is none, or it is incomplete."""
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
    except OSError:  # a full disk, a read-only folder
        pass


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    """Turns any error into a warning: numba's internals, used only here, may change in any version."""
    try:
        yield
    except Exception as error:  # numba can still compile
        reason = f"numba {numba.__version__}, {type(error).__name__}: {error}"
        warnings.warn(f"a compiled kernel could not be cached ({reason})", RuntimeWarning, stacklevel=3)


_STORE = Store(Path(__file__).absolute().parent)
