"""Backgrounds for the signs: the user's photographs, or generated rows of houses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lfpc_trl.pictures.originals import load_original
from lfpc_trl.pictures.sizes import Size


def draw_background(rng: np.random.Generator, photos: Sequence[Path], size: Size | None) -> Image.Image:
    """Return a view of a random photograph, or generated houses if there are no photographs.

    Args:
        rng: chooses the photograph and the view.
        photos: paths of the photographs; may be empty.
        size: (width, height); None for the whole photograph at its own size.

    Returns:
        An RGB image that may be modified.
    """
    if not photos:
        assert size is not None
        return _houses(rng, size)
    photo = load_original(photos[int(rng.integers(len(photos)))])
    if size is None:
        return photo.copy()
    # The largest view with the right aspect ratio, scaled by 60 to 100 %.
    largest = min(photo.width, photo.height * size[0] / size[1])
    width = largest * rng.uniform(0.6, 1.0)
    height = width * size[1] / size[0]
    x, y = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
    return photo.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + width, y + height), reducing_gap=2.0)


def _houses(rng: np.random.Generator, size: Size) -> Image.Image:
    """Draw rows of houses with windows under a cloudy sky: many edges and colored rectangles."""
    width, height = size
    clouds = rng.normal((150, 175, 205), 22, (9, 16, 3)).clip(0, 255).astype(np.uint8)
    # Smooth at 1/8 size, then enlarged without interpolation: halves the time, and the steps are invisible.
    soft = Image.fromarray(clouds).resize((width // 8, height // 8), Image.Resampling.BILINEAR)
    picture = soft.resize(size, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    unit = max(1, height // 60)
    for row in range(4):
        ground = height * (0.45 + 0.18 * row)
        x = -float(rng.uniform(0, 8 * unit))
        while x < width:
            wide, tall = rng.uniform(6, 16) * unit, rng.uniform(8, 20) * unit
            wall = rng.integers(60, 210, 3)
            box = (x, ground - tall, x + wide, ground + height * 0.2)
            pen.rectangle(box, fill=_rgb(wall), outline=_rgb(wall // 2), width=max(1, unit // 8))
            _windows(rng, pen, (x, ground - tall, x + wide, ground), unit, wall)
            x += wide + rng.uniform(0, 2) * unit
    pen.rectangle((0, round(height * 0.94), width, height), fill=_rgb(rng.integers(70, 110, 3)))
    return picture


def _windows(
    rng: np.random.Generator,
    pen: ImageDraw.ImageDraw,
    house: tuple[float, float, float, float],
    unit: int,
    wall: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
) -> None:
    x1, y1, x2, y2 = house
    step = rng.uniform(1.6, 2.6) * unit
    glass = _rgb((wall + rng.integers(-70, 70, 3)).clip(0, 255))
    for y in np.arange(y1 + 0.8 * unit, y2 - 1.5 * unit, step):
        for x in np.arange(x1 + 0.8 * unit, x2 - 1.4 * unit, step):
            pen.rectangle((x, y, x + 0.8 * unit, y + 1.1 * unit), fill=glass)


def _rgb(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    return red, green, blue
