"""What stands on a sign: rendered text, or a user's object."""

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
from lfpc_trl.pictures.boxes import count_upright, turn_upright
from lfpc_trl.pictures.opening import LeftOut, find_picture_files
from lfpc_trl.pictures.originals import check_picture, load_cut_out, read_header
from lfpc_trl.pictures.sizes import Size

LETTERS = "ACDEFHJKLMNPRTUVWXY34679"
"""Letters and digits of the words on signs, without those that look alike (O and 0, I and 1, S and 5, B and
8)."""
LENGTH = 4
"""Characters of a word: one guess in 330,000 is right. Always the same number, so that the width of a sign
on the overview gives nothing away."""
INK = (16, 16, 20)

_MOST_OBJECTS = 5000
_LEAST_SIDE = 24
_SEEN = 128
"""Alpha from which a pixel belongs to an object."""


Item = TypeVar("Item")


class Object(NamedTuple):
    """A user's object: a picture with a transparent background, or a box on a photograph.

    Attributes:
        name: what it is.
        path: of its picture.
        box: around it on the upright photograph, in whole pixels; None for a cut-out.
        maybe: names of other objects that may be true of it, too: a car is a vehicle.
    """

    name: str
    path: Path
    box: tuple[int, int, int, int] | None
    maybe: tuple[str, ...] = ()

    def may_be_taken_for(self, other: "Object") -> bool:
        """Whether one name may be true of both."""
        return self.name == other.name or self.name in other.maybe or other.name in self.maybe


# --- text --------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)  # Pillow carries it: the same letters on every machine
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


@functools.lru_cache(maxsize=256)
def _font_of_height(height: int) -> ImageFont.FreeTypeFont:
    """The font whose capital E has at most `height` pixels of ink, as near as it gets."""
    size = height
    while _ink("E", _font(size + 1)).height <= height:
        size += 1
    return _font(size)


