"""The crop tool that the model calls, in TRL's trainer and in our own rollouts."""

import functools
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards import Frame, corner_distance
from lfpc_trl.data.rows import Picture, Row
from lfpc_trl.pictures.crops import MIN_SIDE, BoxError, PixelBox, crop_box, crop_size
from lfpc_trl.pictures.lazy import LazyImage, Noise, Part, file_bytes
from lfpc_trl.pictures.placement import place_without_overlap
from lfpc_trl.rollouts.prompts import Block, user_blocks

TOOL_NAME = "image_zoom_in_tool"
CropSource = Literal["predicted", "target", "noise", "elsewhere", "no_picture"]
NO_PICTURE = "The region was cropped. No image is shown."
"""The reply of `no_picture` to a valid call. Fixed, so that a transcript tells it from a failed call."""


@dataclass(frozen=True)
class CropSettings:
    """How crops are cut. The rewards use the same settings, so that they score the box that was cut.

    Attributes:
        frame: the frame of the model's boxes.
        factor: pixels per side of one visual token.
        crop_tokens: a crop is returned at native resolution unless it needs more visual tokens than this.
        max_crops: crops per rollout; further calls are refused.
        min_side: shortest side of a crop in pixels of the original.
        crop_source: "predicted" cuts the requested box. The others answer a valid call with something else,
            to test whether the model depends on its crops. "target": the nearest target region (its outermost
            box) on the requested picture; if that has none, the first on another. "noise": random noise of
            the size the crop would have had. "elsewhere": a box of the same size at a random place of the
            same picture that touches neither a target nor the requested box; if there is no such place, the
            one that overlaps the targets least. "no_picture": `NO_PICTURE`.
        seed: of "noise" and "elsewhere".
    """

    frame: Frame
    factor: int
    crop_tokens: int = 1024
    max_crops: int = 4
    min_side: int = MIN_SIDE
    crop_source: CropSource = "predicted"
    seed: int = 0


class CropEnvironment:
    """The environment of one rollout. TRL offers every public method but `reset` to the model as a tool.

    Attributes:
        pictures: number of pictures per row. Rows with several get a class of their own (`environment_for`),
            since the tool's description, which belongs to the class, names the number.
    """

    pictures: ClassVar[int] = 1

    def __init__(self, settings: CropSettings) -> None:
        self._settings = settings
        self._row: Row | None = None
        self._file_bytes: list[int] = []
        self._delivered = 0

    def reset(self, row: Row, **columns: Any) -> list[Block]:  # noqa: ARG002 - TRL passes every column
        """Start a rollout: return the pictures at their shown sizes, and the question.

        Raises:
            OSError: a picture cannot be opened.
            ValueError: the row has no `shown_size` yet, no targets where crops come from them, or a different
                number of pictures.
        """
        if len(row.pictures) != self.pictures:
            raise ValueError(f"{row.name} must have {self.pictures} pictures, got {len(row.pictures)}")
        sizes = row.shown_sizes
        if sizes is None:
            raise ValueError(f"{row.name} has no shown_size")
        if self._settings.crop_source == "target" and row.regions is None:
            raise ValueError(f"{row.name} has no targets, which crop_source target needs")
        self._row = row
        self._file_bytes = [file_bytes(picture.image) for picture in row.pictures]
        self._delivered = 0
        shown = [
            LazyImage(Part(str(picture.image), nbytes, size)).start()
            for picture, nbytes, size in zip(row.pictures, self._file_bytes, sizes, strict=True)
        ]
        return user_blocks(row, shown)

    # No return annotation: transformers would add it to the description that the model reads.
    def image_zoom_in_tool(self, bbox_2d: list[float], label: str = ""):  # type: ignore[no-untyped-def]  # noqa: ARG002
        """Crop a region of the original image and look at it in full resolution.

        Args:
            bbox_2d: The region as [x1, y1, x2, y2]: left, top, right, bottom.
            label: What you are looking for.
        """
        return self._crop(bbox_2d, 1)

    def _crop(self, bbox: object, number: object) -> Any:
        """The reply to a call; `number` is the picture's number as the model wrote it."""
        row, settings = self._row, self._settings
        if row is None:
            raise RuntimeError("call reset() first")
        if self._delivered >= settings.max_crops:
            raise BoxError("limit")
        image, picture = picture_of(row, number)
        box = cut_box(bbox, picture, settings)
        recipe = self._recipe(row, image, box)
        self._delivered += 1
        if settings.crop_source == "no_picture":
            return NO_PICTURE
        # Lazy: TRL runs the calls of a round one after another, and threads load the pictures meanwhile. An
        # unreadable picture raises where TRL uses it; raised here, TRL would report it to the model as a
        # failed call, and the model would pay for our failure.
        return [{"type": "image", "image": LazyImage(recipe).start()}]

    def _recipe(self, row: Row, image: int, box: PixelBox) -> Part | Noise:
        settings = self._settings
        # crc32, not hash(): the same in every process.
        seed = (settings.seed, zlib.crc32(row.id.encode()), self._delivered)
        if settings.crop_source == "target":
            image, box = _nearest_target(row, image, box)
        elif settings.crop_source == "elsewhere":
            box = _elsewhere(row, image, box, seed)
        size = crop_size(box, factor=settings.factor, max_tokens=settings.crop_tokens)
        if settings.crop_source == "noise":
            return Noise(seed, size)
        return Part(str(row.pictures[image - 1].image), self._file_bytes[image - 1], size, box)


