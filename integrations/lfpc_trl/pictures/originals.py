"""Originals: read once, upright, and kept as long as they are needed.

The original is the picture after its EXIF rotation: so every viewer shows it, and so boxes are drawn.
"""

import io
import mmap
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from lfpc_trl.pictures.colours import conversions, to_rgb, to_rgba
from lfpc_trl.pictures.opening import MAX_PIXELS, check_file, open_picture, opened
from lfpc_trl.pictures.sizes import Size, show

PIXEL_BYTES = 4
"""Bytes of memory in which Pillow holds an RGB pixel."""


class _Room:
    """Memory for pictures that are being read; one that does not fit waits until it does.

    Args:
        max_bytes: a single picture is let in alone even above it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.start_anew()

    def start_anew(self) -> None:
        """Nothing is being read: so in a new process, where the threads that read do not exist."""
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def for_picture(self, size: Size) -> Iterator[None]:
        """Hold what a picture of this size needs while it is read: its pixels as stored, and as kept."""
        needed = 2 * PIXEL_BYTES * size[0] * size[1]
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + needed <= self._max_bytes)
            self._taken += needed
        try:
            yield
        finally:
            with self._changed:
                self._taken -= needed
                self._changed.notify_all()


_ROOM = _Room(2 * PIXEL_BYTES * MAX_PIXELS)
"""One of the largest pictures, or many small ones, in all threads together."""

_Key = tuple[str, int, int, Size | None]
"""Path, time of change, length of the file, size at which it is shown."""


class PictureCache:
    """Pictures by path and size, least recently used first out, bounded by the bytes of their pixels.

    A step of training shows and crops the same few originals hundreds of times. One decode per file even
    when several threads ask at once: the first one decodes, the others wait for it. A file that changed on
    disk is read again. The newest picture is always kept, even alone above the bound, and one that had to go
    is found again as long as someone holds it.

    Args:
        max_bytes: bound on the pixels held, 4 bytes each.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.max_bytes = max_bytes
        self.decodes = 0
        self.start_anew()
        _CACHES.add(self)

    def start_anew(self) -> None:
        """Forget everything: so in a forked process, which lacks the threads that hold locks and decode."""
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
        stat = check_file(path)
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
    return image.width * image.height * PIXEL_BYTES


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


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """How a picture is turned to be upright."""
    if image.format in _HEADER_FORMATS:
        return _TURNS.get(_orientation(image))
    image.load()  # Pillow turns a TIFF while it loads it
    return _TURNS.get(image.getexif().get(0x0112, 1))


def _decode(path: Path) -> Image.Image:
    with open_picture(path) as image, _ROOM.for_picture(image.size):
        turn = _turn_of(image)
        pixels = to_rgb(image)
        image.close()  # its pixels make room for those of the turned picture
        return pixels if turn is None else pixels.transpose(turn)


def load_cut_out(path: Path) -> Image.Image:
    """A picture with its transparency, as RGBA and upright; not kept.

    Args:
        path: the file.

    Raises:
        OSError: the file is missing or is not a picture that can be decoded.
    """
    with open_picture(path) as image, _ROOM.for_picture(image.size):
        turn = _turn_of(image)
        pixels = to_rgba(image)
        return pixels if turn is None else pixels.transpose(turn)


def load_small(path: Path, side: int) -> Image.Image:
    """A picture for a quick look, not kept: a JPEG is decoded at a fraction of its size.

    Args:
        path: the file.
        side: pixels that width and height have at least, if the picture has them.

    Returns:
        RGB, EXIF rotation applied.

    Raises:
        OSError: the file is missing or is not a picture that can be decoded.
    """
    with open_picture(path) as image, _ROOM.for_picture(image.size):
        turn = _turn_of(image)
        image.draft(None, (side, side))
        pixels = to_rgb(image)
        return pixels if turn is None else pixels.transpose(turn)


_CACHES: weakref.WeakSet[PictureCache] = weakref.WeakSet()


def _start_anew_in_child() -> None:
    _ROOM.start_anew()
    for cache in list(_CACHES):
        cache.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_in_child)


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
        conversions: how its colours become RGB, where that is more than unpacking them.
    """

    kind: str
    stored: Size
    orientation: int
    conversions: tuple[str, ...] = ()


def read_header(path: Path) -> Header:
    """The header of a picture; nothing is decoded.

    Raises:
        OSError: missing, no regular file, of no known format, larger than `MAX_PIXELS`, or of colours that
            have no rule.
    """
    with open_picture(path) as image:
        return Header(image.format or "", image.size, _orientation(image), conversions(image))


def check_picture(path: Path) -> Size:
    """The size of a picture after EXIF rotation, without decoding it where the format allows that.

    A PNG is checked chunk by chunk (lengths and checksums), a JPEG up to its end marker, so a download cut
    short is found at the price of reading the file. Other formats are decoded: their files hold no check.

    Raises:
        OSError: as for `read_header`, or cut short, or floats outside 0 to 1.
    """
    kind, (width, height), orientation, _ = read_header(path)
    if kind not in _HEADER_FORMATS:
        return _decode(path).size
    if kind == "PNG":
        with open_picture(path) as image:
            try:
                image.verify()
            except SyntaxError as error:  # Pillow's word for a broken chunk
                raise OSError(str(error)) from error
    elif not _jpeg_is_complete(path):
        raise OSError("the JPEG file is cut short")
    # Orientations 5 to 8 turn the picture on its side.
    return (height, width) if orientation >= 5 else (width, height)


@contextmanager
def _mapped(file: BinaryIO) -> Iterator[mmap.mmap | bytes]:
    """The bytes of a file without reading it whole; those of a picture inside a file are in memory."""
    if isinstance(file, io.BytesIO):
        yield file.getvalue()
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _jpeg_is_complete(path: Path) -> bool:
    """Walk the header segments to the first scan, then look for the end marker behind it.

    The walk skips thumbnails inside the header, which have end markers of their own; inside a scan the
    marker cannot occur by chance, because the coder escapes every 0xFF.
    """
    with opened(path) as file, _mapped(file) as data:
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
