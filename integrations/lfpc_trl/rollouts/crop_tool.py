"""The crop tool: what the model calls, run by TRL's trainer and by our own rollouts alike."""

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
            outermost box) on the picture that was asked for; if that has none, the first on another. "noise":
            random noise of the size the crop would have had. "elsewhere": a box of the same size at a random
            place of the same picture that touches no target and not what was asked for; where there is no
            such place, the one that shares the least with the targets. "no_picture": `NO_PICTURE`.
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
    """One rollout's view of one row. TRL makes every public method but `reset` a tool of the model.

    Attributes:
        pictures: of each row. Those of rows with several are made by `environment_for`, since the tool's
            description, which is that of the class, says how many there are.
    """

    pictures: ClassVar[int] = 1

    def __init__(self, settings: CropSettings) -> None:
        self._settings = settings
        self._row: Row | None = None
        self._file_bytes: list[int] = []
        self._delivered = 0

    def reset(self, row: Row, **columns: Any) -> list[Block]:  # noqa: ARG002 - TRL passes every column
        """Start a rollout: the pictures as the model is shown them, and the question.

        Raises:
            OSError: a picture is gone.
            ValueError: the row has no `shown_size` yet, or no targets where crops come from them, or another
                number of pictures.
        """
        if len(row.pictures) != self.pictures:
            raise ValueError(f"{row.name} must have {self.pictures} pictures, got {len(row.pictures)}")
        sizes = row.shown_sizes
        if sizes is None:
            raise ValueError(f"{row.name} has no shown_size")
        if self._settings.crop_source == "target" and row.regions is None:
            raise ValueError(f"{row.name} has no targets to crop from")
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
        """What a call is answered with; `number` is that of the picture, as the model wrote it."""
        row, settings = self._row, self._settings
        if row is None:
            raise RuntimeError("reset() comes first")
        if self._delivered >= settings.max_crops:
            raise BoxError("limit")
        image, picture = picture_of(row, number)
        box = cut_box(bbox, picture, settings)
        recipe = self._recipe(row, image, box)
        self._delivered += 1
        if settings.crop_source == "no_picture":
            return NO_PICTURE
        # Announced, not made: TRL runs the calls of a round one after another, the pictures are made in
        # threads meanwhile. And an unreadable picture is raised where TRL uses it: here, TRL would tell the
        # model, and the model would pay for our failure.
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
    """The picture of a number that a model wrote, and that number.

    Raises:
        BoxError: there is none.
    """
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= len(row.pictures):
        raise BoxError("image")
    return number, row.pictures[number - 1]


def cut_box(bbox: object, picture: Picture, settings: CropSettings) -> PixelBox:
    """`crop_box` for a picture of a row that is shown.

    Raises:
        BoxError: as `crop_box`.
    """
    return crop_box(
        bbox,
        frame=settings.frame,
        shown_size=picture.shown_size or picture.size,
        original_size=picture.size,
        min_side=settings.min_side,
    )


def _nearest_target(row: Row, image: int, box: PixelBox) -> tuple[int, PixelBox]:
    """The outermost box of the region whose corners are nearest to `box`, outwards to whole pixels.

    On the picture `image`; where that has no region, the first of the row, with the number of its picture.
    """
    outermost = np.array([target.boxes[-1] for target in row.targets if target.image == image])
    if not len(outermost):
        return row.targets[0].image, _whole(row.targets[0].boxes[-1])
    distances = corner_distance(np.array([box], float), outermost, row.pictures[image - 1].size)
    return image, _whole(outermost[int(np.argmin(distances))])


def _elsewhere(row: Row, image: int, box: PixelBox, seed: tuple[int, ...]) -> PixelBox:
    """A box of the same size clear of `box` and of the outermost box of every region on its picture."""
    targets = [_whole(target.boxes[-1]) for target in row.targets if target.image == image]
    size = row.pictures[image - 1].size
    return place_clear((box[2] - box[0], box[3] - box[1]), size, targets, [box], seed=seed)


def _whole(box: NDArray[np.float64]) -> PixelBox:
    """Outwards to whole pixels."""
    left, top = np.floor(box[:2]).astype(int).tolist()
    right, bottom = np.ceil(box[2:]).astype(int).tolist()
    return left, top, right, bottom


@functools.cache
def _environment_class(pictures: int) -> type[CropEnvironment]:
    """The environment of rows with so many pictures."""
    if pictures == 1:
        return CropEnvironment

    class CropEnvironmentOfSeveral(CropEnvironment):
        def image_zoom_in_tool(self, bbox_2d: list[float], label: str = "", image: int = 1):  # type: ignore[no-untyped-def]  # noqa: ARG002
            return self._crop(bbox_2d, image)

    CropEnvironmentOfSeveral.pictures = pictures
    # transformers reads the description of a tool from its docstring, which may not be an f-string.
    CropEnvironmentOfSeveral.image_zoom_in_tool.__doc__ = _OF_SEVERAL.format(pictures=pictures)
    return CropEnvironmentOfSeveral


_OF_SEVERAL = """Crop a region of one of the {pictures} original images and look at it in full resolution.

Args:
    bbox_2d: The region as [x1, y1, x2, y2]: left, top, right, bottom.
    label: What you are looking for.
    image: The number of the image, from 1 to {pictures}.
"""


def environment_for(row: Row, settings: CropSettings) -> CropEnvironment:
    """A fresh environment for rows with as many pictures as this one."""
    return _environment_class(len(row.pictures))(settings)


@dataclass(frozen=True)
class EnvironmentFactory:
    """Makes environments for `GRPOTrainer`. A class, because closures do not pickle.

    Attributes:
        settings: how crops are cut.
        pictures: of each row.
    """

    settings: CropSettings
    pictures: int = 1

    def __call__(self) -> CropEnvironment:
        """A fresh environment; TRL keeps and resets it."""
        return _environment_class(self.pictures)(self.settings)


def environment_factory(settings: CropSettings) -> EnvironmentFactory:
    """A picklable factory of crop environments with these settings, for rows with one picture."""
    return EnvironmentFactory(settings)


def environment_factories(settings: CropSettings, rows: Iterable[Row]) -> dict[str, EnvironmentFactory]:
    """A factory for each number of pictures that these rows have, by `environment_name`."""
    counts = sorted({len(row.pictures) for row in rows})
    return {str(count): EnvironmentFactory(settings, count) for count in counts}


def environment_name(row: Row) -> str:
    """Which of `environment_factories` is for a row."""
    return str(len(row.pictures))
