"""How kernels are compiled: decided once, here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import config, njit

from lfpc_rewards._cache import keep

F = TypeVar("F", bound=Callable[..., Any])


def kernel(fn: F) -> F:
    """Compile `fn` at its first call; the result is kept on disk for the next process.

    No `fastmath` (NaN and infinity must keep their meaning), no threads (a forked worker must
    survive), the GIL released, and division by zero as in numpy. Without the cache every process, including
    each worker of a data loader, would compile for seconds before its first reward; `_cache` says why it is
    not numba's own. With ``NUMBA_DISABLE_JIT=1`` the plain function runs, without warnings.
    """
    return _compiled(fn, kept=True, nogil=True)


def object_kernel(fn: F) -> F:
    """A `kernel` that keeps the GIL, which functions of `_capi` need."""
    return _compiled(fn, kept=True)


def part(fn: F) -> F:
    """A function that only kernels call; it is compiled into them, so it is not cached itself."""
    return _compiled(fn)


def _compiled(fn: F, *, kept: bool = False, **options: Any) -> F:
    if config.DISABLE_JIT:

        @functools.wraps(fn)
        def plain(*args: Any) -> Any:
            with np.errstate(all="ignore"):
                return fn(*args)

        return cast("F", plain)
    compiled = njit(error_model="numpy", **options)(fn)
    if kept:
        keep(compiled)
    return cast("F", compiled)
