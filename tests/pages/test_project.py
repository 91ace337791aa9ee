"""Rows and folders to annotate, and the way back into a file of rows."""

import json

import pytest

from lfpc_trl.annotate.journal import Content
from lfpc_trl.annotate.project import Project, journal_path
from lfpc_trl.commands.annotate import main
from lfpc_trl.data.rows import read_rows, write_rows
from lfpc_trl.errors import DataError, UserError
from tests.pages.conftest import SIGN, noise, write_rows_file

NESTED = (tuple(map(tuple, SIGN)),)


def finish(project, number, **changes):
    item = project.items[number]
    content = Content(item.start.question, item.start.answer, item.start.choices, NESTED, "done")
    content = Content(**vars(content) | changes)
    change, problems = project.save(item, project.revision(item), "ann", content)
    assert problems == []
    return change


def test_rows_of_a_file_are_open_until_they_are_done(rows_file):
    project = Project(rows_file)
    assert [item.id for item in project.items] == ["q0", "q1", "q2"]
    assert project.counts() == {"open": 3}
    finish(project, 1)
    assert Project(rows_file).counts() == {"open": 2, "done": 1}


def test_rows_that_come_with_targets_are_done(tmp_path):
    project = Project(write_rows_file(tmp_path, targets=SIGN, x_source="me", shown_size=[280, 224]))
    assert project.counts() == {"done": 3}
    assert project.items[0].start.targets == NESTED
    [row, *_] = project.finished()
    assert row.extras == {"x_source": "me"}
    assert row.shown_size == (280, 224)


def test_the_export_is_what_was_drawn(rows_file, tmp_path):
    project = Project(rows_file)
    finish(project, 0)
    two = (*NESTED, ((10, 10, 30, 30),))
    finish(project, 2, targets=two, question="Which?", answer=("B",), choices=("red", "blue"))
    (tmp_path / "elsewhere").mkdir()
    write_rows(project.finished(), tmp_path / "elsewhere" / "boxes.jsonl")
    first, second = read_rows(tmp_path / "elsewhere" / "boxes.jsonl", require_targets=True)
    assert (first.id, first.image.resolve()) == ("q0", (tmp_path / "picture-0.png").resolve())
    assert [region.tolist() for region in first.regions] == [SIGN]
    assert (second.question, second.answer, second.choices) == ("Which?", ("B",), ("red", "blue"))
    assert [region.tolist() for region in second.regions] == [SIGN, [[10, 10, 30, 30]]]


def test_the_unfinished_rows_are_listed_with_their_reason(rows_file):
    project = Project(rows_file)
    project.save(project.items[0], 0, "ann", Content(status="skipped", note="too dark"))
    project.save(project.items[1], 0, "ann", Content("What?", ("KR",), None, NESTED))
    assert project.unfinished() == [
        "row q0: skipped, too dark",
        "row q1: open, not marked as done",
        "row q2: open, targets are needed for stage 2, got none",
    ]


# --- folders -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / "pictures"
    (pictures / "night").mkdir(parents=True)
    noise().save(pictures / "b.PNG")
    noise().save(pictures / "a.jpg")
    noise().save(pictures / "night" / "c.webp")
    (pictures / "notes.txt").write_text("no picture")
    (pictures / "._a.jpg").write_bytes(b"what some systems leave beside a.jpg")
    return pictures


def test_a_folder_of_pictures_is_a_start(folder, tmp_path):
    project = Project(folder)
    assert [item.id for item in project.items] == ["a.jpg", "b.PNG", "night/c.webp"]
    assert project.journal.path == tmp_path / "pictures.annotations.jsonl"
    sentences = [problem.sentence for problem in project.problems(project.items[0], Content())]
    assert sentences == [
        "targets are needed for stage 2, got none",
        "question must be a text that is not empty, got ''",
        "answer must be a text or a list of texts, got []",
    ]
    finish(project, 2, question="What is it?", answer=("noise",))
    write_rows(project.finished(), tmp_path / "boxes.jsonl")
    record = json.loads((tmp_path / "boxes.jsonl").read_text())
    assert (record["id"], record["image"]) == ("night/c.webp", "pictures/night/c.webp")


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no pictures that can be read \(.jpg, "):
        Project(tmp_path)


def test_what_is_left_out_of_a_folder_is_listed_with_its_reason(folder, capsys):
    noise().save(folder / "d.gif")
    (folder / "drawing.svg").write_text("<svg/>")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:2000])
    project = Project(folder)
    assert [item.id for item in project.items] == ["a.jpg", "b.PNG", "d.gif", "night/c.webp"]
    assert project.left_out_lines() == [
        f"{folder}: left out 4 files",
        *(f"  {name}: {reason}" for name, reason in project.left_out),
    ]
    reasons = dict(project.left_out)
    assert list(reasons) == ["broken.jpg", "cut.jpg", "drawing.svg", "notes.txt"]
    assert reasons["notes.txt"] == "not the suffix of a picture that is read"
    assert reasons["broken.jpg"].startswith("image must be readable, got ")
    assert project.left_out_lines(at_most=1)[2:] == ["  and 3 more"]
    with pytest.raises(UserError, match="no row is done"):
        main([str(folder), "--export", str(folder / "out.jsonl")])
    assert capsys.readouterr().err.splitlines()[:5] == project.left_out_lines()


