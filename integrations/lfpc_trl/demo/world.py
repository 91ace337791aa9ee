"""The demo's data: real photographs with small signs, and a question about one of the signs.

A picture is 1092 x 728 pixels: a random view of a photograph from scikit-image, with three coloured signs. A
sign shows a two-letter code on a white plate. The question asks for the code on the sign of one colour. The
answer takes two steps that need different resolutions: *where* is the red sign (the overview is enough) and
*what* does it say (readable only in a crop).

Targets are nested by construction: the letters, the smallest sufficient region, inside the sign.

Why two letters out of twelve: a model of a million parameters learns to read them in minutes on one core, and
a random guess is right once in 144 times, so guessing cannot explain the accuracy. All plates have the same
size; a plate sized to its text would reveal the text in the overview.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from lfpc_trl.files import write_atomic
from lfpc_trl.pictures.originals import load_original

PICTURE_SIZE = (1092, 728)
"""Width and height of the demo's pictures, in pixels."""

LETTERS = "ACEHKLNPTUXY"
COLOURS = {"red": (196, 32, 38), "green": (20, 134, 58), "blue": (28, 74, 186), "yellow": (236, 186, 18)}
QUESTION = "What does the {colour} sign say?"

# Photographs inside the scikit-image wheel (nothing is downloaded).
TRAINING_PHOTOS = ("astronaut", "chelsea", "hubble_deep_field", "motorcycle_left", "retina")
UNSEEN_PHOTOS = ("coffee", "rocket")
_FILES = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "motorcycle_left": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}

_PLATE = (120, 68)
_FONT_SIZE = 56
_SIGNS = 3
_MARGIN = 24


@dataclass(frozen=True)
class Sign:
    """One sign of a scene. Boxes are xyxy, half-open, pixels of the picture."""

    colour: str
    text: str
    box: tuple[int, int, int, int]
    text_box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """A picture and the signs on it."""

    picture: Image.Image
    signs: tuple[Sign, ...]


@functools.cache
def _photo(name: str) -> Image.Image:
    import skimage

    return load_original(Path(skimage.__file__).parent / "data" / _FILES[name])


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(_FONT_SIZE)  # Pillow's own TrueType font; nothing to install
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def draw_background(
    rng: np.random.Generator, photos: Sequence[str], size: tuple[int, int] = PICTURE_SIZE
) -> Image.Image:
    """A random view of a random photograph, `size` pixels, with random mirroring, tint and brightness."""
    photo = _photo(photos[int(rng.integers(len(photos)))])
    aspect = size[0] / size[1]
    largest = min(photo.width, photo.height * aspect)
    width = largest * rng.uniform(0.55, 1.0)
    height = width / aspect
    x, y = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
    view = photo.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + width, y + height))
    if rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    view = Image.merge("RGB", [view.getchannel(int(c)) for c in rng.permutation(3)])
    return ImageEnhance.Brightness(view).enhance(float(rng.uniform(0.55, 1.25)))


def draw_scene(
    rng: np.random.Generator, background: Image.Image, colours: Sequence[str] | None = None
) -> Scene:
    """Draw a sign of each of these colours on a copy of `background`, without overlap.

    Without `colours`, three at random.
    """
    picture = background.copy()
    colours = rng.permutation(list(COLOURS))[:_SIGNS].tolist() if colours is None else colours
    boxes: list[tuple[int, int, int, int]] = []
    while len(boxes) < len(colours):
        w, h = int(rng.integers(164, 213)), int(rng.integers(124, 161))
        x = int(rng.integers(_MARGIN, picture.width - w - _MARGIN))
        y = int(rng.integers(_MARGIN, picture.height - h - _MARGIN))
        if all(x + w + 20 < b[0] or b[2] + 20 < x or y + h + 20 < b[1] or b[3] + 20 < y for b in boxes):
            boxes.append((x, y, x + w, y + h))
    pen = ImageDraw.Draw(picture)
    signs = tuple(_draw_sign(rng, pen, c, b) for c, b in zip(colours, boxes, strict=True))
    return Scene(picture, signs)


def _draw_sign(
    rng: np.random.Generator, pen: ImageDraw.ImageDraw, colour: str, box: tuple[int, int, int, int]
) -> Sign:
    x0, y0, x1, y1 = box
    fill = tuple(int(np.clip(c + rng.integers(-14, 15), 0, 255)) for c in COLOURS[colour])
    pen.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), radius=14, fill=fill, outline=(245, 245, 245), width=5)
    left, top = (x0 + x1 - _PLATE[0]) // 2, (y0 + y1 - _PLATE[1]) // 2
    pen.rectangle((left, top, left + _PLATE[0] - 1, top + _PLATE[1] - 1), fill=(250, 250, 248))
    text = "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=2))
    middle = (left + _PLATE[0] / 2, top + _PLATE[1] / 2)
    pen.text(middle, text, font=_font(), anchor="mm", fill=(16, 16, 20), stroke_width=1)
    a, b, c, d = pen.textbbox(middle, text, font=_font(), anchor="mm", stroke_width=1)
    text_box = (int(np.floor(a)), int(np.floor(b)), int(np.ceil(c)), int(np.ceil(d)))
    return Sign(colour, text, box, text_box)


def make_pictures(
    directory: Path,
    count: int,
    *,
    seed: int,
    photos: Sequence[str],
    name: str,
    size: tuple[int, int] = PICTURE_SIZE,
) -> Iterator[Path]:
    """Draw `count` pictures and write them with one question per sign.

    Args:
        directory: Where to write `<name>.jsonl` and the folder `<name>/` of JPEG files.
        count: Number of pictures; each gives three rows.
        seed: Same seed, same pictures.
        photos: Names from `TRAINING_PHOTOS` or `UNSEEN_PHOTOS`.
        name: Name of the split, such as "test".
        size: Width and height of the pictures; the size of the signs does not change.

    Yields:
        The path of each picture once it is written. At the end, `<name>.jsonl` is written with the rows:
        `question`, `answer`, `image`, `targets` (letters inside sign, pixels of the picture), `id`.
    """
    folder = directory / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        scene = draw_scene(rng, draw_background(rng, photos, size))
        image = folder / f"{i:04d}.jpg"
        scene.picture.save(image, quality=92, subsampling=0)
        for sign in scene.signs:
            row = {
                "id": f"{name}-{i:04d}-{sign.colour}",
                "question": QUESTION.format(colour=sign.colour),
                "answer": sign.text,
                "image": f"{name}/{image.name}",
                "targets": [list(sign.text_box), list(sign.box)],
            }
            rows.append(json.dumps(row) + "\n")
        yield image
    write_atomic(directory / f"{name}.jsonl", "".join(rows))
