"""The documented functions of Python's C API that kernels call; an object is its address, as `id` gives it.

Numba would copy nested lists first, which costs more than the work, so the kernels call Python itself. They
use functions only, never the memory layout of an object, and follow three rules:

* only an `object_kernel` calls them, which keeps the GIL; nothing here releases it or runs Python code, so no
  list changes between two calls, and a borrowed reference lives as long as its list;
* an object's type is checked before any function for that type is called;
* no index leaves its list, and no call can set an exception.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from numba import config, types

from lfpc_rewards._jit import part

HAS_GIL = "free-threading" not in sys.version
"""Whether Python itself keeps lists as they are while a kernel reads them."""

_C_TYPES = {
    types.void: None,
    types.intc: ctypes.c_int,
    types.intp: ctypes.c_ssize_t,
    types.int64: ctypes.c_int64,
    types.float64: ctypes.c_double,
}


def python_api(name: str, result: Any, *arguments: Any) -> Any:
    """The function for kernels; for the plain functions of ``NUMBA_DISABLE_JIT=1`` the same by ctypes."""
    if not config.DISABLE_JIT:
        return types.ExternalFunction(name, result(*arguments))
    function = getattr(ctypes.pythonapi, name)
    function.restype, *function.argtypes = [_C_TYPES[kind] for kind in (result, *arguments)]
    return function


list_size: Callable[[int], int] = python_api("PyList_Size", types.intp, types.intp)
list_item: Callable[[int, int], int] = python_api("PyList_GetItem", types.intp, types.intp, types.intp)
tuple_size: Callable[[int], int] = python_api("PyTuple_Size", types.intp, types.intp)
tuple_item: Callable[[int, int], int] = python_api("PyTuple_GetItem", types.intp, types.intp, types.intp)

float_value: Callable[[int], float] = python_api("PyFloat_AsDouble", types.float64, types.intp)
"""Of a float or of an instance of a subclass, whose own `__float__` is not called."""

int_value: Callable[[int, int], int] = python_api(
    "PyLong_AsLongLongAndOverflow", types.int64, types.intp, types.intp
)
"""Of an int; the second argument is the address of a C int that becomes 0 only if the value fits."""

is_subtype: Callable[[int, int], int] = python_api("PyType_IsSubtype", types.intc, types.intp, types.intp)
_object_type: Callable[[int], int] = python_api("PyObject_Type", types.intp, types.intp)
drop: Callable[[int], None] = python_api("Py_DecRef", types.void, types.intp)
"""Releases a new reference."""


@part
def type_of(thing: int) -> int:
    kind = _object_type(thing)
    drop(kind)  # `thing` keeps its type alive
    return kind
