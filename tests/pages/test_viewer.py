"""What the server of `lfpc view` answers, without a browser."""

import json
import math
import re

import pyarrow as pa
import pytest
from pyarrow import parquet

from lfpc_trl.data.rows import read_rows
from lfpc_trl.errors import DataError
from lfpc_trl.html.server import Access
from lfpc_trl.runs.directory import read_metrics, truncate_metrics
from lfpc_trl.runs.reading import Run, crops_by_row
from lfpc_trl.view.app import PAGE, make_viewer
from tests.pages.conftest import SIGN, client_of, jpeg, noise, trajectory, write_trajectories


def viewer(*paths, rows=()):
    access = Access.listening_on("127.0.0.1")
    return client_of(make_viewer([Run(path) for path in paths], access, rows=rows), access)


@pytest.fixture
def file(tmp_path):
    return write_trajectories(tmp_path / "eval.parquet", [trajectory(), trajectory(row_id="q1", boxes=[])])


def test_the_runs_and_what_can_be_filtered(file):
    [run] = viewer(file).get("/api/runs").json()["runs"]
    assert run == {
        "name": "eval.parquet",
        "count": 2,
        "generation": 1,
        "steps": [1],
        "endings": ["answered"],
        "conditions": [],
        "has_targets": True,
    }


def test_the_list_comes_in_pages(tmp_path):
    file = write_trajectories(
        tmp_path / "t.parquet", [trajectory(answer=str(n), step=n % 2) for n in range(250)]
    )
    client = viewer(file)
    first = client.get("/api/runs/0/list").json()
    assert (first["count"], len(first["page"])) == (250, PAGE)
    last = client.get("/api/runs/0/list", params={"from": 200, "step": ""}).json()
    assert [each["answer"] for each in last["page"]] == [str(n) for n in range(200, 250)]
    odd = client.get("/api/runs/0/list", params={"step": 1, "from": 100}).json()
    assert (odd["count"], odd["page"][0]["answer"]) == (125, "201")


def test_filters_arrive(tmp_path):
    file = write_trajectories(
        tmp_path / "t.parquet", [trajectory(), trajectory(boxes=[], answer="<b>"), trajectory(ending="x")]
    )
    client = viewer(file)

    def positions(**asked):
        return [each["position"] for each in client.get("/api/runs/0/list", params=asked).json()["page"]]

    assert positions(crop="no") == [1]
    assert positions(overlap_below="0.5") == [1]
    assert positions(text="<b>") == [1]
    assert positions(ending="x") == [2]
    assert positions(outcome="wrong") == []
    assert positions(order="overlap") == [1, 0, 2]
    assert positions(outcome="nonsense", order="nonsense") == [0, 1, 2]
    answer = client.get("/api/runs/0/list", params={"step": "two"})
    assert (answer.status_code, answer.text) == (422, "overlap_below and step must be numbers")


def test_the_condition_of_an_evaluation_arrives(tmp_path):
    file = write_trajectories(
        tmp_path / "t.parquet", [trajectory(condition=name, step=12) for name in ("predicted", "noise")]
    )
    client = viewer(file)
    assert client.get("/api/runs").json()["runs"][0]["conditions"] == ["predicted", "noise"]
    [listed] = client.get("/api/runs/0/list", params={"condition": "noise"}).json()["page"]
    assert (listed["position"], listed["condition"]) == (1, "noise")
    assert client.get("/api/runs/0/trajectories/1").json()["condition"] == "noise"
    asked = {"row_id": "q0", "step": 12, "condition": "noise"}
    assert client.get("/api/runs/0/match", params=asked).json() == {"position": 1}


def test_a_trajectory_is_told_without_its_pictures(file):
    data = viewer(file).get("/api/runs/0/trajectories/0").json()
    assert data["question"] == "What is 0?"
    assert data["scores"] == {"accuracy": 1.0, "grounding": None}
    assert data["boxes"] == [[70, 70, 270, 200]]
    assert data["targets"] == [SIGN]
    assert data["box_scores"][0]["overlap"] == 1.0
    assert data["thumbnails"] == 2
    assert data["messages"][1] == {"role": "user", "parts": [{"thumbnail": 0}, {"text": "What is 0?"}]}
    assert data["original"] is None


def test_thumbnails_are_those_of_the_file(file):
    client = viewer(file)
    answer = client.get("/thumbnails/0/0/1")
    assert (answer.headers["content-type"], answer.content) == ("image/jpeg", jpeg())
    for path in ("/thumbnails/0/0/2", "/thumbnails/0/9/0", "/thumbnails/1/0/0", "/api/runs/0/trajectories/2"):
        assert client.get(path).status_code == 404


