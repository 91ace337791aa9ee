"""What the page of `lfpc annotate` asks its server for."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lfpc_rewards import Frame
from lfpc_trl.annotate.journal import Change, Conflict, Content, is_duration, writable
from lfpc_trl.annotate.project import Blocker, Item, Project
from lfpc_trl.annotate.proposals import Proposals
from lfpc_trl.data.rows import Picture
from lfpc_trl.errors import DataError
from lfpc_trl.html.server import Access, Answer, make_app
from lfpc_trl.html.tiles import encoded, numbered, readable, tile_route
from lfpc_trl.json_values import parse_json
from lfpc_trl.pictures.crops import BoxError, crop_box, cut
from lfpc_trl.pictures.sizes import Size, show, shown_size, tokens_of

STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class ModelView:
    """How the model would see a picture and its crops.

    Attributes:
        factor: pixels per side of one visual token.
        shown_tokens: visual tokens of the overview, for rows without a `shown_size`.
        crop_tokens: visual tokens above which a crop is shrunk.
    """

    factor: int = 28
    shown_tokens: int = 256
    crop_tokens: int = 1024

    def overview_size(self, picture: Picture) -> Size:
        """The size at which the model sees the picture."""
        return picture.shown_size or shown_size(picture.size, self.shown_tokens, factor=self.factor)


def make_annotator(
    project: Project,
    access: Access,
    *,
    annotator: str,
    view: ModelView = ModelView(),
    proposals: Proposals | None = None,
) -> Starlette:
    """The application.

    Args:
        project: what is annotated.
        access: who may ask.
        annotator: the name that the page proposes.
        view: how the model would see the picture.
        proposals: boxes of models.
    """
    return _Annotator(project, annotator, view, proposals or Proposals()).app(access)


@dataclass(frozen=True)
class _Annotator:
    project: Project
    annotator: str
    view: ModelView
    proposals: Proposals

    @functools.cached_property
    def picture_number(self) -> dict[Path, int]:
        """The numbers by which tiles are asked for."""
        return {image: number for number, image in enumerate(self.project.pictures)}

    def app(self, access: Access) -> Starlette:
        routes = [
            Route("/api/project", self.overall),
            Route("/api/changes", self.changes),
            Route("/api/items/{number:int}", self.item),
            Route("/api/items/{number:int}", self.save, methods=["POST"]),
            Route("/api/items/{number:int}/questions", self.add, methods=["POST"]),
            Route("/api/items/{number:int}/proposals", self.proposed),
            Route("/api/items/{number:int}/proposals", self.propose, methods=["POST"]),
            Route("/api/items/{number:int}/overview", self.overview),
            Route("/api/items/{number:int}/crop", self.crop),
            tile_route(self.project.pictures),
        ]
        return make_app(access, STATIC, routes)

    def overall(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """Everything that the list of rows shows."""
        project = self.project
        project.refresh()
        seen = len(project.journal.changes)
        return Answer(
            {
                "source": project.source.name,
                "journal": project.journal.path.name,
                # Drafts that a browser keeps belong to this journal, not to another of the same name.
                "key": hashlib.sha256(str(project.journal.path.absolute()).encode()).hexdigest()[:16],
                "annotator": self.annotator,
                "stage": project.stage,
                "factor": self.view.factor,
                "crop_tokens": self.view.crop_tokens,
                "left_out": project.left_out,
                "model": None if self.proposals.model is None else self.proposals.model.name,
                "seen": seen,
                "median_seconds": project.median_seconds(),
                "items": [self._summary(item) for item in project.items],
            }
        )

    def _summary(self, item: Item) -> dict[str, Any]:
        content = self.project.content(item)
        return {
            "id": item.id,
            "after": item.after,
            "pictures": [self.picture_number[picture.image] for picture in item.pictures],
            "status": content.status,
            "question": content.question,
            "revision": self.project.revision(item),
            "boxes": sum(map(len, content.targets)),
        }

    def changes(self, request: Request) -> Response:
        """The rows that changed, and those that were added, since the page has `seen` so many changes."""
        project = self.project
        project.refresh()
        seen = request.query_params.get("seen", "")
        fresh = project.journal.changes[int(seen) if seen.isdecimal() else 0 :]
        numbers = sorted({project.number[change.row] for change in fresh if change.row in project.number})
        summaries = {number: self._summary(project.items[number]) for number in numbers}
        told = {"seen": len(project.journal.changes), "median_seconds": project.median_seconds()}
        return Answer(told | {"items": summaries})

    def _find(self, request: Request) -> Item:
        return numbered(self.project.items, request.path_params["number"])

    def item(self, request: Request) -> Response:
        """One row with all that is shown beside its picture."""
        project, item = self.project, self._find(request)
        project.refresh()
        content = project.content(item)
        return Answer(
            {
                "id": item.id,
                "image": item.name,
                "after": item.after,
                "pictures": list(map(self._picture, item.pictures)),
                **self.proposals.state(item.id),
                **_state(project.journal.latest.get(item.id), content),
                "problems": _problems(project.problems(item, content)),
            }
        )

    def _picture(self, picture: Picture) -> dict[str, Any]:
        """A picture as the page shows it."""
        size = self.view.overview_size(picture)
        return {
            "number": self.picture_number[picture.image],
            "size": picture.size,
            "state": picture.image.stat().st_mtime_ns if picture.image.exists() else 0,
            "overview": {"size": size, "tokens": tokens_of(size, self.view.factor)},
        }

    def _asked(self, request: Request) -> Picture:
        """The picture of a row that is asked for: the first, if no other is named."""
        number = request.query_params.get("image", "1")
        return numbered(self._find(request).pictures, int(number) - 1 if number.isdecimal() else -1)

    async def save(self, request: Request) -> Response:
        """Save a change; 409 with the other version where somebody else was first."""
        item = self._find(request)
        return await run_in_threadpool(self._save, item, await _json_object(request))

    def _save(self, item: Item, body: dict[str, Any]) -> Response:
        base, annotator, seconds = body.get("base"), _annotator(body), body.get("seconds", 0.0)
        if type(base) is not int:
            raise DataError(f"a change needs a whole number 'base', got {base!r}")
        if not is_duration(seconds):
            raise DataError(f"seconds must be a number from 0 to 86400, got {seconds!r}")
        content = Content.parse(body.get("content"))
        try:
            change, problems = self.project.save(item, base, annotator, content, seconds=seconds)
        except Conflict as conflict:
            latest = conflict.latest
            problems = self.project.problems(item, latest.content)
            return Answer(
                {**_state(latest, latest.content), "problems": _problems(problems)}, status_code=409
            )
        return Answer({**_state(change, content), "problems": _problems(problems)})

    async def add(self, request: Request) -> Response:
        """Add a question about the picture of a row: its number and what the list shows of it."""
        item = self._find(request)
        annotator = _annotator(await _json_object(request))
        added = await run_in_threadpool(self.project.add_question, item, annotator)
        return Answer({"number": self.project.number[added.id], "item": self._summary(added)})

    def proposed(self, request: Request) -> Response:
        """The boxes that are proposed for a row, and whether the model is at work."""
        return Answer(self.proposals.state(self._find(request).id))

    async def propose(self, request: Request) -> Response:
        """Ask the model about a row with the question that the page has; 409 while it is at work."""
        item = self._find(request)
        content = Content.parse((await _json_object(request)).get("content"))
        return await run_in_threadpool(self._propose, item, content)

    def _propose(self, item: Item, content: Content) -> Response:
        row = self.project.as_asked(item, content)
        shown = row.shown_at(list(map(self.view.overview_size, row.pictures)))
        started = self.proposals.ask(shown)
        return Answer(self.proposals.state(item.id), status_code=200 if started else 409)

    def overview(self, request: Request) -> Response:
        """The picture as the model sees it first."""
        picture = self._asked(request)
        return _png(show(readable(picture.image), self.view.overview_size(picture)))

    def crop(self, request: Request) -> Response:
        """The crop of a box as the model would get it, or the sentence with which the tool refuses it."""
        original = self._asked(request)
        try:
            asked = [float(side) for side in request.query_params.get("box", "").split(",")]
            box = crop_box(asked, frame=Frame.ORIGINAL, shown_size=original.size, original_size=original.size)
        except (BoxError, ValueError) as error:
            return PlainTextResponse(str(error), 422)
        picture = cut(
            readable(original.image), box, factor=self.view.factor, max_tokens=self.view.crop_tokens
        )
        answer = _png(picture)
        answer.headers["x-tokens"] = str(tokens_of(picture.size, self.view.factor))
        return answer


async def _json_object(request: Request) -> dict[str, Any]:
    try:
        body = parse_json(await request.body())
    except ValueError:
        raise DataError("a change must be JSON") from None
    if not isinstance(body, dict):
        raise DataError("a change must be a JSON object")
    return body


def _annotator(body: dict[str, Any]) -> str:
    name = body.get("annotator")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"a change needs the name of its 'annotator', got {name!r}")
    return writable(name.strip())


def _png(picture: Image.Image) -> Response:
    """Without loss, as the model gets it."""
    return Response(encoded(picture, "PNG", compress_level=1), media_type="image/png")


def _state(change: Change | None, content: Content) -> dict[str, Any]:
    place: dict[str, Any] = {"revision": 0, "annotator": None, "time": None}
    if change is not None:
        place = {"revision": change.revision, "annotator": change.annotator, "time": change.time}
    return place | {"content": content.as_record()}


def _problems(problems: Sequence[Blocker]) -> list[dict[str, Any]]:
    return [{"sentence": problem.sentence, "region": problem.region} for problem in problems]
