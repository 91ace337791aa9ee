"""`lfpc eval` and `lfpc select-resolution` with a server: they go on, sum the cost, and hide the key."""

import json

import pytest

pytest.importorskip("openai", reason="the client of such servers is not installed")

from lfpc_trl import cli
from lfpc_trl.evaluate.outputs import read_columns
from tests.stub_server import looks_once, pictures, says, stub_server
from tests.tiny import make_rows

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")
KEY = "sk-secret-of-this-test"


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("LFPC_ENDPOINT_KEY", KEY)


@pytest.fixture
def data(tmp_path):
    return make_rows(tmp_path / "data", 4, shown_size=None)


def evaluation(stub, data, output, *more):
    return [
        *(
            "eval",
            "--endpoint",
            stub.url,
            "--endpoint-model",
            "big",
            "--frame",
            "shown",
            "--token-side",
            "28",
        ),
        *("--data", str(data), "--output", str(output), "--budget", "12", "--crop-tokens", "16"),
        *("--endpoint-price", "1,10", *more),
    ]


def selection(stub, data, output, *more):
    return [
        *("select-resolution", "--endpoint", stub.url, "--endpoint-model", "big", "--token-side", "28"),
        *("--data", str(data), "--output", str(output), "--ladder", "48,12", *more),
    ]


def holding_the_key(folder):
    return [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_an_evaluation_has_the_files_of_any_other_and_its_cost(data, tmp_path, capsys):
    output = tmp_path / "eval"
    with stub_server() as stub:
        assert cli.main(evaluation(stub, data, output)) == 0
        requests = len(stub.bodies)
        assert {headers["authorization"] for headers in stub.headers} == {f"Bearer {KEY}"}
    # predicted and its four variants share a first turn and have an answer each; without the tool: one turn.
    assert requests == 4 * (1 + 5 + 1)
    about = json.loads((output / "evaluation.json").read_text())
    assert about["settings"]["model"] == about["settings"]["fingerprint"] == "big"
    assert about["settings"]["engine"] == "endpoint"
    assert about["tokens"] == {"prompt_tokens": 100 * requests, "completion_tokens": 7 * requests}
    cost = (100 * requests * 1 + 7 * requests * 10) / 1e6
    assert about["endpoint"] == {"url": stub.url, "cost": pytest.approx(cost)}
    told = capsys.readouterr()
    assert f"tokens: {100 * requests:,} read, {7 * requests} written, cost {cost:.4f}" in told.out
    found = read_columns(output, ("condition", "boxes", "answer"))
    assert {
        (condition, len(boxes), answer) for condition, boxes, answer in zip(*found.values(), strict=True)
    } == {
        ("predicted", 1, "A"),
        ("target", 1, "A"),
        ("noise", 1, "A"),
        ("elsewhere", 1, "A"),
        ("no_picture", 0, "A"),
        ("no_tool", 0, "A"),
    }
    assert (output / "report.html").exists()
    assert holding_the_key(tmp_path) == []
    assert KEY not in told.out + told.err


def test_an_evaluation_goes_on_where_the_server_stopped(data, tmp_path, capsys):
    output = tmp_path / "eval"
    more = ("--batch-size", "1", "--endpoint-timeout", "20")
    with stub_server(faults=[*[None] * 9, *["401"] * 99]) as stub:
        assert cli.main(evaluation(stub, data, output, *more)) == 2
        assert KEY not in capsys.readouterr().err
        first = len(stub.bodies)
    with stub_server() as stub:
        line = evaluation(stub, data, output, *more)
        assert cli.main(line) == 0
        assert "going on: " in capsys.readouterr().out
        assert first + len(stub.bodies) <= 4 * 7 + 1  # at most the turn that was under way is asked again
    about = json.loads((output / "evaluation.json").read_text())
    assert about["tokens"]["completion_tokens"] >= 7 * (first + len(stub.bodies)) - 14
    with stub_server() as stub:
        another = [word if word != "big" else "small" for word in evaluation(stub, data, output, *more)]
        assert cli.main(another) == 2
    assert "model was 'big' and is 'small'" in capsys.readouterr().err


def test_a_picture_that_the_server_refuses_costs_no_other_its_rollouts(data, tmp_path, capsys):
    output = tmp_path / "eval"
    line_of = lambda stub: evaluation(stub, data, output, "--batch-size", "1", "--conditions", "no_tool")  # noqa: E731
    with stub_server(faults=[None, "too long"]) as stub:
        assert cli.main(line_of(stub)) == 2
        assert "not finished" in capsys.readouterr().err
        assert len(stub.bodies) == 3
    with stub_server() as stub:
        assert cli.main(line_of(stub)) == 0
        assert len(stub.bodies) == 1


def test_a_selection_asks_level_by_level(data, tmp_path, capsys):
    """A model that reads the sign on the finest level alone."""

    def model(body):
        [shown] = pictures(body)
        return says(f"<answer>{'A' if shown.width * shown.height == 48 * 28**2 else 'B'}</answer>")

    with stub_server(model) as stub:
        assert cli.main(selection(stub, data, tmp_path / "rows.jsonl", "--endpoint-price", "1,1")) == 0
        assert "tools" not in stub.bodies[0]
        assert len(stub.bodies) == 8
    assert "tokens: 800 read, 56 written, cost 0.0009" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {(row["diverged"], row["selected_level"]) for row in rows} == {(True, 1)}
    assert holding_the_key(tmp_path) == []


def test_one_process_asks_a_server(data, tmp_path, capsys):
    with stub_server(looks_once) as stub:
        assert cli.main(evaluation(stub, data, tmp_path / "eval", "--processes", "2")) == 2
    assert "--endpoint: one process asks a server, --batch-size requests at a time" in capsys.readouterr().err
