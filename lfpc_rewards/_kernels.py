"""The loops over boxes.

Boxes come as flat C-contiguous arrays: coordinate k of box i is ``a[4 * i + k]``, a stride that
the compiler knows, so that it can use vector instructions. Geometry kernels return whether every box was
valid; the door then looks for the culprit, so that good input is read once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._jit import kernel, part
from lfpc_rewards._runs import share_inside

A = NDArray[Any]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

BEST, LAST, FIRST, MEAN = 0, 1, 2, 3
"""Codes of the ways to reduce several crops to one score."""


@part
def area_of(boxes: A, i: int) -> tuple[float, bool]:
    # The area of box i, and whether that is a box. One comparison refuses NaN, infinity and overflow:
    # inf * 0 is NaN, and NaN < inf is false. Four times, so that the sum of two areas cannot overflow either.
    number = boxes.dtype.type
    w = boxes[4 * i + 2] - boxes[4 * i]
    h = boxes[4 * i + 3] - boxes[4 * i + 1]
    area = w * h
    return area, w >= number(0) and h >= number(0) and area * number(4) < number(np.inf)


@part
def shared_area(boxes: A, others: A, i: int) -> float:
    zero = boxes.dtype.type(0)
    w = min(boxes[4 * i + 2], others[4 * i + 2]) - max(boxes[4 * i], others[4 * i])
    h = min(boxes[4 * i + 3], others[4 * i + 3]) - max(boxes[4 * i + 1], others[4 * i + 1])
    # Clip each side before multiplying: two negative gaps would give a positive area.
    area: float = max(w, zero) * max(h, zero)
    return area


@kernel
def area_rows(boxes: A, out: A) -> bool:
    bad = 0
    for i in range(out.size):
        out[i], good = area_of(boxes, i)
        bad += not good
    return bad == 0


@kernel
def intersection_rows(boxes: A, others: A, out: A) -> bool:
    bad = 0
    for i in range(out.size):
        _, good = area_of(boxes, i)
        _, other_good = area_of(others, i)
        bad += not (good and other_good)
        out[i] = shared_area(boxes, others, i)
    return bad == 0


@kernel
def iou_rows(boxes: A, others: A, out: A) -> bool:
    zero = boxes.dtype.type(0)
    bad = 0
    for i in range(out.size):
        a0, good = area_of(boxes, i)
        a1, other_good = area_of(others, i)
        bad += not (good and other_good)
        inter = shared_area(boxes, others, i)
        union = a0 + a1 - inter
        # At most 1: neither area is smaller than what they share, also when rounded, so no union is either.
        out[i] = inter / union if union > zero else zero
    return bad == 0


@kernel
def giou_rows(boxes: A, others: A, out: A) -> bool:
    zero = boxes.dtype.type(0)
    one = boxes.dtype.type(1)
    bad = 0
    for i in range(out.size):
        a0, good = area_of(boxes, i)
        a1, other_good = area_of(others, i)
        bad += not (good and other_good)
        inter = shared_area(boxes, others, i)
        union = a0 + a1 - inter
        hull_w = max(boxes[4 * i + 2], others[4 * i + 2]) - min(boxes[4 * i], others[4 * i])
        hull_h = max(boxes[4 * i + 3], others[4 * i + 3]) - min(boxes[4 * i + 1], others[4 * i + 1])
        hull = hull_w * hull_h
        overlap = inter / union if union > zero else zero
        # 1 - union/hull and not (hull - union)/hull: the latter is NaN when the hull overflows. The union, a
        # rounded sum, may pass its hull by the last bit.
        out[i] = overlap - (one - min(union / hull, one)) if hull > zero else overlap
    return bad == 0


@kernel
def coverage_rows(crops: A, targets: A, out: A) -> bool:
    zero = crops.dtype.type(0)
    bad = 0
    for i in range(out.size):
        _, good = area_of(crops, i)
        area, target_good = area_of(targets, i)
        bad += not (good and target_good and area > zero)
        out[i] = shared_area(crops, targets, i) / area
    return bad == 0


@kernel
def corner_distance_rows(crops: A, targets: A, sizes: A, out: A) -> bool:
    zero = crops.dtype.type(0)
    four = crops.dtype.type(4)
    infinity = crops.dtype.type(np.inf)
    bad = 0
    for i in range(out.size):
        _, good = area_of(crops, i)
        _, target_good = area_of(targets, i)
        width = sizes[2 * i]
        height = sizes[2 * i + 1]
        bad += not (good and target_good)
        bad += not (width > zero and width < infinity and height > zero and height < infinity)
        dx = abs(crops[4 * i] - targets[4 * i]) + abs(crops[4 * i + 2] - targets[4 * i + 2])
        dy = abs(crops[4 * i + 1] - targets[4 * i + 1]) + abs(crops[4 * i + 3] - targets[4 * i + 3])
        out[i] = (dx / width + dy / height) / four
    return bad == 0


@part
def box_with_area(boxes: A, i: int) -> tuple[float, float, float, float, float]:
    # The area is 1 in place of 0, so that a union is never 0.
    x0, y0, x1, y1 = boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]
    area = (x1 - x0) * (y1 - y0)
    return x0, y0, x1, y1, area if area > 0 else boxes.dtype.type(1)


@part
def iou_of(
    x0: float, y0: float, x1: float, y1: float, own: float,
    a0: float, b0: float, a1: float, b1: float, area: float, zero: float,
) -> float:  # fmt: skip
    # At most 1, as in `iou_rows`.
    inter = max(min(x1, a1) - max(x0, a0), zero) * max(min(y1, b1) - max(y0, b0), zero)
    return inter / (own + area - inter)


@kernel
def iou_pairs(boxes: A, others: A, out: A) -> None:
    # `others` comes as five contiguous rows: x0, y0, x1, y1, area. Two rows of the result at a time, because
    # reading `others` is what takes the time.
    zero = boxes.dtype.type(0)
    a0, b0, a1, b1, areas = others[0], others[1], others[2], others[3], others[4]
    count = out.shape[0]
    for i in range(0, count, 2):
        k = min(i + 1, count - 1)  # the last row of an odd number is its own partner
        x0, y0, x1, y1, own = box_with_area(boxes, i)
        u0, v0, u1, v1, next_own = box_with_area(boxes, k)
        row, next_row = out[i], out[k]
        for j in range(row.size):
            row[j] = iou_of(x0, y0, x1, y1, own, a0[j], b0[j], a1[j], b1[j], areas[j], zero)
            next_row[j] = iou_of(u0, v0, u1, v1, next_own, a0[j], b0[j], a1[j], b1[j], areas[j], zero)


@kernel
def giou_pairs(boxes: A, others: A, out: A) -> None:
    zero = boxes.dtype.type(0)
    one = boxes.dtype.type(1)
    x0s, y0s, x1s, y1s, areas = others[0], others[1], others[2], others[3], others[4]
    for i in range(out.shape[0]):
        x0, y0, x1, y1 = boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]
        own = (x1 - x0) * (y1 - y0)
        row = out[i]
        for j in range(row.size):
            w = min(x1, x1s[j]) - max(x0, x0s[j])
            h = min(y1, y1s[j]) - max(y0, y0s[j])
            inter = max(w, zero) * max(h, zero)
            union = own + areas[j] - inter
            hull = (max(x1, x1s[j]) - min(x0, x0s[j])) * (max(y1, y1s[j]) - min(y0, y0s[j]))
            overlap = inter / union if union > zero else zero
            row[j] = overlap - (one - min(union / hull, one)) if hull > zero else overlap


@kernel
def coverage_pairs(crops: A, targets: A, out: A) -> None:
    zero = crops.dtype.type(0)
    x0s, y0s, x1s, y1s, areas = targets[0], targets[1], targets[2], targets[3], targets[4]
    for i in range(out.shape[0]):
        x0, y0, x1, y1 = crops[4 * i], crops[4 * i + 1], crops[4 * i + 2], crops[4 * i + 3]
        row = out[i]
        for j in range(row.size):
            w = min(x1, x1s[j]) - max(x0, x0s[j])
            h = min(y1, y1s[j]) - max(y0, y0s[j])
            row[j] = max(w, zero) * max(h, zero) / areas[j]


@kernel
def union_area(boxes: F64) -> float:
    # Cut the plane at every vertical edge; inside a strip the union is a union of intervals, which
    # one walk over the boxes in order of y0 adds up. `boxes` comes sorted by y0.
    n = boxes.size // 4
    edges = np.empty(2 * n)
    for i in range(n):
        edges[2 * i] = boxes[4 * i]
        edges[2 * i + 1] = boxes[4 * i + 2]
    edges.sort()
    total = 0.0
    for e in range(2 * n - 1):
        left, right = edges[e], edges[e + 1]
        if right <= left:
            continue
        length = 0.0
        reached = -np.inf
        for i in range(n):
            if boxes[4 * i] <= left and boxes[4 * i + 2] >= right:
                start = max(boxes[4 * i + 1], reached)
                if boxes[4 * i + 3] > start:
                    length += boxes[4 * i + 3] - start
                    reached = boxes[4 * i + 3]
        total += (right - left) * length
    return total


@kernel
def first_bad_target(
    boxes: F64, region_starts: I64, row_starts: I64, sizes: F64
) -> tuple[int, int, int, int]:
    # (rule, row, region, box); rule 0 = all good, else the number of the broken rule.
    for row in range(row_starts.size - 1):
        for region in range(row_starts[row], row_starts[row + 1]):
            first = region_starts[region]
            own = region - row_starts[row]
            width, height = sizes[2 * region], sizes[2 * region + 1]
            if not (width > 0.0 and height > 0.0 and width < np.inf and height < np.inf):
                return 1, row, own, 0
            for box in range(first, region_starts[region + 1]):
                x0, y0 = boxes[4 * box], boxes[4 * box + 1]
                x1, y1 = boxes[4 * box + 2], boxes[4 * box + 3]
                area, good = area_of(boxes, box)
                if not (good and area > 0.0):
                    return 2, row, own, box - first
                if x0 < 0.0 or y0 < 0.0 or x1 > width or y1 > height:
                    return 3, row, own, box - first
                if box > first and (
                    boxes[4 * box - 4] < x0
                    or boxes[4 * box - 3] < y0
                    or boxes[4 * box - 2] > x1
                    or boxes[4 * box - 1] > y1
                ):
                    return 4, row, own, box - first
    return 0, 0, 0, 0


@part
def score_crop(
    crops: F64,
    crop: int,
    boxes: F64,
    first: int,
    stop: int,
    runs: I32,
    first_run: int,
    stop_run: int,
    width: float,
    height: float,
    threshold: float,
    iou_weight: float,
) -> tuple[float, float, float, float, float]:
    # The parts of `GroundingParts` for one crop and one region, in that order. With runs the first box is the
    # tight box of a mask.
    x0, y0, x1, y1 = crops[4 * crop], crops[4 * crop + 1], crops[4 * crop + 2], crops[4 * crop + 3]
    if not (x0 < x1 and y0 < y1 and x0 > -np.inf and y0 > -np.inf and x1 < np.inf and y1 < np.inf):
        return 0.0, 0.0, 0.0, 0.0, 0.0
    # Numbers such as 1e300 may make the area and the distance infinite: then IoU and nearness are 0.
    own = (x1 - x0) * (y1 - y0)
    overlap = 0.0
    max_iou = 0.0
    distance = np.inf
    for box in range(first, stop):
        tx0, ty0, tx1, ty1 = boxes[4 * box], boxes[4 * box + 1], boxes[4 * box + 2], boxes[4 * box + 3]
        area = (tx1 - tx0) * (ty1 - ty0)
        inter = max(min(x1, tx1) - max(x0, tx0), 0.0) * max(min(y1, ty1) - max(y0, ty0), 0.0)
        if box == first and first_run == stop_run:
            overlap = inter / area
        elif box == first:
            overlap = share_inside(runs, first_run, stop_run, int(height), x0, y0, x1, y1)
        max_iou = max(max_iou, inter / (own + area - inter))
        dx = abs(x0 - tx0) + abs(x1 - tx1)
        dy = abs(y0 - ty0) + abs(y1 - ty1)
        distance = min(distance, (dx / width + dy / height) / 4.0)
    iou = max_iou if overlap > threshold else 0.0
    nearness = max(1.0 - distance, 0.0)
    return overlap, iou, nearness, iou_weight * iou + (1.0 - iou_weight) * nearness, max_iou


@kernel
def grounding_rows(
    crops: F64,
    crop_starts: I64,
    crop_images: I64,
    boxes: F64,
    region_starts: I64,
    row_starts: I64,
    sizes: F64,
    images: I64,
    runs: I32,
    run_starts: I64,
    rows: I64,
    threshold: float,
    iou_weight: float,
    reduce: int,
    out: F64,
) -> None:
    # out[0..4] = the parts of `GroundingParts`; one column per rollout.
    # Without `images` every row has one, and no crop can be of another. Without `run_starts` no region has a
    # mask.
    for i in range(rows.size):
        row = rows[i]
        regions = row_starts[row + 1] - row_starts[row]
        out[:, i] = 0.0 if regions > 0 else np.nan
        first, stop = crop_starts[i], crop_starts[i + 1]
        if regions == 0 or first == stop:
            continue
        if reduce == LAST:
            first = stop - 1
        elif reduce == FIRST:
            stop = first + 1
        for region in range(row_starts[row], row_starts[row + 1]):
            begin, end = region_starts[region], region_starts[region + 1]
            width, height = sizes[2 * region], sizes[2 * region + 1]
            first_run, stop_run = 0, 0
            if run_starts.size > 0:
                first_run, stop_run = run_starts[region], run_starts[region + 1]
            best = (0.0, 0.0, 0.0, -1.0, 0.0)
            for c in range(first, stop):
                parts = (0.0, 0.0, 0.0, 0.0, 0.0)
                if images.size == 0 or crop_images[c] == images[region]:
                    parts = score_crop(
                        crops, c, boxes, begin, end, runs, first_run, stop_run,
                        width, height, threshold, iou_weight,
                    )  # fmt: skip
                if reduce == MEAN:
                    add(out, i, parts)
                elif parts[3] > best[3]:  # Strict: of equal crops the earlier one is taken.
                    best = parts
            if reduce != MEAN:
                add(out, i, best)
        # One division at the end, so that the mean of ones is one.
        out[:, i] /= regions * (stop - first) if reduce == MEAN else regions


@part
def add(out: F64, i: int, parts: tuple[float, float, float, float, float]) -> None:
    for k in range(5):
        out[k, i] += parts[k]
