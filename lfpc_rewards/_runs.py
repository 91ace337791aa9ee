"""The loops over masks.

A mask is its runs: the pixels from ``runs[2 * k]`` to ``runs[2 * k + 1]`` (exclusive), counted down the
columns as COCO counts them, so that pixel (x, y) is number ``x * height + y``. Runs are in order, none is
empty and no two touch. `spans` says where the runs of each of several masks start and stop.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._jit import kernel, part

A = NDArray[Any]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

FINER = 5
"""COCO draws polygons on a grid that is finer by this."""


@kernel
def merged_runs(edges: I64, total: int) -> I32:
    # Start and stop in turn, ordered by start, become runs: empty ones go, those that meet become one. A last
    # start without a stop goes on to the end of the image.
    out = np.empty(edges.size + 1, np.int32)
    size = 0
    for k in range(0, edges.size, 2):
        start, stop = edges[k], edges[k + 1] if k + 1 < edges.size else total
        if start == stop:
            continue
        if size > 0 and start <= out[size - 1]:
            out[size - 1] = max(stop, out[size - 1])
        else:
            out[size], out[size + 1] = start, stop
            size += 2
    return out[:size].copy()


@kernel
def edges_of_counts(counts: I64, total: int) -> tuple[I64, bool]:
    # Where each count ends, and whether the counts are lengths that make up the whole.
    out = np.empty(counts.size, np.int64)
    at = 0
    for k in range(counts.size):
        if counts[k] < 0 or counts[k] > total - at:
            return out, False
        at += counts[k]
        out[k] = at
    return out, at == total


@kernel
def counts_of_text(text: U8) -> I64:
    # COCO's compressed counts: five bits a character, the lowest first, from the character "0" on. Bit 6 says
    # that more follow, bit 5 of the last one is the sign. From the fourth on they are differences to the
    # count before the last. Ends with -1 where the text breaks these rules.
    out = np.empty(text.size + 1, np.int64)
    size = value = shift = 0
    for each in text:
        bits = int(each) - 48
        if bits < 0 or bits > 63 or shift > 30:
            shift = 1
            break
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        out[size] = value + out[size - 2] if size > 2 else value
        size += 1
        value = shift = 0
    if shift:
        out[size] = -1
        size += 1
    return out[:size]


@kernel
def text_of_counts(counts: I64) -> U8:
    out = np.empty(7 * counts.size, np.uint8)
    size = 0
    for k in range(counts.size):
        value = counts[k] - counts[k - 2] if k > 2 else counts[k]
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            out[size] = bits + (32 if more else 0) + 48
            size += 1
    return out[:size]


@kernel
def polygon_edges(points: F64, width: int, height: int) -> I64:
    # Where the pixels of a polygon start and stop, in no order, as COCO's rleFrPoly finds them: the outline
    # is drawn on a finer grid, and wherever it crosses the middle of a column the mask turns on or off
    # below.
    count = points.size // 2
    fine = np.empty(points.size, np.int64)
    for k in range(points.size):
        fine[k] = int(FINER * points[k] + 0.5)
    most = 0
    for k in range(count):
        most += abs(fine[2 * k] - fine[(2 * k + 2) % points.size]) // FINER + 1
    out = np.empty(most, np.int64)
    size = 0
    for k in range(count):
        x0, y0 = fine[2 * k], fine[2 * k + 1]
        x1, y1 = fine[(2 * k + 2) % points.size], fine[(2 * k + 3) % points.size]
        flat = abs(x1 - x0) >= abs(y1 - y0)
        if (flat and x0 > x1) or (not flat and y0 > y1):  # rounding must not depend on the direction
            x0, y0, x1, y1 = x1, y1, x0, y0
        steps = x1 - x0 if flat else y1 - y0
        slope = ((y1 - y0) if flat else (x1 - x0)) / max(steps, 1)
        x, y = x0, y0
        for step in range(1, steps + 1):
            before, above = x, y
            x = x0 + step if flat else int(x0 + slope * step + 0.5)
            y = int(y0 + slope * step + 0.5) if flat else y0 + step
            left = min(x, before) - FINER // 2  # a multiple of FINER: the middle of a column was crossed
            if x != before and left % FINER == 0 and 0 <= left < FINER * width:
                top = math.ceil((min(y, above) + 0.5) / FINER - 0.5)
                out[size] = left // FINER * height + min(max(top, 0), height)
                size += 1
    return out[:size]


@part
def fill(runs: I32, first: int, stop: int, grid: U8) -> None:
    for k in range(first, stop, 2):
        grid[runs[k] : runs[k + 1]] = 1


@kernel
def extents(runs: I32, spans: I64, sizes: I64, boxes: F64, areas: I64) -> None:
    # The tight box of each mask, zeros for an empty one, and its number of pixels.
    for i in range(areas.size):
        first, stop, height = spans[i, 0], spans[i, 1], sizes[i, 1]
        boxes[i] = 0.0
        areas[i] = 0
        if first == stop:
            continue
        top, bottom = height, 0
        for k in range(first, stop, 2):
            start, last = int(runs[k]), int(runs[k + 1]) - 1
            areas[i] += last + 1 - start
            over = last // height > start // height  # goes on in the next column, so at its top
            top = min(top, 0 if over else start % height)
            bottom = max(bottom, height if over else last % height + 1)
        boxes[i, 0], boxes[i, 1] = runs[first] // height, top
        boxes[i, 2], boxes[i, 3] = (runs[stop - 1] - 1) // height + 1, bottom


@part
def shared_pixels(a: I32, i: int, i_stop: int, b: I32, j: int, j_stop: int) -> int:
    total = 0
    while i < i_stop and j < j_stop:
        total += max(min(a[i + 1], b[j + 1]) - max(a[i], b[j]), 0)
        if a[i + 1] < b[j + 1]:
            i += 2
        else:
            j += 2
    return total


@kernel
def shared_rows(runs: I32, spans: I64, others: I32, other_spans: I64, out: F64) -> None:
    for i in range(out.size):
        out[i] = shared_pixels(runs, spans[i, 0], spans[i, 1], others, other_spans[i, 0], other_spans[i, 1])


@part
def count_before(runs: I32, first: int, stop: int, table: I32) -> None:
    # table[p] = the mask's pixels before number runs[first] + p.
    low, total, at = runs[first], 0, 0
    for k in range(first, stop, 2):
        start, end = runs[k] - low, runs[k + 1] - low
        table[at:start] = total
        for p in range(start, end):
            table[p] = total + p - start
        total += end - start
        at = end
    table[at] = total


@part
def shared_by_table(table: I32, low: int, size: int, runs: I32, first: int, stop: int) -> int:
    total = 0  # numba looks for negative places in front of each access, unless the type has none
    for k in range(first, stop, 2):
        start, end = min(max(runs[k] - low, 0), size), min(max(runs[k + 1] - low, 0), size)
        total += table[np.uint32(end)] - table[np.uint32(start)]
    return total


@kernel
def mask_pairs(
    runs: I32, spans: I64, boxes: F64, areas: I64,
    others: I32, other_spans: I64, other_boxes: F64, other_areas: I64,
    over_union: bool, out: F64,
) -> None:  # fmt: skip
    # IoU, or (not `over_union`) the share of each other mask that lies in a mask. `other_boxes` comes as four
    # contiguous rows. A mask that meets many others is written out as a table, which tells what it shares
    # with a run by two looks; for a few, walking along the runs of both is less work.
    longest = 0
    for i in range(areas.size):
        if spans[i, 0] < spans[i, 1]:
            longest = max(longest, runs[spans[i, 1] - 1] - runs[spans[i, 0]])
    table = np.empty(longest + 1, np.int32)
    u0, v0, u1, v1 = other_boxes[0], other_boxes[1], other_boxes[2], other_boxes[3]
    for i in range(areas.size):
        x0, y0, x1, y1 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        row = out[i]
        meets = 0
        for j in range(row.size):
            near = (min(x1, u1[j]) > max(x0, u0[j])) & (min(y1, v1[j]) > max(y0, v0[j]))
            row[j] = near
            meets += near
        if meets == 0:
            continue
        first, stop = spans[i, 0], spans[i, 1]
        low, size = runs[first], runs[stop - 1] - runs[first]
        tabled = meets * (stop - first) > size
        if tabled:
            count_before(runs, first, stop, table)
        for j in range(row.size):
            if row[j] > 0.0:
                begin, end = other_spans[j, 0], other_spans[j, 1]
                if tabled:
                    shared = shared_by_table(table, low, size, others, begin, end)
                else:
                    shared = shared_pixels(runs, first, stop, others, begin, end)
                row[j] = shared / (areas[i] + other_areas[j] - shared if over_union else other_areas[j])


@part
def common(a0: float, a1: float, b0: float, b1: float) -> float:
    return max(min(a1, b1) - max(a0, b0), 0.0)


@part
def share_inside(
    runs: I32, first: int, stop: int, height: int, x0: float, y0: float, x1: float, y1: float
) -> float:
    # The share of a mask's pixels inside a box, by area: pixel (x, y) is the square up to (x + 1, y + 1).
    inside = 0.0
    area = 0
    for k in range(first, stop, 2):
        start, end = int(runs[k]), int(runs[k + 1])
        area += end - start
        x, last = start // height, (end - 1) // height
        top, bottom = start - x * height, end - last * height
        if x == last:
            inside += common(x, x + 1, x0, x1) * common(top, bottom, y0, y1)
        else:
            inside += common(x, x + 1, x0, x1) * common(top, height, y0, y1)
            inside += common(x + 1, last, x0, x1) * common(0, height, y0, y1)
            inside += common(last, last + 1, x0, x1) * common(0, bottom, y0, y1)
    return min(inside / area, 1.0)


@kernel
def mask_coverage_rows(crops: F64, runs: I32, spans: I64, sizes: I64, out: F64) -> None:
    for i in range(out.size):
        x0, y0, x1, y1 = crops[4 * i], crops[4 * i + 1], crops[4 * i + 2], crops[4 * i + 3]
        out[i] = share_inside(runs, spans[i, 0], spans[i, 1], sizes[i, 1], x0, y0, x1, y1)


@part
def summed_area(
    runs: I32, first: int, stop: int, height: int, x0: int, y0: int, width: int, tall: int
) -> I32:
    # table[i, j] = the mask's pixels left of column x0 + i and above row y0 + j, within its tight box.
    table = np.zeros((width + 1, tall + 1), np.int32)
    for k in range(first, stop, 2):
        x, y = runs[k] // height, runs[k] % height
        for _ in range(runs[k], runs[k + 1]):
            table[x - x0 + 1, y - y0 + 1] = 1
            y += 1
            if y == height:
                x, y = x + 1, 0
    for i in range(1, width + 1):
        total = 0
        for j in range(1, tall + 1):
            total += table[i, j]
            table[i, j] = table[i - 1, j] + total
    return table


@part
def pixels_before(table: I32, x: float, y: float) -> float:
    # Between four corners of pixels the count grows linearly in x and in y.
    i, j = min(int(x), table.shape[0] - 2), min(int(y), table.shape[1] - 2)
    dx, dy = x - i, y - j
    above = table[i, j] + dx * (table[i + 1, j] - table[i, j])
    below = table[i, j + 1] + dx * (table[i + 1, j + 1] - table[i, j + 1])
    count: float = above + dy * (below - above)
    return count


@kernel
def mask_coverage_pairs(
    crops: F64, runs: I32, spans: I64, sizes: I64, boxes: F64, areas: I64, out: F64
) -> None:
    for m in range(areas.size):
        x0, y0 = boxes[m, 0], boxes[m, 1]
        w, h = boxes[m, 2] - x0, boxes[m, 3] - y0
        table = summed_area(runs, spans[m, 0], spans[m, 1], sizes[m, 1], int(x0), int(y0), int(w), int(h))
        for i in range(out.shape[0]):
            left, top = min(max(crops[4 * i] - x0, 0.0), w), min(max(crops[4 * i + 1] - y0, 0.0), h)
            right, bottom = min(max(crops[4 * i + 2] - x0, 0.0), w), min(max(crops[4 * i + 3] - y0, 0.0), h)
            inside = pixels_before(table, right, bottom) - pixels_before(table, left, bottom)
            inside -= pixels_before(table, right, top) - pixels_before(table, left, top)
            out[i, m] = min(max(inside / areas[m], 0.0), 1.0)


@part
def boundary(runs: I32, first: int, stop: int, width: int, height: int) -> I64:
    # The numbers of the boundary's pixels, those that differ from the one on the right, below, or right
    # below; what lies outside the image differs from nothing.
    grid = np.zeros(width * height, np.uint8)
    fill(runs, first, stop, grid)
    for x in range(width):
        right = height if x + 1 < width else 0
        for y in range(height):
            at = x * height + y
            below = 1 if y + 1 < height else 0
            corner = right + below if right and below else 0
            own = grid[at]  # no pixel after this one looks at it again, so its verdict may take its place
            grid[at] = grid[at + right] != own or grid[at + below] != own or grid[at + corner] != own
    return np.flatnonzero(grid)


@part
def first_at_least(numbers: I64, least: int) -> int:
    low, high = 0, numbers.size
    while low < high:
        middle = (low + high) // 2
        if numbers[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low


@part
def near_share(edge: I64, other: I64, width: int, height: int, reach: int) -> float:
    # The share of a boundary's pixels that have one of the other boundary within `reach`.
    found = 0
    for at in edge:
        x, y = at // height, at % height
        for column in range(max(x - reach, 0), min(x + reach + 1, width)):
            drop = int(math.sqrt(reach * reach - (column - x) * (column - x)))
            k = first_at_least(other, column * height + max(y - drop, 0))
            if k < other.size and other[k] <= column * height + min(y + drop, height - 1):
                found += 1
                break
    return found / edge.size


@kernel
def boundary_rows(
    runs: I32, spans: I64, others: I32, other_spans: I64, sizes: I64, reaches: I64, out: F64
) -> None:
    # The F1 of the boundaries; NaN where neither mask has one.
    for i in range(out.size):
        width, height = sizes[i, 0], sizes[i, 1]
        edge = boundary(runs, spans[i, 0], spans[i, 1], width, height)
        other = boundary(others, other_spans[i, 0], other_spans[i, 1], width, height)
        if edge.size == 0 or other.size == 0:
            out[i] = np.nan if edge.size == other.size else 0.0
            continue
        precision = near_share(edge, other, width, height, reaches[i])
        recall = near_share(other, edge, width, height, reaches[i])
        out[i] = 2 * precision * recall / (precision + recall) if precision > 0 else 0.0
