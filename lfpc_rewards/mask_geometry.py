"""Geometry of masks: what they share with each other and with boxes.

As in `lfpc_rewards.geometry`, but the arguments are `Masks`, or lists of RLEs and bitmaps, which are then
packed at each call. Partners need images of the same size. Areas are counted in pixels of the original
image; boxes may have fractions of pixels, of which they then get that share: pixel (x, y) is the square from
there to (x + 1, y + 1). Results are float64.

An empty mask shares nothing, so its IoU and F1 are 0, also with itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards import _kernels, _runs
from lfpc_rewards._checks import as_box_list, as_boxes, as_out, raise_bad_boxes
from lfpc_rewards._typing import Boxes, BoxesLike, Floats, Scores
from lfpc_rewards.masks import Mask, Masks, as_masks

_FLOAT64 = np.dtype(np.float64)

BOUNDARY_BOUND = 0.008
"""How far apart boundaries may lie, as a share of the image's diagonal: DAVIS's."""


def mask_iou(
    masks: Masks | Sequence[Mask], others: Masks | Sequence[Mask], *, out: Floats | None = None
) -> Scores:
    """Intersection over union of the pixels of each mask and its partner.

    Args:
        masks: (n,) masks, or (1,) one for all.
        others: (n,) masks, or (1,), each of an image of its partner's size.
        out: Where to write; a C-contiguous float64 array of the result's shape.

    Returns:
        (n,) in [0, 1]. Symmetric. 0 where both masks are empty.

    Raises:
        ValueError: The sizes of two images or the numbers of masks differ, or a mask is bad (see `Masks`).
        TypeError: As `Masks`.

    Source:
        Jaccard index; pycocotools' ``iou`` with ``iscrowd`` 0. Its value with ``iscrowd`` 1 is
        ``mask_coverage(crowd, detection)``.

    Example:
        >>> left, all_of_it = np.eye(2, dtype=int)[[0, 0]].repeat(2, axis=1), np.ones((2, 4), int)
        >>> left
        array([[1, 1, 0, 0],
               [1, 1, 0, 0]])
        >>> mask_iou([left, left, left ^ 1], [left, all_of_it, left])
        array([1. , 0.5, 0. ])
    """
    a, b = _partners(masks, others, ("masks", "others"))
    shared, union = _shared(a, b, out), a.areas() + b.areas()
    np.divide(shared, np.maximum(union - shared, 1), out=shared)
    return shared


def mask_f1(
    masks: Masks | Sequence[Mask], others: Masks | Sequence[Mask], *, out: Floats | None = None
) -> Scores:
    """F1 of the pixels of each mask and its partner: twice what they share over the sum of their areas.

    Args:
        masks: (n,) masks, or (1,) one for all.
        others: (n,) masks, or (1,), each of an image of its partner's size.
        out: Where to write; a C-contiguous float64 array of the result's shape.

    Returns:
        (n,) in [0, 1]. Symmetric. 0 where both masks are empty.

    Raises:
        ValueError: As `mask_iou`.
        TypeError: As `Masks`.

    Source:
        Dice coefficient. Of an IoU u it is 2 * u / (1 + u).

    Example:
        >>> mask_f1([np.ones((2, 4), int)], [np.eye(2, 4, dtype=int)])
        array([0.4])
    """
    a, b = _partners(masks, others, ("masks", "others"))
    shared = _shared(a, b, out)
    shared *= 2
    np.divide(shared, np.maximum(a.areas() + b.areas(), 1), out=shared)
    return shared


def mask_coverage(
    crops: BoxesLike | Masks, targets: Masks | Sequence[Mask], *, out: Floats | None = None
) -> Scores:
    """Share of each target's pixels that lie inside its crop, a box or a mask.

    For a mask that fills a box it is the `coverage` of that box.

    Args:
        crops: (n, 4) boxes xyxy, or (4,) one for all; or `Masks` (n,) or (1,). A crop of zero area covers
            nothing.
        targets: (n,) masks, or (1,), none of them empty.
        out: Where to write; a C-contiguous float64 array of the result's shape.

    Returns:
        (n,) in [0, 1], exact for whole coordinates up to the last division.

    Raises:
        ValueError: A box is not four finite ordered numbers, a target is empty, the sizes of two images or
            the numbers of rows differ, or a mask is bad (see `Masks`).
        TypeError: As `Masks`.

    Source:
        `coverage` with the pixels of a mask as the target, by area.

    Example:
        >>> corner = Masks([[[0, 0, 4, 0, 0, 4]]], (8, 8))
        >>> mask_coverage([[0, 0, 4, 4], [0, 0, 4, 1], [0, 0, 0.5, 1], [2, 2, 4, 4]], corner)
        array([1.        , 0.5       , 0.08333333, 0.        ])
        >>> mask_coverage(Masks([np.ones((8, 8), bool)]), corner)
        array([1.])
    """
    if isinstance(crops, Masks):
        a, b = _partners(crops, targets, ("crops", "targets"))
        areas = _target_areas(b)
        shared = _shared(a, b, out)
        np.divide(shared, areas, out=shared)
        return shared
    boxes, b = _checked_boxes(as_boxes(crops, "crops")), as_masks(targets, "targets")
    boxes = boxes.reshape(1, 4) if boxes.ndim == 1 else as_box_list(boxes, "crops")
    _target_areas(b)
    rows, own = _rows(len(boxes), len(b), ("crops", "targets"))
    boxes, b = np.ascontiguousarray(boxes[rows]), b[own]
    result = as_out(out, (len(b),), _FLOAT64)
    _runs.mask_coverage_rows(boxes.reshape(-1), b.runs, b.spans, b.sizes, result)
    return result


def boundary_f1(
    masks: Masks | Sequence[Mask],
    others: Masks | Sequence[Mask],
    *,
    bound: float = BOUNDARY_BOUND,
    out: Floats | None = None,
) -> Scores:
    """F1 of the boundaries of each mask and its partner: which of their pixels are near the other one.

    Unlike `mask_iou` it does not grow kinder with the size of a mask.

    Args:
        masks: (n,) masks, or (1,) one for all.
        others: (n,) masks, or (1,), each of an image of its partner's size.
        bound: How far apart near pixels may be, as a share of the image's diagonal, in [0, 1); rounded up to
            whole pixels.
        out: Where to write; a C-contiguous float64 array of the result's shape.

    Returns:
        (n,) in [0, 1]. Symmetric. 0 where one mask has no boundary; where neither has one, which are empty
        masks and those of the whole image, their IoU.

    Raises:
        ValueError: As `mask_iou`, or `bound` is out of its range.
        TypeError: As `Masks`.

    Source:
        The boundary measure F of DAVIS (Perazzi et al., CVPR 2016), as its ``f_measure`` computes it: a
        pixel is boundary if it differs from the one on the right, below or right below; near is a disk
        around it. DAVIS gives two masks without a boundary 1, also an empty one and the whole image; the IoU
        is our choice.

    Example:
        >>> square, moved = np.zeros((2, 100, 100), bool)
        >>> square[20:40, 20:40] = moved[20:40, 21:41] = True
        >>> boundary_f1([square], [moved]), boundary_f1([square], [moved], bound=0).round(2)
        (array([1.]), array([0.5]))
    """
    if not 0.0 <= bound < 1.0:
        raise ValueError(f"bound must be at least 0 and below 1, a share of the diagonal, got {bound}")
    a, b = _partners(masks, others, ("masks", "others"))
    result = as_out(out, (len(a),), _FLOAT64)
    reaches = [math.ceil(bound * math.sqrt(w * w + h * h)) for w, h in a.sizes.tolist()]
    _runs.boundary_rows(a.runs, a.spans, b.runs, b.spans, a.sizes, np.array(reaches, np.int64), result)
    bare = np.isnan(result)
    result[bare] = mask_iou(a[bare], b[bare])
    return result


def mask_iou_matrix(
    masks: Masks | Sequence[Mask], others: Masks | Sequence[Mask], *, out: Floats | None = None
) -> Scores:
    """`mask_iou` of every mask with every other mask.

    Args:
        masks: (n,) masks, all of images of one size.
        others: (m,) masks of images of that size.
        out: Where to write; a C-contiguous float64 array (n, m).

    Returns:
        (n, m) in [0, 1]; entry [i, j] belongs to masks[i] and others[j].

    Raises:
        ValueError: The sizes of two images differ, or a mask is bad (see `Masks`).
        TypeError: As `Masks`.

    Source:
        As `mask_iou`.

    Example:
        >>> whole = Masks([np.ones((2, 4), int)])
        >>> mask_iou_matrix(whole, [np.eye(2, 4, dtype=int), np.zeros((2, 4), int)])
        array([[0.25, 0.  ]])
    """
    a, b = as_masks(masks, "masks"), as_masks(others, "others")
    return _pairs(a, b, b.extents(), ("masks", "others"), out, over_union=True)


def mask_coverage_matrix(
    crops: BoxesLike | Masks, targets: Masks | Sequence[Mask], *, out: Floats | None = None
) -> Scores:
    """`mask_coverage` of every target by every crop.

    For boxes, a table of each target is made once, in time and memory of its smallest box's pixels; after
    that each crop takes the same time, however many runs the target has. For a few crops `mask_coverage` is
    faster.

    Args:
        crops: (n, 4) boxes xyxy; or `Masks` (n,).
        targets: (m,) masks, none of them empty. With `Masks` as crops all are of images of one size.
        out: Where to write; a C-contiguous float64 array (n, m).

    Returns:
        (n, m) in [0, 1]; entry [i, j] is the share of targets[j] inside crops[i].

    Raises:
        ValueError: As `mask_coverage`.
        TypeError: As `Masks`.

    Source:
        As `mask_coverage`; the table is that of Crow, "Summed-area tables for texture mapping", SIGGRAPH
        1984.

    Example:
        >>> corner = Masks([[[0, 0, 4, 0, 0, 4]]], (8, 8))
        >>> mask_coverage_matrix([[0, 0, 4, 4], [0, 0, 4, 1]], corner)
        array([[1. ],
               [0.5]])
    """
    b = as_masks(targets, "targets")
    boxes, areas = b.extents()
    _target_areas(b, areas)
    if isinstance(crops, Masks):
        return _pairs(crops, b, (boxes, areas), ("crops", "targets"), out, over_union=False)
    rows = _checked_boxes(as_box_list(crops, "crops"))
    result = as_out(out, (len(rows), len(b)), _FLOAT64)
    _runs.mask_coverage_pairs(rows.reshape(-1), b.runs, b.spans, b.sizes, boxes, areas, result)
    return result


def _partners(masks: Any, others: Any, names: tuple[str, str]) -> tuple[Masks, Masks]:
    """Masks of one number whose partners have images of the same size."""
    a, b = as_masks(masks, names[0]), as_masks(others, names[1])
    rows, other_rows = _rows(len(a), len(b), names)
    a, b = a[rows], b[other_rows]
    _refuse_other_sizes(b, a.sizes, names[1])
    return a, b


def _rows(count: int, others: int, names: tuple[str, str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of both sides that are partners; one row is the partner of all."""
    if count != others and 1 not in (count, others):
        raise ValueError(
            f"{' and '.join(names)} must have the same length, or one of them 1, got {count} and {others}"
        )
    rows, other_rows = np.broadcast_arrays(np.arange(count), np.arange(others))
    return rows, other_rows


