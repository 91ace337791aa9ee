"""Contents of the signs: rendered words, or the user's objects."""

import functools
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lfpc_trl.data.categories import Categories, Category
from lfpc_trl.data.sources import read_members
from lfpc_trl.errors import UserError, one_line
from lfpc_trl.pictures.boxes import boxes_are_upright, turn_upright
from lfpc_trl.pictures.opening import LeftOut, find_picture_files
from lfpc_trl.pictures.originals import check_picture, load_rgba, read_header
from lfpc_trl.pictures.sizes import Size

LETTERS = "ACDEFHJKLMNPRTUVWXY34679"
"""Letters and digits of the words on signs, without look-alikes (O and 0, I and 1, S and 5, B and 8)."""
LENGTH = 4
"""Characters per word: a random guess is right once in 330,000. Constant, so that the width of a sign on the
overview reveals nothing."""
INK = (16, 16, 20)

_MOST_OBJECTS = 5000
_LEAST_SIDE = 24
_MIN_ALPHA = 128
"""Minimum alpha at which a pixel counts as part of an object."""


T = TypeVar("T")


class Object(NamedTuple):
    """A user's object: a picture with a transparent background, or a box on a photograph.

    Attributes:
        name: name of the object.
        path: path of its picture.
        box: its box on the upright photograph, in whole pixels; None for a cut-out.
        maybe: names of other objects that may also apply to it: a car is a vehicle.
    """

    name: str
    path: Path
    box: tuple[int, int, int, int] | None
    maybe: tuple[str, ...] = ()

    def confusable_with(self, other: "Object") -> bool:
        """Whether one of the names may apply to both objects."""
        return self.name == other.name or self.name in other.maybe or other.name in self.maybe


# --- text --------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)  # ships with Pillow: the same glyphs on every machine
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


@functools.lru_cache(maxsize=256)
def _font_of_height(height: int) -> ImageFont.FreeTypeFont:
    """Return the largest font whose capital E is at most `height` pixels high."""
    size = height
    while _ink("E", _font(size + 1)).height <= height:
        size += 1
    return _font(size)


