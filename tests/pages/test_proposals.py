"""Boxes that a model proposes while `lfpc annotate` serves: asked for, accepted, dropped, kept apart."""

import json
import threading
import time
from importlib import resources

import pyarrow as pa
import pytest
import uvicorn
from pyarrow import parquet

from lfpc_trl import cli
from lfpc_trl.annotate.app import make_annotator
from lfpc_trl.annotate.journal import Content, Origin
from lfpc_trl.annotate.project import Project
from lfpc_trl.annotate.proposals import Proposal, Proposals
from lfpc_trl.data.rows import read_rows
from lfpc_trl.errors import UserError
from lfpc_trl.html.background import Background
from lfpc_trl.html.server import Access
from tests import tiny
from tests.pages.conftest import SIGN, client_of, trajectory, write_rows_file, write_trajectories
from tests.pages.driving import last_change
from tests.stub_server import calls, looks_once, says, stub_server

SCRIPT = "<img src=x onerror=alert(1)>"


class Stub:
    """A model that proposes what it is told to, when it is told to."""

    name = SCRIPT  # what others wrote is text wherever it is shown

    def __init__(self, *boxes, held=False):
        self.boxes, self.rows = boxes, []
        self.go = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, row):
        self.rows.append(row)
        assert self.go.wait(30)
        if self.boxes == ("no",):
            raise UserError("the server is\ngone")
        if self.boxes == ("broken",):
            raise ZeroDivisionError("by nothing")
        return [Proposal(box, self.name, image) for image, box in self.boxes]


def until_done(client, number=0):
    end = time.monotonic() + 120  # the first rollout may compile the kernels that score it
    while (state := client.get(f"/api/items/{number}/proposals").json())["busy"] is not None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return state


def client_with(model, source, **options):
    access = Access.listening_on("127.0.0.1")
    proposals = Proposals(options.pop("of_run", None), model)
    return client_of(make_annotator(Project(source), access, annotator="ann", proposals=proposals), access)


def asked(**content):
    return {"content": {"question": "What is it?", "answer": [], "targets": []} | content}


# --- the work in the background ----------------------------------------------------------------------


def test_one_piece_of_work_at_a_time_and_its_failure_in_one_line():
    work, go = Background(), threading.Event()

    def fail():
        assert go.wait(30)
        raise UserError("two\n lines")

    began = []
    assert work.start(fail, lambda: began.append("first"))
    assert work.busy
    assert not work.start(fail, lambda: began.append("second"))
    go.set()
    while work.busy:
        time.sleep(0.001)
    assert (began, work.problem) == (["first"], "two lines")
    assert work.start(lambda: None)
    while work.busy:
        time.sleep(0.001)
    assert work.problem is None


# --- the server --------------------------------------------------------------------------------------


def test_a_model_is_asked_with_the_words_of_the_page_and_its_boxes_are_proposed_alone(rows_file):
    model = Stub((1, (10, 20, 60, 80)))
    client = client_with(model, rows_file)
    assert client.get("/api/project").json()["model"] == SCRIPT
    assert client.post("/api/items/1/proposals", json=asked(choices=["a", "b"])).status_code == 200
    state = until_done(client, 1)
    assert state == {
        "busy": None,
        "failure": None,
        "proposals": [{"box": [10, 20, 60, 80], "by": SCRIPT, "image": 1}],
    }
    [row] = model.rows
    assert (row.question, row.choices, row.image.name) == ("What is it?", ("a", "b"), "picture-1.png")
    overview = client.get("/api/items/1").json()["pictures"][0]["overview"]["size"]
    assert list(row.shown_size) == overview  # what the page calls the model's view
    # Nothing of it is a change, and no other row has it.
    assert client.get("/api/items/1").json()["content"]["targets"] == []
    assert client.get("/api/project").json()["seen"] == 0
    assert client.get("/api/items/0").json()["proposals"] == []


def test_there_is_one_request_at_a_time_and_everything_else_goes_on(rows_file):
    model = Stub((1, (10, 20, 60, 80)), held=True)
    client = client_with(model, rows_file)
    assert client.post("/api/items/0/proposals", json=asked()).json()["busy"] == "q0"
    late = client.post("/api/items/1/proposals", json=asked())
    assert (late.status_code, late.json()["busy"]) == (409, "q0")
    saved = client.post(
        "/api/items/0", json={"base": 0, "annotator": "ann"} | asked(answer=["KR"], targets=[SIGN])
    )
    assert saved.json()["revision"] == 1
    assert client.get("/api/items/0").json()["busy"] == "q0"
    model.go.set()
    assert len(until_done(client)["proposals"]) == 1
    assert client.get("/api/items/1").json()["proposals"] == []


