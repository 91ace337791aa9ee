"""The documented functions of Python's C API that kernels call; an object is its address, as `id` gives it.

Numba reads nested lists only after a copy that costs more than the work, so the kernels ask Python
itself. They use functions alone, never the layout of an object, and they keep three rules:

* whoever calls them is an `object_kernel`, which keeps the GIL; nothing here gives it up or runs Python
  code, so no list changes between two calls, and what is borrowed from a list lives as long as the list;
* an object's type is asked for before anything that only one type understands;
* no index leaves its list, and no call can set an exception, but for `int_or_error`.
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
    types.CPointer(types.uint8): ctypes.POINTER(ctypes.c_uint8),
}


def python_api(name: str, result: Any, *arguments: Any, failed: Any = None) -> Any:
    """The function for kernels; for the plain functions of ``NUMBA_DISABLE_JIT=1`` the same by ctypes.

    `failed`: what a function gives that sets an exception; ctypes raises it, which no kernel does.
    """
    if not config.DISABLE_JIT:
        return types.ExternalFunction(name, result(*arguments))
    function = getattr(ctypes.pythonapi, name)
    function.restype, *function.argtypes = [_C_TYPES[kind] for kind in (result, *arguments)]
    return function if failed is None else _silent(function, failed)


def _silent(function: Callable[..., Any], failed: Any) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (TypeError, OverflowError):
            return failed

    return call


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

int_or_error: Callable[[int], int] = python_api("PyLong_AsSsize_t", types.intp, types.intp, failed=-1)
"""Of an int; of anything else, and of a large one, -1 with an exception set. So no type need be asked for."""

clear_error: Callable[[], None] = python_api("PyErr_Clear", types.void)
"""To be called before anything else where `int_or_error` may have set an exception."""

ascii_text: Callable[[int, int], Any] = python_api(
    "PyUnicode_AsUTF8AndSize", types.CPointer(types.uint8), types.intp, types.intp
)
"""The characters of a string of ASCII; the second argument is the address where to put their number."""

substring: Callable[[int, int, int], int] = python_api(
    "PyUnicode_Substring", types.intp, types.intp, types.intp, types.intp
)
"""A new string, to be given away, of a string between two places of it, or 0 where memory has run out."""

ascii_string: Callable[[int, int], int] = python_api(
    "PyUnicode_FromStringAndSize", types.intp, types.intp, types.intp
)
"""A new string, to be given away, of some characters of ASCII in memory; or 0 where memory has run out."""

concatenation: Callable[[int, int], int] = python_api("PyUnicode_Concat", types.intp, types.intp, types.intp)
"""A new string, to be given away or dropped, of two; or 0 where memory has run out."""

set_list_item: Callable[[int, int, int], int] = python_api(
    "PyList_SetItem", types.intc, types.intp, types.intp, types.intp
)
"""Gives an object away to a list, in the place of another."""

is_subtype: Callable[[int, int], int] = python_api("PyType_IsSubtype", types.intc, types.intp, types.intp)
_object_type: Callable[[int], int] = python_api("PyObject_Type", types.intp, types.intp)
drop: Callable[[int], None] = python_api("Py_DecRef", types.void, types.intp)
"""Of an object that was to be given away or dropped."""


@part
def type_of(thing: int) -> int:
    kind = _object_type(thing)
    drop(kind)  # `thing` keeps its type alive
    return kind
