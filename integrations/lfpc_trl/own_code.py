"""The user's own functions, named as "module:function" or "file.py:function".

Such code runs with all permissions of this process, so it is loaded only if the user has named it.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfpc_trl.errors import UserError, did_you_mean, one_line


@dataclass(frozen=True)
class OwnCode:
    """A function of the user.

    Attributes:
        name: as the user wrote it.
        function: the function.
        file: the file that defines it.
        sha256: digest of that file.
    """

    name: str
    function: Callable[..., Any]
    file: Path
    sha256: str

    @property
    def short(self) -> str:
        """The function's own name."""
        return self.name.rpartition(":")[2]


def load_code(name: str, option: str) -> OwnCode:
    """Load a function. Modules are searched on Python's path, then in the current folder.

    Args:
        name: "module:function", or "file.py:function" with a path.
        option: the option or setting that names it, for errors.

    Raises:
        UserError: no such module or function, or its file raises.
    """
    place, colon, function = name.rpartition(":")
    if not colon or not place or not function.isidentifier():
        raise UserError(f"{option} must be module:function or file.py:function, got {name!r}")
    try:
        module = _file(Path(place)) if place.endswith(".py") else _module(place)
    except Exception as error:  # the user's file can raise anything, and the user has to fix it
        raise UserError(
            f"{option} {name}: cannot be imported ({type(error).__name__}: {one_line(error)})"
        ) from error
    found = getattr(module, function, None)
    if not callable(found):
        names = [each for each, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(
            f"{option} {name}: {place} has no function {function}, it has {', '.join(names) or 'none'}"
            f"{did_you_mean(function, names)}"
        )
    file = Path(module.__file__ or "")
    return OwnCode(name, found, file, hashlib.sha256(file.read_bytes()).hexdigest())


def _module(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that no file in the folder shadows a package
    return importlib.import_module(name)


def _file(path: Path) -> Any:
    name = f"own_code_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
