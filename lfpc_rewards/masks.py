"""Masks of pixels, packed once: from COCO's polygons, COCO's RLE or bitmaps, and back.

Pixel (x, y) of a mask is the square from there to (x + 1, y + 1), so a mask that fills the half-open box
``x0, y0, x1, y1`` covers just that box. Masks are held as runs of pixels, never as bitmaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as short
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfpc_rewards import _runs
from lfpc_rewards._checks import as_sizes
from lfpc_rewards._packing import Packed, chosen_rows, starts_of
from lfpc_rewards._typing import Boxes, SizesLike

Mask: TypeAlias = Mapping[str, Any] | Sequence[ArrayLike] | NDArray[Any]
"""One mask: COCO's RLE, COCO's list of polygons, or a bitmap."""

_MOST_PIXELS = 2**31 - 1  # runs are held in four bytes


class Masks(Packed):
    """Masks of many pictures, checked and packed once.

    Each mask comes in one of three forms:

    * polygons, as COCO writes them: a list of flat lists x0, y0, x1, y1, ... in pixels of the original
      image. A pixel belongs to a polygon by COCO's rule, the even-odd rule on a grid five times finer;
      several polygons are united. So a list of polygons cannot say that there is a hole: COCO's way to say
      it is RLE.
    * COCO's RLE: ``{"size": [height, width], "counts": ...}`` with a list of whole numbers or compressed text
    * a bitmap: a 2-D array (height, width) of bools or of 0 and 1

    Masks may be empty. An empty mask shares nothing: measures score it 0, also against itself, as boxes of
    zero area; as a target it is refused.

    Args:
        masks: (N,) masks, in any of these forms.
        image_sizes: (N, 2) width and height of each original image, or one (2,) for all. Needed for polygons;
            RLE and bitmaps have a size of their own, which must then be this one.

    Attributes:
        runs: All runs of pixels, start and (exclusive) stop in turn, counted down the columns: pixel (x, y)
            is number x * height + y. All arrays are read-only; selections share this one.
        spans: (N, 2) where the runs of each mask start and stop in `runs`.
        sizes: (N, 2) width and height of the images.

    Raises:
        ValueError: Counts do not add up to the pixels, a polygon has fewer than 3 points or leaves its image
            by more than its size, a bitmap holds other numbers, a size is missing or differs. The text names
            row and rule.
        TypeError: A mask has none of these forms.

    Source:
        The forms of pycocotools; polygons become the pixels that its ``frPyObjects`` and ``merge`` give them.

    Example:
        >>> triangle = [[0, 0, 8, 0, 0, 8]]
        >>> masks = Masks([triangle, {"size": [8, 8], "counts": [9, 2, 53]}], (8, 8))
        >>> masks
        Masks(rows=2, runs=8)
        >>> masks.areas()
        array([28,  2])
        >>> masks.boxes()
        array([[0., 0., 7., 7.],
               [1., 1., 2., 3.]])
        >>> Masks([triangle, {"size": [8, 8], "counts": [9, 2]}], (8, 8))
        Traceback (most recent call last):
            ...
        ValueError: masks[1] counts must add up to 8 x 8 pixels, got 11
    """

    __slots__ = ("runs", "sizes", "spans")

    runs: NDArray[np.int32]
    spans: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __init__(self, masks: Sequence[Mask], image_sizes: SizesLike | None = None) -> None:
        self.__setstate__((None, _pack(masks, image_sizes, _names("masks", masks))))

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, indices: int | slice | Sequence[int] | NDArray[Any]) -> Masks:
        """The chosen masks, in that order; repeats are fine. Runs are shared, not copied."""
        chosen = chosen_rows(len(self), indices)
        return _masks({"runs": self.runs, "spans": self.spans[chosen], "sizes": self.sizes[chosen]})

    def __repr__(self) -> str:
        return f"Masks(rows={len(self)}, runs={int(np.diff(self.spans).sum()) // 2})"

    def areas(self) -> NDArray[np.int64]:
        """(N,) the number of pixels of each mask."""
        return self.extents()[1]

    def boxes(self) -> Boxes:
        """(N, 4) the smallest box around the pixels of each mask; zeros for an empty one."""
        return self.extents()[0]

    def extents(self) -> tuple[Boxes, NDArray[np.int64]]:
        """`boxes` and `areas`, which take one look."""
        boxes, areas = np.empty((len(self), 4)), np.empty(len(self), np.int64)
        _runs.extents(self.runs, self.spans, self.sizes, boxes, areas)
        return boxes, areas

    def bitmaps(self) -> list[NDArray[np.bool_]]:
        """One array (height, width) of bools for each mask."""
        return [
            np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
            for counts, (width, height) in zip(self._counts(), self.sizes.tolist(), strict=True)
        ]

    def rles(self, *, compressed: bool = True) -> list[dict[str, Any]]:
        """COCO's RLE of each mask, as pycocotools encodes it.

        Args:
            compressed: Counts as text, which JSON can hold; else as a list.
        """
        return [
            {
                "size": [height, width],
                "counts": _runs.text_of_counts(counts).tobytes().decode("ascii")
                if compressed
                else counts.tolist(),
            }
            for counts, (width, height) in zip(self._counts(), self.sizes.tolist(), strict=True)
        ]

    def _counts(self) -> list[NDArray[np.int64]]:
        """The lengths of the runs outside and inside each mask, in turn, beginning outside."""
        every = []
        for (first, stop), (width, height) in zip(self.spans.tolist(), self.sizes.tolist(), strict=True):
            edges = np.concatenate([[0], self.runs[first:stop], [width * height]])
            counts = edges[1:] - edges[:-1]
            every.append(counts if counts[-1] else counts[:-1])
        return every


def as_masks(masks: Masks | Sequence[Mask], name: str) -> Masks:
    """The masks, packed; errors call them `name`."""
    return masks if isinstance(masks, Masks) else _masks(_pack(masks, None, _names(name, masks)))


def one_mask(mask: Masks | Mask, name: str) -> Masks:
    """One mask, packed; errors call it `name`."""
    packed = mask if isinstance(mask, Masks) else _masks(_pack([mask], None, [name]))
    if len(packed) != 1:
        raise ValueError(f"{name} must be Masks with one row, got {packed!r}")
    return packed


def _names(name: str, rows: Sequence[Any]) -> list[str]:
    return [f"{name}[{row}]" for row in range(len(rows))]


def _masks(arrays: dict[str, NDArray[Any]]) -> Masks:
    """Masks with these arrays, without a second check."""
    masks = Masks.__new__(Masks)
    masks.__setstate__((None, arrays))
    return masks


def _pack(
    masks: Sequence[Mask], image_sizes: SizesLike | None, names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The arrays of `Masks`; errors call each mask by its name."""
    sizes = [None] * len(masks) if image_sizes is None else _whole_sizes(image_sizes, len(masks))
    read = [_read(*each) for each in zip(masks, sizes, names, strict=True)]
    starts = starts_of([len(runs) for runs, _ in read])
    return {
        "runs": np.concatenate([np.empty(0, np.int32), *(runs for runs, _ in read)]),
        "spans": np.stack([starts[:-1], starts[1:]], axis=1),
        "sizes": np.array([size for _, size in read], np.int64).reshape(-1, 2),
    }