def _refuse_other_sizes(masks: Masks, sizes: NDArray[np.int64], name: str) -> None:
    same = (masks.sizes == sizes).all(-1)
    if not same.all():
        row = int(np.argmin(same))
        (w, h), (width, height) = (
            masks.sizes[row].tolist(),
            np.broadcast_to(sizes, masks.sizes.shape)[row].tolist(),
        )
        raise ValueError(
            f"{name}[{row}] must have the size of its partner, {width} x {height}, got {w} x {h}"
        )


def _target_areas(targets: Masks, areas: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    areas = targets.areas() if areas is None else areas
    if not areas.all():
        raise ValueError(f"targets[{int(np.argmin(areas != 0))}] must hold at least one pixel, got none")
    return areas


def _checked_boxes(boxes: Boxes) -> Boxes:
    boxes = boxes.astype(np.float64, copy=False)
    if not _kernels.area_rows(boxes.reshape(-1), np.empty(boxes.size // 4)):
        raise_bad_boxes([("crops", boxes, False)])
    return boxes


def _shared(masks: Masks, others: Masks, out: Floats | None) -> Scores:
    """(n,) how many pixels each mask shares with its partner."""
    result = as_out(out, (len(masks),), _FLOAT64)
    _runs.shared_rows(masks.runs, masks.spans, others.runs, others.spans, result)
    return result


def _pairs(
    masks: Masks,
    others: Masks,
    extents: tuple[Boxes, NDArray[np.int64]],
    names: tuple[str, str],
    out: Floats | None,
    *,
    over_union: bool,
) -> Scores:
    """IoU, or coverage of the others, of every pair; `extents` are those of the others."""
    result = as_out(out, (len(masks), len(others)), _FLOAT64)
    if result.size == 0:
        return result
    _refuse_other_sizes(masks, masks.sizes[0], names[0])
    _refuse_other_sizes(others, masks.sizes[0], names[1])
    boxes, areas = masks.extents()
    columns = np.ascontiguousarray(extents[0].T)
    _runs.mask_pairs(
        masks.runs, masks.spans, boxes, areas,
        others.runs, others.spans, columns, extents[1],
        over_union, result,
    )  # fmt: skip
    return result
