"""Pictures: read once, shown small, cut from the original.

Sizes are (width, height) in pixels. Boxes are (x1, y1, x2, y2), half-open, in pixels of the original
unless a frame says otherwise. The original is the picture after its EXIF rotation, which is how every
viewer shows it and how boxes are drawn.

`factor` is the side in pixels of one visual token of the model (patch size times merge size, 28 for
Qwen2.5-VL, 32 for Qwen3-VL).
"""

import math
import mmap
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from PIL import Image, ImageOps

from lfpc_rewards import Frame, convert_frame, smart_resize

Size = tuple[int, int]
"""(width, height) in pixels."""
PixelBox = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in whole pixels of the original, half-open."""

MAX_ASPECT = 200.0
"""Qwen's processors refuse pictures longer than this times their width (transformers' smart_resize)."""

MAX_PIXELS = 1 << 28
"""Pixels above which a picture is refused by its header, before it is decoded: 268 million, so that 8K and
the 200 megapixels of a phone pass and a small file that claims gigapixels does not. Our choice."""

# Pillow's own limit would warn at 89 and refuse at 179 million pixels.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)

BOX_ERRORS = {
    "form": "bbox_2d must be four numbers: [x1, y1, x2, y2].",
    "inverted": "The box needs x1 < x2 and y1 < y2.",
    "outside": "The box is outside the image.",
    "thin": "The box is too small or too narrow.",
    "limit": "No more crops. Answer now.",
}
"""Every sentence with which the crop tool refuses a call. Fixed, so that a small model can learn them."""


class BoxError(ValueError):
    """A box that cannot be cut; the text is meant for the model."""

    def __init__(self, rule: str) -> None:
        super().__init__(BOX_ERRORS[rule])


# --- reading -----------------------------------------------------------------------------------------


_Key = tuple[str, int, int, Size | None]
"""Path, time of change, length of the file, size at which it is shown."""


class PictureCache:
    """Pictures by path and size, least recently used first out, bounded by the bytes of their pixels.

    A step of training shows and crops the same few originals hundreds of times. One decode per file even
    when several threads ask at once: the first one decodes, the others wait for it. A file that changed on
    disk is read again. The newest picture is always kept, even alone above the bound, and one that had to go
    is found again as long as someone holds it.

    Args:
        max_bytes: bound on the pixels held, 3 bytes each.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.max_bytes = max_bytes
        self.decodes = 0
        self._entries: OrderedDict[_Key, Future[Image.Image]] = OrderedDict()
        self._gone: weakref.WeakValueDictionary[_Key, Image.Image] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def load(self, path: Path, size: Size | None = None) -> Image.Image:
        """The original at `path`, or as it is shown at `size`. Shared: do not write into it.

        Returns:
            RGB, EXIF rotation applied.

        Raises:
            OSError: the file is missing or is not a picture that can be decoded.
        """
        stat = path.stat()
        key = (str(path), stat.st_mtime_ns, stat.st_size, size)
        with self._lock:
            future = self._entries.get(key)
            mine = future is None
            if future is None:
                future = self._entries[key] = Future()
                held = self._gone.get(key)
                if held is not None:
                    future.set_result(held)
                    mine = False
            self._entries.move_to_end(key)
        if mine:
            try:
                future.set_result(_decode(path) if size is None else show(self.load(path), size))
            except BaseException as error:
                with self._lock:
                    self._entries.pop(key, None)
                future.set_exception(error)
            else:
                self._make_room(decoded=size is None)
        return future.result()

    def _make_room(self, *, decoded: bool) -> None:
        with self._lock:
            self.decodes += decoded
            held = {key: _nbytes(f.result()) for key, f in self._entries.items() if f.done()}
            total = sum(held.values())
            for key in list(held)[:-1]:
                if total <= self.max_bytes:
                    break
                total -= held[key]
                self._gone[key] = self._entries.pop(key).result()


def _nbytes(image: Image.Image) -> int:
    return image.width * image.height * 3


# Formats whose rotation stands in the header that is read on opening. One function reads it for sizes and for
# pixels, so that the two cannot disagree.
_HEADER_FORMATS = ("JPEG", "MPO", "PNG")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    # Not image.getexif(): the PNG class decodes all pixels first, to look for metadata behind them.
    value = int(Image.Image.getexif(image).get(0x0112, 1))
    return value if value in _TURNS else 1


