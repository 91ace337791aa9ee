"""Questions about several pictures on the pages of `lfpc annotate`."""

import io
import json

import pytest
from PIL import Image

from lfpc_trl.annotate.app import make_annotator
from lfpc_trl.annotate.project import Project
from lfpc_trl.html.server import Access
from tests import tiny
from tests.pages.conftest import client_of


@pytest.fixture
def source(tmp_path):
    """Two rows about three pictures each, and one about one picture before them."""
    several = tiny.make_several(tmp_path, 2).read_text()
    single = tiny.make_rows(tmp_path, 1).read_text().replace('"q0"', '"single"')
    path = tmp_path / "mixed.jsonl"
    path.write_text(single + several)
    return path


@pytest.fixture
def client(source):
    access = Access.listening_on("127.0.0.1")
    return client_of(make_annotator(Project(source), access, annotator="ann"), access)


def change(**content):
    first = {"question": "What?", "answer": ["A"], "targets": [[[10, 10, 60, 60]]], "status": "done"}
    return {"base": 0, "annotator": "ann", "content": first | content}


def test_a_row_has_its_pictures_with_their_own_tiles(client):
    single, first, second = (client.get(f"/api/items/{number}").json() for number in range(3))
    assert [each["number"] for each in single["pictures"]] == [0]
    assert [each["number"] for each in first["pictures"]] == [1, 2, 3]
    assert [each["number"] for each in second["pictures"]] == [4, 5, 6]
    assert [each["size"] for each in first["pictures"]] == [[224, 168], [112, 112], [196, 252]]
    assert first["content"]["target_images"] == [3, 1]
    assert "target_images" not in single["content"]
    for picture in first["pictures"]:
        tile = client.get(f"/tiles/{picture['number']}/0/0/0")
        assert Image.open(io.BytesIO(tile.content)).size == tuple(picture["size"])


def test_overview_and_crop_are_of_the_picture_that_is_asked_for(client):
    for image, size in ((1, (112, 84)), (2, (56, 56)), (3, (84, 112))):
        overview = client.get(f"/api/items/1/overview?image={image}")
        assert Image.open(io.BytesIO(overview.content)).size == size
    assert client.get("/api/items/1/overview").content == client.get("/api/items/1/overview?image=1").content
    crops = {client.get(f"/api/items/1/crop?box=10,10,66,66&image={image}").content for image in (1, 2, 3)}
    assert len(crops) == 3
    assert client.get("/api/items/1/crop?box=150,10,200,60&image=2").status_code == 422
    assert client.get("/api/items/1/crop?box=10,10,66,66&image=4").status_code == 404
    assert client.get("/api/items/0/overview?image=2").status_code == 404


def test_targets_on_any_picture_are_saved_and_exported(client, source):
    answer = client.post("/api/items/1", json=change(target_images=[2]))
    assert answer.status_code == 200, answer.text
    assert answer.json()["problems"] == []
    [changed] = [row for row in Project(source).finished() if row.id == "q0"]
    assert [(target.image, target.boxes.tolist()) for target in changed.targets] == [(2, [[10, 10, 60, 60]])]
    assert changed.shown_sizes == ((112, 84), (56, 56), (84, 112))


def test_a_question_is_added_about_all_pictures_of_a_row(client, source):
    added = client.post("/api/items/1/questions", json={"annotator": "ann"}).json()
    assert added["item"]["pictures"] == [1, 2, 3]
    answer = client.post(f"/api/items/{added['number']}", json=change(target_images=[2]) | {"base": 1})
    assert answer.status_code == 200, answer.text
    first, second, third = Project(source).finished()[1:]
    assert [row.id for row in (first, second, third)] == ["q0", "q0#2", "q1"]
    assert [picture.image for picture in second.pictures] == [picture.image for picture in first.pictures]
    assert [target.image for target in second.targets] == [2]
    assert second.shown_sizes is None


def test_a_box_is_cut_from_the_picture_that_it_is_on(client):
    thin = change(targets=[[[10, 10, 15, 60]]], target_images=[3])
    answer = client.post("/api/items/1", json=thin)
    assert answer.status_code == 422
    assert "targets must be boxes that the crop tool cuts" in answer.text
    on_third = change(targets=[[[150, 200, 190, 250]]], target_images=[3])  # outside the other two
    assert client.post("/api/items/1", json=on_third).status_code == 200


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "target_images are needed: each target is on one of the 3 images"),
        ({"target_images": [4]}, "target_images must be whole numbers from 1 to 3"),
        ({"target_images": [2], "targets": [[[10, 10, 150, 60]]]}, "inside the picture (112 x 112 pixels)"),
        ({"target_images": ["2"]}, "target_images must be whole numbers, got '2'"),
    ],
)
def test_what_keeps_a_row_from_being_done_is_said(client, content, sentence):
    answer = client.post("/api/items/1", json=change(**content))
    assert answer.status_code == 422
    assert sentence in answer.text


def test_a_journal_about_one_picture_is_written_as_before(client, source):
    client.post("/api/items/0", json=change())
    [line] = source.with_name("mixed.jsonl.annotations.jsonl").read_text().splitlines()
    assert "target_images" not in json.dumps(json.loads(line))
