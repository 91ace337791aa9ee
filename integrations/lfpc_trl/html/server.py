"""A local web server for one user's data, with access control and a content security policy.

Every request passes `_Guard`, which requires:

* **a known name** in the Host header, so that another site cannot point its own name at this machine and read
  the responses (DNS rebinding);
* **the token** that the command printed, first in the address and then as a cookie: other users of a shared
  machine can also reach the loopback address;
* **for changes, its own Origin**, so that another site cannot post with the user's cookie.

The content security policy allows only scripts, styles and pictures from this server, none of them inline.
Text from a data file is inserted as text; even if it were not, its scripts would not run.
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
"""Maximum bytes of a posted change; our choice. A row with a thousand boxes has 50 kB."""
MAX_ADDRESS = 4000
"""Maximum characters of a path or a query string; our choice."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        # The hash of the one style that OpenSeadragon inserts into the page.
        "frame-ancestors 'none'; style-src 'self' 'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """Which requests are allowed.

    Attributes:
        host: the address to listen on.
        names: allowed host names, in lower case.
        any_address: whether to allow every IP address as a host name too; addresses cannot be rebound.
        token: the secret that a browser must send.
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
        """Whether a Host header names this server; the port may differ, as with a tunnel."""
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
    """Rejects requests that are not allowed and adds `_HEADERS` to every response."""

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
        # Python raises for integers of more than 4300 digits, which no route handles.
        if max(len(scope["path"]), len(scope["query_string"])) > MAX_ADDRESS:
            return PlainTextResponse(f"The address must have at most {MAX_ADDRESS} characters.", 414)
        if not self.access.knows(host):
            return PlainTextResponse("Unknown host name for this server.", 421)
        # Cookies do not distinguish ports: two pages on one machine need two names.
        cookie = f"lfpc-{scope['server'][1]}" if scope.get("server") else "lfpc"
        if scope["path"] == "/" and self._is_token(_query(scope, "token")):
            response = RedirectResponse(_without_token(scope), 303)
            response.set_cookie(cookie, self.access.token, httponly=True, samesite="strict", path="/")
            return response
        if not self._is_token(_cookie(headers, cookie)):
            return PlainTextResponse("Open the address that the command printed: it contains a token.", 403)
        if scope["method"] not in ("GET", "HEAD"):
            if urlsplit(headers.get("origin", "")).netloc != host:
                return PlainTextResponse("Changes are accepted only from this page.", 403)
            if headers.get("content-type", "").partition(";")[0] != "application/json":
                return PlainTextResponse("Changes must be JSON.", 415)
            if not headers.get("content-length", "").isdigit() or int(headers["content-length"]) > MAX_BODY:
                return PlainTextResponse(f"A change must have at most {MAX_BODY} bytes.", 413)
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
    """A JSON response for any value from a file; unpaired surrogates are escaped."""

    def render(self, content: Any) -> bytes:
        """The body."""
        try:
            return super().render(content)
        except UnicodeEncodeError:
            return json.dumps(content, allow_nan=False).encode()


def make_app(access: Access, static: Path, routes: Sequence[BaseRoute]) -> Starlette:
    """Build the application of one page.

    Args:
        access: which requests are allowed.
        static: the folder of the page, with an `index.html`.
        routes: the routes of the page's data.
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
        exception_handlers={UserError: _error_response},
    )


def _error_response(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette passes it
    return PlainTextResponse(str(error).encode("utf-8", "replace").decode(), 422)


def serve(app: ASGIApp, access: Access, port: int) -> None:
    """Serve until Ctrl-C, and print the address once the port is bound.

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
                f"warning: anyone who can reach {access.host} and knows the address below can read and "
                "change the data, and the connection is not encrypted; an ssh tunnel to 127.0.0.1 is safer",
                file=sys.stderr,
            )
        name = socket.gethostname() if access.host in ("0.0.0.0", "::") else access.host
        name = f"[{name}]" if ":" in name else name
        page = f"http://{name}:{bound}/?token={access.token}"
        print(f"open {page}", flush=True)
        tell_result({"page": page})
        print("Press Ctrl-C to stop.", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off"
        )
        server = uvicorn.Server(config)
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C stops the server
            server.run(sockets=[listener])
