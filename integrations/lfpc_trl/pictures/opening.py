"""Files as pictures: which are opened, which are not, and the only place that opens them.

A file is known by its content, whatever it is called. Its format must be one of `FORMATS`: Pillow knows more,
and hands some of them (EPS) to other programs. It must be a regular file: a pipe or a device would never end.
A picture inside a data file (`lfpc_trl.pictures.inside`) is opened in the same way.
"""

import importlib.util
import io
import os
import stat
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError, features

from lfpc_trl.errors import how_to_install
from lfpc_trl.pictures.inside import container_file, read_embedded

MAX_PIXELS = 16_384 * 12_288
"""Pixels above which a picture is refused by its header, before it is decoded: 201 million, those of the
largest phone cameras. Pillow holds 4 bytes for each, so the largest picture takes 0.8 GB, and 1 to 2 GB while
it is read (measured; most for a progressive JPEG). Our choice."""

FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
}
"""What is read, in Pillow's names, and the suffixes of such files; the first is given to files that are kept.
MPO, a JPEG of several pictures, is opened as JPEG."""

_MISSING: dict[str, str] = {}
"""Why a format of `FORMATS` is not read here."""

if importlib.util.find_spec("pillow_heif") is None:
    _MISSING["HEIF"] = f"HEIC needs the package pillow-heif ({how_to_install('heic')})"
else:
    importlib.import_module("pillow_heif").register_heif_opener()
for _kind, _feature, _what in (
    ("AVIF", "avif", "AVIF needs Pillow 11.3 or newer, built with libavif"),
    ("WEBP", "webp", "WebP needs a Pillow that was built with libwebp"),
    ("JPEG2000", "jpg_2000", "JPEG 2000 needs a Pillow that was built with OpenJPEG"),
):
    with warnings.catch_warnings(action="ignore"):  # an older Pillow warns of names that it does not know
        if not features.check(_feature):
            _MISSING[_kind] = _what

# Pillow's own limit would warn at 89 and refuse at 179 million pixels.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)

_NOT_REGULAR = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def readable_formats() -> tuple[str, ...]:
    """The formats of `FORMATS` that can be read on this machine."""
    return tuple(kind for kind in FORMATS if kind not in _MISSING)


def check_file(path: Path) -> os.stat_result:
    """What the system says about a file that may be opened, or about the file that a picture is inside.

    Raises:
        OSError: missing, empty, or no regular file.
    """
    found = container_file(path).stat()
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(f"{_NOT_REGULAR.get(kind, 'something else')}, not a regular file")
    # Files that the system makes up (/proc) say 0 bytes too, and some of them never end.
    if found.st_size == 0:
        raise OSError("cannot identify image file: it is empty")
    return found


def opened(path: Path) -> BinaryIO:
    """The bytes of a picture, whether it is a file or inside one.

    Raises:
        OSError: missing, empty, or no regular file.
    """
    check_file(path)
    holder = container_file(path)
    return path.open("rb") if holder == path else io.BytesIO(read_embedded(holder, path))


def open_picture(path: Path) -> Image.Image:
    """Open a picture and read its header; its pixels are decoded when they are asked for.

    Raises:
        OSError: no regular file, not of `FORMATS`, or larger than `MAX_PIXELS`; the reason says which.
    """
    check_file(path)
    holder = container_file(path)
    try:
        source = path if holder == path else io.BytesIO(read_embedded(holder, path))
        image = Image.open(source, formats=readable_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise OSError(f"the picture claims more than {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise OSError(f"cannot identify image file: {_why_not(path)}") from None
    try:
        _check_header(image)
    except OSError:
        image.close()
        raise
    return image


def _check_header(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:  # whatever became of Pillow's warning
        raise OSError(f"the picture claims more than {MAX_PIXELS} pixels")
    tags = getattr(image, "tag_v2", {})
    # DNGVersion; or NewSubfileType, whose first bit says that this is a smaller copy of another picture.
    if 50706 in tags or int(tags.get(254, 0)) & 1:
        raise OSError("a camera's raw file, of which only the small preview could be read: develop it first")


_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


def _why_not(path: Path) -> str:
    """The name of the format of a file that is not read, as far as its first bytes tell."""
    with opened(path) as file:
        start = file.read(16)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        return _MISSING.get("HEIF", "HEIC that is damaged")
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis"):
        return _MISSING.get("AVIF", "AVIF that is damaged")
    guesses = _guesses(start)
    for kind in guesses:
        if kind in FORMATS:
            return f"{kind} that is damaged, or of a kind that Pillow cannot read"
    if guesses:
        return f"{guesses[0]} is not among the formats that are read"
    return "no picture of a format that is read"


def _guesses(start: bytes) -> list[str]:
    """The formats whose files may begin so, by Pillow's own tests; nothing else of it runs."""
    Image.init()
    return [kind for kind, (_, accept) in Image.OPEN.items() if accept is not None and accept(start) is True]


def readable_suffixes() -> tuple[str, ...]:
    """The suffixes of the files of a folder that are taken for pictures."""
    return tuple(suffix for kind in readable_formats() for suffix in FORMATS[kind])


# --- folders -----------------------------------------------------------------------------------------


class LeftOut(NamedTuple):
    """A file that is not used, and why."""

    path: Path
    reason: str


def find_picture_files(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """The files of a folder and its folders whose suffix is that of a picture, by name, and all others.

    Nothing is opened. Names that begin with a dot are passed over.
    """
    read = readable_suffixes()
    missing = {suffix: why for kind, why in _MISSING.items() for suffix in FORMATS[kind]}
    found: list[Path] = []
    left_out: list[LeftOut] = []
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or path.is_dir():
            continue
        suffix = path.suffix.lower()
        if suffix not in read:
            left_out.append(LeftOut(path, missing.get(suffix, "not the suffix of a picture that is read")))
        elif path.exists() and not path.is_file():
            left_out.append(LeftOut(path, "not a regular file"))
        else:
            found.append(path)
    return found, left_out


def in_one_line(folder: Path, left_out: Iterable[LeftOut]) -> str:
    """What was left out of a folder and why: one example of each reason and suffix, and how many."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path, reason in left_out:
        groups.setdefault((reason, path.suffix.lower()), []).append(path.relative_to(folder).as_posix())
    parts = []
    for (reason, suffix), names in groups.items():
        more = f" and {len(names) - 1} more {suffix or 'without a suffix'}" if len(names) > 1 else ""
        parts.append(f"{names[0]}{more} ({reason})")
    count = sum(map(len, groups.values()))
    return f"{folder}: left out {count} file{'s' if count > 1 else ''}: {', '.join(parts)}"
