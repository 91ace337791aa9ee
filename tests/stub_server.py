"""A server that speaks as OpenAI's chat completions do, in the test's process, with real faults."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

ANSWER = "<think>so</think><answer>A</answer>"
Turn = dict[str, Any]


def says(content: str, **more: Any) -> Turn:
    """A turn of words."""
    return {"message": {"role": "assistant", "content": content}, "finish_reason": "stop", **more}


def calls(*boxes: Any, content: str = "<think>near</think>", name: str = "image_zoom_in_tool") -> Turn:
    """A turn that calls the tool; a box that is a text stands for the arguments as they are written."""
    written = [box if isinstance(box, str) else json.dumps({"bbox_2d": box}) for box in boxes]
    tool_calls = [
        {"id": f"call-{index}", "type": "function", "function": {"name": name, "arguments": words}}
        for index, words in enumerate(written)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": tool_calls}
    return {"message": message, "finish_reason": "tool_calls"}


def looks_once(body: dict[str, Any]) -> Turn:
    """The model of most tests: it crops where it may, and answers."""
    looked = any(message["role"] == "tool" for message in body["messages"])
    return says(ANSWER) if looked or "tools" not in body else calls([10, 10, 60, 50])


def is_count(body: dict[str, Any]) -> bool:
    """Whether a request is for a count of the prompt alone."""
    return 1 in (body.get("max_tokens"), body.get("max_completion_tokens"))


def pictures(body: dict[str, Any]) -> list[Image.Image]:
    """The pictures of a request, in order."""
    blocks = [
        block
        for message in body["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
        if block["type"] == "image_url"
    ]
    return [Image.open(io.BytesIO(base64.b64decode(_data(block)))).convert("RGB") for block in blocks]


def _data(block: dict[str, Any]) -> str:
    head, _, data = block["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    return str(data)


class StubServer:
    """What the server does, and what it was asked.

    Attributes:
        url: where it is.
        model: what it says to a request.
        tokens: what it says that the prompt has.
        faults: for each request, in the order in which they come: None, or a name of `_FAULTS`.
        bodies: of the requests for turns that it has answered.
        counted: of the requests for a count of tokens alone, which have no faults.
        headers: of all requests.
        most: requests that were under way together.
    """

    def __init__(self, model: Callable[[dict[str, Any]], Turn], faults: Iterable[str | None]) -> None:
        self.model, self.faults = model, iter(faults)
        self.tokens: Callable[[dict[str, Any]], int] = lambda _: 100
        self.bodies: list[dict[str, Any]] = []
        self.counted: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.names = ["big-model"]
        self.under_way = self.most = 0
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.url = ""

    def next_fault(self) -> str | None:
        with self.lock:
            return next(self.faults, None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: StubServer

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self.stub.headers.append({name.lower(): value for name, value in self.headers.items()})
        self._send(
            200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.stub.names]}
        )

    def do_POST(self) -> None:
        stub = self.stub
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with stub.lock:
            stub.headers.append({name.lower(): value for name, value in self.headers.items()})
            stub.under_way += 1
            stub.most = max(stub.most, stub.under_way)
        try:
            self._answer(body, None if is_count(body) else stub.next_fault())
        finally:
            with stub.lock:
                stub.under_way -= 1

    def _answer(self, body: dict[str, Any], fault: str | None) -> None:
        key = self.headers.get("authorization", "")
        if fault == "500":
            return self._send(500, {"error": {"message": "out of memory"}})
        if fault == "429":
            return self._send(429, {"error": {"message": "slow down"}}, **{"retry-after": "0.05"})
        if fault == "401":
            return self._send(401, {"error": {"message": f"Incorrect API key provided: {key}"}})
        if fault == "404":
            return self._send(404, {"error": {"message": "The model `big-model` does not exist."}})
        if fault == "too long":
            return self._send(400, {"error": {"message": "maximum context length is 10 tokens"}})
        if fault == "max_tokens":
            return self._send(400, {"error": {"message": "max_tokens: use 'max_completion_tokens' instead"}})
        if fault == "stall":
            self.stub.over.wait(30)
            return None
        if fault == "no json":
            return self._send(200, "<html>bad gateway</html>")
        if fault == "no choices":
            return self._send(200, {"id": "x", "object": "chat.completion", "choices": [], "usage": None})
        (self.stub.counted if is_count(body) else self.stub.bodies).append(body)
        turn = says("so") if is_count(body) else self.stub.model(body)
        told = {"prompt_tokens": self.stub.tokens(body), "completion_tokens": 7, "total_tokens": 0}
        reply = {
            "id": "x",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [{"index": 0, **turn}],
            "usage": told,
        }
        if fault == "truncate":
            return self._send(200, reply, cut=True)
        return self._send(200, reply)

    def _send(self, status: int, content: Any, *, cut: bool = False, **headers: str) -> None:
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that has gone away is no failure of the test."""


@contextmanager
def stub_server(
    model: Callable[[dict[str, Any]], Turn] = looks_once, faults: Iterable[str | None] = ()
) -> Any:
    """A server on a free port of this machine."""
    stub = StubServer(model, faults)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": stub}))
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