def test_a_model_that_fails_is_told_in_one_line_and_can_be_asked_again(rows_file):
    model = Stub("no")
    client = client_with(model, rows_file, of_run={"q0": [Proposal((1, 2, 30, 40), "run")]})
    client.post("/api/items/0/proposals", json=asked())
    state = until_done(client)
    assert state["failure"] == "the server is gone"
    assert [each["by"] for each in state["proposals"]] == ["run"]
    assert client.get("/api/items/1").json()["failure"] is None
    model.boxes = ("broken",)
    client.post("/api/items/0/proposals", json=asked())
    assert until_done(client)["failure"] == "by nothing"
    model.boxes = ((1, (10, 20, 60, 80)),)
    client.post("/api/items/0/proposals", json=asked())
    state = until_done(client)
    assert state["failure"] is None
    assert [each["by"] for each in state["proposals"]] == [SCRIPT, "run"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"question": " "}, "question must be a text that is not empty"),
        ({"choices": ["one"]}, "choices must be 2 to 26 texts"),
        ({"targets": 3}, "targets must be a list"),
    ],
)
def test_what_no_model_can_be_asked_is_told(rows_file, content, sentence):
    model = Stub()
    answer = client_with(model, rows_file).post("/api/items/0/proposals", json=asked(**content))
    assert (answer.status_code, answer.text[: len(sentence)]) == (422, sentence)
    assert model.rows == []


# --- what stays of an accepted box -------------------------------------------------------------------


def test_where_a_box_came_from_is_kept_in_journal_and_export_and_read_again(tmp_path):
    rows = write_rows_file(tmp_path, 1)
    project = Project(rows)
    origins = ((Origin("stub", (90, 90, 200, 150)), None),)
    targets = (tuple(map(tuple, SIGN)),)
    content = Content("What?", ("KR",), None, targets, "done", proposed=origins)
    project.save(project.items[0], 0, "ann", content)
    again = Project(rows)
    assert again.content(again.items[0]) == content
    assert cli.main(["annotate", str(rows), "--export", str(tmp_path / "out.jsonl")]) == 0
    [row] = read_rows(tmp_path / "out.jsonl")
    assert row.extras == {"x_proposed": [[{"by": "stub", "box": [90, 90, 200, 150]}, None]]}
    # What was exported is where another round begins: with a box less its origin is gone, too.
    round_two = Project(tmp_path / "out.jsonl")
    [item] = round_two.items
    assert (item.start.proposed, item.carried) == (origins, {})
    redrawn = Content("What?", ("KR",), None, ((tuple(SIGN[1]),),), "done")
    round_two.save(item, 0, "ann", redrawn)
    assert round_two.finished()[0].extras == {}


def test_a_column_of_that_name_that_is_something_else_is_carried_along(tmp_path):
    rows = write_rows_file(tmp_path, 1, targets=SIGN, x_proposed="by hand")
    [item] = Project(rows).items
    assert (item.start.proposed, item.carried) == ((), {"x_proposed": "by hand"})


def test_a_run_s_crops_of_several_pictures_are_proposed_each_on_its_own(tmp_path, monkeypatch):
    rows = tiny.make_several(tmp_path, 1)
    part = write_trajectories(tmp_path / "run" / "trajectories" / "part.parquet", [trajectory()])
    table = parquet.read_table(part)
    crops = pa.array([[[0, 0, 40, 40], [10, 10, 60, 60]]])
    table = table.set_column(table.schema.get_field_index("boxes"), "boxes", crops)
    parquet.write_table(table.append_column("box_images", pa.array([[3, 1]])), part)
    client = served_by(monkeypatch, rows, "--prefill", tmp_path / "run")
    assert client.get("/api/items/0").json()["proposals"] == [
        {"box": [0, 0, 40, 40], "by": "run", "image": 3},
        {"box": [10, 10, 60, 60], "by": "run", "image": 1},
    ]


# --- the command with a server and with a checkpoint -------------------------------------------------