def test_the_path_inside_a_trajectory_is_never_opened(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    noise().save(secret / "picture.png")
    file = write_trajectories(tmp_path / "t.parquet", [trajectory(image=str(secret / "picture.png"))])
    client = viewer(file)
    data = client.get("/api/runs/0/trajectories/0").json()
    assert data["original"] is None
    assert str(secret) not in json.dumps(data)  # not even its folder is told
    assert client.get("/tiles/0/0/0/0").status_code == 404


def test_originals_come_from_the_rows_that_the_user_gave(tmp_path, rows_file):
    file = write_trajectories(
        tmp_path / "t.parquet",
        [trajectory(row_id="q1"), trajectory(row_id="q2", image_size=[700, 500]), trajectory(row_id="x")],
    )
    client = viewer(file, rows=read_rows(rows_file))
    originals = [client.get(f"/api/runs/0/trajectories/{n}").json()["original"] for n in range(3)]
    assert originals[0]["number"] == 1
    assert originals[1:] == [None, None]  # another picture by its size; no such row
    assert client.get("/tiles/1/0/0/0").status_code == 200


MESSAGES = [
    ("no JSON", "{", [{"role": "unreadable", "parts": [{"text": "{"}]}]),
    ("no list", '{"a": 1}', [{"role": "unreadable", "parts": [{"text": '{"a": 1}'}]}]),
    ("no message", '["hm"]', [{"role": "unreadable", "parts": [{"text": "hm"}]}]),
    ("no content", '[{"role": "assistant"}]', [{"role": "assistant", "parts": []}]),
    ("a strange role", '[{"role": 7, "content": "x"}]', [{"role": "7", "parts": [{"text": "x"}]}]),
    (
        "strange blocks",
        json.dumps([{"role": "tool", "content": [7, {"type": "image", "thumbnail": "0"}, {"text": "t"}]}]),
        [
            {
                "role": "tool",
                "parts": [
                    {"text": "7"},
                    {"text": '{"type": "image", "thumbnail": "0"}'},
                    {"text": "t"},
                ],
            }
        ],
    ),
    (
        "calls",
        '[{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "zoom"}}, "odd"]}]',
        [{"role": "assistant", "parts": [{"call": '{"name": "zoom"}'}, {"call": '"odd"'}]}],
    ),
    ("calls that are none", '[{"role": "assistant", "tool_calls": 7}]', [{"role": "assistant", "parts": []}]),
]


@pytest.mark.parametrize(("_", "messages", "shown"), MESSAGES, ids=[case[0] for case in MESSAGES])
def test_whatever_a_file_holds_is_shown(tmp_path, _, messages, shown):
    client = viewer(write_trajectories(tmp_path / "t.parquet", [trajectory(messages=messages)]))
    assert client.get("/api/runs/0/trajectories/0").json()["messages"] == shown


def test_two_runs_are_matched_by_row(tmp_path):
    first = write_trajectories(tmp_path / "a.parquet", [trajectory(row_id="a"), trajectory(row_id="b")])
    second = write_trajectories(tmp_path / "b.parquet", [trajectory(row_id="b", scores=[("accuracy", 0.0)])])
    client = viewer(first, second)
    assert client.get("/api/runs/1/match", params={"row_id": "b", "step": 1}).json() == {"position": 0}
    assert client.get("/api/runs/1/match", params={"row_id": "a", "step": ""}).json() == {"position": None}
    better = client.get("/api/runs/0/list", params={"against": "better"}).json()
    assert [each["row_id"] for each in better["page"]] == ["b"]
    assert client.get("/api/runs/2/list").status_code == 404


def test_curves_hold_numbers_and_gaps(tmp_path):
    lines = [
        {"step": 1, "reward": 0.5, "name": "x", "flag": True},
        {"step": 2, "reward": None, "loss": 1e-4},
        {"step": 3, "reward": math.nan, "loss": math.inf},
        {"epoch": 1},
        {"step": "4"},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    [run] = viewer(tmp_path).get("/api/curves").json()["runs"]
    assert run["step"] == [1, 2, 3]
    assert run["series"] == {"reward": [0.5, None, None], "loss": [None, 1e-4, None]}


def test_a_run_that_goes_on_is_seen(tmp_path):
    write_trajectories(tmp_path / "trajectories" / "step-000001.parquet", [trajectory()])
    client = viewer(tmp_path)
    write_trajectories(tmp_path / "trajectories" / "step-000002.parquet", [trajectory(step=2)])
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "reward": 0.5}\n')
    [run] = client.get("/api/runs").json()["runs"]
    assert (run["count"], run["generation"], run["steps"]) == (2, 2, [1, 2])
    assert client.get("/api/curves").json()["runs"][0]["step"] == [1]


# --- trajectories of other programs ------------------------------------------------------------------


def retyped(tmp_path, column, values, kind=None):
    """A file of trajectories in which one column has other values."""
    path = write_trajectories(tmp_path / "t.parquet", [trajectory() for _ in values])
    table = parquet.read_table(path)
    number = table.column_names.index(column)
    parquet.write_table(table.set_column(number, column, pa.array(values, kind)), path)
    return path


BAD_COLUMNS = [
    ("a text as step", "step", ["one"], None, "column step must hold whole numbers, got string"),
    ("a text as rollout", "rollout", ["1"], None, "column rollout must hold whole numbers, got string"),
    ("boxes of three", "boxes", [[[1, 2, 3]]], None, "boxes must hold lists of 4 numbers, got [1, 2, 3]"),
    (
        "half a box",
        "boxes",
        [[[1, 2, 3, None]]],
        None,
        "boxes must hold lists of 4 numbers, got [1, 2, 3, None]",
    ),
    ("boxes of texts", "boxes", [["1,2,3,4"]], None, "column boxes must hold lists of boxes"),
    (
        "targets of three",
        "targets",
        [[[[1, 2, 3]]]],
        pa.list_(pa.list_(pa.list_(pa.float64()))),
        "targets must",
    ),
    ("one region", "targets", [[[1, 2, 3, 4]]], None, "column targets must hold lists of lists of boxes"),
    ("a size of one", "image_size", [[640]], None, "image_size must hold lists of 2 numbers, got [640]"),
    ("a reward in words", "reward", ["much"], None, "column reward must hold numbers, got string"),
    ("messages as values", "messages", [[1]], None, "column messages must hold texts"),
    ("scores as texts", "scores", ["{}"], None, "column scores must hold a number per name"),
    ("a number as id", "row_id", [7], None, "column row_id must hold texts, got int64"),
    ("lists as ids", "row_id", [["a"]], None, "column row_id must hold texts"),
    ("a moment as answer", "answer", [0], pa.timestamp("us"), "column answer must hold texts, got timestamp"),
    ("a number as ending", "ending", [math.inf], None, "column ending must hold texts, got double"),
    ("numbers as options", "choices", [[math.nan]], None, "column choices must hold lists of texts"),
    ("bytes as accepted", "accepted", [[b"KR"]], None, "column accepted must hold lists of texts"),
    ("a number as masked", "masked", [math.nan], None, "column masked must hold true or false, got double"),
    ("an endless side", "image_size", [[640, math.inf]], None, "column image_size must hold pairs of whole"),
]


@pytest.mark.parametrize(
    ("_", "column", "values", "kind", "message"), BAD_COLUMNS, ids=[case[0] for case in BAD_COLUMNS]
)
def test_columns_of_another_kind_are_named(tmp_path, _, column, values, kind, message):
    path = retyped(tmp_path, column, values, kind)
    with pytest.raises(DataError, match=re.escape(f"{path}: {message}")):
        Run(path)


def test_boxes_of_three_cannot_be_proposed(tmp_path):
    with pytest.raises(DataError, match="boxes must hold lists of 4 numbers"):
        crops_by_row(retyped(tmp_path, "boxes", [[[1, 2, 3]]]))


def every_page(client, count):
    pages = ["/api/runs", "/api/curves", "/api/runs/0/list", "/api/runs/0/list?order=reward"]
    return [client.get(page).status_code for page in pages] + [
        client.get(f"/api/runs/0/trajectories/{position}").status_code for position in range(count)
    ]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_lacks_are_shown_as_none(tmp_path, value):
    columns = {"reward": value, "advantage": value, "scores": [("accuracy", value)]}
    client = viewer(write_trajectories(tmp_path / "t.parquet", [trajectory(**columns)]))
    assert every_page(client, 1) == [200] * 5
    found = client.get("/api/runs/0/trajectories/0").json()
    assert (found["reward"], found["advantage"], found["scores"]["accuracy"]) == (None, None, None)


def test_a_box_that_is_none_is_shown_as_far_as_it_can_be(tmp_path):
    boxes = [[1.0, 2.0, math.inf, 4.0], [90.0, 90.0, 10.0, 10.0], [100.0, 100.0, 200.0, 150.0]]
    client = viewer(retyped(tmp_path, "boxes", [boxes]))
    assert every_page(client, 1) == [200] * 5
    found = client.get("/api/runs/0/trajectories/0").json()
    assert [each["overlap"] for each in found["box_scores"]] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "messages", ['[{"role": "user", "content": "\\ud83d"}]', "[" * 200_000, "[" * 500 + "]" * 500]
)
def test_halves_of_pairs_and_endless_brackets_are_shown(tmp_path, messages):
    client = viewer(write_trajectories(tmp_path / "t.parquet", [trajectory(messages=messages)]))
    assert every_page(client, 1) == [200] * 5


def test_a_text_as_step_of_the_metrics_is_no_point_of_a_curve(tmp_path):
    write_trajectories(tmp_path / "trajectories" / "step-000001.parquet", [trajectory()])
    lines = ['{"step": "one", "reward": 1}', '{"step": 1, "reward": 2}', '{"reward": 3}', "[" * 200_000]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    [run] = viewer(tmp_path).get("/api/curves").json()["runs"]
    assert run["step"] == [1]
    truncate_metrics(tmp_path, 1)
    assert read_metrics(tmp_path) == [{"step": 1, "reward": 2}]
