"""Place a box of a given size without overlapping other boxes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lfpc_trl.pictures.crops import PixelBox
from lfpc_trl.pictures.sizes import Size

_IntArray = NDArray[np.int64]


def place_without_overlap(
    size: Size,
    picture: Size,
    avoid: Sequence[PixelBox],
    avoid_next: Sequence[PixelBox] = (),
    *,
    seed: Sequence[int],
) -> PixelBox:
    """Place a box of `size` inside the picture so that it does not overlap the boxes to avoid.

    The position is drawn uniformly from all such positions. If there is none, the position with the smallest
    overlap area with `avoid` (summed over its boxes) is used; ties are broken by the overlap with
    `avoid_next`.

    Args:
        size: (width, height) of the box, at most that of the picture.
        picture: (width, height) of the picture.
        avoid: boxes in whole pixels.
        avoid_next: more boxes to avoid, with lower priority if not all can be avoided.
        seed: integers; the same seed gives the same position.

    Example:
        >>> place_without_overlap((3, 4), (8, 4), [(0, 0, 5, 4)], seed=[0])
        (5, 0, 8, 4)
        >>> place_without_overlap((4, 4), (8, 4), [(0, 0, 5, 4)], seed=[0])
        (4, 0, 8, 4)
    """
    obstacles = np.array([*avoid, *avoid_next], dtype=np.int64).reshape(-1, 4)
    room = np.array(picture, dtype=np.int64) - np.array(size, dtype=np.int64)
    # Along each axis, a corner in the half-open range [low, high) makes the box overlap the obstacle.
    low, high = obstacles[:, :2] - size + 1, obstacles[:, 2:]
    edges = [_edges(low[:, side], high[:, side], int(room[side]) + 1) for side in (0, 1)]
    within = [
        (edges[side][:-1, None] >= low[:, side]) & (edges[side][:-1, None] < high[:, side]) for side in (0, 1)
    ]
    blocked = (within[0][:, None] & within[1][None]).any(axis=2)
    widths, heights = (np.diff(each) for each in edges)
    clear = np.where(blocked, 0, widths[:, None] * heights[None])
    if clear.any():
        source = np.random.default_rng(seed)
        cell = int(source.choice(clear.size, p=clear.ravel() / clear.sum()))
        column, line = divmod(cell, len(heights))
        left = int(edges[0][column] + source.integers(widths[column]))
        top = int(edges[1][line] + source.integers(heights[line]))
    else:
        left, top = _least_overlap(size, room, obstacles, len(avoid))
    return left, top, left + size[0], top + size[1]


def _edges(low: _IntArray, high: _IntArray, end: int) -> _IntArray:
    """Return the corner positions from 0 to `end` at which the set of overlapped obstacles changes."""
    inside = np.concatenate([low, high])
    return np.unique(np.concatenate([[0, end], inside[(inside > 0) & (inside < end)]]))


def _least_overlap(size: Size, room: _IntArray, obstacles: _IntArray, first: int) -> tuple[int, int]:
    """Return the corner with the least overlap with the `first` obstacles, then with the others.

    The overlap area is linear in each coordinate between the positions where a side of the box meets a side
    of an obstacle, so its minimum is at one of these.
    """
    candidates = []
    for side in (0, 1):
        starts, ends = obstacles[:, side], obstacles[:, side + 2]
        meet = np.concatenate([starts, ends, starts - size[side], ends - size[side]])
        candidates.append(np.unique(np.concatenate([[0], meet.clip(0, room[side])])))
    # (obstacles, candidates) along each axis.
    wide, tall = (
        np.minimum(candidates[side] + size[side], obstacles[:, side + 2, None])
        - np.maximum(candidates[side], obstacles[:, side, None])
        for side in (0, 1)
    )
    shared = wide.clip(0)[:, :, None] * tall.clip(0)[:, None]
    best = np.lexsort([shared[first:].sum(axis=0).ravel(), shared[:first].sum(axis=0).ravel()])[0]
    column, line = divmod(int(best), len(candidates[1]))
    return int(candidates[0][column]), int(candidates[1][line])
