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
    with pytest.raises(UserError, match=r"holds no pictures \(.jpg, "):
        Project(tmp_path)


def test_what_is_left_out_of_a_folder_is_said_in_one_line(folder, capsys):
    noise().save(folder / "d.gif")
    (folder / "drawing.svg").write_text("<svg/>")
    project = Project(folder)
    assert "d.gif" in [item.id for item in project.items]
    assert project.left_out == (
        f"{folder}: left out 2 files: drawing.svg (not the suffix of a picture that is read), "
        "notes.txt (not the suffix of a picture that is read)"
    )
    with pytest.raises(UserError, match="no row is done"):
        main([str(folder), "--export", str(folder / "out.jsonl")])
    assert project.left_out in capsys.readouterr().err.splitlines()


def test_a_folder_of_which_everything_is_left_out_says_so(tmp_path):
    (tmp_path / "labels.txt").touch()
    with pytest.raises(UserError, match=r"holds no pictures \(.*\); .* left out 1 file: labels.txt \("):
        Project(tmp_path)


def test_broken_pictures_of_a_folder_are_named(folder):
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:2000])
    with pytest.raises(DataError, match=r"broken.jpg: image must be readable, got .* \(and 1 more\)$"):
        Project(folder)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Project(tmp_path / "rows.jsonl")


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


def test_every_broken_region_is_named(rows_file):
    project = Project(rows_file)
    targets = [SIGN, [[600, 400, 700, 450]], [SIGN[1], SIGN[0]]]
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
