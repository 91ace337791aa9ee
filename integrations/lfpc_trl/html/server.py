"""A web server for one person's data: who may ask, and what a browser may do with the answers.

Every request passes `_Guard`. It asks for three things:

* **a name it knows** in the Host header, so that a foreign site cannot point its own name at this machine and
  read the answers (DNS rebinding);
* **the token** that the command printed, once in the address and from then on as a cookie: on a shared
  machine others can reach the loopback address too;
* **for changes, its own Origin**, so that a foreign site cannot post with the user's cookie.

The content security policy allows scripts, styles and pictures of this server only, none of them inline. Text
from a data file is put into the page as text; even if it were not, its script would not run.
"""

import contextlib
import ipaddress
import json
import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lfpc_trl.errors import UserError
from lfpc_trl.results import tell_result

SHARED = Path(__file__).parent / "static"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_BODY = 1 << 20
"""Bytes of one posted change; our choice. A row with a thousand boxes has 50 kB."""
MAX_ADDRESS = 4000
"""Characters of a path or of what follows its question mark; our choice."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        # The one style that OpenSeadragon writes into the page, by its hash.
        "frame-ancestors 'none'; style-src 'self' 'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        host: the address to listen on.
        names: host names that are answered, in lower case.
        any_address: whether every IP address is answered as a host name too. An address cannot be rebound.
        token: what a browser must know.
    """

    host: str
    names: frozenset[str]
    any_address: bool
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)

    @classmethod
    def listening_on(cls, host: str) -> "Access":
        """Access for a server that listens on `host`."""
        if is_loopback(host):
            return cls("127.0.0.1" if host == "localhost" else host, LOOPBACK_NAMES, any_address=False)
        own = {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        return cls(host, LOOPBACK_NAMES | own, any_address=True)

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server; its port may be that of a tunnel."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        return name in self.names or (self.any_address and _is_address(name))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


class _Guard:
    """Refuses what may not be asked and adds the headers of `_HEADERS` to every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await (self._refusal(scope) or self.app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        # Python refuses whole numbers of more than 4300 digits, by an error that no route expects.
        if max(len(scope["path"]), len(scope["query_string"])) > MAX_ADDRESS:
            return PlainTextResponse(f"An address has at most {MAX_ADDRESS} characters.", 414)
        if not self.access.knows(host):
            return PlainTextResponse("This server does not go by that name.", 421)
        # Cookies do not tell ports apart: two pages on one machine need two names.
        cookie = f"lfpc-{scope['server'][1]}" if scope.get("server") else "lfpc"
        if scope["path"] == "/" and self._is_token(_query(scope, "token")):
            response = RedirectResponse(_without_token(scope), 303)
            response.set_cookie(cookie, self.access.token, httponly=True, samesite="strict", path="/")
            return response
        if not self._is_token(_cookie(headers, cookie)):
            return PlainTextResponse("Open the address that the command printed: it holds a token.", 403)
        if scope["method"] not in ("GET", "HEAD"):
            if urlsplit(headers.get("origin", "")).netloc != host:
                return PlainTextResponse("Changes are taken from this page alone.", 403)
            if headers.get("content-type", "").partition(";")[0] != "application/json":
                return PlainTextResponse("Changes are JSON.", 415)
            if not headers.get("content-length", "").isdigit() or int(headers["content-length"]) > MAX_BODY:
                return PlainTextResponse(f"A change has at most {MAX_BODY} bytes.", 413)
        return None

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self.access.token.encode())


def _query(scope: Scope, name: str) -> str:
    return str(parse_qs(scope["query_string"].decode("latin-1")).get(name, [""])[0])


def _without_token(scope: Scope) -> str:
    rest = parse_qs(scope["query_string"].decode("latin-1"))
    rest.pop("token", None)
    return "/" + (f"?{urlencode(rest, doseq=True)}" if rest else "")


def _cookie(headers: Headers, name: str) -> str:
    morsel = SimpleCookie(headers.get("cookie", "")).get(name)
    return "" if morsel is None else str(morsel.value)


class Answer(JSONResponse):
    """Values for the page, whatever a file held: half a surrogate pair as its escape."""

    def render(self, content: Any) -> bytes:
        """The body."""
        try:
            return super().render(content)
        except UnicodeEncodeError:
            return json.dumps(content, allow_nan=False).encode()


def make_app(access: Access, static: Path, routes: Sequence[BaseRoute]) -> Starlette:
    """The application of one page.

    Args:
        access: who may ask.
        static: the folder of the page, with an `index.html`.
        routes: what the page asks for.
    """

    def index(request: Request) -> Response:  # noqa: ARG001 - Starlette passes it
        return FileResponse(static / "index.html")

    return Starlette(
        routes=[
            Route("/", index),
            Mount("/static/shared", StaticFiles(directory=SHARED)),
            Mount("/static/page", StaticFiles(directory=static)),
            *routes,
        ],
        middleware=[Middleware(_Guard, access=access)],
        exception_handlers={UserError: _told},
    )


def _told(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette passes it
    return PlainTextResponse(str(error).encode("utf-8", "replace").decode(), 422)


def serve(app: ASGIApp, access: Access, port: int) -> None:
    """Serve until Ctrl-C. Prints the address once the port is bound.

    Raises:
        UserError: the address cannot be bound.
    """
    try:
        family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
        listener = socket.create_server((access.host, port), family=family)
    except OSError as error:
        raise UserError(f"cannot listen on {access.host} port {port}: {error.strerror or error}") from None
    with listener:
        bound = listener.getsockname()[1]
        if not is_loopback(access.host):
            print(
                f"warning: everybody who can reach {access.host} and knows the address below can read and "
                "change the data, and the connection is not encrypted; an ssh tunnel to 127.0.0.1 is safer",
                file=sys.stderr,
            )
        name = socket.gethostname() if access.host in ("0.0.0.0", "::") else access.host
        name = f"[{name}]" if ":" in name else name
        page = f"http://{name}:{bound}/?token={access.token}"
        print(f"open {page}", flush=True)
        tell_result({"page": page})
        print("Ctrl-C stops.", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off"
        )
        server = uvicorn.Server(config)
        with contextlib.suppress(KeyboardInterrupt):  # how a server is stopped
            server.run(sockets=[listener])