def _ink(text: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Render a text as a coverage mask, cropped to its nonzero pixels."""
    left, top, right, bottom = (int(side) for side in font.getbbox(text))
    mask = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(mask).text((2 - left, 2 - top), text, font=font, fill=255)
    return mask.crop(mask.getbbox())


def random_word(rng: np.random.Generator) -> str:
    """Return a random word without meaning."""
    return "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=LENGTH))


def near_word(rng: np.random.Generator, word: str) -> str:
    """Return a word that differs from `word` in one character."""
    index = int(rng.integers(len(word)))
    other = [letter for letter in LETTERS if letter != word[index]]
    return word[:index] + other[int(rng.integers(len(other)))] + word[index + 1 :]


@functools.lru_cache(maxsize=256)
def text_room(height: int) -> Size:
    """Return a size that fits every word of this height."""
    font = _font_of_height(height)
    widest = max(_ink(letter, font).width for letter in LETTERS)
    return (LENGTH * widest + LENGTH * max(1, height // 8), round(1.1 * height))


def draw_text(text: str, height: int) -> Image.Image:
    """Render a text as RGBA with its coverage as alpha, cropped tightly to the ink."""
    mask = _ink(text, _font_of_height(height))
    picture = Image.new("RGBA", mask.size, (*INK, 0))
    picture.putalpha(mask)
    return picture


# --- objects -----------------------------------------------------------------------------------------


def find_objects(path: Path, seed: int) -> tuple[list[Object], list[LeftOut]]:
    """Find the objects in a folder of cut-outs or a COCO file: at most 5,000, sampled by the seed.

    A cut-out is named after its file, without a trailing number: `red-mug_2.png` is a "red mug". The paths in
    a COCO file are relative to its folder. Left out are crowds, instances with a side of less than 24 pixels
    inside their picture, and objects of a category that is above or below all others.

    Returns:
        The objects, and the files that were left out.

    Raises:
        UserError: there are fewer than four different names.
    """
    chosen, bad = _cut_outs(path, seed) if path.is_dir() else _from_coco(path, seed)
    names = sorted({each.name for each in chosen})
    if len(names) < 4:
        raise UserError(f"{path}: objects must have at least four different names, got {names}")
    return chosen, bad


def _sample(items: Iterable[T], seed: int) -> list[T]:
    """Draw a uniform sample from a stream of unknown length (reservoir sampling)."""
    rng = random.Random(seed)
    chosen: list[T] = []
    for count, item in enumerate(items, start=1):
        if len(chosen) < _MOST_OBJECTS:
            chosen.append(item)
        elif (index := rng.randrange(count)) < _MOST_OBJECTS:
            chosen[index] = item
    return chosen


def _cut_outs(folder: Path, seed: int) -> tuple[list[Object], list[LeftOut]]:
    good, bad = find_pictures(folder)
    chosen = _sample((Object(_name(path), path, None) for path in good), seed)
    empty = {item.path for item in chosen if _visible_box(item.path) is None}
    bad += [LeftOut(path, _unreadable("fully transparent")) for path in empty]
    return [item for item in chosen if item.path not in empty], sorted(bad)


def _name(path: Path) -> str:
    words = re.split(r"[\W_]+", re.sub(r"[\W_]*\d*$", "", path.stem))
    return " ".join(words).strip().lower() or path.stem


def _from_coco(path: Path, seed: int) -> tuple[list[Object], list[LeftOut]]:
    """Read a COCO file in two streaming passes: first sample the boxes, then find their picture files."""
    categories: dict[int, Category] = {}
    annotated: set[int] = set()

    def boxes() -> Iterator[tuple[int, int, list[float]]]:
        for member, item in read_members(path):
            if member == "categories":
                categories[int(item["id"])] = Category.of(item)
            elif member == "annotations":
                annotated.add(int(item["category_id"]))
                if not item.get("iscrowd") and min(item["bbox"][2:]) >= _LEAST_SIDE:
                    yield item["image_id"], int(item["category_id"]), item["bbox"]

    try:
        chosen = _sample(boxes(), seed)
        image_ids = {image for image, _, _ in chosen}
        files = {
            item["id"]: (path.parent / item["file_name"], (item.get("width"), item.get("height")))
            for member, item in read_members(path)
            if member == "images" and item["id"] in image_ids
        }
        # Paths outside the folder are treated like broken pictures.
        root = path.parent.resolve()
        converters: dict[int, BoxConverter] = {}
        bad: dict[Path, str] = {}
        for image, (file, coco_size) in files.items():
            inside = file.resolve().is_relative_to(root)
            converter = _converter_of(file, coco_size) if inside else f"outside the folder {str(root)!r}"
            if isinstance(converter, str):
                bad[file] = converter
            else:
                converters[image] = converter
        boxed = [
            (category, files[image][0], pixel_box)
            for image, category, box in chosen
            if image in converters and (pixel_box := converters[image](*box)) is not None
        ]
        objects, useless = _named(Categories(categories, annotated), boxed)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: objects must be a folder or a COCO file, got {error!r}") from None
    unread = [LeftOut(file, _unreadable(reason)) for file, reason in sorted(bad.items())]
    return objects, unread + [
        LeftOut(path, f"objects of {name!r}, which is above or below all others") for name in useless
    ]


def _named(
    classes: Categories, boxed: list[tuple[int, Path, tuple[int, int, int, int]]]
) -> tuple[list[Object], list[str]]:
    """Name objects (category, picture, box); also return the names that have no wrong option."""
    names = {number: classes.spelling(number) for number, _, _ in boxed}
    categories_of: dict[str, list[int]] = {}
    for number, name in names.items():
        categories_of.setdefault(name, []).append(number)
    maybe = {}
    for name, numbers in categories_of.items():
        absent = set(classes.absent_from(numbers))
        maybe[name] = tuple(sorted(other for other in categories_of if other != name and other not in absent))
    useless = sorted(name for name in categories_of if len(maybe[name]) == len(categories_of) - 1)
    return [
        Object(names[number], path, box, maybe[names[number]])
        for number, path, box in boxed
        if names[number] not in useless
    ], useless


PixelBox = tuple[int, int, int, int]
BoxConverter = Callable[[float, float, float, float], PixelBox | None]


def _converter_of(file: Path, coco_size: Size) -> BoxConverter | str:
    """Return a function that converts boxes [x, y, width, height] to whole pixels of the upright picture.

    It returns None for a box with a side of less than `_LEAST_SIDE` inside the picture.

    Returns:
        The function, or the reason why there is none: the picture cannot be read, or the boxes belong to
        another copy of it.
    """
    if fault := _fault(file):
        return fault
    try:
        size, header = check_picture(file), read_header(file)
        upright = boxes_are_upright(coco_size if all(coco_size) else None, header, size)
        turn_upright(np.zeros((1, 4)), header)
    except (ValueError, OSError, UserError) as error:
        return one_line(error)

    def convert(x: float, y: float, width: float, height: float) -> PixelBox | None:
        box = np.array([[x, y, x + width, y + height]], dtype=np.float64)
        x1, y1, x2, y2 = (box if upright else turn_upright(box, header))[0].tolist()
        left, top = max(math.floor(x1), 0), max(math.floor(y1), 0)
        right, bottom = min(math.ceil(x2), size[0]), min(math.ceil(y2), size[1])
        return (left, top, right, bottom) if min(right - left, bottom - top) >= _LEAST_SIDE else None

    return convert


def find_pictures(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """Find the pictures in a folder and its subfolders, sorted by name: the readable and the unreadable ones.

    Files without a picture suffix are skipped; `find_picture_files` lists them.
    """
    files, _ = find_picture_files(folder)
    faults = {path: _fault(path) for path in files}
    bad = [LeftOut(path, _unreadable(reason)) for path, reason in faults.items() if reason]
    return [path for path in files if not faults[path]], bad


def _unreadable(reason: str) -> str:
    return f"no readable picture ({reason})"


def _fault(path: Path) -> str:
    """Return the reason why a file cannot be read as a picture; empty if it can."""
    try:
        check_picture(path)
    except Exception as error:  # Pillow's decoders raise arbitrary exceptions on damaged files
        return one_line(error)
    return ""


def object_room(height: int) -> Size:
    """Return the size into which every object of this height is fitted."""
    return (round(1.5 * height), height)


def draw_object(item: Object, height: int) -> Image.Image:
    """Render an object, cropped tightly and scaled to fit `object_room`."""
    picture = load_rgba(item.path).crop(item.box or _visible_box(item.path))
    room = object_room(height)
    scale = min(room[0] / picture.width, room[1] / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


@functools.lru_cache(maxsize=_MOST_OBJECTS)
def _visible_box(path: Path) -> tuple[int, int, int, int] | None:
    """Return the box around the opaque pixels of a cut-out; None if it has none."""
    alpha = load_rgba(path).getchannel("A")
    return alpha.point([0] * _MIN_ALPHA + [255] * (256 - _MIN_ALPHA)).getbbox()
