"""Where a box of a given size can stand clear of other boxes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lfpc_trl.pictures.crops import PixelBox
from lfpc_trl.pictures.sizes import Size

_Whole = NDArray[np.int64]


def place_clear(
    size: Size,
    picture: Size,
    avoid: Sequence[PixelBox],
    avoid_next: Sequence[PixelBox] = (),
    *,
    seed: Sequence[int],
) -> PixelBox:
    """A box of `size` inside the picture that shares no pixel with the boxes to avoid.

    Drawn uniformly from all such places. Where there is none, a place that shares the least area with `avoid`
    (summed over its boxes), of several such the least with `avoid_next`.

    Args:
        size: (width, height) of the box, at most that of the picture.
        picture: (width, height).
        avoid: boxes in whole pixels.
        avoid_next: further boxes, of less weight where not all can be avoided.
        seed: whole numbers; the same seed gives the same place.

    Example:
        >>> place_clear((3, 4), (8, 4), [(0, 0, 5, 4)], seed=[0])
        (5, 0, 8, 4)
        >>> place_clear((4, 4), (8, 4), [(0, 0, 5, 4)], seed=[0])
        (4, 0, 8, 4)
    """
    obstacles = np.array([*avoid, *avoid_next], dtype=np.int64).reshape(-1, 4)
    room = np.array(picture, dtype=np.int64) - np.array(size, dtype=np.int64)
    # Along each side, a corner from `low` up to, not including, `high` makes the box share pixels.
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
        left, top = _least_shared(size, room, obstacles, len(avoid))
    return left, top, left + size[0], top + size[1]


def _edges(low: _Whole, high: _Whole, end: int) -> _Whole:
    """Where it changes, along a side, which obstacles are in the way; from 0 to `end`."""
    inside = np.concatenate([low, high])
    return np.unique(np.concatenate([[0, end], inside[(inside > 0) & (inside < end)]]))


def _least_shared(size: Size, room: _Whole, obstacles: _Whole, first: int) -> tuple[int, int]:
    """The corner with the least area shared with the `first` obstacles, then with the others.

    The shared area is linear in each coordinate between the places where a side of the box meets a side of an
    obstacle, so it is least at one of these.
    """
    places = []
    for side in (0, 1):
        starts, ends = obstacles[:, side], obstacles[:, side + 2]
        meet = np.concatenate([starts, ends, starts - size[side], ends - size[side]])
        places.append(np.unique(np.concatenate([[0], meet.clip(0, room[side])])))
    # (obstacles, places) along each side.
    wide, tall = (
        np.minimum(places[side] + size[side], obstacles[:, side + 2, None])
        - np.maximum(places[side], obstacles[:, side, None])
        for side in (0, 1)
    )
    shared = wide.clip(0)[:, :, None] * tall.clip(0)[:, None]
    best = np.lexsort([shared[first:].sum(axis=0).ravel(), shared[:first].sum(axis=0).ravel()])[0]
    column, line = divmod(int(best), len(places[1]))
    return int(places[0][column]), int(places[1][line])
