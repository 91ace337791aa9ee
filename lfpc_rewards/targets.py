"""Targets packed once: nested boxes and masks of a whole dataset with the sizes of their images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards import _kernels
from lfpc_rewards._checks import SIZE, WITH_AREA, as_floats, as_sizes
from lfpc_rewards._packing import Packed, chosen_rows, four_numbers, pack_rows, starts_of
from lfpc_rewards._typing import BoxesLike, SizesLike
from lfpc_rewards.masks import Masks, one_mask

Region: TypeAlias = BoxesLike | Sequence[BoxesLike | Mapping[str, Any] | Masks]
"""Nested boxes (n, 4) from inner to outer; the innermost may be a mask instead."""

RowTarget: TypeAlias = Region | Sequence[Region] | None
"""One region, a list of regions, or None: nothing to find."""

_PackedTargets: TypeAlias = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]
"""`Targets.boxes`, `Targets.region_starts` and `Targets.row_starts`."""

_NamedMasks: TypeAlias = dict[int, tuple[str, Masks]]
"""The mask of each region that has one, and its name in errors."""


class Targets(Packed):
    """Nested target boxes and masks of many rows, checked and packed once.

    A row has zero or more *regions* (a question about two objects has two). A region is one or more
    nested boxes, the innermost first: the smallest box that suffices, then larger ones that also make
    sense. Rows without a region (None or an empty list) have no target; terms score them NaN.

    In place of its innermost box a region may have a mask: the pixels that a crop must hold. Everything else
    is measured on the mask's tight box, which is the region's first box; a mask that fills it is just that
    box.

    Args:
        targets: (N,) rows: (n, 4) nested boxes, or a list of such regions, or None; in pixels of
            the original image, format xyxy. Ragged. The first of a region's boxes may be a mask: COCO's RLE
            (a dict), or `Masks` with one row, which are made from polygons or a bitmap.
        image_sizes: (N, 2) width and height of each original image, or one (2,) for all. Not read
            for rows without a target. With `target_images` a row may also hold the sizes (k, 2) of its k
            images.
        target_images: (N,) for rows with several images: the number of the image, from 1, that each region
            is on; None for a row whose regions are all on the first. None: each row has one image, and
            crops are not asked of which they are.

    Attributes:
        rows: (N,) the packed row that each row of this object is; the arrays below are shared by selections.
        boxes: (4 * boxes,) all coordinates, one box after the other. All arrays are read-only.
        region_starts: (regions + 1,) where each region's boxes start, in boxes.
        row_starts: (packed rows + 1,) where each row's regions start.
        sizes: (2 * regions,) width and height of the image that each region is on.
        images: (regions,) the number of that image; empty where each row has one.
        runs: All masks, as in `Masks`, without those that fill their tight box.
        run_starts: (regions + 1,) where each region's runs start, in `runs`; empty without any mask.

    Raises:
        ValueError: A box is not finite, has no area, leaves its image, or does not contain the box before
            it; or a mask is bad (see `Masks`), empty, not the innermost or not of its image's size; or a
            size is not positive; or the numbers of rows differ; or a row has no image of that number. The
            text names row, region and box.
        TypeError: A box holds something that is not a number.

    Source:
        Nested boxes as in stage 2 of LFPC (arXiv 2603.27494). A box may equal the one before it (our
        choice).

    Example:
        >>> targets = Targets(
        ...     [[[40, 40, 60, 60], [20, 20, 80, 80]], None, [[[0, 0, 9, 9]], [[50, 50, 70, 70]]]],
        ...     (100, 100),
        ... )
        >>> targets
        Targets(rows=3, regions=3, boxes=4)
        >>> targets[[2, 2, 1]]
        Targets(rows=3, regions=4, boxes=4)
        >>> words = {"size": [100, 100], "counts": [4040, 9, 95, 3, 5853]}
        >>> Targets([[words, [20, 20, 80, 80]]], (100, 100)).boxes.reshape(-1, 4)
        array([[40., 40., 42., 49.],
               [20., 20., 80., 80.]])
        >>> Targets([[[40, 40, 60, 60], [45, 20, 80, 80]]], (100, 100))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: targets[0] region 0 box 1 must contain the box before it ... got [45.0, 20.0, 80.0, 80.0]
    """

    __slots__ = ("boxes", "images", "region_starts", "row_starts", "rows", "run_starts", "runs", "sizes")

    boxes: NDArray[np.float64]
    region_starts: NDArray[np.int64]
    row_starts: NDArray[np.int64]
    sizes: NDArray[np.float64]
    images: NDArray[np.int64]
    runs: NDArray[np.int32]
    run_starts: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __init__(
        self,
        targets: Sequence[RowTarget],
        image_sizes: SizesLike | Sequence[SizesLike],
        target_images: Sequence[Sequence[int] | None] | None = None,
    ) -> None:
        packed, masks = _pack_nested(targets), _NamedMasks()
        if packed is None:
            packed, masks = _pack_regions(targets)
        self.boxes, self.region_starts, self.row_starts = packed
        rows = len(self.row_starts) - 1
        if target_images is None:
            self.images = np.empty(0, np.int64)
            self.sizes = _sizes_of_rows(image_sizes, self.row_starts)
        else:
            self.images = _images_of_regions(target_images, self.row_starts)
            self.sizes = _sizes_of_images(image_sizes, self.images, self.row_starts)
        self.runs, self.run_starts = _pack_masks(masks, self.sizes)
        self.rows = np.arange(rows)
        self._freeze()
        self._refuse_bad()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: int | slice | Sequence[int] | NDArray[Any]) -> Targets:
        """The chosen rows, in that order; repeats are fine. Boxes are shared, not copied."""
        selection = Targets.__new__(Targets)
        selection.boxes, selection.sizes, selection.images = self.boxes, self.sizes, self.images
        selection.runs, selection.run_starts = self.runs, self.run_starts
        selection.region_starts, selection.row_starts = self.region_starts, self.row_starts
        selection.rows = self.rows[chosen_rows(len(self), indices)]
        selection.rows.flags.writeable = False
        return selection

    def __repr__(self) -> str:
        first, stop = self.row_starts[self.rows], self.row_starts[self.rows + 1]
        boxes = (self.region_starts[stop] - self.region_starts[first]).sum()
        return f"Targets(rows={len(self)}, regions={(stop - first).sum()}, boxes={boxes})"

    def _refuse_bad(self) -> None:
        rule, row, region, box = _kernels.first_bad_target(
            self.boxes, self.region_starts, self.row_starts, self.sizes
        )
        if rule == 0:
            return
        own = self.row_starts[row] + region
        width, height = self.sizes[2 * own : 2 * own + 2].tolist()
        if rule == 1:
            raise ValueError(f"image_sizes[{row}] {SIZE}, got {[width, height]}")
        place = 4 * (self.region_starts[own] + box)
        came = self.boxes[place : place + 4].tolist()
        before = self.boxes[place - 4 : place].tolist()
        text = {
            2: WITH_AREA,
            3: f"must lie inside its image of {width:g} x {height:g} pixels",
            4: f"must contain the box before it ({before}): boxes go from inner to outer",
        }[rule]
        raise ValueError(f"targets[{row}] region {region} box {box} {text}, got {came}")


def _sizes_of_rows(image_sizes: Any, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(2 * regions,) the size of each region's image, where each row has one."""
    rows = len(starts) - 1
    sizes = np.array(as_sizes(image_sizes), np.float64)  # a copy: the caller's array may change later
    if sizes.shape == (2,):
        sizes = np.full((rows, 2), sizes)
    if sizes.shape != (rows, 2):
        raise ValueError(
            f"image_sizes must have shape ({rows}, 2) or (2,), one (width, height) per row of targets, "
            f"got {sizes.shape}"
        )
    regions = np.diff(starts)
    return (sizes if (regions == 1).all() else sizes.repeat(regions, axis=0)).reshape(-1)