def served_by(monkeypatch, *arguments):
    """A client of the application that the command would serve."""
    from lfpc_trl.commands import annotate as command
    from lfpc_trl.html import server

    served = []
    monkeypatch.setattr(server, "serve", lambda app, access, _: served.append((app, access)))
    command.main(list(map(str, arguments)))
    [(app, access)] = served
    return client_of(app, access)


@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_server_is_asked_as_lfpc_ask_asks_it(tmp_path, monkeypatch):
    pytest.importorskip("openai", reason="the client of such servers is not installed")
    rows = tiny.make_rows(tmp_path, 1, shown_size=[112, 84])

    def model(body):
        answers = sum(message["role"] == "tool" for message in body["messages"])
        turns = [calls([10, 10, 60, 50]), calls([10, 10, 60, 50]), calls("nonsense"), says(SCRIPT)]
        return turns[answers]

    with stub_server(model) as stub:
        options = ("--endpoint", stub.url, "--frame", "shown", "--token-side", "28", "--crop-tokens", "16")
        client = served_by(monkeypatch, rows, *options)
        assert stub.bodies == []
        assert client.get("/api/project").json()["model"] == "big-model"
        client.post("/api/items/0/proposals", json=asked())
        state = until_done(client)
    # The picture of 224 x 168 is shown at half its size; the box that was asked for twice is proposed once.
    assert state["failure"] is None
    assert state["proposals"] == [{"box": [20, 20, 120, 100], "by": "big-model", "image": 1}]
    assert "What is it?" in json.dumps(stub.bodies[0])


@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_server_that_fails_or_looks_nowhere_is_told(tmp_path, monkeypatch):
    pytest.importorskip("openai")
    rows = tiny.make_rows(tmp_path, 1)
    with stub_server(lambda _: says("<answer>A</answer>")) as stub:
        options = ("--endpoint", stub.url, "--frame", "shown", "--endpoint-timeout", "5")
        client = served_by(monkeypatch, rows, *options)
        client.post("/api/items/0/proposals", json=asked())
        assert until_done(client) == {"busy": None, "failure": None, "proposals": []}
    with stub_server(looks_once, faults=["401"] * 9) as stub:
        client = served_by(monkeypatch, rows, "--endpoint", stub.url, "--frame", "shown")
        client.post("/api/items/0/proposals", json=asked())
        failure = until_done(client)["failure"]
        assert failure
        assert "\n" not in failure


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--endpoint-price", "1,2"], "--endpoint-price is of a server: give --endpoint, too"),
        (["--model", "no/such"], "no/such"),
        (["--crop-tokens", "0"], "--crop-tokens must be at least 1, got 0"),
    ],
)
def test_options_of_a_model_that_cannot_work_are_one_line(rows_file, more, message, capsys):
    assert cli.main(["annotate", str(rows_file), *more]) == 2
    assert message in capsys.readouterr().err


CHECKPOINT = str(resources.files("lfpc_trl.demo") / "warm")


@pytest.fixture(scope="module")
def demo_rows(tmp_path_factory):
    """The questions about one picture of the demo's world, without targets."""
    from lfpc_trl.demo import world

    folder = tmp_path_factory.mktemp("world")
    list(world.make_pictures(folder, 1, seed=3, photos=world.UNSEEN_PHOTOS, name="test"))
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    for line in lines:
        del line["targets"]
    tiny.write_records(folder / "rows.jsonl", lines)
    return folder / "rows.jsonl"


def test_the_shipped_checkpoint_is_asked_and_looks_no_closer(demo_rows, monkeypatch):
    """Before its training by rewards it answers at once, where nothing is sampled."""
    client = served_by(monkeypatch, demo_rows, "--model", CHECKPOINT)
    question = read_rows(demo_rows)[0].question
    for words, failure in (
        (question, None),
        ("What is <|image_pad|>?", "question and choices must not hold '<|image_pad|>', a special token"),
        (question, None),
    ):
        client.post("/api/items/0/proposals", json=asked(question=words))
        state = until_done(client)
        assert state["proposals"] == []
        assert (failure or "None") in str(state["failure"])


