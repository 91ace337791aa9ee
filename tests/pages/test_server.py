"""Who is answered, and with which headers."""

import socket

import pytest
import uvicorn
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from lfpc_trl.errors import UserError
from lfpc_trl.html.server import MAX_BODY, Access, is_loopback, make_app, serve
from tests.pages.conftest import client_of


@pytest.fixture
def static(tmp_path):
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "index.html").write_text("<title>page</title>")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def access():
    return Access.listening_on("127.0.0.1")


@pytest.fixture
def app(access, static):
    def refuse(request):
        raise UserError("this cannot be")

    def echo(request):
        return JSONResponse({"said": "yes"})

    return make_app(
        access, static, [Route("/api/echo", echo, methods=["GET", "POST"]), Route("/api/refuse", refuse)]
    )


@pytest.fixture
def client(app, access):
    return client_of(app, access)


# --- names -------------------------------------------------------------------------------------------

LOOPBACK = Access.listening_on("127.0.0.1")
OPEN = Access.listening_on("192.168.1.7")
HOSTS = [
    ("the address", LOOPBACK, "127.0.0.1:8021", True),
    ("the name", LOOPBACK, "localhost:8021", True),
    ("IPv6", LOOPBACK, "[::1]:8021", True),
    ("the port of a tunnel", LOOPBACK, "localhost:9999", True),
    ("capitals", LOOPBACK, "LOCALHOST", True),
    ("a foreign site", LOOPBACK, "evil.example:8021", False),
    ("a name that begins alike", LOOPBACK, "localhost.evil.example", False),
    ("a user before the name", LOOPBACK, "127.0.0.1@evil.example", False),
    ("another address", LOOPBACK, "192.168.1.7:8021", False),
    ("nothing", LOOPBACK, "", False),
    ("broken brackets", LOOPBACK, "[::1", False),
    ("an open server by its address", OPEN, "192.168.1.7:8021", True),
    ("an open server by another address of its own", OPEN, "10.0.0.3:8021", True),
    ("an open server by the machine's name", OPEN, f"{socket.gethostname()}:8021", True),
    ("an open server by a foreign name", OPEN, "evil.example:8021", False),
]


@pytest.mark.parametrize(("_", "access", "host", "known"), HOSTS, ids=[case[0] for case in HOSTS])
def test_a_server_answers_to_its_own_names_only(_, access, host, known):
    assert access.knows(host) is known


def test_a_foreign_host_header_is_refused_even_with_the_token(client):
    assert client.get("/api/echo").status_code == 200
    answer = client.get("/api/echo", headers={"host": "evil.example"})
    assert answer.status_code == 421
    assert "said" not in answer.text


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("box", False),
    ],
)
def test_what_only_this_machine_can_reach(host, loopback):
    assert is_loopback(host) is loopback


# --- the token ---------------------------------------------------------------------------------------


def test_without_the_token_nothing_is_answered(app):
    stranger = TestClient(app, base_url="http://127.0.0.1:8021")
    for path in ("/", "/?token=", "/?token=wrong", "/api/echo", "/static/shared/common.css", "/nowhere"):
        answer = stranger.get(path)
        assert answer.status_code == 403, path
        assert "Open the address that the command printed" in answer.text


def test_the_token_becomes_a_cookie_and_leaves_the_address(app, access):
    browser = TestClient(app, base_url="http://127.0.0.1:8021", follow_redirects=False)
    answer = browser.get("/", params={"token": access.token, "row": "a b"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?row=a+b"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"lfpc-8021={access.token};")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def test_a_cookie_of_another_port_is_another_page(app, access):
    browser = TestClient(app, base_url="http://127.0.0.1:8021", cookies={"lfpc-8022": access.token})
    assert browser.get("/api/echo").status_code == 403


def test_every_server_has_a_token_of_its_own_and_does_not_show_it():
    first, second = Access.listening_on("localhost"), Access.listening_on("localhost")
    assert first.token != second.token
    assert len(first.token) >= 20
    assert first.token not in repr(first)


# --- changes -----------------------------------------------------------------------------------------

POSTS = [
    ("the page itself", {}, 200),
    ("a foreign site", {"origin": "http://evil.example"}, 403),
    ("another page of this machine", {"origin": "http://127.0.0.1:9999"}, 403),
    ("a hidden origin", {"origin": "null"}, 403),
    ("no origin", {"origin": ""}, 403),
    ("a form", {"content-type": "application/x-www-form-urlencoded"}, 415),
    ("text", {"content-type": "text/plain"}, 415),
    ("JSON with its encoding", {"content-type": "application/json; charset=utf-8"}, 200),
]


@pytest.mark.parametrize(("_", "headers", "status"), POSTS, ids=[case[0] for case in POSTS])
def test_only_the_page_itself_may_post(client, _, headers, status):
    headers = {"content-type": "application/json"} | headers
    assert client.post("/api/echo", content="{}", headers=headers).status_code == status


def test_a_change_has_a_limit_and_says_its_length(client):
    headers = {"content-type": "application/json"}
    assert client.post("/api/echo", content=b" " * (MAX_BODY + 1), headers=headers).status_code == 413
    assert client.post("/api/echo", content=iter([b"{}"]), headers=headers).status_code == 413


# --- answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/echo", "/api/refuse", "/nowhere", "/static/shared/api.js"])
def test_every_answer_carries_the_policy(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_what_a_page_says_about_keeping_its_answer_stays(access, static):
    def keep(request):
        return JSONResponse({}, headers={"cache-control": "private, max-age=60"})

    client = client_of(make_app(access, static, [Route("/api/keep", keep)]), access)
    assert client.get("/api/keep").headers["cache-control"] == "private, max-age=60"


def test_a_refusal_carries_the_policy_too(app):
    answer = TestClient(app, base_url="http://evil.example").get("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")


def test_a_user_error_is_told_and_not_a_crash(client):
    answer = client.get("/api/refuse")
    assert answer.status_code == 422
    assert answer.text == "this cannot be"
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    "path",
    [
        "/static/page/../secret.txt",
        "/static/page/%2e%2e/secret.txt",
        "/static/page/..%2fsecret.txt",
        "/static/page/%2e%2e%2fsecret.txt",
        "/static/page//etc/passwd",
        "/static/shared/..%5c..%5cserver.py",
        "/static/shared/../server.py",
        "/static/page/",
        "/static/shared",
    ],
)
def test_no_file_outside_the_static_folders_and_no_listing(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text


# --- listening ---------------------------------------------------------------------------------------


def test_a_port_in_use_is_one_line(app):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1 port {port}: "):
            serve(app, Access.listening_on("127.0.0.1"), port)


@pytest.fixture
def bound(monkeypatch):
    """The addresses to which servers were bound; they end at once."""
    addresses = []

    def run(self, sockets):
        addresses.append(sockets[0].getsockname())
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run)
    return addresses


def test_by_default_only_this_machine_is_listened_to(app, access, bound, capsys):
    serve(app, access, 0)
    [(host, port)] = bound
    assert host == "127.0.0.1"
    said = capsys.readouterr()
    assert said.out == f"open http://127.0.0.1:{port}/?token={access.token}\nPress Ctrl-C to stop.\n"
    assert said.err == ""


def test_an_open_server_warns(app, bound, capsys):
    access = Access.listening_on("0.0.0.0")
    serve(app, access, 0)
    [(host, port)] = bound
    assert host == "0.0.0.0"
    said = capsys.readouterr()
    assert said.out.startswith(f"open http://{socket.gethostname()}:{port}/?token=")
    assert said.err.startswith("warning: anyone who can reach 0.0.0.0 and knows the address below can")