def _open(path: Path, kinds: tuple[str, ...] | None = None) -> Image.Image:
    try:
        return Image.open(path, formats=kinds)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise OSError(f"the picture claims more than {MAX_PIXELS} pixels") from None


def _decode(path: Path) -> Image.Image:
    with _open(path) as image:
        if image.format not in _HEADER_FORMATS:
            return ImageOps.exif_transpose(image).convert("RGB")
        turn = _TURNS.get(_orientation(image))
        pixels = image.convert("RGB")
        return pixels if turn is None else pixels.transpose(turn)


_PICTURES = PictureCache()


def load_original(path: str | Path) -> Image.Image:
    """The original at `path`, from the cache of this process; see `PictureCache.load`."""
    return _PICTURES.load(Path(path))


def load_shown(path: str | Path, size: Size) -> Image.Image:
    """The original at `path` resized to `size`, from the cache of this process; see `show`."""
    return _PICTURES.load(Path(path), size)


class Header(NamedTuple):
    """What the first bytes of a picture's file say.

    Attributes:
        kind: Pillow's name of the format, whatever the file's suffix is.
        stored: (width, height) as stored, before the EXIF rotation.
        orientation: the EXIF orientation, 1 (upright) to 8.
    """

    kind: str
    stored: Size
    orientation: int


def read_header(path: Path, kinds: tuple[str, ...] | None = None) -> Header:
    """The header of a picture; nothing is decoded.

    Args:
        path: the file.
        kinds: the formats that may be tried, in Pillow's names; all by default.

    Raises:
        OSError: missing, not a picture of these kinds, or larger than `MAX_PIXELS`.
    """
    with _open(path, kinds) as image:
        return Header(image.format or "", image.size, _orientation(image))


def check_picture(path: Path) -> Size:
    """The size of a picture after EXIF rotation, without decoding it where the format allows that.

    A PNG is checked chunk by chunk (lengths and checksums), a JPEG up to its end marker, so a download cut
    short is found at the price of reading the file. Other formats are decoded: their files hold no check.

    Raises:
        OSError: missing, not a picture, or cut short.
    """
    kind, (width, height), orientation = read_header(path)
    if kind not in _HEADER_FORMATS:
        with _open(path) as image:
            return ImageOps.exif_transpose(image).size
    if kind == "PNG":
        with _open(path) as image:
            try:
                image.verify()
            except SyntaxError as error:  # Pillow's word for a broken chunk
                raise OSError(str(error)) from error
    elif not _jpeg_is_complete(path):
        raise OSError("the JPEG file is cut short")
    # Orientations 5 to 8 turn the picture on its side.
    return (height, width) if orientation >= 5 else (width, height)


def _jpeg_is_complete(path: Path) -> bool:
    """Walk the header segments to the first scan, then look for the end marker behind it.

    The walk skips thumbnails inside the header, which have end markers of their own; inside a scan the
    marker cannot occur by chance, because the coder escapes every 0xFF.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 2
        while at + 4 <= len(data):
            marker = data[at + 1]
            if data[at] != 0xFF or marker == 0xFF:
                at += 1  # padding, or junk that decoders skip
            elif marker == 0xDA:
                return data.find(b"\xff\xd9", at) != -1
            else:
                at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


# --- showing -----------------------------------------------------------------------------------------


def _fit(size: Size, max_tokens: int, factor: int) -> Size:
    width, height = size
    tall, wide = smart_resize(
        height, width, factor=factor, min_pixels=factor * factor, max_pixels=max_tokens * factor * factor
    )
    # A strip that is rounded up to one token across may become too long for the processors.
    return min(int(wide), int(MAX_ASPECT) * int(tall)), min(int(tall), int(MAX_ASPECT) * int(wide))


def shown_size(original_size: Size, max_tokens: int, *, factor: int) -> Size:
    """The size at which a picture is shown with at most `max_tokens` visual tokens.

    Both sides are multiples of `factor`, so the model's processor leaves the picture as it is and the
    boxes of a model that counts in shown pixels need no further scale. A picture that needs fewer tokens
    than allowed is shown at its own size (rounded to whole tokens), never larger. A strip too long for
    the budget keeps one token across and may exceed it.

    Args:
        original_size: (width, height) in pixels; the longer side at most 200 times the shorter.
        max_tokens: visual tokens, at least 1.
        factor: pixels per token side.

    Returns:
        (width, height) in pixels.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    return _fit(original_size, max_tokens, factor)