def _whole_sizes(image_sizes: SizesLike, rows: int) -> list[Any]:
    sizes = as_sizes(image_sizes)
    if sizes.shape not in ((2,), (rows, 2)):
        raise ValueError(
            f"image_sizes must have shape ({rows}, 2) or (2,), one (width, height) per mask, "
            f"got {sizes.shape}"
        )
    return [tuple(size) for size in np.broadcast_to(sizes, (rows, 2)).tolist()]


def _read(
    mask: Any, size: tuple[float, float] | None, name: str
) -> tuple[NDArray[np.int32], tuple[int, int]]:
    """The runs of one mask, and the width and height of its image."""
    if isinstance(mask, Mapping):
        edges, own = _edges_of_rle(mask, name)
    elif isinstance(mask, list | tuple):
        if size is None:
            raise ValueError(
                f"image_sizes is needed where a mask is a list of polygons, as {name} is, got None"
            )
        own = _size(*size, name)
        edges = _edges_of_polygons(mask, *own, name)
    else:
        edges, own = _edges_of_bitmap(np.asarray(mask), name)
    if size is not None and own != size:
        raise ValueError(
            f"{name} must have the size of its image, {size[0]:g} x {size[1]:g}, got {own[0]} x {own[1]}"
        )
    return _runs.merged_runs(edges, own[0] * own[1]), own


