"""Originals: decoded once, rotated upright, and cached.

The original is the picture after its EXIF rotation, as viewers show it and as boxes are drawn on it.
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
"""Bytes of memory per RGB pixel in Pillow."""


class _DecodeMemory:
    """Limits the memory for pictures being decoded; a picture that does not fit waits until it does.

    Args:
        max_bytes: the limit; a single larger picture is still decoded, alone.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.start_anew()

    def start_anew(self) -> None:
        """Release all memory; needed after a fork, because the decoding threads do not survive it."""
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def for_picture(self, size: Size) -> Iterator[None]:
        """Reserve memory for decoding a picture of this size: its stored and its converted pixels."""
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


_DECODE_MEMORY = _DecodeMemory(2 * PIXEL_BYTES * MAX_PIXELS)
"""Room for one picture of the maximum size, or many small ones, over all threads."""

_Key = tuple[str, int, int, Size | None]
"""Path, modification time, file length, shown size."""


class PictureCache:
    """An LRU cache of pictures by path and size, bounded by the bytes of their pixels.

    A training step shows and crops the same few originals hundreds of times. Each file is decoded once, even
    if several threads request it: the first one decodes, the others wait. A file that changed on disk is
    read again. The newest picture is always kept, even if it exceeds the bound by itself; an evicted picture
    is found again as long as it is in use elsewhere.

    Args:
        max_bytes: bound on the cached pixels, 4 bytes each.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.max_bytes = max_bytes
        self.decodes = 0
        self.start_anew()
        _CACHES.add(self)

    def start_anew(self) -> None:
        """Forget everything; needed after a fork, because threads that hold locks or decode are gone."""
        self._entries: OrderedDict[_Key, Future[Image.Image]] = OrderedDict()
        self._evicted: weakref.WeakValueDictionary[_Key, Image.Image] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def load(self, path: Path, size: Size | None = None) -> Image.Image:
        """Return the original at `path`, resized to `size` if given. It is shared: do not modify it.

        Returns:
            RGB, EXIF rotation applied.

        Raises:
            OSError: the file is missing or is not a picture that can be decoded.
        """
        stat = check_file(path)
        key = (str(path), stat.st_mtime_ns, stat.st_size, size)
        with self._lock:
            future = self._entries.get(key)
            must_load = future is None
            if future is None:
                future = self._entries[key] = Future()
                evicted = self._evicted.get(key)
                if evicted is not None:
                    future.set_result(evicted)
                    must_load = False
            self._entries.move_to_end(key)
        if must_load:
            try:
                future.set_result(_decode(path) if size is None else show(self.load(path), size))
            except BaseException as error:
                with self._lock:
                    self._entries.pop(key, None)
                future.set_exception(error)
            else:
                self._evict(decoded=size is None)
        return future.result()

    def _evict(self, *, decoded: bool) -> None:
        with self._lock:
            self.decodes += decoded
            nbytes = {key: _nbytes(f.result()) for key, f in self._entries.items() if f.done()}
            total = sum(nbytes.values())
            for key in list(nbytes)[:-1]:
                if total <= self.max_bytes:
                    break
                total -= nbytes[key]
                self._evicted[key] = self._entries.pop(key).result()


def _nbytes(image: Image.Image) -> int:
    return image.width * image.height * PIXEL_BYTES


# Formats whose rotation is in the header that is read on opening. The same function reads it for sizes and
# for pixels, so that they cannot disagree.
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
    # Not image.getexif(): for PNG it decodes all pixels first, to look for metadata after them.
    value = int(Image.Image.getexif(image).get(0x0112, 1))
    return value if value in _TURNS else 1


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition that makes a picture upright; None if it is."""
    if image.format in _HEADER_FORMATS:
        return _TURNS.get(_orientation(image))
    image.load()  # Pillow rotates a TIFF while loading it
    return _TURNS.get(image.getexif().get(0x0112, 1))


def _decode(path: Path) -> Image.Image:
    with open_picture(path) as image, _DECODE_MEMORY.for_picture(image.size):
        turn = _turn_of(image)
        pixels = to_rgb(image)
        image.close()  # free its pixels before the rotated copy is made
        return pixels if turn is None else pixels.transpose(turn)


