"""Originals: read once, upright, and kept as long as they are needed.

The original is the picture after its EXIF rotation: so every viewer shows it, and so boxes are drawn.
"""

import mmap
import threading
import warnings
import weakref
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from lfpc_trl.pictures.sizes import Size, show

MAX_PIXELS = 1 << 28
"""Pixels above which a picture is refused by its header, before it is decoded: 268 million, so that 8K and
the 200 megapixels of a phone pass and a small file that claims gigapixels does not. Our choice."""

# Pillow's own limit would warn at 89 and refuse at 179 million pixels.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)


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