def _size(width: Any, height: Any, name: str) -> tuple[int, int]:
    try:
        whole = int(width), int(height)
    except (TypeError, ValueError, OverflowError):
        whole = 0, 0
    if whole != (width, height) or min(whole) < 1 or whole[0] * whole[1] > _MOST_PIXELS:
        raise ValueError(
            f"{name} must have a width and a height that are whole numbers, and 1 to {_MOST_PIXELS} pixels, "
            f"got {width!r} x {height!r}"
        )
    return whole


def _edges_of_rle(rle: Mapping[str, Any], name: str) -> tuple[NDArray[np.int64], tuple[int, int]]:
    try:
        (height, width), counts = rle["size"], rle["counts"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f'{name} must have "size" (height, width) and "counts", got {short(dict(rle))}'
        ) from None
    own = _size(width, height, name)
    if isinstance(counts, str | bytes):
        text = counts.encode() if isinstance(counts, str) else counts
        numbers = _runs.counts_of_text(np.frombuffer(text, np.uint8))
    else:
        try:
            listed = np.asarray(counts)
        except ValueError:  # lists of different lengths
            listed = np.empty(0)
        if listed.ndim != 1 or listed.dtype.kind not in "iu":
            raise ValueError(
                f"{name} counts must be compressed text or a list of whole numbers, got {short(counts)}"
            )
        numbers = listed.astype(np.int64, copy=False)
    edges, good = _runs.edges_of_counts(numbers, width * height)
    if not good:
        if (numbers < 0).any():
            raise ValueError(
                f"{name} counts must be lengths, compressed as COCO does or not, got {short(counts)}"
            )
        total = sum(numbers.tolist())
        raise ValueError(f"{name} counts must add up to {width} x {height} pixels, got {total}")
    return edges, own


def _edges_of_bitmap(bitmap: NDArray[Any], name: str) -> tuple[NDArray[np.int64], tuple[int, int]]:
    if (
        bitmap.ndim != 2
        or bitmap.dtype.kind not in "biu"
        or (bitmap.size and (bitmap.min() < 0 or bitmap.max() > 1))
    ):
        raise TypeError(
            f"{name} must be an RLE, a list of polygons, or a bitmap (height, width) of bools or of 0 and 1, "
            f"got {bitmap!r}"
        )
    height, width = bitmap.shape
    flat = bitmap.T.astype(bool).reshape(-1)
    return np.flatnonzero(np.diff(flat, prepend=False, append=False)), _size(width, height, name)


def _edges_of_polygons(polygons: Sequence[Any], width: int, height: int, name: str) -> NDArray[np.int64]:
    """Start and stop in turn of the runs of all polygons, ordered by start."""
    if len(polygons) == 0:
        raise ValueError(f"{name} must hold at least one polygon, got none")
    parts = []
    for number, polygon in enumerate(polygons):
        try:
            points = np.array(polygon, np.float64)
        except (TypeError, ValueError):
            points = np.empty(0)
        if points.ndim != 1 or points.size < 6 or points.size % 2:
            raise ValueError(
                f"{name} polygon {number} must be a flat list x0, y0, x1, y1, ... of at least 3 points, "
                f"got {short(polygon)}"
            )
        if not (np.abs(points.reshape(-1, 2) / (width, height) - 0.5) <= 1.5).all():  # NaN is not, either
            raise ValueError(
                f"{name} polygon {number} must lie inside its image of {width} x {height} pixels, or at most "
                f"that far outside, got {short(polygon)}"
            )
        edges = np.sort(_runs.polygon_edges(points, width, height))
        parts.append(_runs.merged_runs(edges, width * height).reshape(-1, 2))
    pairs = np.concatenate(parts).astype(np.int64)
    return pairs[np.argsort(pairs[:, 0], kind="stable")].reshape(-1)
