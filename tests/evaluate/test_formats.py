"""Benchmarks are read as they are published: same questions from every file, boxes on what they mark."""

import base64
import itertools
import json
import math
import random
import re
import subprocess
import sys
import tracemalloc
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lfpc_rewards import answers_match
from lfpc_trl.convert.pictures import PictureStore
from lfpc_trl.data.columns import columns_of
from lfpc_trl.errors import DataError
from lfpc_trl.evaluate import formats
from lfpc_trl.evaluate.formats import read_benchmark
from lfpc_trl.evaluate.layouts import BENCHMARK_LAYOUTS
from lfpc_trl.pictures.originals import load_original
from tests.convert.test_fuzz import JUNK
from tests.evaluate import published
from tests.evaluate.published import (
    OPTIONS,
    RED,
    SIZE,
    STATEMENTS,
    add_vstar,
    base64_of,
    hr_rows,
    picture,
    tree_rows,
    vstar,
    vstar_questions,
    with_images,
    write_lines,
    write_parquet,
    write_tsv,
)

quick = settings(deadline=None, max_examples=30)


def read(tmp_path, path, **options):
    return read_benchmark(path, pictures=tmp_path / "pictures", **options)


def targets(question):
    regions = question.row.regions
    return None if regions is None else [region.tolist() for region in regions]


def right(question):
    """The text of the right option."""
    return question.row.choices["ABCDEFGH".index(question.row.answer[0])]


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# --- HR-Bench ----------------------------------------------------------------------------------------

