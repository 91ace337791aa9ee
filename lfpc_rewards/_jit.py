"""How kernels are compiled: decided once, here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import config, njit

F = TypeVar("F", bound=Callable[..., Any])


def kernel(fn: F) -> F:
    """Compile `fn` at its first call; the result is kept on disk for the next process.

    No `fastmath` (NaN and infinity must keep their meaning), no threads (a forked worker must
    survive), the GIL released, and division by zero gives what numpy gives. The cache is worth its
    risk: without it every process, also every worker of a data loader, compiles for seconds before its
    first reward. Others report crashes when many processes share a cache; the tests let processes
    fill an empty one at the same time, and `NUMBA_CACHE_DIR` gives each its own. With
    ``NUMBA_DISABLE_JIT=1`` the plain function runs, as silent as the compiled one.
    """
    return _compiled(fn, cache=True, nogil=True)


def object_kernel(fn: F) -> F:
    """A `kernel` that keeps the GIL, as it must to call a function of `_capi`."""
    return _compiled(fn, cache=True)


def part(fn: F) -> F:
    """A function that only kernels call: it becomes part of them, so it needs no cache of its own."""
    return _compiled(fn)


def inlined(fn: F) -> F:
    """A `part` that becomes lines of its caller, which saves counting references to arrays at every call."""
    return _compiled(fn, inline="always")


def _compiled(fn: F, **options: Any) -> F:
    if config.DISABLE_JIT:

        @functools.wraps(fn)
        def plain(*args: Any) -> Any:
            with np.errstate(all="ignore"):
                return fn(*args)

        return cast("F", plain)
    try:
        return cast("F", njit(error_model="numpy", **options)(fn))
    except RuntimeError:  # numba found no folder that it may write its cache to
        options.pop("cache")
        return cast("F", njit(error_model="numpy", **options)(fn))
