"""Pictures for a browser: tiles of the original at any zoom, cut by the server.

A tile is named by the picture's number, never by a path. Level k shows the picture reduced by 2 to the power
of k; level 0 is the original, pixel for pixel.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lfpc_trl.errors import DataError, one_line
from lfpc_trl.pictures.originals import load_original

T = TypeVar("T")

TILE = 512
"""Side of a tile in pixels: the two to four that a screen needs travel in one round."""
MAX_LEVEL = 12


def tile(path: Path, level: int, column: int, row: int) -> bytes | None:
    """One tile as JPEG, or None outside the picture.

    Args:
        path: the picture.
        level: the picture is reduced by 2**level, edges upwards.
        column: from the left.
        row: from the top.

    Raises:
        DataError: the picture cannot be read.
    """
    if not 0 <= level <= MAX_LEVEL or min(column, row) < 0:
        return None
    original = readable(path)
    side = TILE << level
    left, top = column * side, row * side
    if left >= original.width or top >= original.height:
        return None
    box = (left, top, min(left + side, original.width), min(top + side, original.height))
    part = original.crop(box) if level == 0 else original.reduce(1 << level, box)
    # Without chroma subsampling: at level 0 single pixels are looked at.
    return encoded(part, "JPEG", quality=92, subsampling=0)


def readable(path: Path) -> Image.Image:
    """The original at `path`.

    Raises:
        DataError: the picture cannot be read.
    """
    try:
        return load_original(path)
    except Exception as error:  # Pillow's decoders raise what they like on damaged files
        reason = one_line(error)
        raise DataError(f"{path.name} cannot be read ({reason})") from None


def encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    """`image` as a file in memory."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def numbered(items: Sequence[T], number: int) -> T:
    """The item of a number that a page asked for; 404 where there is none."""
    if not 0 <= number < len(items):
        raise HTTPException(404)
    return items[number]


def tile_route(paths: Sequence[Path]) -> Route:
    """`/tiles/NUMBER/LEVEL/COLUMN/ROW` for these pictures."""

    def answer(request: Request) -> Response:
        wanted = request.path_params
        data = tile(numbered(paths, wanted["number"]), wanted["level"], wanted["column"], wanted["row"])
        if data is None:
            raise HTTPException(404)
        # The page names the state of the picture in the address, so the answer stays right.
        return Response(data, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"})

    return Route("/tiles/{number:int}/{level:int}/{column:int}/{row:int}", answer)