HR_FILES = {
    "tsv": ("a.tsv", write_tsv, lambda rows: rows),
    "parquet": ("a.parquet", write_parquet, lambda rows: rows),
    "lines": ("a.jsonl", write_lines, lambda rows: rows),
    "bytes": ("a.parquet", write_parquet, lambda rows: with_images(rows, lambda data: data)),
    "struct": (
        "a.parquet",
        write_parquet,
        lambda rows: with_images(rows, lambda data: {"bytes": data, "path": "0.jpg"}),
    ),
    "data address": (
        "a.tsv",
        write_tsv,
        lambda rows: with_images(rows, lambda data: "data:image/jpeg;base64," + base64_of(data)),
    ),
    "an index for a picture that was there": (
        "a.tsv",
        write_tsv,
        lambda rows: [row | {"image": 4 * (i // 4)} if i % 4 else row for i, row in enumerate(rows)],
    ),
    "numbers with an empty cell among them": (
        "a.parquet",
        write_parquet,
        lambda rows: [row | {"index": float(row["index"])} for row in rows],
    ),
}


@pytest.mark.parametrize("kind", HR_FILES)
def test_hr_bench_says_the_same_in_every_file(tmp_path, kind):
    name, write, change = HR_FILES[kind]
    benchmark = read(tmp_path, write(tmp_path / name, change(hr_rows())))
    assert benchmark.name == "a"
    assert benchmark.notes == (f"{tmp_path / name}: 8 rows, the published benchmark has 800",)
    assert [question.row.id for question in benchmark.questions] == [str(i) for i in range(8)]
    assert [question.category for question in benchmark.questions] == ["FSP"] * 4 + ["FCP"] * 4
    for i, question in enumerate(benchmark.questions):
        row = question.row
        assert row.question == f"What is the colour of sign {i // 4}?"
        assert row.choices == tuple(OPTIONS[i % 4 :] + OPTIONS[: i % 4])
        assert (right(question), row.regions, row.size) == ("red", None, SIZE)
        assert row.name == f"{tmp_path / name} row {i + 1}"
        assert row.image.read_bytes() == picture(i // 4, "JPEG")  # as it is, not encoded again
    ids = [question.question_id for question in benchmark.questions]
    assert ids[:4] == ids[:1] * 4
    assert ids[4:] == ids[4:5] * 4
    assert len(set(ids)) == 2
    assert len(files(tmp_path / "pictures")) == 2
    # The id depends on what is asked, not on the file: results of two machines are compared by it.
    said = [
        sha256(picture(0, "JPEG")).hexdigest()[:40] + ".jpg",
        "What is the colour of sign 0?",
        *sorted(OPTIONS),
    ]
    assert ids[0] == sha256("\0".join(said).encode()).hexdigest()[:12]


def test_a_picture_is_written_once_and_again_only_if_it_was_damaged(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", hr_rows(1))
    read(tmp_path, path)
    [kept] = files(tmp_path / "pictures")
    before = kept.stat().st_mtime_ns
    assert {question.row.image for question in read(tmp_path, path).questions} == {kept}
    assert [(file, file.stat().st_mtime_ns) for file in files(tmp_path / "pictures")] == [(kept, before)]
    kept.write_bytes(kept.read_bytes()[:100])
    read(tmp_path, path)
    assert kept.read_bytes() == picture(0, "JPEG")


def test_a_picture_that_rows_repeat_is_decoded_and_checked_once(tmp_path, monkeypatch):
    decoded = []
    add = PictureStore.add_base64
    monkeypatch.setattr(
        PictureStore, "add_base64", lambda self, text: decoded.append(text) or add(self, text)
    )
    read(tmp_path, write_tsv(tmp_path / "a.tsv", hr_rows()))
    assert decoded == [base64_of(picture(0, "JPEG")), base64_of(picture(1, "JPEG"))]


def test_a_path_is_no_picture(tmp_path):
    rows = [row | {"image": {"bytes": None, "path": "0.jpg"}} for row in hr_rows(1)]
    with pytest.raises(DataError, match=r"row 1: image must hold the bytes of the picture, got .* '0.jpg'"):
        read(tmp_path, write_parquet(tmp_path / "a.parquet", rows))


@quick
@given(seed=st.integers(0, 10**6))
def test_rows_about_one_picture_stand_together_wherever_they_were(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("mixed")
    rows = hr_rows(3)
    random.Random(seed).shuffle(rows)
    questions = read(folder, write_lines(folder / "a.jsonl", rows)).questions
    pictures = [question.row.image for question in questions]
    assert sum(a != b for a, b in itertools.pairwise(pictures)) == 2
    firsts = list(dict.fromkeys(row["index"] // 4 for row in rows))
    expected = [str(row["index"]) for first in firsts for row in rows if row["index"] // 4 == first]
    assert [question.row.id for question in questions] == expected


def test_two_questions_about_one_picture_stand_together(tmp_path):
    image = {"image": base64_of(picture(0, "JPEG"))}
    first, second, third = hr_rows(1)[:1], hr_rows(2)[4:5], hr_rows(3)[8:9]
    rows = [*first, *second, third[0] | image]
    questions = read(tmp_path, write_lines(tmp_path / "a.jsonl", rows)).questions
    assert [question.row.id for question in questions] == ["0", "8", "4"]


def test_a_file_cut_to_fewer_rows_is_read_and_noted(tmp_path):
    whole = read(tmp_path, write_tsv(tmp_path / "a.tsv", hr_rows()))
    path = write_tsv(tmp_path / "a.tsv", hr_rows()[2:])
    cut = read(tmp_path, path)
    assert [each.question_id for each in cut.questions] == [each.question_id for each in whole.questions][2:]
    few, orders = cut.notes
    assert few == f"{path}: 6 rows, the published benchmark has 800"
    said = f"{path}: 1 of 2 questions have fewer rows than options, so some orders are missing; the first is "
    assert orders == f"{said}in {path} row 1"


APART = {
    "the same words about another picture": {"image": base64_of(picture(7))},
    "the same words with other options": {"A": "scarlet", "B": "olive", "C": "navy", "D": "lead"},
    "other words": {"question": "And now?"},
}


@pytest.mark.parametrize("name", APART)
def test_what_is_another_question(tmp_path, name):
    rows = [*hr_rows(1), hr_rows(1)[0] | APART[name] | {"index": 99}]
    ids = [each.question_id for each in read(tmp_path, write_lines(tmp_path / "a.jsonl", rows)).questions]
    assert sorted(ids.count(each) for each in set(ids)) == [1, 4]


def test_a_large_table_does_not_stand_in_memory(tmp_path):
    data = picture(0, "BMP", size=(512, 512))
    rows = hr_rows(10)
    text = base64_of(data)
    path = write_tsv(tmp_path / "a.tsv", [row | {"image": text} for row in rows])
    read(tmp_path, path)
    tracemalloc.start()
    try:
        read(tmp_path, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(text) * len(rows) > 40_000_000
    assert peak < 16 * len(text)  # Python's csv holds a cell in four bytes per character


# --- V* ----------------------------------------------------------------------------------------------


def test_vstar_is_read_from_its_folder(tmp_path):
    benchmark = read(tmp_path, vstar(tmp_path / "vstar_bench"))
    assert benchmark.name == "vstar_bench"
    assert benchmark.notes == (f"{tmp_path / 'vstar_bench'}: 2 rows, the published benchmark has 191",)
    first, second = benchmark.questions
    assert (first.row.id, first.category) == ("direct_attributes/sa_0", "direct_attributes")
    assert (second.row.id, second.category) == ("relative_position/sa_0", "relative_position")
    assert (targets(first), targets(second)) == (
        [[[10, 20, 40, 32]]],
        [[[10, 20, 40, 32]], [[60, 4, 68, 10]]],
    )
    for question in benchmark.questions:
        assert question.question_id == question.row.id
        assert set(question.row.choices) == set(STATEMENTS)
        assert right(question) == STATEMENTS[0]
        assert answers_match(STATEMENTS[0], question.row.answer, question.row.choices)
        assert question.row.image == tmp_path / "vstar_bench" / f"{question.row.id}.jpg"
        assert question.row.name == str(tmp_path / "vstar_bench" / f"{question.row.id}.json")
    assert not (tmp_path / "pictures").exists()  # they are files already


def test_further_folders_of_vstar_are_no_part_of_the_benchmark(tmp_path):
    folder = vstar(tmp_path / "vstar_bench.v1", relative=0)
    for name in ("GPT4V-hard", "OCR"):
        add_vstar(folder / name, "0", [[1, 2, 30, 40]], picture(1, "JPEG"), suffix=".JPG")
    (folder / "test_questions.jsonl").write_text("{}")
    benchmark = read(tmp_path, folder)
    assert benchmark.name == "vstar_bench.v1"
    assert [question.row.id for question in benchmark.questions] == ["direct_attributes/sa_0"]
    assert benchmark.notes[1:] == (f"{folder}: folder relative_position is missing",)


def test_pictures_of_vstar_may_be_links(tmp_path):  # as a download cache leaves them
    folder = vstar(tmp_path / "vstar_bench", relative=0)
    path = folder / "direct_attributes" / "sa_0.jpg"
    (tmp_path / "blobs").mkdir()
    path.rename(tmp_path / "blobs" / "e3b0c442")
    path.symlink_to(tmp_path / "blobs" / "e3b0c442")
    assert read(tmp_path, folder).questions[0].row.size == SIZE


@quick
@given(data=st.data())
def test_a_region_of_vstar_is_what_was_painted(tmp_path_factory, data):
    x1, x2 = sorted(data.draw(st.lists(st.integers(0, SIZE[0]), min_size=2, max_size=2, unique=True)))
    y1, y2 = sorted(data.draw(st.lists(st.integers(0, SIZE[1]), min_size=2, max_size=2, unique=True)))
    folder = tmp_path_factory.mktemp("vstar")
    painted = picture(0, "PNG", (x1, y1, x2, y2))
    add_vstar(folder / "direct_attributes", "sa_1", [[x1, y1, x2 - x1, y2 - y1]], painted, suffix=".png")
    [question] = read(folder, folder).questions
    [[box]] = targets(question)
    assert box == [x1, y1, x2, y2]
    pixels = np.asarray(load_original(question.row.image))
    red = (pixels == RED).all(-1)
    left, top, right_side, bottom = map(int, box)
    assert red[top:bottom, left:right_side].all()
    assert red.sum() == (right_side - left) * (bottom - top)


def test_a_fractional_box_of_vstar_is_kept(tmp_path):
    folder = vstar(tmp_path / "v", relative=0, bbox=[[0.5, 1.25, 10, 20.5], [-0.5, 0, 97, 64]])
    [question] = read(tmp_path, folder).questions
    assert targets(question) == [[[0.5, 1.25, 10.5, 21.75]], [[0, 0, 96, 64]]]  # at most one pixel outside


def test_options_of_vstar_depend_on_the_seed_and_the_row_alone(tmp_path):
    whole = read(tmp_path, vstar(tmp_path / "v", direct=12, relative=0)).questions
    for number in (0, 3, 4, 5, 7):
        (tmp_path / "v" / "direct_attributes" / f"sa_{number}.json").unlink()
    by_id = {question.row.id: question.row.choices for question in whole}
    some = read(tmp_path, tmp_path / "v").questions
    assert len(some) == 7
    assert all(by_id[question.row.id] == question.row.choices for question in some)
    other = read(tmp_path, tmp_path / "v", seed=1).questions
    assert [each.row.choices for each in other] != [each.row.choices for each in some]
    assert {right(question) for question in [*whole, *other]} == {STATEMENTS[0]}


def test_the_right_option_of_vstar_comes_to_stand_everywhere(tmp_path):
    questions = read(tmp_path, vstar(tmp_path / "v", direct=40, relative=0)).questions
    assert {question.row.answer for question in questions} == {("A",), ("B",), ("C",), ("D",)}


def test_the_questions_of_vstar_keep_the_order_of_the_authors(tmp_path):
    folder = vstar(tmp_path / "vstar_bench")
    benchmark = read(tmp_path, vstar_questions(folder))
    assert [targets(question) for question in benchmark.questions] == [
        targets(question) for question in read(tmp_path, folder).questions
    ]
    assert [question.row.id for question in benchmark.questions] == [
        question.row.id for question in read(tmp_path, folder).questions
    ]
    for question in benchmark.questions:
        assert question.row.question == "What is the material?"
        assert question.row.choices == ("cotton", "rubber", "wool", "leather")
        assert question.row.answer == ("B",)
    (folder / "direct_attributes" / "sa_0.json").unlink()
    assert targets(read(tmp_path, folder / "test_questions.jsonl").questions[0]) is None


def test_the_questions_of_vstar_with_their_pictures_inside(tmp_path):
    record = {
        "image": {"bytes": picture(0, "JPEG"), "path": "sa_0.jpg"},
        "text": "What is the material? (A) rubber (B) cotton",
        "category": "direct_attributes",
        "label": "A",
        "question_id": "7",
    }
    [question] = read(tmp_path, write_parquet(tmp_path / "test.parquet", [record])).questions
    assert question.row.id == "direct_attributes/7"
    assert (right(question), targets(question)) == ("rubber", None)
    assert question.row.image.read_bytes() == picture(0, "JPEG")


# --- TreeBench, VLMEvalKit's table, own rows -----------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tsv", ".parquet"])
def test_treebench_is_read(tmp_path, suffix):
    write = write_tsv if suffix == ".tsv" else write_parquet
    path = write(tmp_path / f"TreeBench{suffix}", tree_rows())
    benchmark = read(tmp_path, path)
    assert benchmark.notes == (f"{path}: 2 rows, the published benchmark has 405",)
    first, second = benchmark.questions
    assert (first.question_id, first.category, right(first)) == ("0", "Reasoning/Comparison", "the jug")
    assert first.row.choices == ("the cup", "the jug", "the can")
    assert targets(first) == [[[10, 20, 40, 32]], [[60, 4, 68, 10]]]
    assert (second.row.question, second.row.choices) == ("What does the sign say?", ("NO", "YES"))
    assert (second.category, right(second)) == ("Perception/OCR", "NO")
    assert targets(second) == [[[1, 2, 30, 40]]]


TREE = {  # columns; question, options
    "the columns and the question": (
        {"question": "Which?\nA. the cup\nB. the jug\nC. the can"},
        ("Which?", ("the cup", "the jug", "the can")),
    ),
    "other options in the question": (
        {"question": "Which?\nA. cups\nB. jugs"},
        ("Which?\nA. cups\nB. jugs", ("the cup", "the jug", "the can")),
    ),
    "the list alone": (
        {**dict.fromkeys("ABC", "")},
        ("Which one is larger?", ("the cup", "the jug", "the can")),
    ),
    "letters before the options": (
        {"A": "(A) the cup", "B": "B. the jug", "C": "C) the can"},
        ("Which one is larger?", ("the cup", "the jug", "the can")),
    ),
    "a letter before one of them": (
        {"A": "A. Smith", "B": "the jug"},
        ("Which one is larger?", ("A. Smith", "the jug", "the can")),
    ),
    "options that are letters": (
        {"A": "B", "B": "A", "C": "C"},
        ("Which one is larger?", ("B", "A", "C")),
    ),
    "a hint": (
        {"hint": "Look left."},
        ("Hint: Look left.\nWhich one is larger?", ("the cup", "the jug", "the can")),
    ),
}


@pytest.mark.parametrize("name", TREE)
def test_options_are_found_where_they_stand(tmp_path, name):
    columns, expected = TREE[name]
    [question] = read(tmp_path, write_tsv(tmp_path / "a.tsv", [tree_rows()[0] | columns])).questions
    assert (question.row.question, question.row.choices) == expected
    assert answers_match("B", question.row.answer, question.row.choices)
    assert not answers_match("A", question.row.answer, question.row.choices)


def test_cells_that_are_not_a_number_are_empty(tmp_path):
    row = tree_rows()[0] | {"D": math.nan, "hint": math.nan, "category": math.nan}
    [question] = read(tmp_path, write_lines(tmp_path / "a.jsonl", [row])).questions
    assert question.row.choices == ("the cup", "the jug", "the can")
    assert (question.row.question, question.category) == ("Which one is larger?", None)


def test_vlmevalkits_table_is_read(tmp_path):
    rows = [{name: row[name] for name in row if name != "cycle_category"} for row in hr_rows(1)]
    benchmark = read(tmp_path, write_tsv(tmp_path / "VStarBench.tsv", rows), name="V*")
    assert (benchmark.name, benchmark.notes) == ("V*", ())
    assert [question.question_id for question in benchmark.questions] == ["0", "1", "2", "3"]
    assert {question.category for question in benchmark.questions} == {"single"}


@pytest.mark.parametrize("written", [list, str, json.dumps])
@pytest.mark.parametrize("suffix", [".tsv", ".jsonl", ".parquet"])
def test_a_cell_of_several_pictures_is_a_question_about_all_of_them(tmp_path, written, suffix):
    rows = [{name: row[name] for name in row if name != "cycle_category"} for row in hr_rows(1)][:1]
    first, other = rows[0]["image"], base64.b64encode(picture(seed=99)).decode()
    rows[0]["image"] = written([first, other])
    path = tmp_path / f"bench{suffix}"
    if suffix == ".tsv":
        write_tsv(path, rows)
    elif suffix == ".jsonl":
        write_lines(path, rows)
    else:
        write_parquet(path, rows)
    [question] = read(tmp_path, path).questions
    found = [each.image.read_bytes() for each in question.row.pictures]
    assert found == [base64.b64decode(first), picture(seed=99)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_own_rows_are_read(tmp_path, suffix):
    (tmp_path / "a.png").write_bytes(picture())
    common = {"answer": "KR", "image": "a.png"}
    rows = [
        common | {"question": "What?", "id": "r1", "x_category": "signs", "x_question": "q"},
        common | {"question": "Where?", "id": "r2", "x_category": None, "x_question": "q"},
        common | {"question": "Why?", "id": "r3", "x_category": None, "x_question": None},
    ]
    path = (write_lines if suffix == ".jsonl" else write_parquet)(tmp_path / f"mine{suffix}", rows)
    benchmark = read(tmp_path, path)
    assert (benchmark.name, benchmark.notes) == ("mine", ())
    found = [(each.row.id, each.question_id, each.category) for each in benchmark.questions]
    assert found == [("r1", "q", "signs"), ("r2", "q", None), ("r3", "r3", None)]


# --- which layout it is --------------------------------------------------------------------------------

NOT_TOLD = {  # columns of the file, the layout that was named, what is said
    "a column is missing": ("index question A B answer", None, "Columns: index, question, A, B, answer. "),
    "a table without index": ("question A B answer image", None, "vlmevalkit needs index, question, A, B"),
    "nothing known": ("text label", None, "vstar-questions needs image, text, category, label; treebench"),
    "not as it is called": (
        "index question A B answer image",
        "hr-bench",
        r"hr-bench needs index, question, A, B, answer, image, cycle_category$",
    ),
    "a folder's name": ("index", "vstar", "vstar needs direct_attributes, relative_position$"),
    "not a layout": ("index", "hrbench", "layout must be one of hr-bench, vstar, .*, got 'hrbench'"),
}


@pytest.mark.parametrize("name", NOT_TOLD)
def test_a_layout_that_cannot_be_told_is_explained(tmp_path, name):
    columns, layout, message = NOT_TOLD[name]
    path = write_lines(tmp_path / "a.jsonl", [dict.fromkeys(columns.split(), "x")])
    with pytest.raises(DataError, match=message):
        read(tmp_path, path, layout=layout)


def test_a_named_layout_is_taken_although_another_would_fit(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", hr_rows(1))
    ids = [each.question_id for each in read(tmp_path, path, layout="vlmevalkit").questions]
    assert ids == ["0", "1", "2", "3"]


def test_a_folder_of_rows_is_read(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    row = {"file_name": "a.png", "question": "What?", "answer": "KR"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    benchmark = read_benchmark(tmp_path, pictures=tmp_path / "pictures")
    assert [question.row.answer for question in benchmark.questions] == [("KR",)]
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "q": "What?", "a": 7}) + "\n")
    columns = columns_of(["question=q", "answer=a"])
    benchmark = read_benchmark(tmp_path, pictures=tmp_path / "pictures", columns=columns)
    assert [question.row.answer for question in benchmark.questions] == [("7",)]


def test_a_folder_that_is_not_vstar_says_what_is_in_it(tmp_path):
    write_tsv(tmp_path / "hr_bench_4k.tsv", hr_rows(1))
    for options in ({}, {"layout": "hr-bench"}):
        with pytest.raises(DataError, match=r"with direct_attributes and relative_position, .*4k.tsv$"):
            read(tmp_path, tmp_path, **options)
    (tmp_path / "direct_attributes").mkdir()
    with pytest.raises(DataError, match="no rows found"):
        read(tmp_path, tmp_path)


def test_files_without_a_row_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    for text, message in (("", "holds no rows"), ("7\n{\n", r"row 1: .*got 7 \(and 1 more\)")):
        path.write_text(text)
        with pytest.raises(DataError, match=f"{re.escape(str(path))}.*{message}"):
            read(tmp_path, path)
    with pytest.raises(DataError, match=r"gone.tsv: no such file"):
        read(tmp_path, tmp_path / "gone.tsv")


# --- what is wrong with a row --------------------------------------------------------------------------

BROKEN = {  # a row of HR-Bench with these columns, the message
    "no index": ({"index": ""}, "index is missing"),
    "an index twice": ({"index": 0}, r"the id must be unique, got '0' as in .*row 1"),
    "no question": ({"question": " "}, "question must be a text that is not empty"),
    "no answer": ({"answer": ""}, "answer must be a text that is not empty"),
    "an answer beyond the options": ({"answer": "E"}, "answer must be a letter from A to D, got 'E'"),
    "an answer in words": ({"answer": "red"}, "answer must be a letter from A to D, got 'red'"),
    "two answers": ({"answer": "A, B"}, "answer must be a letter from A to D, got 'A, B'"),
    "an option in the middle is empty": (
        {"B": ""},
        "B must be a text, because a later option is one, got an empty cell",
    ),
    "no options": (dict.fromkeys("ABCD", ""), r"A, B, \.\.\. must hold the options"),
    "one option": (dict.fromkeys("BCD", "") | {"answer": "A"}, "choices must be 2 to 26 texts, got 1"),
    "no order": ({"cycle_category": ""}, "cycle_category is missing"),
    "an order twice": (
        {"cycle_category": "0"},
        r"cycle_category must differ between the rows of a question, got '0' as in .*row 1",
    ),
    "another right option": (
        {"answer": "B"},
        r"answer must be the same option in all rows of a question, got 'blue' and 'red' in .*row 1",
    ),
    "no picture": ({"image": ""}, "a question must have a picture, got ''"),
    "a picture of no row": ({"image": "17"}, "image must be base64, or the index of a good row before it"),
    "not base64": ({"image": "#" * 99}, "image must be base64, got"),
    "not a picture": ({"image": base64_of(b"x" * 99)}, "image must be a picture of a known format"),
    "a picture cut short": (
        {"image": base64_of(picture(5, "JPEG")[:-50])},
        r"image must be a picture of a known format, .*truncated",
    ),
    "a strip": (
        {"image": base64_of(picture(0, "PNG", size=(2000, 10)))},
        "image must be less than 200 times as long as wide",
    ),
    "boxes that are none": ({"target_instances": "[10, 20"}, "target_instances must be a list of boxes"),
    "boxes that are code": ({"target_instances": "exit()"}, "target_instances must be a list of boxes"),
    "endless brackets": ({"target_instances": "[" * 1000}, "target_instances must be a list of boxes"),
    "an endless list": (
        {"target_instances": str([[1, 2, 3, 4]] * 10_000)},
        "target_instances must be a list of boxes",
    ),
    "three numbers": (
        {"target_instances": "[[1, 2, 3]]"},
        "target_instances: a box must be four finite numbers",
    ),
    "a box outside": (
        {"target_instances": "[[1, 2, 30, 80]]"},
        "target_instances: targets must lie inside the picture",
    ),
    "corner and size": (
        {"target_instances": "[[40, 20, 30, 12]]"},
        "target_instances: targets need x1 < x2 and y1 < y2",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_said_with_file_row_and_rule(tmp_path, name):
    columns, message = BROKEN[name]
    rows = hr_rows(1, target_instances="")
    rows[1] |= columns
    path = write_tsv(tmp_path / "a.tsv", rows)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))} row 2: {message}") as error:
        read(tmp_path, path)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_every_row_is_checked_before_the_first_error(tmp_path):
    rows = hr_rows(2)
    rows[1]["answer"], rows[3]["B"], rows[6]["image"] = "E", "", "x"
    with pytest.raises(DataError, match=r"row 2: answer must .* got 'E' \(and 2 more\)$"):
        read(tmp_path, write_tsv(tmp_path / "a.tsv", rows))


VSTAR_BROKEN = {
    "one option": ({"options": ["a"]}, "options must be a list of 2 to 26 texts"),
    "thirty options": ({"options": ["a"] * 30}, "options must be a list of 2 to 26 texts"),
    "an option is empty": ({"options": ["a", ""]}, "choices must be a text that is not empty"),
    "no question": ({"question": None}, "question must be a text, got None"),
    "a box alone": ({"bbox": [1, 2, 3, 4]}, "bbox: a box must be four finite numbers, got 1"),
    "no box": ({"bbox": "no"}, "bbox must be a list of boxes, got 'no'"),
    "a box outside": ({"bbox": [[90, 2, 30, 4]]}, "bbox: targets must lie inside the picture"),
    "a flat box": ({"bbox": [[9, 2, 30, 0]]}, "bbox: targets need x1 < x2 and y1 < y2"),
}


@pytest.mark.parametrize("name", VSTAR_BROKEN)
def test_what_is_wrong_with_a_file_of_vstar_is_said(tmp_path, name):
    columns, message = VSTAR_BROKEN[name]
    folder = vstar(tmp_path / "v")
    add_vstar(folder / "direct_attributes", "sa_1", [[1, 2, 3, 4]], picture(), suffix=".png", **columns)
    place = re.escape(str(folder / "direct_attributes" / "sa_1.json"))
    with pytest.raises(DataError, match=f"^{place}: {message}"):
        read(tmp_path, folder)


def test_files_of_vstar_that_do_not_belong_together_are_named(tmp_path):
    folder = vstar(tmp_path / "v")
    (folder / "direct_attributes" / "sa_0.jpg").rename(folder / "direct_attributes" / "sa_1.jpg")
    (folder / "relative_position" / "sa_0.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"direct_attributes: sa_0.json must be .* one picture beside it"):
        read(tmp_path, folder)
    (folder / "direct_attributes" / "sa_1.jpg").rename(folder / "direct_attributes" / "sa_0.jpg")
    with pytest.raises(DataError, match=r"relative_position/sa_0.json: image must be readable, got '.*jpg'"):
        read(tmp_path, folder)


QUESTIONS_BROKEN = {
    "no options": ({"text": "What is it?"}, r"text must list its options as \(A\), \(B\)"),
    "no label": ({"label": None}, "label must be a letter from A to D, got None"),
    "another label": ({"label": "E"}, "label must be a letter from A to D, got 'E'"),
    "no picture": ({"image": "direct_attributes/sa_9.jpg"}, "image must exist, got '.*sa_9.jpg'"),
}


@pytest.mark.parametrize("name", QUESTIONS_BROKEN)
def test_what_is_wrong_with_a_question_of_vstar_is_said(tmp_path, name):
    columns, message = QUESTIONS_BROKEN[name]
    path = vstar_questions(vstar(tmp_path / "v"))
    first, second = map(json.loads, path.read_text().splitlines())
    with pytest.raises(DataError, match=f"row 1: {message}"):
        read(tmp_path, write_lines(path, [first | columns, second]))


@pytest.mark.parametrize("text", ["{", "[]", '{"bbox": 7}', '{"question": "?"}'])
def test_a_file_with_the_boxes_of_a_question_must_be_readable(tmp_path, text):
    path = vstar_questions(vstar(tmp_path / "v"))
    (tmp_path / "v" / "direct_attributes" / "sa_0.json").write_text(text)
    with pytest.raises(DataError, match=r"row 1: .*sa_0.json"):
        read(tmp_path, path)


def test_a_category_of_own_rows_must_be_a_text(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    row = {"question": "What?", "answer": "KR", "image": "a.png", "x_category": ["a"]}
    path = write_lines(tmp_path / "mine.jsonl", [row, row | {"x_question": {}}])
    with pytest.raises(DataError, match=r"row 1: x_category must be a text or a number, .* \(and 1 more\)"):
        read(tmp_path, path)


GOOD = {
    "hr-bench": hr_rows(1)[0],
    "treebench": tree_rows()[0],
    "vlmevalkit": hr_rows(1)[0] | {"hint": "Look."},
    "vstar-questions": {
        "image": {"bytes": picture(), "path": "sa_0.jpg"},
        "text": "What is it? (A) a cup (B) a jug",
        "category": "direct_attributes",
        "label": "B",
        "question_id": "7",
    },
}


@pytest.mark.parametrize("layout", GOOD)
def test_one_odd_value_gives_a_question_or_a_reason(tmp_path, layout):
    for column, value in itertools.product(GOOD[layout], JUNK):
        reader = formats._Reader(BENCHMARK_LAYOUTS[layout], tmp_path / "a.tsv", tmp_path / "pictures", 0)
        records = iter([("row 1", GOOD[layout] | {column: value})])
        reason = None
        try:
            [question] = reader.read(records)[0]
        except DataError as error:
            reason = str(error)
        if reason is None:
            assert answers_match(question.row.answer[0], question.row.answer, question.row.choices)
        else:
            assert reason.startswith("row 1: ")
            assert len(reason) < 400


# --- boxes beside a benchmark --------------------------------------------------------------------------

INNER, OUTER, OTHER = [10, 20, 40, 32], [8, 16, 60, 40], [1, 1, 9, 9]


def boxed(tmp_path, *entries, path=None):
    path = path or write_tsv(tmp_path / "a.tsv", hr_rows())
    return read(tmp_path, path, boxes=write_lines(tmp_path / "boxes.jsonl", entries))


def test_targets_of_a_row_hold_for_its_question(tmp_path):
    benchmark = boxed(tmp_path, {"index": 1, "targets": [INNER, OUTER]}, {"id": "4", "targets": [[OTHER]]})
    found = [targets(question) for question in benchmark.questions]
    assert found == [[[INNER, OUTER]]] * 4 + [[[OTHER]]] * 4
    assert len(benchmark.notes) == 1  # nothing is missing


def test_targets_of_the_row_itself_and_of_the_question_come_first(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", hr_rows())
    question_id = read(tmp_path, path).questions[0].question_id
    row, question = {"index": "2", "targets": [OTHER]}, {"question_id": question_id, "targets": [INNER]}
    for entries in ((row, question), (question, row)):
        benchmark = boxed(tmp_path, *entries)
        found = [targets(question) for question in benchmark.questions]
        assert found == [[[INNER]], [[INNER]], [[OTHER]], [[INNER]]] + [None] * 4
        assert benchmark.notes[1] == (
            f"{tmp_path / 'boxes.jsonl'}: 4 of 8 rows have no targets, the first is {path} row 5"
        )


def test_of_several_rows_with_targets_the_first_one_speaks_for_the_others(tmp_path):
    found = boxed(tmp_path, {"index": 3, "targets": [INNER]}, {"index": 1, "targets": [OTHER]})
    assert [targets(question) for question in found.questions[:4]] == [
        [[box]] for box in (INNER, OTHER, INNER, INNER)
    ]


def test_targets_do_not_hold_for_another_picture(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(picture())
    common = {"question": "What?", "answer": "KR", "x_question": "q"}
    rows = [common | {"id": name, "image": f"{name}.png"} for name in "ab"]
    benchmark = boxed(
        tmp_path, {"id": "a", "targets": [INNER]}, path=write_lines(tmp_path / "rows.jsonl", rows)
    )
    assert [targets(question) for question in benchmark.questions] == [[[INNER]], None]


def test_targets_of_a_question_hold_for_all_its_pictures(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(picture())
    common = {"question": "What?", "answer": "KR", "x_question": "q"}
    path = write_lines(
        tmp_path / "rows.jsonl", [common | {"id": name, "image": f"{name}.png"} for name in "ab"]
    )
    question_id = read(tmp_path, path).questions[0].question_id
    benchmark = boxed(tmp_path, {"question_id": question_id, "targets": [INNER]}, path=path)
    assert [targets(question) for question in benchmark.questions] == [[[INNER]], [[INNER]]]


def test_targets_replace_those_of_the_benchmark(tmp_path):
    folder = vstar(tmp_path / "v")
    benchmark = boxed(tmp_path, {"id": "relative_position/sa_0", "targets": [[OTHER]]}, path=folder)
    assert [targets(question) for question in benchmark.questions] == [[[[10, 20, 40, 32]]], [[OTHER]]]


def test_rows_with_targets_are_a_file_of_boxes(tmp_path):
    row = {"id": "0", "question": "What?", "answer": "red", "image": "0.jpg", "targets": [[INNER, OUTER]]}
    assert targets(boxed(tmp_path, row).questions[3]) == [[INNER, OUTER]]


BOXES_BROKEN = {
    "of no row": ({"index": 8, "targets": [INNER]}, "index must be of a row in the benchmark, got '8'"),
    "of no question": (
        {"question_id": "0", "targets": [INNER]},
        "question_id must be of a row in the benchmark, got '0'",
    ),
    "twice": ({"id": "0", "targets": [INNER]}, r"id must be unique, got '0' as in .*boxes.jsonl row 1"),
    "of nobody": ({"targets": [INNER]}, "an entry must have one of index, id and question_id, got none"),
    "of two": (
        {"id": "1", "index": 1, "targets": [INNER]},
        "an entry must have one of index, id and question_id, got index and id",
    ),
    "none": ({"index": 1}, r"targets must be a list of boxes \[x1, y1, x2, y2\], .*got None"),
    "misspelt": ({"index": 1, "target": [INNER]}, "targets must be a list of boxes"),
    "outside": ({"index": 1, "targets": [[1, 1, 9, 90]]}, "targets must lie inside the picture"),
    "not nested": ({"index": 1, "targets": [OUTER, INNER]}, "targets must be nested, inner to outer"),
    "not an object": ([1], "each record must be a JSON object"),
}


@pytest.mark.parametrize("name", BOXES_BROKEN)
def test_what_is_wrong_with_boxes_is_said(tmp_path, name):
    entry, message = BOXES_BROKEN[name]
    place = re.escape(str(tmp_path / "boxes.jsonl"))
    with pytest.raises(DataError, match=f"^{place} row 2: {message}") as error:
        boxed(tmp_path, {"index": 0, "targets": [INNER]}, entry, {"index": 9})
    assert str(error.value).endswith("(and 1 more)")


# --- the module ----------------------------------------------------------------------------------------


def test_reading_needs_no_torch(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", hr_rows(1))
    code = (
        "import sys\nfrom lfpc_trl.evaluate.formats import read_benchmark\n"
        f"read_benchmark({str(path)!r}, pictures={str(tmp_path / 'pictures')!r})\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_page_names_every_layout_and_its_columns():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "benchmarks.md").read_text(encoding="utf-8")
    for name, layout in BENCHMARK_LAYOUTS.items():
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert all(f"`{column}`" in row for column in layout.needs), row


def test_the_pictures_of_these_tests_differ():
    assert len({published.picture(seed) for seed in range(4)}) == 4
    assert base64.b64decode(base64_of(picture())) == picture()
