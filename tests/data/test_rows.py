"""Rows: what is accepted, and one clear line for everything else."""

import dataclasses
import json
import re

import numpy as np
import pytest

from lfpc_trl.data.rows import (
    Row,
    check_targets,
    read_rows,
    rows_digest,
    scan_rows,
    with_shown_tokens,
    write_rows,
)
from lfpc_trl.errors import DataError, UserError
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


DEEP = "[" * 200_000 + "]" * 200_000
BAD = [  # id, the record, what the line says
    (
        "half a surrogate pair",
        GOOD | {"question": "\ud83d?"},
        "question cannot be written down, it must be text without lone surrog",
    ),
    (
        "half a pair among answers",
        GOOD | {"answer": ["A", "\udc00"]},
        "answer cannot be written down, it must be text without lone",
    ),
    (
        "half a pair carried along",
        GOOD | {"x_note": {"a": "\ud83d"}},
        "x_note cannot be written down, it must be text without lone",
    ),
    ("half a pair in a name", GOOD | {"x_\ud83d": 1}, r"name of a column must be .*, got 'x_.ud83d'"),
    (
        "deep row",
        json.dumps(GOOD)[:-1] + f', "x_note": {DEEP}}}',
        r"must be JSON in UTF-8, got .* \(nested more than 64 deep",
    ),
    ("deep targets", json.dumps(GOOD)[:-1] + f', "targets": {DEEP}}}', "nested more than 64 deep"),
    (
        "size beyond all",
        GOOD | {"shown_size": [1e8, 1e8]},
        "shown_size must have at most 16777216 pixels, got",
    ),
    (
        "size of a thread",
        GOOD | {"shown_size": [20000, 10]},
        "shown_size must be less than 200 times as long",
    ),
    (
        "messages",
        GOOD | {"messages": []},
        "unknown column 'messages': a row holds 'question' and 'answer', no con",
    ),
    ("bbox", GOOD | {"bbox": [1, 2, 3, 4]}, "unknown column 'bbox' .did you mean 'targets'"),
    ("Solution", GOOD | {"Solution": "A"}, "unknown column 'Solution' .did you mean 'answer'"),
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
    ("answer is true", GOOD | {"answer": True}, "answer must be a text or a list of texts, got True"),
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
    ("a list", "[1, 2]", "each record must be a JSON object"),
]


