"""Rows: what is accepted, and one clear line for everything else."""

import dataclasses
import json
import re

import numpy as np
import pytest

from lfpc_trl.data.rows import Row, read_rows, rows_digest, with_shown_tokens, write_rows
from lfpc_trl.errors import DataError
from tests.tiny import make_picture, make_rows

GOOD = {"question": "What?", "answer": "A", "image": "a.png"}


@pytest.fixture
def folder(tmp_path):
    make_picture(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:90])
    (tmp_path / "text.png").write_text("no picture")
    make_picture(tmp_path / "strip.png", (4100, 20))
    return tmp_path


def write(folder, *records):
    path = folder / "rows.jsonl"
    path.write_text("\n".join(text if isinstance(text, str) else json.dumps(text) for text in records) + "\n")
    return path


BAD = [  # id, the record, what the line says
    ("missing image", GOOD | {"image": "gone.png"}, "image must exist, got '.*gone.png'"),
    ("image is a folder", GOOD | {"image": "."}, "image must be readable"),
    ("image cut short", GOOD | {"image": "broken.png"}, "image must be readable, got '.*broken.png'"),
    ("image is text", GOOD | {"image": "text.png"}, "image must be readable, got '.*text.png'"),
    (
        "image too long",
        GOOD | {"image": "strip.png"},
        r"less than 200 times as long as wide, got \[4100, 20\]",
    ),
    ("no question", {"answer": "A", "image": "a.png"}, "question is missing"),
    ("empty question", GOOD | {"question": " "}, "question must be a text that is not empty, got ' '"),
    ("no answer", {"question": "What?", "image": "a.png"}, "answer is missing"),
    ("empty answer", GOOD | {"answer": ""}, "answer must be a text that is not empty, got ''"),
    (
        "one answer of two empty",
        GOOD | {"answer": ["A", ""]},
        "answer must be a text that is not empty, got ''",
    ),
    ("no accepted answer", GOOD | {"answer": []}, r"answer must be a text or a list of texts, got \[\]"),
    ("answer is a number", GOOD | {"answer": 3}, "answer must be a text or a list of texts, got 3"),
    ("choices are a text", GOOD | {"choices": "A or B"}, "choices must be a text or a list"),
    (
        "answer names no choice",
        GOOD | {"choices": ["red", "blue"], "answer": "E"},
        "answer must name one of the choices",
    ),
    ("one choice", GOOD | {"choices": ["A"]}, "choices must be 2 to 26 texts, got 1"),
    ("unknown column", GOOD | {"target": []}, "unknown column 'target' .did you mean 'targets'"),
    ("id is a list", GOOD | {"id": [1]}, "id must be a text that is not empty"),
    (
        "box outside",
        GOOD | {"targets": [[0, 0, 225, 10]]},
        r"inside the picture \(224 x 168 pixels\), got \[0, 0, 225, 10\]",
    ),
    ("box left of zero", GOOD | {"targets": [[-1, 0, 20, 10]]}, "inside the picture"),
    (
        "inverted box",
        GOOD | {"targets": [[20, 0, 10, 10]]},
        r"need x1 < x2 and y1 < y2, got \[20, 0, 10, 10\]",
    ),
    ("box without area", GOOD | {"targets": [[20, 0, 20, 10]]}, "need x1 < x2"),
    (
        "a line for a box",
        GOOD | {"targets": [[0, 0, 202, 2]]},
        r"targets must be at most 100 times as long as wide, got \[0, 0, 202, 2\]",
    ),
    (
        "outer before inner",
        GOOD | {"targets": [[0, 0, 50, 50], [10, 10, 20, 20]]},
        "targets must be nested, inner to outer",
    ),
    ("overlapping", GOOD | {"targets": [[9, 9, 20, 20], [0, 0, 15, 25]]}, "targets must be nested"),
    (
        "second region not nested",
        GOOD | {"targets": [[[0, 0, 5, 5]], [[0, 0, 9, 9], [1, 0, 20, 20]]]},
        "nested",
    ),
    ("three numbers", GOOD | {"targets": [[0, 0, 5]]}, "targets must be a list of boxes"),
    ("a NaN in a box", GOOD | {"targets": [[0, 0, float("nan"), 5]]}, "targets must be a list of boxes"),
    ("400 digits in a box", GOOD | {"targets": [[0, 0, 10**400, 5]]}, "targets must be a list of boxes"),
    ("400 digits in a shown size", GOOD | {"shown_size": [10**400, 28]}, "shown_size must be"),
    ("no boxes", GOOD | {"targets": []}, r"targets must be a list of boxes .* got \[\]"),
    ("a flat box", GOOD | {"targets": [0, 0, 5, 5]}, "targets must be a list of boxes"),
    ("an empty region", GOOD | {"targets": [[[0, 0, 5, 5]], []]}, "targets must be a list of boxes"),
    ("shown size of one number", GOOD | {"shown_size": [28]}, "shown_size must be"),
    ("shown size of zero", GOOD | {"shown_size": [28, 0]}, "shown_size must be"),
    ("broken JSON", '{"question": "What?"', "each line must be JSON"),
    ("a list", "[1, 2]", "each line must be a JSON object"),
]


