"""Place and draw signs on a picture without overlap, and compute the nested boxes of each."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from lfpc_trl.errors import UserError
from lfpc_trl.pictures.sizes import Size
from lfpc_trl.synthesize.contents import Object, draw_object, draw_text, object_room, text_room

PixelBox = tuple[int, int, int, int]

COLOURS = {
    "red": (200, 30, 38),
    "green": (20, 140, 60),
    "blue": (30, 80, 200),
    "yellow": (240, 195, 20),
    "orange": (240, 125, 20),
    "purple": (120, 45, 150),
}
SHAPES = ("rectangular", "oval", "diamond-shaped")
PLATE = (250, 250, 248)
POLE = (90, 92, 96)

_TRIES = 400
_SMOOTH = 4


class Plan(NamedTuple):
    """A sign without a position.

    Attributes:
        colour: a name in `COLOURS`.
        shape: a name in `SHAPES`.
        content: a word, or a user's object.
        height: height of the word, or of the space for the object, in pixels.
    """

    colour: str
    shape: str
    content: str | Object
    height: int


class Sign(NamedTuple):
    """A sign on a picture.

    Attributes:
        plan: its color, shape and content.
        boxes: (x1, y1, x2, y2) in pixels, half-open, inner to outer: the ink of the word (or the visible part
            of the object), the plate, the board, the board with its pole.
    """

    plan: Plan
    boxes: tuple[PixelBox, PixelBox, PixelBox, PixelBox]

    @property
    def name(self) -> str:
        """Its content in words."""
        content = self.plan.content
        return content.name if isinstance(content, Object) else content

    @property
    def maybe(self) -> tuple[str, ...]:
        """Other names that may also apply to its content."""
        content = self.plan.content
        return content.maybe if isinstance(content, Object) else ()


def draw_signs(rng: np.random.Generator, picture: Image.Image, plans: Sequence[Plan]) -> list[Sign]:
    """Draw signs on a picture (in place), apart from each other.

    Raises:
        UserError: they do not fit.
    """
    boxes = _place(rng, picture.size, [_sizes(plan) for plan in plans])
    return [_draw(rng, picture, plan, box) for plan, box in zip(plans, boxes, strict=True)]


# --- placement ---------------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    plate: Size
    board: Size
    pole: Size


def _sizes(plan: Plan) -> _Sizes:
    room = object_room(plan.height) if isinstance(plan.content, Object) else text_room(plan.height)
    pad, margin = max(2, round(0.4 * plan.height)), max(2, round(0.3 * plan.height))
    plate = (room[0] + 2 * pad, room[1] + 2 * pad)
    # Smallest ellipse or diamond around the plate with its aspect ratio.
    grow = {"rectangular": 1.0, "oval": math.sqrt(2), "diamond-shaped": 2.0}[plan.shape]
    board = (math.ceil(plate[0] * grow) + 2 * margin, math.ceil(plate[1] * grow) + 2 * margin)
    return _Sizes(plate, board, (max(2, round(0.3 * plan.height)), round(1.2 * board[1])))


def _place(rng: np.random.Generator, size: Size, signs: Sequence[_Sizes]) -> list[PixelBox]:
    """Choose a box for every sign and its pole, with gaps between them."""
    boxes: list[PixelBox] = []
    for sign in signs:
        width, height = sign.board[0], sign.board[1] + sign.pole[1]
        gap = max(4, sign.board[1] // 4)
        for _ in range(_TRIES if width < size[0] and height < size[1] else 0):
            x, y = int(rng.integers(size[0] - width)), int(rng.integers(size[1] - height))
            if all(
                x + width + gap <= box[0]
                or box[2] + gap <= x
                or y + height + gap <= box[1]
                or box[3] + gap <= y
                for box in boxes
            ):
                boxes.append((x, y, x + width, y + height))
                break
        else:
            raise UserError(
                f"{len(signs)} signs of {width} x {height} pixels do not fit on {size[0]} x {size[1]}: "
                "use smaller --target-pixels or larger pictures"
            )
    return boxes


# --- drawing -----------------------------------------------------------------------------------------


def _draw(rng: np.random.Generator, picture: Image.Image, plan: Plan, box: PixelBox) -> Sign:
    sizes = _sizes(plan)
    x1, y1, x2, _ = box
    board = (x1, y1, x2, y1 + sizes.board[1])
    pole_x = x1 + (sizes.board[0] - sizes.pole[0]) // 2
    pole = (pole_x, board[3] - sizes.board[1] // 2, pole_x + sizes.pole[0], box[3])
    picture.paste(POLE, pole)
    fill = tuple(
        int(value) for value in np.clip(np.array(COLOURS[plan.colour]) + rng.integers(-12, 13), 0, 255)
    )
    picture.paste(fill, board, _mask(plan.shape, sizes.board))
    plate = _centred(sizes.plate, board)
    picture.paste(PLATE, plate)
    content = plan.content
    ink = (
        draw_object(content, plan.height) if isinstance(content, Object) else draw_text(content, plan.height)
    )
    inner = _centred(ink.size, plate)
    picture.paste(ink, inner, ink)
    return Sign(plan, (inner, plate, board, box))


def _mask(shape: str, size: Size) -> Image.Image:
    """Return an antialiased mask of a board; it touches every side of its box."""
    width, height = size[0] * _SMOOTH, size[1] * _SMOOTH
    mask = Image.new("L", (width, height))
    pen = ImageDraw.Draw(mask)
    if shape == "oval":
        pen.ellipse((0, 0, width - 1, height - 1), fill=255)
    elif shape == "diamond-shaped":
        pen.polygon(
            [(width / 2, 0), (width - 1, height / 2), (width / 2, height - 1), (0, height / 2)], fill=255
        )
    else:
        pen.rounded_rectangle((0, 0, width - 1, height - 1), radius=height // 8, fill=255)
    return mask.resize(size, Image.Resampling.BOX)


def _centred(size: Size, box: PixelBox) -> PixelBox:
    x, y = (box[0] + box[2] - size[0]) // 2, (box[1] + box[3] - size[1]) // 2
    return x, y, x + size[0], y + size[1]
