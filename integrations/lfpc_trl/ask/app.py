"""The page of `lfpc ask --page`: a picture, a question, and the model's looks as they happen."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lfpc_trl.ask.asking import Answer, Asker
from lfpc_trl.errors import UserError
from lfpc_trl.html.background import Background
from lfpc_trl.html.server import Access, make_app
from lfpc_trl.html.server import Answer as Reply
from lfpc_trl.json_values import parse_json
from lfpc_trl.pictures.originals import load_original

STATIC = Path(__file__).parent / "static"
PAGE_SIDE = 2000
"""Longer side of the picture on the page, in pixels: what a screen shows. Our choice."""


def make_page(asker: Asker, access: Access, *, name: str) -> Starlette:
    """The application.

    Args:
        asker: asks the model.
        access: who may ask.
        name: of the model.
    """
    return _Page(asker, name).app(access)


@dataclass
class _Page:
    """One conversation at a time, told to whoever looks.

    Attributes:
        told: what is known of the last question.
        number: questions so far; a page that sees another one starts anew.
        work: the conversation; its lock guards these two.
    """

    asker: Asker
    name: str
    told: Answer | None = None
    number: int = 0
    work: Background = field(default_factory=Background)

    def app(self, access: Access) -> Starlette:
        routes = [
            Route("/api/about", self.about),
            Route("/api/state", self.state),
            Route("/api/ask", self.ask, methods=["POST"]),
            Route("/picture", self.picture),
            Route("/looks/{number:int}/{index:int}", self.look),
        ]
        return make_app(access, STATIC, routes)

    def about(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """The picture and the model."""
        asker = self.asker
        return Reply(
            {
                "model": self.name,
                "picture": asker.picture.name,
                "size": list(asker.size),
                "shown": list(asker.shown),
                "tokens": asker.tokens,
            }
        )

    def state(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """What is known by now."""
        work = self.work
        with work.lock:
            told = None if self.told is None else self.told.as_json()
            known: dict[str, Any] = {"number": self.number, "busy": work.busy, "problem": work.problem}
            return Reply(known | {"told": told})

    async def ask(self, request: Request) -> Response:
        """Ask a question; 409 while another one is answered."""
        try:
            body = parse_json(await request.body())
        except ValueError:
            body = None
        question = body.get("question") if isinstance(body, dict) else None
        if not isinstance(question, str) or not question.strip():
            raise UserError("a question must be a text")

        def work() -> None:
            self._tell(self.asker.ask(question.strip(), self._tell))

        started = self.work.start(work, self._begin)
        return Reply({"number": self.number}, 200 if started else 409)

    def _begin(self) -> None:
        self.told = None
        self.number += 1

    def _tell(self, told: Answer) -> None:
        with self.work.lock:
            self.told = told

    def picture(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """The picture for the screen."""
        small = load_original(self.asker.picture).copy()
        small.thumbnail((PAGE_SIDE, PAGE_SIDE))
        return _jpeg(small)

    def look(self, request: Request) -> Response:
        """A crop as the model saw it."""
        number, index = request.path_params["number"], request.path_params["index"]
        with self.work.lock:
            looks = () if self.told is None or number != self.number else self.told.looks
        if index >= len(looks):
            raise HTTPException(404)
        return _jpeg(looks[index].picture)


def _jpeg(image: Image.Image) -> Response:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=90)
    return Response(file.getvalue(), media_type="image/jpeg")