@pytest.mark.slow
def test_a_model_directory_proposes_what_lfpc_ask_tells(taught_dir, data_file, monkeypatch, capsys):
    row = read_rows(data_file)[0]
    budget = ("--crop-tokens", "8", "--model", str(taught_dir))
    client = served_by(monkeypatch, data_file, "--shown-tokens", "12", *budget)
    client.post("/api/items/0/proposals", json=asked(question=row.question))
    state = until_done(client)
    assert state["failure"] is None
    boxes = [each["box"] for each in state["proposals"]]
    capsys.readouterr()
    assert cli.main(["ask", *budget, "--budget", "12", "--json", str(row.image), row.question]) == 0
    looks = json.loads(capsys.readouterr().out)["looks"]
    assert boxes == [list(box) for box in dict.fromkeys(tuple(look["box"]) for look in looks)]
    assert boxes
    assert state["proposals"][0]["by"] == taught_dir.name


def test_the_model_s_own_sides_and_tokens_are_those_of_the_page(demo_rows, capsys):
    assert cli.main(["annotate", str(demo_rows), "--model", CHECKPOINT, "--factor", "7"]) == 2
    assert "--factor must be 28, that of the model, got 7" in capsys.readouterr().err


# --- the page ----------------------------------------------------------------------------------------


@pytest.fixture
def page_with(opened, tmp_path):
    """Makes a page with a server in this process and a model that is told what to propose; and its rows."""
    servers = []

    def make(model, rows=None):
        rows = rows or write_rows_file(tmp_path, 2)
        access = Access.listening_on("127.0.0.1")
        app = make_annotator(Project(rows), access, annotator="ann", proposals=Proposals(None, model))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run)
        servers.append((server, thread))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        page = opened(f"http://127.0.0.1:{port}/?token={access.token}")
        page.until(lambda: page.text("#row-name") and page.text("#scale"))
        return page, rows

    yield make
    for server, thread in servers:
        server.should_exit = server.force_exit = True
        thread.join()


LOOKED = [[64, 48, 192, 144], [320, 240, 480, 384]]
TWO_LOOKS = [(1, tuple(box)) for box in LOOKED]


@pytest.mark.browser
def test_boxes_are_proposed_in_one_click_and_are_targets_once_they_are_accepted(page_with):
    page, rows = page_with(Stub(*TWO_LOOKS))
    page.click("#propose")
    page.until(lambda: page.locator(".boxes .proposal").count() == 2)
    page.until(lambda: page.text("#toast") == "2 boxes proposed.")
    assert f"2 boxes proposed by {Stub.name}, dashed" in page.text("#proposals")
    page.wait_for_timeout(500)
    assert last_change(rows)["targets"] is None  # nothing is saved
    page.keyboard.press("a")
    page.until_saved()
    origins = [{"by": Stub.name, "box": box} for box in LOOKED]
    assert last_change(rows)["targets"] == [LOOKED[:1]]
    assert last_change(rows)["proposed"] == [origins[:1]]
    assert page.text("#regions .from") == f"proposed by {Stub.name}"
    # Undo gives the proposal back, redo takes it again; a change of the box is still a change of that one.
    page.keyboard.press("Control+z")
    page.until(lambda: page.locator(".boxes .proposal").count() == 2)
    page.until_saved()
    assert last_change(rows)["targets"] == []
    assert "proposed" not in last_change(rows)
    page.keyboard.press("Control+y")
    page.keyboard.press("b")
    page.keyboard.press("Shift+ArrowLeft")
    page.until(lambda: page.locator(".boxes .proposal").count() == 1)
    page.until_saved()
    assert last_change(rows)["targets"] == [[[54, 48, 182, 144]]]
    assert last_change(rows)["proposed"] == [origins[:1]]
    # A click on the label of the other one accepts it, in a region of its own.
    page.keyboard.press("r")
    page.locator(".boxes .proposal .tag").click()
    page.until_saved()
    assert last_change(rows)["targets"] == [[[54, 48, 182, 144]], LOOKED[1:]]
    assert last_change(rows)["proposed"] == [origins[:1], origins[1:]]
    # Nothing that the page knows is lost when it is opened anew.
    page.keyboard.press("w")
    page.keyboard.type("KR")
    page.keyboard.press("Control+Enter")
    page.until(lambda: page.text("#row-name") == "q1")
    page.select_option("#filter", "all")
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    page.until(lambda: page.text("#row-name") == "q0")
    page.wait_for_timeout(300)
    assert page.locator(".boxes .proposal").count() == 0
    [row] = Project(rows).finished()
    assert row.extras["x_proposed"] == [origins[:1], origins[1:]]
    assert page.errors == []