def tokens_of(size: Size, factor: int) -> int:
    """Visual tokens of a picture whose sides are multiples of `factor`."""
    return (size[0] // factor) * (size[1] // factor)


def show(image: Image.Image, size: Size) -> Image.Image:
    """`image` resized to `size` (bicubic with antialiasing, as Qwen's processors do)."""
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def budget_ladder(original_size: Size, *, factor: int, finest: int, coarsest: int) -> list[int]:
    """Token budgets from fine to coarse: the original's own (at most `finest`), halved down to `coarsest`.

    Returns:
        Falling budgets; the last is `coarsest`, or the original's own where that is smaller already.

    Source:
        The paper downsamples "step by step" and gives no steps: halving is our choice.
    """
    if not 1 <= coarsest <= finest:
        raise ValueError(f"needs 1 <= coarsest <= finest, got coarsest {coarsest} and finest {finest}")
    budget = tokens_of(_fit(original_size, finest, factor), factor)
    ladder = [budget]
    while budget > coarsest:
        budget = max(budget // 2, coarsest)
        ladder.append(budget)
    return ladder


# --- cutting -----------------------------------------------------------------------------------------

MIN_SIDE = 8
"""Shortest side of a crop in pixels of the original; below it nothing can be seen. Our choice."""

MAX_CROP_ASPECT = 100.0
"""Longest crop allowed, well inside what the processors accept after rounding to whole tokens."""


def crop_box(
    bbox: object, *, frame: Frame, shown_size: Size, original_size: Size, min_side: int = MIN_SIDE
) -> PixelBox:
    """The box that is really cut for a box the model asked for: the one source of truth for tool and scores.

    The corners go from `frame` to the original's pixels, outwards to whole pixels, and into the picture.

    Args:
        bbox: what the model wrote: anything. Four finite numbers x1, y1, x2, y2 are accepted.
        frame: the frame the model counts in.
        shown_size: size of the picture the model saw.
        original_size: size of the original.
        min_side: shortest side in pixels of the original.

    Returns:
        Whole pixels of the original, inside it.

    Raises:
        BoxError: with one of `BOX_ERRORS`.
    """
    if not isinstance(bbox, (list, tuple)) or len(bbox) != 4:
        raise BoxError("form")
    # bool is an int to Python, but True is no coordinate.
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in bbox):
        raise BoxError("form")
    # A hundred-digit integer is valid JSON and overflows a float; 1e9 is outside every picture all the same.
    limit = 10**9
    if not all(value == value and abs(value) <= limit for value in cast("Sequence[float]", bbox)):
        raise BoxError("outside" if all(value == value for value in bbox) else "form")
    x1, y1, x2, y2 = (float(value) for value in bbox)
    if x1 >= x2 or y1 >= y2:
        raise BoxError("inverted")
    moved = convert_frame(
        np.array([[x1, y1, x2, y2]]),
        frame,
        Frame.ORIGINAL,
        original_size=original_size,
        shown_size=shown_size,
    )[0]
    left, top = (math.floor(value) for value in moved[:2])
    right, bottom = (math.ceil(value) for value in moved[2:])
    width, height = original_size
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if left >= right or top >= bottom:
        raise BoxError("outside")
    wide, tall = right - left, bottom - top
    if min(wide, tall) < min_side or max(wide, tall) > MAX_CROP_ASPECT * min(wide, tall):
        raise BoxError("thin")
    return left, top, right, bottom


def crop_size(box: PixelBox, *, factor: int, max_tokens: int) -> Size:
    """The size at which `box` comes back: its own in whole tokens, shrunk only above `max_tokens`."""
    return _fit((box[2] - box[0], box[3] - box[1]), max_tokens, factor)


def cut(original: Image.Image, box: PixelBox, *, factor: int, max_tokens: int) -> Image.Image:
    """The part `box` of the original at native resolution; see `crop_size` for its size."""
    return show(original.crop(box), crop_size(box, factor=factor, max_tokens=max_tokens))