def picture_of(row: Row, number: object) -> tuple[int, Picture]:
    """Look up a picture by the number that the model wrote; return both.

    Raises:
        BoxError: the row has no such picture.
    """
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= len(row.pictures):
        raise BoxError("image")
    return number, row.pictures[number - 1]


def cut_box(bbox: object, picture: Picture, settings: CropSettings) -> PixelBox:
    """`crop_box` for a picture of a row.

    Raises:
        BoxError: as in `crop_box`.
    """
    return crop_box(
        bbox,
        frame=settings.frame,
        shown_size=picture.shown_size or picture.size,
        original_size=picture.size,
        min_side=settings.min_side,
    )


def _nearest_target(row: Row, image: int, box: PixelBox) -> tuple[int, PixelBox]:
    """The outermost box of the region whose corners are nearest to `box`, rounded outward, and its picture.

    Only regions on the picture `image` count; if it has none, the first region of the row is taken.
    """
    outermost = np.array([target.boxes[-1] for target in row.targets if target.image == image])
    if not len(outermost):
        return row.targets[0].image, _round_outward(row.targets[0].boxes[-1])
    distances = corner_distance(np.array([box], float), outermost, row.pictures[image - 1].size)
    return image, _round_outward(outermost[int(np.argmin(distances))])


def _elsewhere(row: Row, image: int, box: PixelBox, seed: tuple[int, ...]) -> PixelBox:
    """A box of the same size that avoids `box` and the outermost boxes of all regions on its picture."""
    targets = [_round_outward(target.boxes[-1]) for target in row.targets if target.image == image]
    size = row.pictures[image - 1].size
    return place_without_overlap((box[2] - box[0], box[3] - box[1]), size, targets, [box], seed=seed)


def _round_outward(box: NDArray[np.float64]) -> PixelBox:
    """Round a box outward to whole pixels."""
    left, top = np.floor(box[:2]).astype(int).tolist()
    right, bottom = np.ceil(box[2:]).astype(int).tolist()
    return left, top, right, bottom


@functools.cache
def _environment_class(pictures: int) -> type[CropEnvironment]:
    """The environment class for rows with this many pictures."""
    if pictures == 1:
        return CropEnvironment

    class CropEnvironmentOfSeveral(CropEnvironment):
        def image_zoom_in_tool(self, bbox_2d: list[float], label: str = "", image: int = 1):  # type: ignore[no-untyped-def]  # noqa: ARG002
            return self._crop(bbox_2d, image)

    CropEnvironmentOfSeveral.pictures = pictures
    # transformers reads a tool's description from its docstring, which cannot be an f-string.
    CropEnvironmentOfSeveral.image_zoom_in_tool.__doc__ = _SEVERAL_DOC.format(pictures=pictures)
    return CropEnvironmentOfSeveral


_SEVERAL_DOC = """Crop a region of one of the {pictures} original images and look at it in full resolution.

Args:
    bbox_2d: The region as [x1, y1, x2, y2]: left, top, right, bottom.
    label: What you are looking for.
    image: The number of the image, from 1 to {pictures}.
"""


def environment_for(row: Row, settings: CropSettings) -> CropEnvironment:
    """A new environment for rows with as many pictures as this one."""
    return _environment_class(len(row.pictures))(settings)


@dataclass(frozen=True)
class EnvironmentFactory:
    """Makes environments for `GRPOTrainer`. A class, because closures do not pickle.

    Attributes:
        settings: how crops are cut.
        pictures: number of pictures per row.
    """

    settings: CropSettings
    pictures: int = 1

    def __call__(self) -> CropEnvironment:
        """A new environment; TRL keeps and resets it."""
        return _environment_class(self.pictures)(self.settings)


def environment_factory(settings: CropSettings) -> EnvironmentFactory:
    """A picklable factory of crop environments with these settings, for rows with one picture."""
    return EnvironmentFactory(settings)


def environment_factories(settings: CropSettings, rows: Iterable[Row]) -> dict[str, EnvironmentFactory]:
    """One factory for each number of pictures among these rows, keyed by `environment_name`."""
    counts = sorted({len(row.pictures) for row in rows})
    return {str(count): EnvironmentFactory(settings, count) for count in counts}


def environment_name(row: Row) -> str:
    """The key of a row in `environment_factories`."""
    return str(len(row.pictures))