def _images_of_regions(
    target_images: Sequence[Sequence[int] | None], starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(regions,) the number of each region's image."""
    if len(target_images) != len(starts) - 1:
        raise ValueError(
            f"target_images must have one entry per row of targets, got {len(target_images)} for "
            f"{len(starts) - 1}"
        )
    images: list[int] = []
    for row, (numbers, regions) in enumerate(zip(target_images, np.diff(starts).tolist(), strict=True)):
        own = [1] * regions if numbers is None else list(numbers)
        if len(own) != regions:
            raise ValueError(
                f"target_images[{row}] must have one number per region, got {len(own)} for {regions}"
            )
        for region, number in enumerate(own):
            if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
                raise ValueError(
                    f"target_images[{row}] region {region} must be the number of an image, from 1, "
                    f"got {number!r}"
                )
        images += own
    return np.array(images, np.int64)


def _sizes_of_images(
    image_sizes: SizesLike | Sequence[SizesLike], images: NDArray[np.int64], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(2 * regions,) the size of each region's image, where rows may have several."""
    rows: Any = image_sizes
    if len(rows) and rows[0] is not None and np.ndim(rows[0]) == 0:  # one size for all
        rows = [image_sizes] * (len(starts) - 1)
    if len(rows) != len(starts) - 1:
        raise ValueError(
            f"image_sizes must have one entry per row of targets, got {len(rows)} for {len(starts) - 1}"
        )
    sizes = np.empty((len(images), 2))
    for row, (first, stop) in enumerate(pairwise(starts.tolist())):
        if first == stop:
            continue
        own = as_sizes(rows[row], f"image_sizes[{row}]")
        if own.ndim > 1 and images[first:stop].max() > len(own):
            region = int(np.argmax(images[first:stop] > len(own)))
            raise ValueError(
                f"target_images[{row}] region {region} must be at most {len(own)}, the number of the row's "
                f"images, got {images[first + region]}"
            )
        sizes[first:stop] = own if own.ndim == 1 else own[images[first:stop] - 1]
    return sizes.reshape(-1)


def _regions(target: RowTarget, row: int) -> Sequence[Any]:
    """The regions of a row; one region may be given without the list around it."""
    if target is None:
        return []
    if isinstance(target, list | tuple | np.ndarray):
        if len(target) == 0:
            return []
        inner = target[0]
        if _is_mask(inner):
            return [target]
        if isinstance(inner, list | tuple | np.ndarray):
            nested = len(inner) == 0 or _is_mask(inner[0]) or np.ndim(inner[0]) > 0
            return list(target) if nested else [target]
    raise TypeError(
        f"targets[{row}] must be nested boxes (n, 4), a list of such regions or None, got {target!r}"
    )


def _is_mask(thing: Any) -> bool:
    return isinstance(thing, Mapping | Masks)


def _pack_nested(targets: Sequence[Any]) -> _PackedTargets | None:
    """The usual case at once: every row is None or one region as a list of boxes; else returns None."""
    if not set(map(type, targets)) <= {list, type(None)}:
        return None
    rows: list[Any] = [row or () for row in targets]
    regions = rows if all(rows) else [row for row in rows if row]
    packed = _pack_plain(regions)
    if packed is None:
        return None
    if len(regions) == len(rows):
        return *packed, np.arange(len(rows) + 1)
    return *packed, starts_of([len(row) > 0 for row in rows])


def _pack_regions(targets: Sequence[RowTarget]) -> tuple[_PackedTargets, _NamedMasks]:
    """Any form of rows; raises with row and region for anything that is neither a box nor a mask."""
    regions: list[Any] = []
    row_starts = [0]
    masks = _NamedMasks()
    for row, target in enumerate(targets):
        for number, region in enumerate(_regions(target, row)):
            if isinstance(region, list | tuple) and any(map(_is_mask, region)):
                name = f"targets[{row}] region {number} mask"
                mask = _inner_mask(region, name)
                masks[len(regions)] = name, mask
                region = [*mask.boxes().tolist(), *region[1:]]
            regions.append(region)
        row_starts.append(len(regions))
    boxes, starts = _pack_plain(regions) or _pack_checked(regions, row_starts)
    return (boxes, starts, np.array(row_starts)), masks


def _inner_mask(region: Sequence[Any], name: str) -> Masks:
    if any(map(_is_mask, region[1:])):
        raise ValueError(f"{name} must be the innermost of the region, before its boxes, got {region!r}")
    mask = one_mask(region[0], name)
    if mask.areas()[0] == 0:
        raise ValueError(f"{name} must hold at least one pixel, got none")
    return mask


def _pack_masks(
    masks: _NamedMasks, sizes: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """`Targets.runs` and `Targets.run_starts`."""
    if not masks:
        return np.empty(0, np.int32), np.empty(0, np.int64)
    parts = [np.empty(0, np.int32)] * (len(sizes) // 2)
    for region, (name, mask) in masks.items():
        image, own = sizes[2 * region : 2 * region + 2].tolist(), mask.sizes[0].tolist()
        if own != image:
            raise ValueError(
                f"{name} must have the size of its image, {image[0]:g} x {image[1]:g}, "
                f"got {own[0]} x {own[1]}"
            )
        [(x0, y0, x1, y1)], [area] = mask.extents()
        if area < (x1 - x0) * (y1 - y0):
            parts[region] = mask.runs[mask.spans[0, 0] : mask.spans[0, 1]]
    return np.concatenate(parts), starts_of(list(map(len, parts)))


def _pack_plain(regions: list[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """All coordinates and where each region's boxes start; None unless all boxes are lists of numbers."""
    packed = pack_rows(regions, _plain_box)
    return packed if packed is not None and all(regions) else None


def _plain_box(box: Any) -> tuple[float, ...] | None:
    numbers = four_numbers(box) if isinstance(box, list | tuple) else (math.nan,)
    return None if any(map(math.isnan, numbers)) else numbers


def _pack_checked(regions: list[Any], row_starts: list[int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The same for anything that numpy reads as boxes; raises with row and region for the rest."""
    packed = []
    for row, (first, stop) in enumerate(pairwise(row_starts)):
        for number, region in enumerate(regions[first:stop]):
            name = f"targets[{row}] region {number}"
            boxes = np.asarray(as_floats(region, name, 4, single=False), np.float64)
            if len(boxes) == 0:
                raise ValueError(f"{name} must hold at least one box, got none")
            packed.append(boxes)
    return np.concatenate(packed).reshape(-1), starts_of(list(map(len, packed)))