@pytest.mark.parametrize(("record", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_row_is_one_line_with_file_row_and_rule(folder, record, message):
    path = write(folder, GOOD | {"id": "fine"}, record)
    with pytest.raises(DataError, match=message) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path} row 2: ")
    assert "\n" not in str(caught.value)
    assert "more)" not in str(caught.value)


MANY = [  # targets, the rules in their order
    (
        [[20, 0, 10, 10], [0, 0, 225, 10], [0, 0, 50, 50], [0, 0, 5]],
        ["need x1 < x2 and y1 < y2, got [20, 0, 10, 10]", "inside the picture", "got [0, 0, 5]"],
    ),
    (
        [[[20, 0, 10, 10]], [[0, 0, 50, 50], [10, 10, 20, 20]], [[-1, 0, 20, 10]]],
        ["got [20, 0, 10, 10]", "got [-1, 0, 20, 10]"],
    ),
    (
        [[0, 0, 50, 50], [10, 10, 20, 20], [12, 12, 30, 30]],
        ["got [0.0, 0.0, 50.0, 50.0] before", "got [10.0, 10.0, 20.0, 20.0] before"],
    ),
    ([0, 0, 5, 5], ["got 0"]),
]


@pytest.mark.parametrize(("targets", "rules"), MANY, ids=["a region", "regions", "not nested", "a flat box"])
def test_every_bad_box_of_a_row_is_named(folder, targets, rules):
    rows, problems = scan_rows(write(folder, GOOD | {"targets": targets}))
    assert rows == []
    assert len(problems) == len(rules)
    for problem, rule in zip(problems, rules, strict=True):
        assert rule in problem.rule
    with pytest.raises(DataError) as caught:
        check_targets(targets, (224, 168))
    assert str(caught.value) == "; ".join(problem.rule for problem in problems)


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
        ("rows.xlsx", "a,b", "data must be a folder or a file (.jsonl, .json, .parquet"),
        ("rows.csv", "a,b", "the file holds no rows"),
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


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_full_disk_leaves_the_file_that_was_there(folder, monkeypatch, suffix):
    rows = read_rows(write(folder, GOOD))
    path = folder / f"out{suffix}"
    path.write_text("before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=rf"out{suffix}: cannot be written \(No space left on device\)"):
        write_rows(rows, path)
    assert path.read_text() == "before"
    assert not list(folder.glob(".out*"))


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


# --- all problems of a row, one of a file ------------------------------------------------------------


def test_all_problems_of_a_row_at_once(folder):
    record = {"question": "", "answer": [], "image": "gone.png", "id": [1], "shown_size": [0, 5]}
    rows, problems = scan_rows(write(folder, GOOD, record | {"choices": ["A"]}))
    assert len(rows) == 1
    assert {problem.place.rpartition(" ")[2] for problem in problems} == {"2"}
    assert [problem.rule.split(" must")[0] for problem in problems] == [
        *("question", "image", "answer", "choices", "id", "shown_size")
    ]


def test_every_unknown_column_of_a_row_is_named(folder):
    _, problems = scan_rows(write(folder, GOOD | {"bbox": 1, "gt": 2}))
    assert ["'bbox'" in problems[0].rule, "'gt'" in problems[1].rule] == [True, True]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
def test_an_array_is_read_whatever_its_file_is_called(folder, indent, start):
    rows, problems = scan_rows(write(folder, start + json.dumps([GOOD] * 40, indent=indent)))
    assert (len(rows), problems) == (40, [])


@pytest.mark.parametrize(
    ("answer", "read"), [(7, ("7",)), (7.0, ("7",)), (0.5, ("0.5",)), ([1, "one"], ("1", "one"))]
)
def test_a_number_is_an_answer(folder, answer, read):
    [row] = read_rows(write(folder, GOOD | {"answer": answer}))
    assert row.answer == read


def test_an_object_over_many_lines_is_one_error(folder):
    with pytest.raises(DataError, match=r"each row must stand on one line, got '\{' alone on the first"):
        scan_rows(write(folder, json.dumps(GOOD, indent=1)))


@pytest.mark.parametrize("first", ["[1]", "[1", "{"])
def test_one_bad_line_does_not_make_an_array(folder, first):
    path = write(folder, GOOD, first, GOOD)
    rows, problems = scan_rows(path)
    assert len(rows) == 2
    assert [problem.place for problem in problems] == [f"{path} row 2"]


def test_a_file_that_is_not_there_and_one_beside_it(folder):
    path = write(folder, GOOD)
    with pytest.raises(DataError, match=r"rows\.json: no such file, did you mean '.*rows.jsonl'"):
        read_rows(path.with_suffix(".json"))
    with pytest.raises(DataError, match=r"elsewhere: no such file$"):
        read_rows(folder / "elsewhere")


def parquet_with(folder, column, values, kind):
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({name: [GOOD[name]] * len(values) for name in GOOD})
    table = table.append_column(column, pa.array(values, kind))
    parquet.write_table(table, folder / "rows.parquet")
    return folder / "rows.parquet"


def test_a_timestamp_out_of_range_is_a_problem_of_its_row(folder):
    import pyarrow as pa

    path = parquet_with(folder, "x_time", [None, 2**62, None], pa.timestamp("ms"))
    rows, problems = scan_rows(path)
    assert [row.id for row in rows] == ["1", "3"]
    assert [problem.place for problem in problems] == [f"{path} row 2"]
    assert "each value must be one that Python can hold" in problems[0].rule


def test_a_column_that_no_line_of_json_can_hold_is_found_when_it_is_read(folder):
    import pyarrow as pa

    _, [problem] = scan_rows(parquet_with(folder, "x_time", [0], pa.timestamp("ms")))
    assert problem.rule.startswith("x_time cannot be written down, it must be plain JSON (texts, numbers, ")
    assert problem.rule.endswith(", got datetime")
