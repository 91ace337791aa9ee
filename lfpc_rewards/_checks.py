"""The only place that raises about arrays: which argument, which row, which rule, what came."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfpc_rewards._typing import Boxes, BoxesLike, Floats, SizesLike

ORDERED = "must be four finite numbers with x0 <= x1, y0 <= y1 and a finite area"
WITH_AREA = "must be four finite numbers with x0 < x1, y0 < y1 and a finite positive area"
SIZE = "must be a positive finite (width, height)"

_FLOAT64, _FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)


def same_length(rows: int, **columns: Any) -> None:
    """Raise unless every column that is given has one entry per completion."""
    for name, column in columns.items():
        if isinstance(column, str):
            raise TypeError(f"{name} must be a list with one entry per completion, got {column!r}")
        if column is not None and len(column) != rows:
            raise ValueError(f"{name} must have one entry per completion, got {len(column)} for {rows}")


def as_floats(values: ArrayLike, name: str, last: int, *, single: bool = True) -> Floats:
    """A C-contiguous float array with `last` entries on its last axis; not `single`: with just two axes."""
    if (
        type(values) is np.ndarray
        and values.ndim == 2
        and values.shape[1] == last
        and values.dtype in (_FLOAT64, _FLOAT32)
        and values.flags.carray
    ):
        return values  # the usual array, in the form for kernels: every check below would pass
    shape = f"(..., {last})" if single else f"(n, {last})"
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} must have shape {shape}, got rows of different lengths") from None
    if array.size == 0 and array.ndim <= 1:
        array = np.zeros((0, last))  # an empty list is an empty batch
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold numbers, got {array.dtype} values")
    if array.ndim == 0 or array.shape[-1] != last or (not single and array.ndim != 2):
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if array.dtype != np.float32:
        array = array.astype(np.float64, copy=False)
    # Kernels see one memory layout only: numba would compile again for a read-only array.
    return np.ascontiguousarray(array) if array.flags.writeable else array.copy()


def as_boxes(boxes: BoxesLike, name: str) -> Boxes:
    """(..., 4) numbers; whether they make boxes is checked by the kernels."""
    return as_floats(boxes, name, 4)


def as_box_list(boxes: BoxesLike, name: str) -> Boxes:
    """(n, 4) numbers."""
    return as_floats(boxes, name, 4, single=False)


def as_sizes(sizes: SizesLike, name: str = "image_sizes") -> Floats:
    """(..., 2) numbers."""
    return as_floats(sizes, name, 2)


def as_positive_sizes(sizes: SizesLike, name: str = "image_sizes") -> Floats:
    """(..., 2) positive finite sizes."""
    array = as_sizes(sizes, name)
    good = are_sizes(array)
    if not good.all():
        raise_bad_row(name, array, good, SIZE)
    return array


def are_sizes(sizes: Floats) -> NDArray[np.bool_]:
    """(...) whether each is the width and height of a picture."""
    return np.asarray(((sizes > 0) & (sizes < np.inf)).all(-1))


def broadcast(arrays: list[Floats], names: list[str]) -> tuple[list[Floats], tuple[int, ...]]:
    """Flat arrays of one common leading shape and one dtype, and that shape."""
    leading = [array.shape[:-1] for array in arrays]
    shape = leading[0]
    if leading.count(shape) == len(leading):
        if all(array.dtype == _FLOAT64 for array in arrays):
            return [array.reshape(-1) for array in arrays], shape
    else:
        try:
            shape = np.broadcast_shapes(*leading)
        except ValueError:
            shapes = " and ".join(str(array.shape) for array in arrays)
            raise ValueError(f"{' and '.join(names)} must broadcast, got shapes {shapes}") from None
        arrays = [_stretch(array, shape) for array in arrays]
    dtype = np.result_type(*arrays)
    return [array.astype(dtype, copy=False).reshape(-1) for array in arrays], shape


def _stretch(array: Floats, shape: tuple[int, ...]) -> Floats:
    return array if array.shape[:-1] == shape else np.broadcast_to(array, (*shape, array.shape[-1])).copy()


def as_out(out: Floats | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Floats:
    """A fresh array, or the caller's one if it fits."""
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy array, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(
            f"out must be a writeable C-contiguous {dtype} array of shape {shape}, "
            f"got {out.dtype} {out.shape}"
        )
    return out


def are_boxes(boxes: Boxes, *, with_area: bool) -> NDArray[np.bool_]:
    """(...) whether each is four finite numbers in order, as `area_of` decides in kernels."""
    with np.errstate(all="ignore"):
        w = boxes[..., 2] - boxes[..., 0]
        h = boxes[..., 3] - boxes[..., 1]
        area = w * h
        # For shape () this is a numpy bool.
        good = np.asarray((w >= 0) & (h >= 0) & (area * 4 < np.inf))
        return good & (area > 0) if with_area else good


def raise_bad_boxes(
    named: list[tuple[str, Boxes, bool]], sizes: tuple[str, Floats] | None = None
) -> NoReturn:
    """Find the first box (or size) that breaks its rule and say so. `named`: (name, boxes, needs an area)."""
    for name, boxes, with_area in named:
        good = are_boxes(boxes, with_area=with_area)
        if not good.all():
            raise_bad_row(name, boxes, good, WITH_AREA if with_area else ORDERED)
    if sizes is not None:
        raise_bad_row(*sizes, are_sizes(sizes[1]), SIZE)
    raise AssertionError("a kernel refused boxes that break no rule")  # pragma: no cover


def raise_bad_row(name: str, array: Floats, good: NDArray[np.bool_] | np.bool_, rule: str) -> NoReturn:
    """Raise for the first row where `good` is false."""
    index = np.unravel_index(int(np.argmin(good)), good.shape)
    where = f"[{', '.join(str(int(i)) for i in index)}]" if index else ""
    raise ValueError(f"{name}{where} {rule}, got {array[index].tolist()}")