def load_rgba(path: Path) -> Image.Image:
    """Load a picture with its transparency, as upright RGBA; not cached.

    Args:
        path: the file.

    Raises:
        OSError: the file is missing or is not a picture that can be decoded.
    """
    with open_picture(path) as image, _DECODE_MEMORY.for_picture(image.size):
        turn = _turn_of(image)
        pixels = to_rgba(image)
        return pixels if turn is None else pixels.transpose(turn)


def load_small(path: Path, side: int) -> Image.Image:
    """Load a picture at reduced size, not cached: a JPEG is decoded at a fraction of its size.

    Args:
        path: the file.
        side: minimum width and height in pixels, if the picture is that large.

    Returns:
        RGB, EXIF rotation applied.

    Raises:
        OSError: the file is missing or is not a picture that can be decoded.
    """
    with open_picture(path) as image, _DECODE_MEMORY.for_picture(image.size):
        turn = _turn_of(image)
        image.draft(None, (side, side))
        pixels = to_rgb(image)
        return pixels if turn is None else pixels.transpose(turn)


_CACHES: weakref.WeakSet[PictureCache] = weakref.WeakSet()


def _start_anew_in_child() -> None:
    _DECODE_MEMORY.start_anew()
    for cache in list(_CACHES):
        cache.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_in_child)


_PICTURES = PictureCache()


def load_original(path: str | Path) -> Image.Image:
    """Load the original at `path` through the cache of this process; see `PictureCache.load`."""
    return _PICTURES.load(Path(path))


def load_shown(path: str | Path, size: Size) -> Image.Image:
    """Load the original at `path`, resized to `size`, through the cache of this process; see `show`."""
    return _PICTURES.load(Path(path), size)


class Header(NamedTuple):
    """The header of a picture file.

    Attributes:
        kind: Pillow's name of the format, regardless of the file's suffix.
        stored: (width, height) as stored, before the EXIF rotation.
        orientation: the EXIF orientation, 1 (upright) to 8.
        conversions: the color conversions to RGB, beyond unpacking the values.
    """

    kind: str
    stored: Size
    orientation: int
    conversions: tuple[str, ...] = ()


def read_header(path: Path) -> Header:
    """Read the header of a picture without decoding it.

    Raises:
        OSError: missing, not a regular file, unknown format, larger than `MAX_PIXELS`, or a color format
            without a conversion rule.
    """
    with open_picture(path) as image:
        return Header(image.format or "", image.size, _orientation(image), conversions(image))


def check_picture(path: Path) -> Size:
    """Check that a picture is complete and return its size after EXIF rotation.

    A PNG is checked chunk by chunk (lengths and checksums), a JPEG up to its end marker, so a truncated
    download is detected by reading the file without decoding it. Other formats have no checksums and are
    decoded.

    Raises:
        OSError: an error of `read_header`, a truncated file, or floats outside 0 to 1.
    """
    kind, (width, height), orientation, _ = read_header(path)
    if kind not in _HEADER_FORMATS:
        return _decode(path).size
    if kind == "PNG":
        with open_picture(path) as image:
            try:
                image.verify()
            except SyntaxError as error:  # raised by Pillow for a broken chunk
                raise OSError(str(error)) from error
    elif not _jpeg_is_complete(path):
        raise OSError("the JPEG file is truncated")
    # Orientations 5 to 8 swap width and height.
    return (height, width) if orientation >= 5 else (width, height)


@contextmanager
def _mapped(file: BinaryIO) -> Iterator[mmap.mmap | bytes]:
    """Memory-map a file; the bytes of an embedded picture are in memory already."""
    if isinstance(file, io.BytesIO):
        yield file.getvalue()
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _jpeg_is_complete(path: Path) -> bool:
    """Walk the header segments to the first scan, then search for the end marker after it.

    The walk skips thumbnails in the header, which have their own end markers; within a scan the marker cannot
    occur by chance, because the encoder escapes every 0xFF.
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
