"""Journals survive a kill at any byte and refuse to be mixed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_trl.errors import UserError
from lfpc_trl.jobs.journal import Journal, difference, read_journal

HEADER = {"model": "abc", "settings": {"max_new_tokens": 16, "engine": "vllm"}}
RECORDS = [{"id": "a", "answer": "é\n"}, {"id": "b", "answer": None}, {"id": "c", "answer": "x"}]


def write(path, records, header=HEADER):
    with Journal(path, header) as journal:
        journal.append(records)
    return path.read_bytes()


def test_what_was_written_is_read_back(tmp_path):
    path = tmp_path / "new folder" / "a.jsonl"
    write(path, RECORDS[:1])
    with Journal(path, HEADER) as journal:
        assert journal.records == RECORDS[:1]
        journal.append(RECORDS[1:])
        assert read_journal(path, HEADER) == RECORDS  # while it is being written
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4


def test_a_file_cut_at_any_byte_keeps_its_whole_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    whole = write(path, RECORDS)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = max(0, whole[:cut].count(b"\n") - 1)
        assert read_journal(path, HEADER) == RECORDS[:kept]
        assert write(path, RECORDS[kept:]) == whole


DIFFERENCES = [  # id, header of the resumed run, what is said
    ("another model", HEADER | {"model": "xyz"}, "model was 'abc' and is 'xyz'"),
    (
        "a setting inside",
        HEADER | {"settings": {"max_new_tokens": 32, "engine": "vllm"}},
        "settings.max_new_tokens was 16 and is 32",
    ),
    ("a new setting", HEADER | {"seed": 1}, "seed was None and is 1"),
    ("a setting that is gone", {"model": "abc"}, "settings was .* and is None"),
]


@pytest.mark.parametrize(
    ("header", "message"), [case[1:] for case in DIFFERENCES], ids=[case[0] for case in DIFFERENCES]
)
def test_another_header_is_refused_by_name(tmp_path, header, message):
    path = tmp_path / "a.jsonl"
    before = write(path, RECORDS)
    for open_it in (read_journal, Journal):
        with pytest.raises(
            UserError, match=rf"a\.jsonl: was written by a run with other settings, {message}"
        ):
            open_it(path, header)
    assert path.read_bytes() == before
    write(path, [])  # the refused one has let go of the file


def test_values_that_json_changes_are_no_difference(tmp_path):
    write(tmp_path / "a.jsonl", RECORDS, {"sizes": (1, 2)})
    assert read_journal(tmp_path / "a.jsonl", {"sizes": (1, 2)}) == RECORDS


@pytest.mark.parametrize("line", [b"{\n", b"[1]\n", b"\xff\n", b"\n"])
def test_damage_inside_is_named_and_never_skipped(tmp_path, line):
    path = tmp_path / "a.jsonl"
    lines = write(path, RECORDS).splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line, *lines[2:]]))
    with pytest.raises(UserError, match=r"a\.jsonl line 3: damaged"):
        read_journal(path, HEADER)


def test_two_runs_do_not_write_one_journal(tmp_path):
    path = tmp_path / "a.jsonl"
    with Journal(path, HEADER) as journal:
        with pytest.raises(UserError, match=r"a\.jsonl: another run is writing here"):
            Journal(path, HEADER)
        journal.append(RECORDS)
    assert read_journal(path, HEADER) == RECORDS


json_values = st.recursive(
    st.none() | st.integers(0, 3) | st.text(max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=5,
)


@given(before=json_values, now=json_values)
def test_a_difference_is_found_exactly_where_values_differ(before, now):
    def without_nulls(value):  # an absent key and null are the same to a reader of the message
        if isinstance(value, dict):
            return {key: kept for key in value if (kept := without_nulls(value[key])) is not None}
        return value

    same = without_nulls(before) == without_nulls(now)
    assert difference(before, before) is None
    if not same:
        assert difference(before, now) is not None
    if difference(before, now) is not None:
        assert json.dumps(before, sort_keys=True) != json.dumps(now, sort_keys=True)
