"""Colors: convert any picture to 8-bit RGB, so that the model sees what a person sees.

Pillow's own conversion clips 16-bit and float values at 255 and shows transparent pixels in their hidden
color. Here, as in the processors of transformers and qwen-vl-utils, transparent pixels are put on white;
16-bit gray becomes its high byte, as Pillow does for 16-bit RGB; floats are multiplied by 255. Color profiles
are not applied, as in those processors.
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
# Some or all versions of Pillow read 16-bit gray in these formats as 32 bits.
_GREY_16_IN_I = ("PNG", "PPM")
_STRIP_PIXELS = 1 << 22
"""Pixels converted at a time, to limit the memory needed in addition to the picture and its result."""


def conversions(image: Image.Image) -> tuple[str, ...]:
    """Return the conversions that an opened picture needs beyond unpacking its values.

    Raises:
        OSError: its values cannot be interpreted as visible colors.
    """
    # The MPO files of phones also hold a depth or brightness map, which is not a second frame.
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
    kind = "32-bit or signed 16-bit integers" if image.mode == "I" else f"colors in mode {image.mode}"
    raise OSError(f"{kind} have no known range or display meaning: save it in 8 or 16 bits")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture to RGB by the rules above, without rotating it.

    Raises:
        OSError: damaged, or no rule applies: floats outside 0 to 1, integers of unknown range.
    """
    return _convert(image, "RGB")


def to_rgba(image: Image.Image) -> Image.Image:
    """Convert a picture to RGBA like `to_rgb`, keeping transparency; opaque if it has none."""
    return _convert(image, "RGBA")


def _convert(image: Image.Image, mode: str) -> Image.Image:
    rules = _rules(image)
    depth = _bits(image)
    inverted = _zero_is_white(image)
    key = _colour_key(image)
    image.load()  # rotates a TIFF
    if not rules:
        return image.convert(mode)
    result = Image.new(mode, image.size)
    for box in _strips(image):
        part = image.crop(box)
        needs_opaque = key is not None or part.mode in ("F", "I", *_GREY_16)
        eight_bit = _opaque(part, depth, inverted) if needs_opaque else part
        rgba = eight_bit.convert("LA" if eight_bit.mode == "La" else "RGBA").convert("RGBA")
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
    """Return the bit depth of 16-bit gray: a TIFF may use 12 bits, which Pillow does not scale."""
    bits_per_sample = getattr(image, "tag_v2", {}).get(258, (16,))
    return int(bits_per_sample[0])


def _zero_is_white(image: Image.Image) -> bool:
    """Whether 0 is white in a TIFF; Pillow inverts this for 8 bits only."""
    return int(getattr(image, "tag_v2", {}).get(262, 1)) == 0


def _opaque(part: Image.Image, bits: int, inverted: bool) -> Image.Image:
    """Convert a part to 8 bits without transparency."""
    if part.mode == "F":
        values = np.asarray(part, dtype=np.float32)
        if not ((values >= 0) & (values <= 1)).all():  # NaN is neither
            got = f"{float(values.min()):g} to {float(values.max()):g}"
            raise OSError(f"float values must be between 0 and 1 to be displayed, got {got}")
        grey = np.rint(values * 255)
        return Image.fromarray((255 - grey if inverted else grey).astype(np.uint8))
    if part.mode in ("I", *_GREY_16):
        high = (np.asarray(part, dtype=np.int64) >> (bits - 8)).clip(0, 255)
        return Image.fromarray((255 - high if inverted else high).astype(np.uint8))
    plain = part.copy()
    plain.info.pop("transparency", None)
    return plain.convert("RGB")


def _colour_key(image: Image.Image) -> tuple[int, ...] | None:
    """Return the transparent color of a PNG without alpha, in the units of Pillow's pixels."""
    transparent = image.info.get("transparency")
    if image.mode not in ("1", "L", "I", "RGB", *_GREY_16):
        return None
    if transparent is None or isinstance(transparent, bytes):
        return None
    values = transparent if isinstance(transparent, tuple) else (transparent,)
    tiles = getattr(image, "tile", None)
    raw = tiles[0][3] if tiles else None
    raw = raw if isinstance(raw, str) else image.mode
    # The color has the bit depth of the file, pixels have Pillow's.
    scale = {"1": 255, "L;2": 85, "L;4": 17}.get(raw, 1)
    return tuple(value >> 8 if raw == "RGB;16B" else value * scale for value in values)


def _alpha(part: Image.Image, key: tuple[int, ...]) -> NDArray[np.uint8]:
    plain = part.convert("L") if part.mode == "1" else part
    values = np.asarray(plain, dtype=np.int64).reshape(part.height, part.width, -1)
    return np.where((values == np.array(key)).all(axis=-1), 0, 255).astype(np.uint8)
