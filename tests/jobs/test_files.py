"""Final files are whole or not there; JSON of others cannot break what reads or writes it."""

import errno
import json

import pytest

from lfpc_trl.data.rows import read_rows, write_rows
from lfpc_trl.errors import UserError
from lfpc_trl.files import atomic_file, temporary_path, write_atomic
from lfpc_trl.json_values import MAX_DEPTH, is_deep, json_line, json_problem, parse_json
from tests.tiny import make_rows


def disk_full_at(monkeypatch, place):
    """From now on this function finds no room on the disk."""

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, fail)


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "report.html"
    with atomic_file(path) as draft:
        draft.write_text("half")
        assert not path.exists()
        assert draft.parent == path.parent  # a name in another file system could not be taken at once
        draft.write_text("whole")
    assert path.read_text() == "whole"
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_file_that_fails_leaves_the_older_one_and_no_draft(tmp_path, error):
    path = tmp_path / "report.html"
    path.write_text("older")

    def write():
        with atomic_file(path) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "older"
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_what_a_kill_left_is_written_over(tmp_path):
    path = tmp_path / "report.html"
    temporary_path(path).write_text("what a killed command left, longer than what follows")
    write_atomic(path, "whole")
    assert path.read_text() == "whole"
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_bytes_are_on_the_disk_before_they_have_a_name(tmp_path, monkeypatch):
    path, synced = tmp_path / "report.html", []
    monkeypatch.setattr("os.fsync", lambda _: synced.append(path.exists()))
    write_atomic(path, "whole")
    assert synced == [False, True]  # the file, then its folder


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_rows_on_a_full_disk_are_one_line_and_no_file(tmp_path, monkeypatch, suffix):
    rows = read_rows(make_rows(tmp_path, 2))
    disk_full_at(monkeypatch, "os.fsync")
    output = tmp_path / f"out.{suffix}"
    with pytest.raises(UserError, match=rf"out.{suffix}: cannot be written \(No space left on device\)"):
        write_rows(rows, output)
    assert not output.exists()
    assert not temporary_path(output).exists()


# --- JSON --------------------------------------------------------------------------------------------


def nested(depth):
    return "[" * depth + "]" * depth


def test_depth_counts_brackets_of_both_kinds():
    assert not is_deep(json.loads(nested(MAX_DEPTH)))
    assert is_deep(json.loads(nested(MAX_DEPTH + 1)))
    assert is_deep(json.loads('{"a": ' * MAX_DEPTH + "[[]]" + "}" * MAX_DEPTH))


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 200_000])
def test_endless_brackets_are_an_error_of_the_text(depth):
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        parse_json(nested(depth))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"a": [1, 2.5, None, True, "\u00e4\U0001f600"]}, None),
        ("\ud83d", "text without lone surrogates"),
        ({"a": ["\ud83d"]}, "text without lone surrogates"),
        ({"\ud83d": 1}, "text without lone surrogates"),
        (b"bytes", "plain JSON (texts, numbers, lists, objects)"),
        ({1: 2}, "plain JSON (texts, numbers, lists, objects)"),
        (json.loads(nested(MAX_DEPTH + 1)), "nested at most 64 deep"),
    ],
)
def test_what_json_cannot_keep(value, wanted):
    assert json_problem(value) == wanted


@pytest.mark.parametrize("text", ["plain", "\u00e4", "\ud83d", "\ud83d\ude00"])
def test_a_line_of_a_journal_gives_back_its_text(text):
    line = json_line({"answer": text})
    assert line.count(b"\n") == 1
    assert parse_json(line) == json.loads(json.dumps({"answer": text}))
