"""The crop tool: what the model calls, run by TRL's trainer and by our own rollouts alike."""

import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards import Frame, corner_distance
from lfpc_trl.data.rows import Row
from lfpc_trl.pictures.crops import MIN_SIDE, BoxError, PixelBox, crop_box, crop_size
from lfpc_trl.pictures.lazy import LazyImage, Noise, Part, file_bytes
from lfpc_trl.pictures.placement import place_clear
from lfpc_trl.rollouts.prompts import Block, user_blocks

TOOL_NAME = "image_zoom_in_tool"
CropSource = Literal["predicted", "target", "noise", "elsewhere", "no_picture"]
NO_PICTURE = "The region was cropped. No image is shown."
"""What `no_picture` answers a valid call with. Fixed, so that a transcript tells it from a failed call."""


@dataclass(frozen=True)
class CropSettings:
    """How crops are cut. The rewards hold the same settings, so that they score the box that was cut.

    Attributes:
        frame: the frame in which the model counts.
        factor: pixels per side of one visual token.
        crop_tokens: a crop comes back at native resolution unless it needs more visual tokens than this.
        max_crops: crops per rollout; a further call is refused.
        min_side: shortest side of a crop in pixels of the original.
        crop_source: "predicted" cuts what the model asked for. The others answer a valid call with something
            else, to test whether the model depends on its crops. "target": the nearest target region (its
            outermost box). "noise": random noise of the size the crop would have had. "elsewhere": a box of
            the same size at a random place that touches no target and not what was asked for; where there is
            no such place, the one that shares the least with the targets. "no_picture": `NO_PICTURE`.
        seed: of the noise and the place.
    """

    frame: Frame
    factor: int
    crop_tokens: int = 1024
    max_crops: int = 4
    min_side: int = MIN_SIDE
    crop_source: CropSource = "predicted"
    seed: int = 0


class CropEnvironment:
    """One rollout's view of one row. TRL makes every public method but `reset` a tool of the model."""

    def __init__(self, settings: CropSettings) -> None:
        self._settings = settings
        self._row: Row | None = None
        self._file_bytes = 0
        self._delivered = 0

    def reset(self, row: Row, **columns: Any) -> list[Block]:  # noqa: ARG002 - TRL passes every column
        """Start a rollout: the picture as the model is shown it, and the question.

        Raises:
            OSError: the picture is gone.
            ValueError: the row has no `shown_size` yet, or no targets where crops come from them.
        """
        if row.shown_size is None:
            raise ValueError(f"{row.name} has no shown_size")
        if self._settings.crop_source == "target" and row.regions is None:
            raise ValueError(f"{row.name} has no targets to crop from")
        self._row = row
        self._file_bytes = file_bytes(row.image)
        self._delivered = 0
        shown = LazyImage(Part(str(row.image), self._file_bytes, row.shown_size))
        return user_blocks(row, shown.start())

    # No return annotation: transformers would add it to the description that the model reads.
    def image_zoom_in_tool(self, bbox_2d: list[float], label: str = ""):  # type: ignore[no-untyped-def]  # noqa: ARG002
        """Crop a region of the original image and look at it in full resolution.

        Args:
            bbox_2d: The region as [x1, y1, x2, y2]: left, top, right, bottom.
            label: What you are looking for.
        """
        row, settings = self._row, self._settings
        if row is None or row.shown_size is None:
            raise RuntimeError("reset() comes first")
        if self._delivered >= settings.max_crops:
            raise BoxError("limit")
        box = crop_box(
            bbox_2d,
            frame=settings.frame,
            shown_size=row.shown_size,
            original_size=row.size,
            min_side=settings.min_side,
        )
        recipe = self._recipe(row, box)
        self._delivered += 1
        if settings.crop_source == "no_picture":
            return NO_PICTURE
        # Announced, not made: TRL runs the calls of a round one after another, the pictures are made in
        # threads meanwhile. And an unreadable picture is raised where TRL uses it: here, TRL would tell the
        # model, and the model would pay for our failure.
        return [{"type": "image", "image": LazyImage(recipe).start()}]

    def _recipe(self, row: Row, box: PixelBox) -> Part | Noise:
        settings = self._settings
        # crc32, not hash(): the same in every process.
        seed = (settings.seed, zlib.crc32(row.id.encode()), self._delivered)
        if settings.crop_source == "target":
            box = _nearest_target(row, box)
        elif settings.crop_source == "elsewhere":
            box = _elsewhere(row, box, seed)
        size = crop_size(box, factor=settings.factor, max_tokens=settings.crop_tokens)
        if settings.crop_source == "noise":
            return Noise(seed, size)
        return Part(str(row.image), self._file_bytes, size, box)


def _nearest_target(row: Row, box: PixelBox) -> PixelBox:
    """The outermost box of the region whose corners are nearest to `box`, outwards to whole pixels."""
    outermost = np.array([region[-1] for region in row.regions or ()])
    return _whole(outermost[int(np.argmin(corner_distance(np.array([box], float), outermost, row.size)))])


def _elsewhere(row: Row, box: PixelBox, seed: tuple[int, ...]) -> PixelBox:
    """A box of the same size clear of `box` and of the outermost box of every region."""
    targets = [_whole(region[-1]) for region in row.regions or ()]
    return place_clear((box[2] - box[0], box[3] - box[1]), row.size, targets, [box], seed=seed)


def _whole(box: NDArray[np.float64]) -> PixelBox:
    """Outwards to whole pixels."""
    left, top = np.floor(box[:2]).astype(int).tolist()
    right, bottom = np.ceil(box[2:]).astype(int).tolist()
    return left, top, right, bottom


@dataclass(frozen=True)
class EnvironmentFactory:
    """Makes environments for `GRPOTrainer`. A class, because closures do not pickle."""

    settings: CropSettings

    def __call__(self) -> CropEnvironment:
        """A fresh environment; TRL keeps and resets it."""
        return CropEnvironment(self.settings)


def environment_factory(settings: CropSettings) -> EnvironmentFactory:
    """A picklable factory of crop environments with these settings."""
    return EnvironmentFactory(settings)
