"""`lfpc ask`: what the model looks at and its answer, at the keyboard, as JSON, on a page, with a server."""

import io
import json
import threading
import time

import pytest
from PIL import Image

from lfpc_trl import cli
from lfpc_trl.data.rows import read_rows
from lfpc_trl.html.server import Access
from tests.pages.conftest import client_of
from tests.stub_server import ANSWER, calls, looks_once, says, stub_server
from tests.tiny import make_picture

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")
BOX = [20, 20, 120, 100]
"""The box that `looks_once` asks for, in pixels of a picture that is shown at half its size."""


@pytest.fixture
def picture(tmp_path):
    return make_picture(tmp_path / "plate.png")


@pytest.fixture
def server():
    pytest.importorskip("openai", reason="the client of such servers is not installed")
    with stub_server() as stub:
        yield stub


def words(stub, picture, *more):
    """A command that asks the server; its picture of 224 x 168 is shown at 112 x 84."""
    return [
        *("ask", "--endpoint", stub.url, "--frame", "shown", "--token-side", "28", "--budget", "12"),
        *("--crop-tokens", "16", *map(str, more), str(picture)),
    ]


def test_the_answer_and_each_crop_with_its_box_and_tokens(server, picture, capsys):
    assert cli.main([*words(server, picture), "What is on the plate?"]) == 0
    crop, answer, about = capsys.readouterr().out.splitlines()
    assert crop.startswith("crop 1: box 20 20 120 100, shown as 112 x 84, 12 tokens, ")
    assert answer == "answer: A"
    assert about.startswith("picture shown as 112 x 84, 12 tokens; 2 turns, 200 tokens read, 14 written, ")
    assert server.bodies[0]["messages"][1]["content"][1]["text"] == "What is on the plate?"
    assert server.bodies[0]["model"] == "big-model"  # the only one that the server has


def test_the_crops_and_the_conversation_are_written_beside(server, picture, tmp_path, capsys):
    assert cli.main([*words(server, picture, "--save", tmp_path / "saved", "--quiet"), "What?"]) == 0
    assert capsys.readouterr().out == "A\n"
    kept = json.loads((tmp_path / "saved" / "1.json").read_text())
    assert (kept["answer"], kept["looks"][0]["box"], kept["looks"][0]["size"]) == ("A", BOX, [112, 84])
    with Image.open(tmp_path / "saved" / "1-crop-1.png") as crop:
        assert crop.size == (112, 84)
        with Image.open(picture) as original:
            expected = original.convert("RGB").crop(BOX).resize((112, 84), Image.Resampling.BICUBIC)
        near = abs(crop.getpixel((56, 42))[0] - expected.getpixel((56, 42))[0])
        assert near < 10
    assert cli.main([*words(server, picture, "--save", tmp_path / "saved"), "What?"]) == 2
    assert "must be a new or empty directory" in capsys.readouterr().err


def test_without_a_question_each_line_of_the_keyboard_is_one(server, picture, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is it?\n\n  And this?\n"))
    assert cli.main(words(server, picture, "--json")) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["question"], second["question"]) == ("What is it?", "And this?")
    assert first["looks"][0]["tokens"] == 12
    assert (first["tokens_read"], first["tokens_written"], len(first["turns"])) == (200, 14, 2)


def test_options_are_shown_with_the_question(server, picture, capsys):
    assert (
        cli.main(
            [*words(server, picture)[:-1], "--choices", "a plate", "a cup", "--json", str(picture), "What?"]
        )
        == 0
    )
    assert server.bodies[0]["messages"][1]["content"][1]["text"] == "What?\nA. a plate\nB. a cup"
    assert json.loads(capsys.readouterr().out)["answer"] == "A"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budget", "0"], "--budget must be at least 1, got 0"),
        (["--temperature", "3"], "--temperature must be 0 to 2, got 3"),
        (["--pages"], ", did you mean --page?"),
        (["--page", "--save", "crops"], "--page asks on the page"),
        (["--endpoint-price", "much"], "--endpoint-price must be READ,WRITTEN per million tokens"),
        (["--token-side", "0"], "--token-side and --endpoint-timeout must be positive"),
    ],
)
def test_what_cannot_work_is_one_clear_line(more, message, server, picture, capsys):
    line = words(server, picture, *more)
    assert cli.main(line) == 2
    assert message in capsys.readouterr().err
    assert server.bodies == []


def test_who_is_asked_must_be_said(picture, capsys):
    assert cli.main(["ask", str(picture), "What?"]) == 2
    assert "--model is needed, or --endpoint" in capsys.readouterr().err
    assert cli.main(["ask", "--model", "m", "--endpoint-price", "1,2", str(picture), "What?"]) == 2
    assert "--endpoint-price is of a server: give --endpoint, too" in capsys.readouterr().err


def test_a_server_with_several_models_wants_a_name_and_a_frame_is_needed(server, picture, capsys):
    server.names = ["small", "big"]
    assert cli.main([*words(server, picture), "What?"]) == 2
    assert "--endpoint-model is needed, the server has small, big" in capsys.readouterr().err
    line = ["ask", "--endpoint", server.url, "--endpoint-model", "big", str(picture), "What?"]
    assert cli.main(line) == 2
    assert "--frame must say in which frame the model's boxes count" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["no.png", "text.png"])
