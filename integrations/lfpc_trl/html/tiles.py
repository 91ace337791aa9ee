"""Picture tiles for a browser: cut from the original by the server, at any zoom.

Tiles are addressed by the picture's number, never by a path. Level k shows the picture reduced by 2**k;
level 0 is the original, pixel for pixel.
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
"""Side of a tile in pixels: a screen needs two to four, which load in parallel."""
MAX_LEVEL = 12


def tile(path: Path, level: int, column: int, row: int) -> bytes | None:
    """One tile as JPEG, or None outside the picture.

    Args:
        path: the picture.
        level: the picture is reduced by 2**level, sizes rounded up.
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
    # No chroma subsampling: at level 0 users look at single pixels.
    return encoded(part, "JPEG", quality=92, subsampling=0)


def readable(path: Path) -> Image.Image:
    """Load the original at `path`.

    Raises:
        DataError: the picture cannot be read.
    """
    try:
        return load_original(path)
    except Exception as error:  # Pillow's decoders raise various errors on damaged files
        reason = one_line(error)
        raise DataError(f"{path.name} cannot be read ({reason})") from None


def encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    """Encode `image` as a file in memory."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def numbered(items: Sequence[T], number: int) -> T:
    """The item with a requested number; 404 if there is none."""
    if not 0 <= number < len(items):
        raise HTTPException(404)
    return items[number]


def tile_route(paths: Sequence[Path]) -> Route:
    """The route `/tiles/NUMBER/LEVEL/COLUMN/ROW` for these pictures."""

    def answer(request: Request) -> Response:
        params = request.path_params
        data = tile(numbered(paths, params["number"]), params["level"], params["column"], params["row"])
        if data is None:
            raise HTTPException(404)
        # The address includes the picture's modification time, so caching is safe.
        return Response(data, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"})

    return Route("/tiles/{number:int}/{level:int}/{column:int}/{row:int}", answer)