@pytest.mark.parametrize(("record", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_row_is_one_line_with_file_row_and_rule(folder, record, message):
    path = write(folder, GOOD | {"id": "fine"}, record)
    with pytest.raises(DataError, match=message) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path} row 2: ")
    assert "\n" not in str(caught.value)
    assert "more)" not in str(caught.value)


def test_the_same_id_twice_names_both_rows(folder):
    with pytest.raises(DataError, match="row 3: id must be unique, got 'x' as in row 1"):
        read_rows(write(folder, GOOD | {"id": "x"}, GOOD, GOOD | {"id": "x"}))


def test_every_problem_is_found_before_the_first_is_told(folder):
    path = write(folder, GOOD | {"answer": ""}, "nonsense", GOOD | {"image": "gone.png"})
    with pytest.raises(DataError, match=r"row 1: answer .* \(and 2 more\)$"):
        read_rows(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.jsonl", None, "no such file"),
        ("rows.csv", "a,b", "must be a .jsonl or .parquet file"),
        ("rows.jsonl", "\n\n", "the file holds no rows"),
        ("rows.parquet", "not parquet", "not a readable Parquet file"),
    ],
)
def test_a_file_that_holds_no_rows(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=re.escape(message)):
        read_rows(tmp_path / name)


def test_stage_2_needs_targets(folder):
    with pytest.raises(DataError, match="row 1: targets are needed"):
        read_rows(write(folder, GOOD), require_targets=True)


def test_what_a_row_holds(folder):
    record = GOOD | {
        "answer": ["A", "a"],
        "choices": ["A", "B"],
        "targets": [[1, 1, 2, 2], [0, 0, 4, 4]],
        "id": 7,
        "shown_size": [112, 84],
        "x_source": "sign",
    }
    row = read_rows(write(folder, record))[0]
    assert (row.id, row.answer, row.choices, row.size) == ("7", ("A", "a"), ("A", "B"), (224, 168))
    assert row.shown_size == (112, 84)
    assert row.image == folder / "a.png"
    assert row.extras == {"x_source": "sign"}
    assert row.regions is not None
    np.testing.assert_array_equal(row.regions[0], [[1, 1, 2, 2], [0, 0, 4, 4]])


def test_rows_without_an_id_are_numbered_and_blank_lines_are_skipped(folder):
    assert [row.id for row in read_rows(write(folder, GOOD, "", GOOD))] == ["1", "3"]


def test_equal_boxes_count_as_nested(folder):
    read_rows(write(folder, GOOD | {"targets": [[1, 1, 2, 2], [1, 1, 2, 2]]}))


def test_a_picture_of_many_rows_is_read_once(folder, monkeypatch):
    from lfpc_trl.data import rows

    calls = []
    monkeypatch.setattr(rows, "check_picture", lambda path: calls.append(path) or (224, 168))
    read_rows(write(folder, GOOD, GOOD, GOOD))
    assert len(calls) == 1


def same(row: Row, other: Row) -> bool:
    plain = [
        dataclasses.replace(each, regions=None, image=each.image.resolve(), place="") for each in (row, other)
    ]
    regions = [[region.tolist() for region in each.regions or ()] for each in (row, other)]
    return dataclasses.astuple(plain[0]) == dataclasses.astuple(plain[1]) and regions[0] == regions[1]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_written_rows_read_back_the_same_from_another_folder(folder, suffix):
    path = write(
        folder,
        GOOD | {"targets": [[[1, 1, 2, 2]], [[0, 0, 5, 5], [0, 0, 9, 9]]], "choices": ["A", "B"]},
        GOOD | {"selected_level": 2, "diverged": True, "shown_size": [56, 28]},
    )
    before = read_rows(path)
    write_rows(before, folder / "deep" / f"again.{suffix}")
    after = read_rows(folder / "deep" / f"again.{suffix}")
    assert all(same(*pair) for pair in zip(before, after, strict=True))


def test_rows_are_not_written_to_other_formats(folder):
    with pytest.raises(DataError, match="rows are written to"):
        write_rows([], folder / "rows.csv")


def test_the_digest_ignores_the_folder_and_sees_every_value(tmp_path):
    first, second = (read_rows(make_rows(tmp_path / name, 2)) for name in ("a", "b"))
    assert rows_digest(first) == rows_digest(second)
    changed = [dataclasses.replace(first[0], shown_size=(28, 28)), *first[1:]]
    assert rows_digest(first) != rows_digest(changed)


def test_one_budget_for_all_rows(folder):
    row = with_shown_tokens(read_rows(write(folder, GOOD)), 12, factor=28)[0]
    assert row.shown_size == (112, 84)
