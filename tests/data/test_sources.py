"""Records of a file: all of them, in pieces of any size, and a reason for each that cannot be read."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from lfpc_trl.data import sources
from lfpc_trl.data.sources import read_members, read_records
from lfpc_trl.errors import DataError

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
objects = st.lists(st.dictionaries(st.text(max_size=6), plain, max_size=4), max_size=6)


@given(records=objects, indent=st.sampled_from([None, 2]), ascii_only=st.booleans(), piece=st.integers(1, 40))
def test_an_array_is_read_the_same_in_pieces_of_any_size(
    tmp_path_factory, records, indent, ascii_only, piece
):
    path = tmp_path_factory.mktemp("array") / "a.json"
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_only)
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_CHUNK", piece)
        assert list(read_records(path)) == list(enumerate(records, start=1))


@given(members=st.dictionaries(st.text(max_size=4), objects | plain, max_size=4), piece=st.integers(1, 40))
def test_members_of_an_object_are_read_the_same_in_pieces_of_any_size(tmp_path_factory, members, piece):
    path = tmp_path_factory.mktemp("members") / "a.json"
    path.write_text(json.dumps(members), encoding="utf-8")
    expected = [(name, item) for name, value in members.items() if isinstance(value, list) for item in value]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_CHUNK", piece)
        assert list(read_members(path)) == expected


def test_an_item_of_a_member_that_is_too_deep_is_one_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"images": [{"id": 1}, {"id": ' + "[" * 800 + "]" * 800 + "}]}")
    with pytest.raises(DataError, match=r"a\.json: each item must be nested at most 64 deep$"):
        list(read_members(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_content_decides_between_lines_and_an_array(tmp_path, name, mark):
    for text in ('{"a": 1}\n{"a": 2}\n', ' \n[{"a": 1}, {"a": 2}]'):
        (tmp_path / name).write_bytes(mark + text.encode())
        assert [record for _, record in read_records(tmp_path / name)] == [{"a": 1}, {"a": 2}]


def test_a_parquet_file_is_known_by_its_content(tmp_path):
    parquet.write_table(pa.table({"a": [1, 2]}), tmp_path / "a.json")
    assert list(read_records(tmp_path / "a.json")) == [(1, {"a": 1}), (2, {"a": 2})]


LINES = [
    b'{"a": 1}',
    b"",
    b'{"a": ',
    b"[1]",
    b'{"a": "\xff"}',
    b"[" * 100_000,
    b'{"a": ' + b"9" * 5000 + b"}",
    b'{"a": 2}',
]


def test_a_bad_line_is_one_reason_and_the_next_one_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(LINES))
    read = dict(read_records(path))
    assert read[1] == {"a": 1}
    assert read[8] == {"a": 2}
    assert "each record must be a JSON object, got [1]" in str(read[4])
    for number in (3, 5, 6, 7):
        assert "each line must be JSON in UTF-8, got b'" in str(read[number])
        assert len(str(read[number])) < 300
    assert 2 not in read


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_RECORD", 100)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "' + b"x" * 1000 + b'"}\n{"a": 2}\n')
    (_, refused), (number, record) = read_records(path)
    assert (str(refused), number, record) == ("a line must be shorter than 100 bytes", 2, {"a": 2})


BROKEN = [  # id, the array, how many records come before the break
    ("cut short", '[{"a": 1}, {"a": ', 1),
    ("no end", '[{"a": 1}', 1),
    ("no comma", '[{"a": 1} {"a": 2}]', 1),
    ("a word", '[{"a": 1}, nothing, {"a": 2}]', 1),
    ("endless brackets", '[{"a": 1}, ' + "[" * 100_000, 1),
    ("a trailing comma", '[{"a": 1},]', 1),
    ("an endless number", '[{"a": 1}, {"a": ' + "9" * 5000 + "}]", 1),
]


@pytest.mark.parametrize(("text", "before"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_an_array_that_breaks_off_gives_what_stands_before_and_raises(tmp_path, text, before):
    path = tmp_path / "a.json"
    path.write_text(text)
    records = read_records(path)
    assert [next(records) for _ in range(before)] == [(i + 1, {"a": i + 1}) for i in range(before)]
    with pytest.raises(DataError, match=r"the JSON breaks off .* nothing behind that place was read"):
        next(records)


def test_a_text_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_RECORD", 1000)
    monkeypatch.setattr(sources, "_CHUNK", 64)
    path = tmp_path / "a.json"
    path.write_text('[{"a": "' + "x" * 10_000)
    with pytest.raises(DataError, match=r"a value must be shorter than 1000 characters"):
        list(read_records(path))


def test_items_that_are_no_objects_are_refused_alone(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[1, {"a": 1}]')
    (_, refused), (_, record) = read_records(path)
    assert str(refused) == "each record must be a JSON object, got 1"
    assert record == {"a": 1}


def test_text_of_parquet_that_is_no_utf8_is_refused_alone(tmp_path):
    bad = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.array([0, 1, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffb")]
    )
    parquet.write_table(pa.table({"a": bad}), tmp_path / "a.parquet")
    (_, first), (_, refused), (_, last) = read_records(tmp_path / "a.parquet")
    assert (first, last) == ({"a": "a"}, {"a": "b"})
    assert str(refused) == r"text must be UTF-8, got b'\xff'"


def test_a_parquet_file_cut_short_is_one_sentence(tmp_path):
    parquet.write_table(pa.table({"a": [1, 2]}), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-10])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(read_records(tmp_path / "a.parquet"))


def test_a_table_row_with_too_many_cells_is_refused_alone(tmp_path):
    (tmp_path / "a.tsv").write_text('a\tb\n1\t2\n1\t2\t3\n"x\ny"\t4\n')
    (_, first), (_, refused), (_, last) = read_records(tmp_path / "a.tsv")
    assert (first, last) == ({"a": "1", "b": "2"}, {"a": "x\ny", "b": "4"})
    assert str(refused) == "more cells than columns, got ['3']"


def test_a_missing_file_is_named(tmp_path):
    for read in (read_records, lambda path: list(read_members(path))):
        with pytest.raises(DataError, match=r"gone.json: no such file"):
            read(tmp_path / "gone.json")