@pytest.mark.browser
def test_a_proposal_is_dropped_by_key_and_another_one_is_highlighted(page_with):
    page, rows = page_with(Stub(*TWO_LOOKS))
    page.keyboard.press("u")
    page.until(lambda: page.locator(".boxes .proposal").count() == 2)
    page.keyboard.press("]")
    page.until(lambda: page.text_content(".boxes .proposal.current .tag") == "P2 · A accepts")
    page.keyboard.press("Shift+A")
    page.until(lambda: page.locator(".boxes .proposal").count() == 1)
    page.keyboard.press("j")
    page.until(lambda: page.text("#row-name") == "q1")
    page.keyboard.press("k")
    page.until(lambda: page.text("#row-name") == "q0")
    page.wait_for_timeout(300)
    assert page.locator(".boxes .proposal").count() == 1
    page.click("#drop")
    page.until(lambda: page.locator(".boxes .proposal").count() == 0)
    assert last_change(rows)["targets"] is None
    assert page.errors == []


@pytest.mark.browser
def test_the_page_is_used_while_the_model_is_at_work(page_with):
    model = Stub(*TWO_LOOKS, held=True)
    page, rows = page_with(model)
    page.fill("#question", "Typed just now?")
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.until(lambda: page.text("#propose").startswith("Looking, "))
    assert page.get_attribute("#propose", "aria-busy") == "true"
    page.keyboard.press("d")
    page.until_saved()
    assert len(last_change(rows)["targets"][0]) == 1
    page.keyboard.press("u")
    page.until(lambda: "still at work on row q0" in page.text("#toast"))
    page.keyboard.press("j")
    page.until(lambda: page.text("#row-name") == "q1")
    model.go.set()
    page.until(lambda: page.text("#toast") == "q0: 2 boxes proposed.")
    assert page.locator(".boxes .proposal").count() == 0  # they are of another row
    page.keyboard.press("k")
    page.until(lambda: page.locator(".boxes .proposal").count() == 2)
    assert page.text("#propose") == "Propose a box"
    assert page.errors == []


@pytest.mark.browser
def test_a_page_that_is_loaded_anew_waits_for_what_was_asked(page_with):
    model = Stub(*TWO_LOOKS, held=True)
    page, _ = page_with(model)
    page.keyboard.press("u")
    page.until(lambda: page.text("#propose").startswith("Looking, "))
    page.page.reload()
    page.until(lambda: page.text("#propose").startswith("Looking, "))
    model.go.set()
    page.until(lambda: page.locator(".boxes .proposal").count() == 2)


@pytest.mark.browser
def test_why_there_is_no_box_is_said_on_the_page_in_one_line(page_with):
    model = Stub()
    page, _ = page_with(model)
    page.keyboard.press("u")
    page.until(lambda: page.text("#toast") == "no box proposed: the model looked no closer.")
    page.fill("#question", "")
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.until(lambda: "No box: question must be a text that is not empty" in page.text("#proposals"))
    page.fill("#question", "What?")
    page.keyboard.press("Escape")
    model.boxes = ("no",)
    page.keyboard.press("u")
    page.until(lambda: page.text("#proposals") == "No box: the server is gone")
    assert page.text("#propose") == "Propose a box"
    assert [error for error in page.errors if "422" not in error] == []


@pytest.mark.browser
def test_proposals_lie_on_the_picture_that_they_are_of(page_with, tmp_path):
    rows = tiny.make_several(tmp_path, 1, targets=None, target_images=None)

    page, _ = page_with(Stub((2, (10, 10, 60, 60)), (3, (0, 0, 40, 40))), rows)
    page.keyboard.press("u")
    page.until(lambda: page.text("#toast") == "2 boxes proposed on image 2, 3.")
    assert page.locator(".boxes .proposal").count() == 0
    page.keyboard.press("p")
    page.until(lambda: page.locator(".boxes .proposal").count() == 1)
    page.keyboard.press("a")
    page.until_saved()
    assert last_change(rows)["target_images"] == [2]
    assert last_change(rows)["proposed"][0][0]["by"] == Stub.name
    assert page.errors == []


@pytest.mark.browser
def test_the_shipped_checkpoint_is_asked_on_the_page(opened, serve, demo_rows):
    page = opened(serve("annotate", demo_rows, "--model", CHECKPOINT).url)
    page.until(lambda: page.text("#row-name") and page.text("#scale"))
    page.click("#propose")
    page.until(lambda: page.text("#toast") == "no box proposed: the model looked no closer.", 120)
    assert page.errors == []
