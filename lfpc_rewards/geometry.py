"""Geometry of boxes.

A box is ``x0, y0, x1, y1`` in one coordinate frame that the caller keeps the same for all arguments;
x grows to the right, y grows downwards, the upper edges are exclusive (half-open), so a box of
pixels 0 to 9 is ``0, 0, 10, 10`` and boxes that share only an edge do not meet.

These functions are strict: NaN, infinity and inverted boxes (``x1 < x0``) raise `ValueError` with the
row. Boxes of zero area are allowed and meet nothing. Rewards, which must judge whatever a model
wrote, are in `lfpc_rewards.rewards` and score such boxes 0 instead.

float32 input is computed and returned as float32, everything else as float64. One box in (shape (4,))
gives an array of shape (); ``float(...)`` makes it a number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lfpc_rewards import _kernels
from lfpc_rewards._checks import as_box_list, as_boxes, as_out, as_sizes, broadcast, raise_bad_boxes
from lfpc_rewards._typing import Boxes, BoxesLike, Floats, SizesLike


def area(boxes: BoxesLike, *, out: Floats | None = None) -> Floats:
    """Area of each box: width times height.

    Args:
        boxes: (..., 4) boxes.
        out: Where to write; a C-contiguous array of the result's shape and dtype.

    Returns:
        (...) areas, at least 0; the square of the boxes' unit.

    Raises:
        ValueError: A box is not four finite numbers with x0 <= x1 and y0 <= y1.

    Source:
        Definition.

    Example:
        >>> area([[0, 0, 10, 5], [3, 3, 3, 9]])
        array([50.,  0.])
        >>> area([])
        array([], dtype=float64)
        >>> area([[0, 0, 1, 1], [5, 0, 2, 1]])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: boxes[1] must be four finite numbers with x0 <= x1, ... got [5.0, 0.0, 2.0, 1.0]
    """
    rows = as_boxes(boxes, "boxes")
    result = as_out(out, rows.shape[:-1], rows.dtype)
    if not _kernels.area_rows(rows.reshape(-1), result.reshape(-1)):
        raise_bad_boxes([("boxes", rows, False)])
    return result


def intersection(boxes: BoxesLike, others: BoxesLike, *, out: Floats | None = None) -> Floats:
    """Area that each box shares with its partner.

    Args:
        boxes: (..., 4) boxes.
        others: (..., 4) boxes in the same frame; broadcast against `boxes`.
        out: Where to write; a C-contiguous array of the result's shape and dtype.

    Returns:
        (...) areas, at least 0. Symmetric. Boxes that only touch share 0.

    Raises:
        ValueError: A box is not four finite numbers with x0 <= x1 and y0 <= y1.

    Source:
        Definition.

    Example:
        >>> intersection([[0, 0, 10, 10], [0, 0, 5, 10]], [5, 0, 15, 10])
        array([50.,  0.])
    """
    a, b = as_boxes(boxes, "boxes"), as_boxes(others, "others")
    return _row_by_row(_kernels.intersection_rows, a, b, ["boxes", "others"], out)


def iou(boxes: BoxesLike, others: BoxesLike, *, out: Floats | None = None) -> Floats:
    """Intersection over union of each box and its partner.

    Args:
        boxes: (..., 4) boxes.
        others: (..., 4) boxes in the same frame; broadcast against `boxes`.
        out: Where to write; a C-contiguous array of the result's shape and dtype.

    Returns:
        (...) in [0, 1]. Symmetric. 0 where both boxes have zero area, even if they are equal:
        there is no area to share.

    Raises:
        ValueError: A box is not four finite numbers with x0 <= x1 and y0 <= y1.

    Source:
        Jaccard index; continuous areas, no +1 for pixels.

    Example:
        >>> iou([0, 0, 10, 10], [[5, 0, 15, 10], [0, 0, 10, 10], [10, 0, 20, 10]])
        array([0.33333333, 1.        , 0.        ])
        >>> iou([3, 3, 3, 3], [3, 3, 3, 3])
        array(0.)
        >>> iou([], [])
        array([], dtype=float64)
    """
    a, b = as_boxes(boxes, "boxes"), as_boxes(others, "others")
    return _row_by_row(_kernels.iou_rows, a, b, ["boxes", "others"], out)


def giou(boxes: BoxesLike, others: BoxesLike, *, out: Floats | None = None) -> Floats:
    """Generalised IoU: IoU minus the part of the smallest enclosing box that neither box fills.

    Args:
        boxes: (..., 4) boxes.
        others: (..., 4) boxes in the same frame; broadcast against `boxes`.
        out: Where to write; a C-contiguous array of the result's shape and dtype.

    Returns:
        (...) in [-1, 1]. Symmetric. 0 where the enclosing box has zero area.

    Raises:
        ValueError: A box is not four finite numbers with x0 <= x1 and y0 <= y1.

    Source:
        Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, algorithm 1.

    Example:
        >>> giou([0, 0, 10, 10], [[0, 0, 10, 10], [10, 0, 20, 10], [30, 0, 40, 10]])
        array([ 1. ,  0. , -0.5])
    """
    a, b = as_boxes(boxes, "boxes"), as_boxes(others, "others")
    return _row_by_row(_kernels.giou_rows, a, b, ["boxes", "others"], out)


def coverage(crops: BoxesLike, targets: BoxesLike, *, out: Floats | None = None) -> Floats:
    """Fraction of each target's area that lies inside its crop: area(crop & target) / area(target).

    Not symmetric, and blind to background: a crop of the whole image scores 1, so combine it with
    `iou` or a distance.

    Args:
        crops: (..., 4) boxes. A crop of zero area covers nothing.
        targets: (..., 4) boxes of positive area in the same frame; broadcast against `crops`.
        out: Where to write; a C-contiguous array of the result's shape and dtype.

    Returns:
        (...) in [0, 1].

    Raises:
        ValueError: A box is not four finite ordered numbers, or a target has no area.

    Source:
        LFPC (arXiv 2603.27494), stage 2, where the coverage of the innermost box is called overlap.

    Example:
        >>> coverage([[0, 0, 10, 10], [5, 0, 15, 10], [5, 5, 5, 5]], [0, 0, 10, 10])
        array([1. , 0.5, 0. ])
        >>> coverage([0, 0, 10, 10], [3, 0, 3, 9])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: targets must be four finite numbers with x0 < x1, ... got [3.0, 0.0, 3.0, 9.0]
    """
    a, b = as_boxes(crops, "crops"), as_boxes(targets, "targets")
    return _row_by_row(_kernels.coverage_rows, a, b, ["crops", "targets"], out, with_area=True)


def corner_distance(
    crops: BoxesLike, targets: BoxesLike, image_sizes: SizesLike, *, out: Floats | None = None
) -> Floats:
    """Normalised L1 distance of the corners: mean of |dx0|/W, |dy0|/H, |dx1|/W, |dy1|/H.

    Unlike `iou` it tells near from far even when the boxes do not meet.

    Args:
        crops: (..., 4) boxes.
        targets: (..., 4) boxes in the same frame.
        image_sizes: (..., 2) width and height of the image in that frame. All three broadcast.
        out: Where to write; a C-contiguous array of the result's shape and dtype.

    Returns:
        (...) at least 0; at most 1 as long as both boxes lie inside the image.

    Raises:
        ValueError: A box is not four finite ordered numbers, or a size is not positive.

    Source:
        LFPC (arXiv 2603.27494), the distance of stage 2. The paper's normaliser is not
        known; the mean over the image's width and height is our choice.

    Example:
        >>> corner_distance([[0, 0, 50, 40], [0, 0, 100, 80]], [0, 0, 50, 40], (100, 80))
        array([0.  , 0.25])
    """
    a, b, c = as_boxes(crops, "crops"), as_boxes(targets, "targets"), as_sizes(image_sizes)
    (x, y, z), shape = broadcast([a, b, c], ["crops", "targets", "image_sizes"])
    result = as_out(out, shape, x.dtype)
    if not _kernels.corner_distance_rows(x, y, z, result.reshape(-1)):
        raise_bad_boxes([("crops", a, False), ("targets", b, False)], ("image_sizes", c))
    return result


def iou_matrix(boxes: BoxesLike, others: BoxesLike, *, out: Floats | None = None) -> Floats:
    """`iou` of every box with every other box.

    Args:
        boxes: (n, 4) boxes.
        others: (m, 4) boxes in the same frame.
        out: Where to write; a C-contiguous (n, m) array of the result's dtype. For large matrices,
            where allocating costs as much as computing.

    Returns:
        (n, m) in [0, 1]; entry [i, j] belongs to boxes[i] and others[j].

    Raises:
        ValueError: A box is not four finite numbers with x0 <= x1 and y0 <= y1.

    Source:
        As `iou`.

    Example:
        >>> iou_matrix([[0, 0, 10, 10], [0, 0, 5, 10]], [[0, 0, 10, 10], [5, 0, 10, 10], [9, 9, 9, 9]])
        array([[1. , 0.5, 0. ],
               [0.5, 0. , 0. ]])
    """
    x, y, result = _matrix(boxes, others, ("boxes", "others"), out, with_area=False)
    _kernels.iou_pairs(x, y, result)
    return result


def giou_matrix(boxes: BoxesLike, others: BoxesLike, *, out: Floats | None = None) -> Floats:
    """`giou` of every box with every other box.

    Args:
        boxes: (n, 4) boxes.
        others: (m, 4) boxes in the same frame.
        out: Where to write; a C-contiguous (n, m) array of the result's dtype.

    Returns:
        (n, m) in [-1, 1]; entry [i, j] belongs to boxes[i] and others[j].

    Raises:
        ValueError: A box is not four finite numbers with x0 <= x1 and y0 <= y1.

    Source:
        As `giou`.

    Example:
        >>> giou_matrix([[0, 0, 10, 10]], [[0, 0, 10, 10], [30, 0, 40, 10]])
        array([[ 1. , -0.5]])
    """
    x, y, result = _matrix(boxes, others, ("boxes", "others"), out, with_area=False)
    _kernels.giou_pairs(x, y, result)
    return result


def coverage_matrix(crops: BoxesLike, targets: BoxesLike, *, out: Floats | None = None) -> Floats:
    """`coverage` of every target by every crop.

    Args:
        crops: (n, 4) boxes.
        targets: (m, 4) boxes of positive area in the same frame.
        out: Where to write; a C-contiguous (n, m) array of the result's dtype.

    Returns:
        (n, m) in [0, 1]; entry [i, j] is the part of targets[j] inside crops[i].

    Raises:
        ValueError: A box is not four finite ordered numbers, or a target has no area.

    Source:
        As `coverage`.

    Example:
        >>> coverage_matrix([[0, 0, 10, 10], [5, 0, 10, 10]], [[0, 0, 10, 10], [8, 0, 10, 10]])
        array([[1. , 1. ],
               [0.5, 1. ]])
    """
    x, y, result = _matrix(crops, targets, ("crops", "targets"), out, with_area=True)
    _kernels.coverage_pairs(x, y, result)
    return result


def union_coverage(crops: BoxesLike, target: BoxesLike) -> float:
    """Fraction of the target that the crops cover together; what several crops share counts once.

    Exact for integer coordinates up to the last division. Takes time with the square of
    the number of crops.

    Args:
        crops: (n, 4) boxes, n may be 0.
        target: (4,) one box of positive area in the same frame.

    Returns:
        A number in [0, 1], at least the largest single `coverage`.

    Raises:
        ValueError: A box is not four finite ordered numbers, or the target has no area.

    Source:
        Ours: `coverage` with the union of the crops in place of one crop.

    Example:
        >>> union_coverage([[0, 0, 6, 10], [4, 0, 8, 10]], [0, 0, 10, 10])
        0.8
        >>> union_coverage([], [0, 0, 10, 10])
        0.0
    """
    boxes = as_box_list(crops, "crops").astype(np.float64, copy=False)
    inner = as_boxes(target, "target").astype(np.float64, copy=False)
    if inner.shape != (4,):
        raise ValueError(f"target must have shape (4,), got {inner.shape}")
    if not _kernels.area_rows(boxes.reshape(-1), np.empty(len(boxes))):
        raise_bad_boxes([("crops", boxes, False)])
    whole = np.empty(1)
    if not _kernels.area_rows(inner, whole) or not whole[0] > 0:
        raise_bad_boxes([("target", inner, True)])
    x0, y0, x1, y1 = inner
    clipped = np.clip(boxes, [x0, y0, x0, y0], [x1, y1, x1, y1])
    clipped = clipped[np.argsort(clipped[:, 1], kind="stable")]
    # Rounding in the sum of many strips must not give more than 1.
    return float(min(_kernels.union_area(clipped.reshape(-1)) / whole[0], 1.0))


def _row_by_row(
    kernel: Callable[..., bool],
    a: Boxes,
    b: Boxes,
    names: list[str],
    out: Floats | None,
    with_area: bool = False,
) -> Floats:
    """The result of a kernel for each box and its partner; `with_area`: those of `b` need an area."""
    (x, y), shape = broadcast([a, b], names)
    result = as_out(out, shape, x.dtype)
    if not kernel(x, y, result.reshape(-1)):
        raise_bad_boxes([(names[0], a, False), (names[1], b, with_area)])
    return result


def _matrix(
    boxes: BoxesLike, others: BoxesLike, names: tuple[str, str], out: Floats | None, *, with_area: bool
) -> tuple[Boxes, Boxes, Floats]:
    """Checked inputs of the pair kernels: flat boxes, five contiguous rows of others, the result."""
    a, b = as_box_list(boxes, names[0]), as_box_list(others, names[1])
    dtype = np.result_type(a, b)
    a, b = np.ascontiguousarray(a, dtype=dtype), np.ascontiguousarray(b, dtype=dtype)
    columns = np.empty((5, len(b)), dtype)
    columns[:4] = b.T
    good = _kernels.area_rows(a.reshape(-1), np.empty(len(a), dtype))
    good &= _kernels.area_rows(b.reshape(-1), columns[4])
    if not good or (with_area and not (columns[4] > 0).all()):
        raise_bad_boxes([(names[0], a, False), (names[1], b, with_area)])
    return a.reshape(-1), columns, as_out(out, (len(a), len(b)), dtype)