def test_a_folder_of_which_everything_is_left_out_says_so(tmp_path):
    (tmp_path / "labels.txt").touch()
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(
        UserError, match=r"(?s)holds no pictures .* left out 2 files.*broken.jpg: .*labels.txt: "
    ):
        Project(tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Project(tmp_path / "rows.jsonl")


# --- several questions about a picture ---------------------------------------------------------------


def write_about(project, item, **changes):
    content = Content(**vars(Content("What?", ("KR",), None, NESTED, "done")) | changes)
    return project.save(item, project.revision(item), "ann", content)


def test_every_question_of_a_picture_becomes_a_row_behind_the_first_one(rows_file, tmp_path):
    project = Project(rows_file)
    second = project.add_question(project.items[0], "ann")
    third = project.add_question(second, "ann")
    assert [second.id, third.id] == ["q0#2", "q0#3"]
    for item in (project.items[0], project.items[2], second, third):
        write_about(project, item)
    project = Project(rows_file)
    assert [item.id for item in project.in_order()] == ["q0", "q0#2", "q0#3", "q1", "q2"]
    write_rows(project.finished(), tmp_path / "boxes.jsonl")
    rows = read_rows(tmp_path / "boxes.jsonl", require_targets=True)
    assert [row.id for row in rows] == ["q0", "q0#2", "q0#3", "q2"]
    assert rows[0].image == rows[1].image


def test_a_deleted_question_is_in_no_list_and_can_be_brought_back(rows_file):
    project = Project(rows_file)
    added = project.add_question(project.items[0], "ann")
    write_about(project, added, status="deleted")
    project = Project(rows_file)
    assert project.exported() == ([], [])
    assert [line.split(":")[0] for line in project.unfinished()] == ["row q0", "row q1", "row q2"]
    assert project.add_question(project.items[0], "ann").id == "q0#3"  # an id is used once
    write_about(project, project.items[project.number["q0#2"]])
    assert [row.id for row in project.finished()] == ["q0#2"]


def test_an_id_that_the_file_has_is_not_given_again(tmp_path):
    path = write_rows_file(tmp_path, 2)
    path.write_text(path.read_text().replace('"q1"', '"q0#2"'))
    project = Project(path)
    assert project.add_question(project.items[0], "ann").id == "q0#3"


def test_two_servers_that_add_a_question_at_once_add_two(rows_file):
    ann, ben = Project(rows_file), Project(rows_file)
    assert ann.add_question(ann.items[0], "ann").id == "q0#2"
    assert ben.add_question(ben.items[0], "ben").id == "q0#3"
    ann.refresh()
    assert sorted(ann.number) == sorted(ben.number)


def test_an_added_question_whose_row_is_gone_is_named(rows_file):
    project = Project(rows_file)
    write_about(project, project.add_question(project.items[0], "ann"))
    rows_file.write_text("".join(rows_file.read_text().splitlines(keepends=True)[1:]))
    rows, [line] = Project(rows_file).exported()
    assert rows == []
    assert line.startswith("row q0#2: done, but it cannot be exported")


# --- stage 1 -----------------------------------------------------------------------------------------


def test_a_row_without_boxes_is_done_where_somebody_says_that_it_needs_none(rows_file):
    project = Project(rows_file)
    write_about(project, project.items[0], targets=(), without_boxes=True)
    write_about(project, project.items[1])
    assert [row.id for row in project.finished()] == ["q1"]
    assert project.unfinished()[0] == "row q0: done, without boxes, so for stage 1 alone"
    for_stage_1 = Project(rows_file, stage=1)
    assert [row.id for row in for_stage_1.finished()] == ["q0", "q1"]
    assert for_stage_1.unfinished() == ["row q2: open, not marked as done"]


def test_for_stage_1_no_row_needs_boxes(rows_file):
    project = Project(rows_file, stage=1)
    write_about(project, project.items[0], targets=())
    assert Project(rows_file).unfinished()[0] == "row q0: done, without boxes, so for stage 1 alone"


# --- rules -------------------------------------------------------------------------------------------

RULES = [
    ("upside down", [[[200, 100, 100, 150]]]),
    ("too long", [[[0, 0, 640, 3]]]),
    ("outside", [[[600, 400, 700, 450]]]),
    ("not nested", [[SIGN[1], SIGN[0]]]),
    ("no box in a region", [[]]),
]


@pytest.mark.parametrize(("_", "targets"), RULES, ids=[case[0] for case in RULES])
def test_the_page_and_the_file_refuse_in_the_same_words(rows_file, _, targets):
    project = Project(rows_file)
    content = Content.parse({"question": "What?", "answer": ["KR"], "targets": targets})
    [problem] = project.problems(project.items[0], content)
    assert problem.region == 0
    lines = rows_file.read_text().splitlines()
    rows_file.write_text(json.dumps(json.loads(lines[0]) | {"targets": targets}) + "\n")
    with pytest.raises(DataError) as refusal:
        read_rows(rows_file)
    assert str(refusal.value) == f"{rows_file} row 1: {problem.sentence}"


def test_boxes_too_small_to_be_cut_are_refused_but_not_those_of_the_file(tmp_path):
    path = write_rows_file(tmp_path, 2, targets=[[200, 200, 205, 300]])
    project = Project(path)
    assert len(project.finished()) == 2  # a training takes them
    item = project.items[0]
    with pytest.raises(
        DataError, match=r"boxes that the crop tool cuts, got \[200, 200, 205, 300\]: The box is"
    ):
        project.save(item, 0, "ann", item.start)
    # What an older page let through is not exported.
    project.journal.append(
        "q1", "picture-1.png", 0, "ann", Content("?", ("KR",), None, (((9, 9, 10, 10),),), "done")
    )
    rows, [line] = project.exported()
    assert [row.id for row in rows] == ["q0"]
    assert line.startswith("row q1: targets must be boxes that the crop tool cuts, got [9, 9, 10, 10]")


def test_every_broken_region_is_named(rows_file):
    project = Project(rows_file)
    inner, outer = ([left + 1, *rest] for left, *rest in SIGN)  # two equal boxes would be one problem more
    targets = [SIGN, [[600, 400, 700, 450]], [outer, inner]]
    content = Content.parse({"question": "What?", "answer": ["E"], "choices": ["a", "b"], "targets": targets})
    problems = project.problems(project.items[0], content)
    assert [problem.region for problem in problems] == [1, 2, None]
    assert problems[2].sentence == "answer must name one of the choices ('a', 'b'), got 'E'"


def test_an_unfinished_row_cannot_be_done(rows_file):
    project = Project(rows_file)
    with pytest.raises(DataError, match=r"^targets are needed for stage 2, got none$"):
        project.save(project.items[0], 0, "ann", Content("What?", ("KR",), status="done"))
    assert not project.journal.path.exists()


def test_a_row_that_is_done_and_no_longer_fits_its_picture_is_not_exported(rows_file, tmp_path):
    finish(Project(rows_file), 0)
    noise((150, 120)).save(tmp_path / "picture-0.png")
    with pytest.raises(DataError, match=r"^row q0: targets must lie inside the picture \(150 x 120 pixels\)"):
        Project(rows_file).finished()


def test_rows_that_moved_to_other_pictures_are_noticed(tmp_path):
    path = write_rows_file(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["id"]  # the number of the line is the id
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    finish(Project(path), 0)
    path.write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
    with pytest.raises(
        DataError, match=r"row 1 was annotated on picture-0.png, but in .* it shows picture-2.png"
    ):
        Project(path)


def test_the_journal_stands_beside_what_it_is_about(tmp_path):
    assert journal_path(tmp_path / "rows.parquet") == tmp_path / "rows.parquet.annotations.jsonl"