def _ink(text: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The coverage of a text, cut to the pixels that have any."""
    left, top, right, bottom = (int(side) for side in font.getbbox(text))
    mask = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(mask).text((2 - left, 2 - top), text, font=font, fill=255)
    return mask.crop(mask.getbbox())


def random_word(rng: np.random.Generator) -> str:
    """A word that means nothing."""
    return "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=LENGTH))


def near_word(rng: np.random.Generator, word: str) -> str:
    """A word that differs in one character."""
    place = int(rng.integers(len(word)))
    other = [letter for letter in LETTERS if letter != word[place]]
    return word[:place] + other[int(rng.integers(len(other)))] + word[place + 1 :]


@functools.lru_cache(maxsize=256)
def text_room(height: int) -> Size:
    """The size into which every word of this height fits."""
    font = _font_of_height(height)
    widest = max(_ink(letter, font).width for letter in LETTERS)
    return (LENGTH * widest + LENGTH * max(1, height // 8), round(1.1 * height))


def draw_text(text: str, height: int) -> Image.Image:
    """A text as ink with its coverage as alpha; every edge of the picture holds some ink."""
    mask = _ink(text, _font_of_height(height))
    picture = Image.new("RGBA", mask.size, (*INK, 0))
    picture.putalpha(mask)
    return picture


# --- objects -----------------------------------------------------------------------------------------


def find_objects(path: Path, seed: int) -> tuple[list[Object], list[LeftOut]]:
    """The objects of a folder of cut-outs, or of a COCO file: at most 5,000, chosen by the seed.

    A cut-out's name is that of its file without a number at its end: `red-mug_2.png` is a "red mug". The
    pictures of a COCO file stand beside it; crowds and instances of which less than 24 pixels lie inside
    their picture are left out, and objects of a category that is above or below all others.

    Returns:
        The objects, and the files that are left out.

    Raises:
        UserError: there are fewer than four different names.
    """
    chosen, bad = _cut_outs(path, seed) if path.is_dir() else _from_coco(path, seed)
    names = sorted({each.name for each in chosen})
    if len(names) < 4:
        raise UserError(f"{path}: objects of at least four names are needed, got {names}")
    return chosen, bad


def _chosen(items: Iterable[Item], seed: int) -> list[Item]:
    """A sample of a stream of unknown length, everything equally likely."""
    rng = random.Random(seed)
    chosen: list[Item] = []
    for count, item in enumerate(items, start=1):
        if len(chosen) < _MOST_OBJECTS:
            chosen.append(item)
        elif (place := rng.randrange(count)) < _MOST_OBJECTS:
            chosen[place] = item
    return chosen


def _cut_outs(folder: Path, seed: int) -> tuple[list[Object], list[LeftOut]]:
    good, bad = find_pictures(folder)
    chosen = _chosen((Object(_name(path), path, None) for path in good), seed)
    empty = {item.path for item in chosen if _seen_box(item.path) is None}
    bad += [LeftOut(path, _unreadable("all of it is transparent")) for path in empty]
    return [item for item in chosen if item.path not in empty], sorted(bad)


def _name(path: Path) -> str:
    words = re.split(r"[\W_]+", re.sub(r"[\W_]*\d*$", "", path.stem))
    return " ".join(words).strip().lower() or path.stem


def _from_coco(path: Path, seed: int) -> tuple[list[Object], list[LeftOut]]:
    """Two passes: the boxes first, then the files of those that were chosen; neither is held as a whole."""
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
        chosen = _chosen(boxes(), seed)
        wanted = {image for image, _, _ in chosen}
        files = {
            item["id"]: (path.parent / item["file_name"], (item.get("width"), item.get("height")))
            for member, item in read_members(path)
            if member == "images" and item["id"] in wanted
        }
        # A path that leads out of the folder is no better than a broken picture.
        root = path.parent.resolve()
        turns: dict[int, Turn] = {}
        bad: dict[Path, str] = {}
        for image, (file, said) in files.items():
            inside = file.resolve().is_relative_to(root)
            turn = _turn_of(file, said) if inside else f"outside the folder {str(root)!r}"
            if isinstance(turn, str):
                bad[file] = turn
            else:
                turns[image] = turn
        cut = [
            (category, files[image][0], whole)
            for image, category, box in chosen
            if image in turns and (whole := turns[image](*box)) is not None
        ]
        objects, useless = _named(Categories(categories, annotated), cut)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: objects must be a folder or a COCO file, got {error!r}") from None
    unread = [LeftOut(file, _unreadable(reason)) for file, reason in sorted(bad.items())]
    return objects, unread + [
        LeftOut(path, f"objects of {name!r}, which is above or below all others") for name in useless
    ]


def _named(
    classes: Categories, cut: list[tuple[int, Path, tuple[int, int, int, int]]]
) -> tuple[list[Object], list[str]]:
    """Objects (category, picture, box) with their names, and names for which there is no wrong option."""
    names = {number: classes.spelling(number) for number, _, _ in cut}
    twins: dict[str, list[int]] = {}
    for number, name in names.items():
        twins.setdefault(name, []).append(number)
    maybe = {}
    for name, numbers in twins.items():
        absent = set(classes.absent_from(numbers))
        maybe[name] = tuple(sorted(other for other in twins if other != name and other not in absent))
    useless = sorted(name for name in twins if len(maybe[name]) == len(twins) - 1)
    return [
        Object(names[number], path, box, maybe[names[number]])
        for number, path, box in cut
        if names[number] not in useless
    ], useless


Whole = tuple[int, int, int, int]
Turn = Callable[[float, float, float, float], Whole | None]


def _turn_of(file: Path, said: Size) -> Turn | str:
    """How the boxes of a picture, [x, y, width, height], become boxes of the upright one in whole pixels.

    A box of which less than `_LEAST_SIDE` lies inside the picture becomes None.

    Returns:
        The function, or why there is none: a picture that cannot be read, or of which the boxes are those of
        another copy.
    """
    if fault := _fault(file):
        return fault
    try:
        size, header = check_picture(file), read_header(file)
        upright = count_upright(said if all(said) else None, header, size)
        turn_upright(np.zeros((1, 4)), header)
    except (ValueError, OSError, UserError) as error:
        return one_line(error)

    def turn(x: float, y: float, width: float, height: float) -> Whole | None:
        box = np.array([[x, y, x + width, y + height]], dtype=np.float64)
        x1, y1, x2, y2 = (box if upright else turn_upright(box, header))[0].tolist()
        left, top = max(math.floor(x1), 0), max(math.floor(y1), 0)
        right, bottom = min(math.ceil(x2), size[0]), min(math.ceil(y2), size[1])
        return (left, top, right, bottom) if min(right - left, bottom - top) >= _LEAST_SIDE else None

    return turn


def find_pictures(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """The pictures of a folder and its folders, by name: those that can be read, and those that cannot.

    Files without the suffix of a picture are passed over; `find_picture_files` names them.
    """
    files, _ = find_picture_files(folder)
    faults = {path: _fault(path) for path in files}
    bad = [LeftOut(path, _unreadable(reason)) for path, reason in faults.items() if reason]
    return [path for path in files if not faults[path]], bad


def _unreadable(reason: str) -> str:
    return f"no readable picture ({reason})"


def _fault(path: Path) -> str:
    """Why a file cannot be read as a picture; empty if it can."""
    try:
        check_picture(path)
    except Exception as error:  # Pillow's decoders raise what they like on damaged files
        return one_line(error)
    return ""


def object_room(height: int) -> Size:
    """The size into which every object of this height is fitted."""
    return (round(1.5 * height), height)


def draw_object(item: Object, height: int) -> Image.Image:
    """An object, fitted into its room; every edge of the picture holds something of it."""
    picture = load_cut_out(item.path).crop(item.box or _seen_box(item.path))
    room = object_room(height)
    scale = min(room[0] / picture.width, room[1] / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


@functools.lru_cache(maxsize=_MOST_OBJECTS)
def _seen_box(path: Path) -> tuple[int, int, int, int] | None:
    """Around what of a cut-out is not transparent; None if all of it is."""
    alpha = load_cut_out(path).getchannel("A")
    return alpha.point([0] * _SEEN + [255] * (256 - _SEEN)).getbbox()
