"""What the server of `lfpc annotate` answers, without a browser."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lfpc_trl.annotate.app import ModelView, make_annotator
from lfpc_trl.annotate.project import Project
from lfpc_trl.html.server import Access
from lfpc_trl.pictures.crops import cut
from lfpc_trl.pictures.originals import load_original
from tests.pages.conftest import SIGN, client_of, noise, write_rows_file


@pytest.fixture
def annotator_of():
    def make(source, **options):
        access = Access.listening_on("127.0.0.1")
        return client_of(make_annotator(Project(source), access, annotator="ann", **options), access)

    return make


@pytest.fixture
def client(annotator_of, rows_file):
    return annotator_of(rows_file)


def change(base=0, annotator="ann", **content):
    content = {"question": "What is 0?", "answer": ["KR"], "targets": [SIGN]} | content
    return {"base": base, "annotator": annotator, "content": content}


def test_the_list_knows_every_row(client):
    project = client.get("/api/project").json()
    assert (project["source"], project["annotator"], project["seen"]) == ("rows.jsonl", "ann", 0)
    assert [(item["id"], item["status"], item["boxes"]) for item in project["items"]] == [
        ("q0", "open", 0),
        ("q1", "open", 0),
        ("q2", "open", 0),
    ]


def test_a_saved_change_is_there_after_a_restart(client, annotator_of, rows_file):
    answer = client.post("/api/items/0", json=change())
    assert answer.status_code == 200
    assert (answer.json()["revision"], answer.json()["problems"]) == (1, [])
    again = annotator_of(rows_file).get("/api/items/0").json()
    assert again["content"]["targets"] == [SIGN]
    assert (again["revision"], again["annotator"]) == (1, "ann")
    assert again["pictures"][0]["size"] == [640, 480]


def test_a_draft_is_saved_with_its_problems(client):
    answer = client.post("/api/items/0", json=change(question="", targets=[[SIGN[1], SIGN[0]]])).json()
    assert answer["revision"] == 1
    assert [(problem["region"], problem["sentence"].split(",")[0]) for problem in answer["problems"]] == [
        (0, "targets must be nested"),
        (None, "question must be a text that is not empty"),
    ]
    assert client.get("/api/items/0").json()["problems"] == answer["problems"]


def test_two_annotators_do_not_overwrite_each_other(annotator_of, rows_file):
    ann, ben = annotator_of(rows_file), annotator_of(rows_file)
    assert ann.post("/api/items/0", json=change()).status_code == 200
    late = ben.post("/api/items/0", json=change(annotator="ben", targets=[SIGN[:1]]))
    assert late.status_code == 409
    assert late.json()["annotator"] == "ann"
    assert late.json()["content"]["targets"] == [SIGN]
    assert ben.post("/api/items/0", json=change(1, "ben", targets=[SIGN[:1]])).json()["revision"] == 2
    assert ann.get("/api/items/0").json()["content"]["targets"] == [SIGN[:1]]


def test_the_page_learns_what_others_changed(annotator_of, rows_file):
    ann, ben = annotator_of(rows_file), annotator_of(rows_file)
    ben.post("/api/items/1", json=change(annotator="ben", status="done"))
    news = ann.get("/api/changes", params={"seen": 0}).json()
    assert news["seen"] == 1
    place = {"id": "q1", "after": None, "pictures": [1]}
    assert news["items"] == {
        "1": place | {"status": "done", "question": "What is 0?", "revision": 1, "boxes": 2}
    }
    assert ann.get("/api/changes", params={"seen": 1}).json()["items"] == {}


def test_a_question_is_added_to_a_picture_and_known_to_all(annotator_of, rows_file):
    ann, ben = annotator_of(rows_file), annotator_of(rows_file)
    added = ann.post("/api/items/1/questions", json={"annotator": "ann"}).json()
    assert (added["number"], added["item"]["id"], added["item"]["after"]) == (3, "q1#2", "q1")
    # Ben's server, and one that starts later, have it too; a second one gets another id.
    assert ben.get("/api/changes", params={"seen": 0}).json()["items"]["3"]["id"] == "q1#2"
    assert ben.post("/api/items/3/questions", json={"annotator": "ben"}).json()["item"]["id"] == "q1#3"
    later = annotator_of(rows_file)
    assert [item["id"] for item in later.get("/api/project").json()["items"]][3:] == ["q1#2", "q1#3"]
    row = later.get("/api/items/3").json()
    assert (row["image"], row["content"]["question"]) == ("picture-1.png", "")
    assert [picture["number"] for picture in row["pictures"]] == [1]
    assert later.get("/api/items/3/overview").status_code == 200
    assert later.post("/api/items/3/questions", json={}).status_code == 422


def test_the_time_that_rows_took_is_told_as_a_median(client):
    assert client.get("/api/project").json()["median_seconds"] is None
    for number, seconds in enumerate((10, 50, 30)):
        client.post(f"/api/items/{number}", json=change() | {"seconds": 2.5})
        client.post(f"/api/items/{number}", json=change(1, status="done") | {"seconds": seconds})
    assert client.get("/api/project").json()["median_seconds"] == 32.5
    client.post("/api/items/2", json=change(2))  # open again
    assert client.get("/api/changes").json()["median_seconds"] == 32.5  # of 12.5 and 52.5


BAD = [
    ("no JSON", b"{", "a change must be JSON"),
    ("bad UTF-8", b'"\xff"', "a change must be JSON"),
    ("a list", [], "a change must be a JSON object"),
    ("no base", {"annotator": "ann", "content": {}}, "a change needs a whole number 'base'"),
    (
        "a truth value as base",
        {"base": True, "annotator": "ann", "content": {}},
        "a change needs a whole number",
    ),
    ("nobody", {"base": 0, "annotator": " ", "content": {}}, "a change needs the name of its 'annotator'"),
    ("no seconds", change() | {"seconds": "7"}, "seconds must be a number from 0 to 86400, got '7'"),
    ("a row of the file that is to go", change(status="deleted"), "a row of rows.jsonl can be skipped, not"),
    ("a box of one pixel", change(targets=[[[9, 9, 10, 10]]], status="done"), "targets must be boxes that"),
    ("boxes where none are needed", change(without_boxes=True, status="done"), "the row is marked as one"),
    ("no content", {"base": 0, "annotator": "ann"}, "a change must be a JSON object"),
    ("done too early", change(targets=[], status="done"), "targets are needed for stage 2, got none"),
]


@pytest.mark.parametrize(("_", "body", "sentence"), BAD, ids=[case[0] for case in BAD])
def test_a_change_that_cannot_be_is_told_and_not_written(client, rows_file, _, body, sentence):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/api/items/0", content=data, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.text.startswith(sentence)
    assert client.get("/api/items/0").json()["revision"] == 0


@pytest.mark.parametrize("number", [3, 99999999999999999999])
def test_there_are_no_other_rows(client, number):
    assert client.get(f"/api/items/{number}").status_code == 404
    assert client.post(f"/api/items/{number}", json=change()).status_code == 404
    assert client.get(f"/api/items/{number}/crop?box=1,2,3,4").status_code == 404
    assert client.get(f"/tiles/{number}/0/0/0").status_code == 404


@pytest.mark.parametrize(
    "path", ["/tiles/..%2frows.jsonl/0/0/0", "/tiles/-1/0/0/0", "/api/items/../../rows.jsonl"]
)
def test_pictures_are_asked_for_by_number_alone(client, path):
    assert client.get(path).status_code == 404


def picture(answer):
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_the_crop_is_the_model_s(client, rows_file):
    answer = client.get("/api/items/1/crop", params={"box": "80,80,260,190"})
    original = load_original(rows_file.parent / "picture-1.png")
    expected = cut(original, (80, 80, 260, 190), factor=28, max_tokens=1024)
    assert (picture(answer) == np.asarray(expected)).all()
    assert answer.headers["x-tokens"] == "24"


def test_the_sentence_of_the_tool_comes_in_place_of_a_crop_it_refuses(client):
    for box, sentence in [
        ("10,10,13,40", "The box is too small or too narrow."),
        ("40,40,10,10", "The box needs x1 < x2 and y1 < y2."),
        ("1,2,3", "bbox_2d must be four numbers"),
        ("a,b,c,d", "could not convert string to float"),
    ]:
        answer = client.get("/api/items/0/crop", params={"box": box})
        assert (answer.status_code, answer.text[: len(sentence)]) == (422, sentence)


def test_the_overview_has_the_size_that_the_row_is_shown_at(annotator_of, tmp_path):
    shown = annotator_of(write_rows_file(tmp_path, shown_size=[84, 56]))
    [original] = shown.get("/api/items/0").json()["pictures"]
    assert original["overview"] == {"size": [84, 56], "tokens": 6}
    assert picture(shown.get("/api/items/0/overview")).shape == (56, 84, 3)


def test_without_a_shown_size_the_overview_has_a_budget(annotator_of, rows_file):
    client = annotator_of(rows_file, view=ModelView(factor=32, shown_tokens=50))
    overview = client.get("/api/items/0").json()["pictures"][0]["overview"]
    assert overview["tokens"] <= 50
    assert [side % 32 for side in overview["size"]] == [0, 0]


def test_boxes_of_a_model_come_with_their_row(annotator_of, rows_file):
    client = annotator_of(rows_file, suggestions={"q1": [((1, 2, 30, 40), 1)]})
    assert client.get("/api/items/1").json()["suggestions"] == [[[1, 2, 30, 40], 1]]
    assert client.get("/api/items/0").json()["suggestions"] == []


def test_a_picture_that_vanished_is_told(client, rows_file):
    (rows_file.parent / "picture-0.png").unlink()
    assert client.get("/api/items/0").status_code == 200
    for path in ("/tiles/0/0/0/0", "/api/items/0/overview", "/api/items/0/crop?box=1,2,30,40"):
        answer = client.get(path)
        assert (answer.status_code, answer.text[:27]) == (422, "picture-0.png cannot be rea")


def test_a_picture_that_changed_gets_other_addresses(client, rows_file):
    def state():
        return client.get("/api/items/0").json()["pictures"][0]["state"]

    before = state()
    noise(seed=9).save(rows_file.parent / "picture-0.png")
    assert state() != before


HOSTILE = [
    ("half a pair as annotator", json.dumps(change(annotator="ann \ud83d")), 200),
    ("half a pair as question", json.dumps(change(question="\ud83d")), 200),
    ("half a pair as status", json.dumps(change(status="\ud83d")), 422),
    ("endless brackets", '{"base": 0, "annotator": "ann", "content": ' + "[" * 200_000, 422),
    ("endless boxes", json.dumps(change())[:-2] + ', "targets": ' + "[" * 900 + "]" * 900 + "}}", 422),
    ("a number of 5000 digits", '{"base": ' + "9" * 5000 + "}", 422),
]


@pytest.mark.parametrize(("_", "body", "status"), HOSTILE, ids=[case[0] for case in HOSTILE])
def test_a_hostile_change_is_told_or_saved(client, _, body, status):
    headers = {"content-type": "application/json"}
    answer = client.post("/api/items/0", content=body, headers=headers)
    assert answer.status_code == status
    assert client.get("/api/items/0").status_code == 200
    assert client.get("/api/project").status_code == 200


def test_a_number_beyond_all_in_an_address_is_refused(client):
    assert client.get("/api/changes", params={"seen": "9" * 5000}).status_code == 414
    assert client.get(f"/api/items/{'9' * 5000}").status_code == 414
    assert client.get(f"/api/items/{'9' * 300}").status_code == 404


def _exchange(path):
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


TAMPERING = {
    "removed": (Path.unlink, "was removed by another program"),
    "replaced": (_exchange, "was replaced by another program"),
    "cut short": (lambda path: os.truncate(path, 5), "was cut short by another program"),
    "rewritten": (
        lambda path: path.write_bytes(path.read_bytes().replace(b"KR", b"XX")),
        "was rewritten by another program",
    ),
}


@pytest.mark.parametrize("case", TAMPERING)
def test_a_journal_that_is_not_the_one_that_was_read_is_told_and_left_alone(client, rows_file, case):
    tamper, message = TAMPERING[case]
    journal = rows_file.with_name("rows.jsonl.annotations.jsonl")
    assert client.post("/api/items/0", json=change()).status_code == 200
    tamper(journal)
    left = journal.read_bytes() if journal.exists() else None
    for answer in (client.get("/api/project"), client.post("/api/items/1", json=change())):
        assert answer.status_code == 422
        assert message in answer.text
    assert (journal.read_bytes() if journal.exists() else None) == left