def test_a_picture_that_is_none_is_named(name, server, tmp_path, capsys):
    (tmp_path / "text.png").write_text("words")
    assert cli.main([*words(server, tmp_path / name), "What?"]) == 2
    assert name in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_directory_is_asked_as_an_evaluation_asks_it(taught_dir, data_file, tmp_path, capsys):
    """The same rollout: the transcript of `lfpc eval` for the same question at the same budget."""
    from lfpc_trl.evaluate.outputs import read_columns

    row = read_rows(data_file)[0]
    common = ["--model", str(taught_dir), "--budget", "12", "--crop-tokens", "8", "--max-new-tokens", "40"]
    assert cli.main(["ask", *common, "--json", str(row.image), row.question]) == 0
    asked = json.loads(capsys.readouterr().out)
    line = [
        "eval",
        *common,
        "--data",
        str(data_file),
        "--conditions",
        "predicted",
        "--output",
        str(tmp_path / "e"),
    ]
    assert cli.main(line) == 0
    found = read_columns(tmp_path / "e", ("row_id", "messages", "boxes", "answer"))
    at = found["row_id"].index(row.id)
    messages = json.loads(found["messages"][at])
    assert asked["turns"] == [each["content"] for each in messages if each["role"] == "assistant"]
    assert [look["box"] for look in asked["looks"]] == found["boxes"][at]
    assert asked["answer"] == found["answer"][at]


# --- the page ----------------------------------------------------------------------------------------


def page(stub, picture):
    from lfpc_rewards import Frame
    from lfpc_trl.ask.app import make_page
    from lfpc_trl.ask.asking import Asker
    from lfpc_trl.models.endpoint import Endpoint, EndpointSettings
    from lfpc_trl.rollouts.chat import EndpointEngine
    from lfpc_trl.rollouts.crop_tool import CropSettings
    from lfpc_trl.rollouts.generate import RolloutSettings

    engine = EndpointEngine(Endpoint(EndpointSettings(stub.url, "m", retries=0)), 28)
    crops = CropSettings(Frame.SHOWN, 28, crop_tokens=16)
    asker = Asker(engine, crops, RolloutSettings(max_turns=4), picture, 12)
    access = Access.listening_on("127.0.0.1")
    return client_of(make_page(asker, access, name="m"), access)


def until(client, condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = client.get("/api/state").json()
        if condition(state):
            return state
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {state}")


def test_the_page_tells_each_look_as_it_happens(picture):
    """The model's third turn waits until the page has seen the second one's crop."""
    pytest.importorskip("openai")
    seen = threading.Event()

    def model(body):
        answers = sum(message["role"] == "tool" for message in body["messages"])
        if answers == 2:
            assert seen.wait(30)
        return says(ANSWER) if answers == 2 else calls([10 + 20 * answers, 10, 60 + 20 * answers, 50])

    with stub_server(model) as stub:
        client = page(stub, picture)
        assert client.get("/api/about").json() == {
            "model": "m",
            "picture": "plate.png",
            "size": [224, 168],
            "shown": [112, 84],
            "tokens": 12,
        }
        assert client.get("/api/state").json() == {"number": 0, "busy": False, "problem": None, "told": None}
        assert client.post("/api/ask", json={"question": "What?"}).json() == {"number": 1}
        state = until(client, lambda state: state["told"] and len(state["told"]["looks"]) == 2)
        assert state["busy"]
        assert state["told"]["answer"] is None
        assert [look["box"] for look in state["told"]["looks"]] == [BOX, [60, 20, 160, 100]]
        assert client.post("/api/ask", json={"question": "Again?"}).status_code == 409
        crop = client.get("/looks/1/1")
        assert Image.open(io.BytesIO(crop.content)).size == (112, 84)
        assert client.get("/looks/1/2").status_code == 404
        assert client.get("/looks/0/0").status_code == 404
        seen.set()
        state = until(client, lambda state: not state["busy"])
        assert state["told"]["answer"] == "A"
        assert Image.open(io.BytesIO(client.get("/picture").content)).size == (224, 168)


@pytest.mark.parametrize("body", [{}, {"question": ""}, {"question": 3}, []])
def test_a_question_that_is_none_is_refused(body, picture):
    pytest.importorskip("openai")
    with stub_server() as stub:
        assert page(stub, picture).post("/api/ask", json=body).status_code == 422


def test_a_failure_is_told_and_the_next_question_can_be_asked(picture):
    pytest.importorskip("openai")
    with stub_server(looks_once, faults=["500"]) as stub:
        client = page(stub, picture)
        client.post("/api/ask", json={"question": "What?"})
        state = until(client, lambda state: not state["busy"])
        assert "gives no answer" in state["problem"]
        client.post("/api/ask", json={"question": "What?"})
        assert until(client, lambda state: not state["busy"])["told"]["answer"] == "A"
