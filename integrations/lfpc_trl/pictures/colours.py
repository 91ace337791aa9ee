"""Colours: what a file holds becomes RGB in 8 bits, so that the model gets what a person sees.

Pillow's own conversion cuts 16-bit and float values off at 255 and paints what is transparent in whatever
colour lies below it. Here, as in the processors of transformers and qwen-vl-utils, what is transparent
stands on white; grey of 16 bits is its high byte, as Pillow reads RGB of 16 bits; floats are times 255.
Colour profiles are not applied, as in those processors.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ON_WHITE = "alpha onto white"
HIGH_BYTE = "16-bit grey to 8 bits"
TIMES_255 = "floats to 8 bits"
FIRST_FRAME = "first of several frames"

_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
# Pillow reads 16-bit grey of these as 32 bits, in some versions or always.
_GREY_16_IN_I = ("PNG", "PPM")
_STRIP_PIXELS = 1 << 22
"""Pixels that are converted at a time: what is needed beside the picture and its result stays small."""


def conversions(image: Image.Image) -> tuple[str, ...]:
    """In which ways a picture that was opened is not simply what its file holds.

    Raises:
        OSError: its values have no meaning as colours that a person would see.
    """
    # A phone's MPO holds depth or brightness besides the picture, which is no second frame.
    several = getattr(image, "is_animated", False) and image.format != "MPO"
    return (*_rules(image), FIRST_FRAME) if several else _rules(image)


def _rules(image: Image.Image) -> tuple[str, ...]:
    if _is_grey_16(image):
        return (HIGH_BYTE, ON_WHITE) if "transparency" in image.info else (HIGH_BYTE,)
    if image.mode == "F":
        return (TIMES_255,)
    if image.mode in _ALPHA or image.has_transparency_data:
        return (ON_WHITE,)
    if image.mode in _PLAIN:
        return ()
    kind = "whole numbers of 32 or signed 16 bits" if image.mode == "I" else f"colours as {image.mode}"
    raise OSError(f"{kind} have no known range or meaning for the eye: save it in 8 or 16 bits")


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture as RGB, not turned; see the rules above.

    Raises:
        OSError: damaged, or without a rule: floats outside 0 to 1, whole numbers of unknown range.
    """
    return _convert(image, "RGB")


def to_rgba(image: Image.Image) -> Image.Image:
    """As `to_rgb`, for pictures whose transparency is wanted; without any they are opaque."""
    return _convert(image, "RGBA")


def _convert(image: Image.Image, mode: str) -> Image.Image:
    rules = _rules(image)
    depth = _bits(image)
    inverted = _zero_is_white(image)
    key = _colour_key(image)
    image.load()  # which turns a TIFF
    if not rules:
        return image.convert(mode)
    result = Image.new(mode, image.size)
    for box in _strips(image):
        part = image.crop(box)
        seen = (
            _opaque(part, depth, inverted) if key is not None or part.mode in ("F", "I", *_GREY_16) else part
        )
        rgba = seen.convert("LA" if seen.mode == "La" else "RGBA").convert("RGBA")
        if key is not None:
            rgba.putalpha(Image.fromarray(_alpha(part, key)))
        if mode == "RGB":
            white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
            rgba = Image.alpha_composite(white, rgba).convert("RGB")
        result.paste(rgba, box)
    return result


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    lines = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, lines):
        yield 0, top, image.width, min(top + lines, image.height)


def _is_grey_16(image: Image.Image) -> bool:
    return image.mode in _GREY_16 or (image.mode == "I" and image.format in _GREY_16_IN_I)


def _bits(image: Image.Image) -> int:
    """Bits of a value of 16-bit grey: a TIFF may hold 12, which Pillow does not scale."""
    found = getattr(image, "tag_v2", {}).get(258, (16,))
    return int(found[0])


def _zero_is_white(image: Image.Image) -> bool:
    """Whether a TIFF counts from white to black; Pillow turns this round for 8 bits only."""
    return int(getattr(image, "tag_v2", {}).get(262, 1)) == 0


def _opaque(part: Image.Image, bits: int, inverted: bool) -> Image.Image:
    """A part without its transparency, in 8 bits."""
    if part.mode == "F":
        values = np.asarray(part, dtype=np.float32)
        if not ((values >= 0) & (values <= 1)).all():  # NaN is neither
            found = f"{float(values.min()):g} to {float(values.max()):g}"
            raise OSError(f"float values must lie in 0 to 1 to be seen as they are meant, got {found}")
        grey = np.rint(values * 255)
        return Image.fromarray((255 - grey if inverted else grey).astype(np.uint8))
    if part.mode in ("I", *_GREY_16):
        high = (np.asarray(part, dtype=np.int64) >> (bits - 8)).clip(0, 255)
        return Image.fromarray((255 - high if inverted else high).astype(np.uint8))
    plain = part.copy()
    plain.info.pop("transparency", None)
    return plain.convert("RGB")


def _colour_key(image: Image.Image) -> tuple[int, ...] | None:
    """The one colour that a PNG without alpha calls transparent, in the values of Pillow's pixels."""
    found = image.info.get("transparency")
    if image.mode not in ("1", "L", "I", "RGB", *_GREY_16) or found is None or isinstance(found, bytes):
        return None
    values = found if isinstance(found, tuple) else (found,)
    tiles = getattr(image, "tile", None)
    raw = tiles[0][3] if tiles else None
    raw = raw if isinstance(raw, str) else image.mode
    # A sample counts in the depth of the file, a pixel in that of Pillow.
    scale = {"1": 255, "L;2": 85, "L;4": 17}.get(raw, 1)
    return tuple(value >> 8 if raw == "RGB;16B" else value * scale for value in values)


def _alpha(part: Image.Image, key: tuple[int, ...]) -> NDArray[np.uint8]:
    plain = part.convert("L") if part.mode == "1" else part
    values = np.asarray(plain, dtype=np.int64).reshape(part.height, part.width, -1)
    return np.where((values == np.array(key)).all(axis=-1), 0, 255).astype(np.uint8)
