"""The server of `lfpc view`: runs, curves, trajectories and pictures for its page."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lfpc_trl.data.rows import Row
from lfpc_trl.errors import DataError
from lfpc_trl.html.server import Access, Answer, make_app
from lfpc_trl.html.tiles import tile_route
from lfpc_trl.runs.reading import Filter, Run, conversation, crop_scores, pictures_of

STATIC = Path(__file__).parent / "static"
PAGE = 100
"""Trajectories per page of the list."""


def make_viewer(runs: Sequence[Run], access: Access, *, rows: Sequence[Row] = ()) -> Starlette:
    """Build the application.

    Args:
        runs: one run, or two to compare side by side.
        access: which requests are allowed.
        rows: rows whose originals may be shown. Paths inside trajectories are never opened.
    """
    return _Viewer(runs, rows, {row.id: number for number, row in enumerate(rows)}).app(access)


def _first_tiles(rows: Sequence[Row]) -> list[int]:
    """Index of each row's first picture among all pictures."""
    return [0, *itertools.accumulate(len(row.pictures) for row in rows)]


@dataclass(frozen=True)
class _Viewer:
    runs: Sequence[Run]
    rows: Sequence[Row]
    numbers: dict[str, int]

    def app(self, access: Access) -> Starlette:
        routes = [
            Route("/api/runs", self.overall),
            Route("/api/curves", self.curves),
            Route("/api/runs/{run:int}/list", self.listed),
            Route("/api/runs/{run:int}/match", self.match),
            Route("/api/runs/{run:int}/trajectories/{position:int}", self.trajectory),
            Route("/thumbnails/{run:int}/{position:int}/{number:int}", self.thumbnail),
            tile_route([picture.image for row in self.rows for picture in row.pictures]),
        ]
        return make_app(access, STATIC, routes)

    def overall(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """The runs and their filter options."""
        for run in self.runs:
            run.refresh()
        return Answer({"runs": [run.facts() for run in self.runs]})

    def curves(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """Every numeric metric of the runs by name, per step."""
        return Answer({"runs": [_series(run) for run in self.runs]})

    def _run(self, request: Request) -> Run:
        number = int(request.path_params["run"])
        if not 0 <= number < len(self.runs):
            raise HTTPException(404)
        return self.runs[number]

    def listed(self, request: Request) -> Response:
        """A page of the trajectories that match a filter."""
        run = self._run(request)
        other = next((each for each in self.runs if each is not run), None)
        query = request.query_params
        positions = run.select(_filter(query), other)
        first = int(query.get("from", "0")) if query.get("from", "0").isdecimal() else 0
        page = [run.summary(int(position)) for position in positions[first : first + PAGE]]
        return Answer({"count": len(positions), "generation": run.generation, "page": page})

    def match(self, request: Request) -> Response:
        """The trajectory of the same row in another run."""
        row_id, step, condition = (
            request.query_params.get(name, "") for name in ("row_id", "step", "condition")
        )
        number = int(step) if step.isdecimal() else None
        return Answer({"position": self._run(request).match(row_id, number, condition)})

    def _columns(self, request: Request) -> tuple[Run, int, dict[str, Any]]:
        run, position = self._run(request), request.path_params["position"]
        if not 0 <= position < len(run):
            raise HTTPException(404)
        return run, position, run.columns(position)

    def trajectory(self, request: Request) -> Response:
        """One trajectory, without its pictures."""
        run, position, columns = self._columns(request)
        size, pictures = columns.get("image_size"), pictures_of(columns)
        boxes = columns.get("boxes") or []
        originals = self._originals(columns["row_id"], pictures.sizes)
        return Answer(
            {
                **run.summary(position),
                "choices": columns.get("choices"),
                "accepted": columns.get("accepted") or [],
                "image": Path(columns.get("image") or "").name,
                "size": size,
                "original": originals[0],
                "pictures": [
                    {"name": Path(image).name, "size": size, "original": original}
                    for image, size, original in zip(pictures.images, pictures.sizes, originals, strict=True)
                ],
                "box_images": [
                    image for image, box in zip(pictures.box_images, boxes, strict=True) if _is_finite(box)
                ],
                "target_images": pictures.target_images,
                "messages": conversation(columns["messages"]),
                "thumbnails": len(columns.get("thumbnails") or ()),
                "boxes": _finite_boxes(boxes),
                "box_scores": crop_scores(columns),
                "targets": None
                if columns.get("targets") is None
                else [_finite_boxes(region or []) for region in columns["targets"]],
                "scores": {name: _finite(value) for name, value in columns.get("scores") or ()},
                "advantage": _finite(columns.get("advantage")),
                "ending": columns.get("ending"),
                "masked": columns.get("masked"),
                "siblings": run.siblings(position),
                "steps": run.steps_of(position),
            }
        )

    def _originals(self, row_id: str, sizes: Sequence[list[int] | None]) -> list[dict[str, Any] | None]:
        """How to request the tiles of each original, if the user gave the row."""
        number = self.numbers.get(row_id)
        if number is None or [list(each.size) for each in self.rows[number].pictures] != list(sizes):
            return [None] * len(sizes)
        first = _first_tiles(self.rows)[number]
        return [
            {
                "number": first + place,
                "size": list(picture.size),
                "state": picture.image.stat().st_mtime_ns if picture.image.exists() else 0,
            }
            for place, picture in enumerate(self.rows[number].pictures)
        ]

    def thumbnail(self, request: Request) -> Response:
        """A logged picture of a conversation."""
        _, _, columns = self._columns(request)
        pictures = columns.get("thumbnails") or ()
        number = request.path_params["number"]
        if not 0 <= number < len(pictures):
            raise HTTPException(404)
        return Response(pictures[number], media_type="image/jpeg")


def _filter(query: QueryParams) -> Filter:
    choices = {"outcome": ("right", "wrong"), "crop": ("yes", "no"), "against": ("better", "worse")}
    values: dict[str, Any] = {
        name: query[name] for name, allowed in choices.items() if query.get(name) in allowed
    }
    if query.get("order") in ("reward", "overlap"):
        values["order"] = query["order"]
    try:
        if query.get("overlap_below"):
            values["overlap_below"] = float(query["overlap_below"])
        if query.get("step"):
            values["step"] = int(query["step"])
    except ValueError:
        raise DataError("overlap_below and step must be numbers") from None
    values |= {name: query.get(name, "") for name in ("ending", "condition", "text")}
    return Filter(**values)


def _series(run: Run) -> dict[str, Any]:
    lines = [line for line in run.metrics if _finite(line.get("step")) is not None]
    names = dict.fromkeys(
        name for line in lines for name, value in line.items() if _finite(value) is not None
    )
    names.pop("step", None)
    return {
        "name": run.facts()["name"],
        "step": [line["step"] for line in lines],
        "series": {name: [_finite(line.get(name)) for line in lines] for name in names},
    }


def _finite_boxes(boxes: Sequence[Sequence[float]]) -> list[list[float]]:
    """The boxes with finite coordinates, which the page can draw."""
    return [list(box) for box in boxes if _is_finite(box)]


def _is_finite(box: Sequence[float]) -> bool:
    return all(map(math.isfinite, box))


def _finite(value: Any) -> float | None:
    """The value as a finite float; None for anything else, as JSON has no NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
