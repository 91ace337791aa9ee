"""Pictures of a data set, from bytes, base64 or paths: checked, deduplicated and stored beside the output."""

import base64
import binascii
import contextlib
import hashlib
import os
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from lfpc_trl.data.sources import short
from lfpc_trl.errors import DataError, one_line
from lfpc_trl.files import clear_scratch, scratch_prefix
from lfpc_trl.pictures.inside import container_file, read_embedded
from lfpc_trl.pictures.opening import FORMATS, check_file, readable_formats
from lfpc_trl.pictures.originals import Header, check_picture, read_header
from lfpc_trl.pictures.sizes import Size

SUFFIXES = {kind: FORMATS[kind][0] for kind in readable_formats()} | {"MPO": ".jpg"}
"""The formats that are stored, whatever the file is called, and the suffix each gets."""
_REMEMBERED = 4096
_NEW = "new"


class Picture(NamedTuple):
    """A picture in the store.

    Attributes:
        path: of the file, relative to the folder of the output.
        size: (width, height) after the EXIF rotation.
        header: the same before it.
    """

    path: str
    size: Size
    header: Header


class PictureStore:
    """Stores pictures in a folder beside the output, named by the SHA-256 of their bytes.

    Args:
        folder: the folder of the output.
        root: paths are relative to it. A path that leads outside is refused.
        below: name of the picture folder inside `folder`.
    """

    def __init__(self, folder: Path, root: Path, below: str = "images") -> None:
        self._folder = folder
        self._below = below
        self._root = root.resolve()
        self._seen: OrderedDict[str, Picture] = OrderedDict()
        for each in (folder / below).glob("??"):
            clear_scratch(each, _NEW)

    def add_bytes(self, data: bytes) -> Picture:
        """Store a picture given as bytes.

        Raises:
            DataError: it is not a complete picture.
        """
        target = self._place(hashlib.sha256(data).hexdigest())
        found = self._known(target)
        if found is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=scratch_prefix(_NEW))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            new = Path(name)
            new.chmod(0o644)  # mkstemp makes the file readable by its owner only
            found = self._adopt(new, target, "the bytes of the picture")
        return found

    def add_base64(self, text: str) -> Picture:
        """Store a picture given as base64, with or without a `data:image/...;base64,` prefix."""
        try:
            # Strict, or the first of several comma-separated pictures would be read alone.
            data = base64.b64decode(
                "".join((text.partition(",")[2] if text.startswith("data:") else text).split()), validate=True
            )
        except (binascii.Error, ValueError) as error:
            raise DataError(f"image must be base64, got {short(text)} ({one_line(error)})") from None
        return self.add_bytes(data)

    def add_path(self, text: str, *, skip: int = 0) -> Picture:
        """Store the picture at a path: as a hard link where the file system supports it, else as a copy.

        Args:
            text: the path, absolute or relative to the root; a `file://` prefix is dropped. If there is no
                such file, percent-encoding (`%20`) is decoded.
            skip: also try the path without this many leading folders: the data's own folder may be in them.
        """
        if "://" in text and not text.startswith("file://"):
            raise DataError(f"image must be a local file (nothing is downloaded), got {short(text)}")
        if text in self._seen:
            self._seen.move_to_end(text)
            return self._seen[text]
        source = self._find(text.removeprefix("file://"), skip)
        try:
            check_file(source)
            if container_file(source) != source:
                return self._remember(text, self.add_bytes(read_embedded(container_file(source), source)))
            with source.open("rb") as file:
                target = self._place(hashlib.file_digest(file, "sha256").hexdigest())
            found = self._known(target)
            if found is None:
                target.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=target.parent, prefix=scratch_prefix(_NEW)) as scratch:
                    new = Path(scratch) / "picture"
                    _link(source, new)
                    found = self._adopt(new, target, short(text))
        except OSError as error:
            raise DataError(f"image must be readable, got {short(text)} ({one_line(error)})") from None
        return self._remember(text, found)

    def _remember(self, text: str, found: Picture) -> Picture:
        self._seen[text] = found
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return found

    def _find(self, text: str, skip: int) -> Path:
        if "\0" in text or not text.strip():
            raise DataError(f"image must be a path, got {short(text)}")
        parts = Path(text).parts
        tries = [Path(text)] + ([Path(*parts[skip:])] if 0 < skip < len(parts) and parts[0] != "/" else [])
        tries += [Path(unquote(str(path))) for path in tries if "%" in text and "%00" not in text]
        for path in tries:
            try:
                found = (self._root / path).resolve()  # resolve links before comparing
                holder = container_file(found)
                exists = holder.exists() and not holder.is_dir()
            except (OSError, RuntimeError) as error:  # a name too long, a loop of links
                raise DataError(f"image must be readable, got {short(text)} ({error.args[-1]})") from None
            if not found.is_relative_to(self._root):
                raise DataError(
                    f"image must lie inside the folder {str(self._root)!r} (see --images), got {short(text)}"
                )
            if exists:
                return found
        raise DataError(f"image must exist, got {short(text)} in {str(self._root)!r}")

    def _place(self, digest: str) -> Path:
        """Where a picture is stored, without its suffix; spread over 256 folders for large data sets."""
        return self._folder / self._below / digest[:2] / digest[:40]

    def _known(self, target: Path) -> Picture | None:
        for suffix in dict.fromkeys(SUFFIXES.values()):
            path = target.with_name(target.name + suffix)
            if path.is_file():
                with contextlib.suppress(Exception):  # damaged since: write it again
                    return self._picture(path, check_picture(path))
        return None

    def _adopt(self, new: Path, target: Path, what: str) -> Picture:
        """Check a file and move it to its name in the store."""
        try:
            header = read_header(new)
            size = check_picture(new)
        except Exception as error:  # Pillow's decoders raise what they like on damaged files
            new.unlink()
            reason = "" if str(new) in str(error) else f" ({one_line(error)})"
            raise DataError(f"image must be a picture of a known format, got {what}{reason}") from None
        path = target.with_name(target.name + SUFFIXES[header.kind])
        new.replace(path)
        return self._picture(path, size)

    def _picture(self, path: Path, size: Size) -> Picture:
        return Picture(path.relative_to(self._folder).as_posix(), size, read_header(path))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        import shutil

        shutil.copyfile(source, target)
