"""Data sets as the library datasets reads them: folders, pictures inside files, columns of other names."""

import io
import json
import tarfile

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from lfpc_trl.data.columns import columns_of
from lfpc_trl.data.rows import read_rows, write_rows
from lfpc_trl.errors import DataError, UserError
from lfpc_trl.pictures import inside
from lfpc_trl.pictures.originals import load_original

MAPPING = ["question=problem", "answer=solution", "image=images.0", "targets=bbox:xywh"]
WIDTH = 100


def png(number):
    file = io.BytesIO()
    Image.new("RGB", (WIDTH + number, 80), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def hub_record(number):
    return {
        "problem": f"<image>What is {number}?",
        "solution": f"<think>so</think><answer>{number}</answer>",
        "images": [{"bytes": png(number), "path": None}],
        "bbox": [10, 10, 20, 30],
        "source": "somewhere",
        "__index_level_0__": number,
    }


@pytest.fixture
def hub(tmp_path):
    """A data set of ten rows in two Parquet files, the first in row groups of four."""
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    for shard, numbers in enumerate((range(6), range(6, 10))):
        table = pa.Table.from_pylist([hub_record(number) for number in numbers])
        parquet.write_table(table, folder / f"train-0000{shard}-of-00002.parquet", row_group_size=4)
    (tmp_path / "hub" / "README.md").write_text("a card")
    return tmp_path / "hub"


def test_other_names_are_answered_with_the_mapping_that_reads_them(hub):
    with pytest.raises(DataError) as refused:
        read_rows(hub)
    option = str(refused.value).rpartition("add: --columns ")[2]
    assert option == "question=problem answer=solution image=images.0 targets=bbox"
    assert len(read_rows(hub, columns=columns_of(option.split()))) == 10


def test_a_hub_folder_is_read_by_mapping_alone(hub):
    rows = read_rows(hub, columns=columns_of(MAPPING))
    assert [row.answer for row in rows] == [(str(number),) for number in range(10)]
    assert rows[3].question == "What is 3?"
    assert rows[0].regions[0].tolist() == [[10, 10, 30, 40]]
    assert rows[7].id == "train-00001-of-00002-2"
    for row in reversed(rows):  # backwards inside a row group, too
        assert load_original(row.image).getpixel((0, 0))[0] == int(row.answer[0])


def test_pictures_stay_inside_where_rows_are_written(hub, tmp_path):
    rows = read_rows(hub, columns=columns_of(MAPPING))
    write_rows(rows, tmp_path / "out" / "rows.jsonl")
    again = read_rows(tmp_path / "out" / "rows.jsonl")
    assert [(row.size, row.answer) for row in again] == [(row.size, row.answer) for row in rows]
    assert not list((tmp_path / "out").glob("**/*.png"))


def test_rows_in_order_are_read_once_and_few_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr(inside, "_BATCH_BYTES", 1000)
    records = [{"image": {"bytes": png(number), "path": None}} for number in range(40)]
    parquet.write_table(pa.Table.from_pylist(records), tmp_path / "one_group.parquet")
    column = inside._Column(str(tmp_path / "one_group.parquet"), "image")
    starts = []
    monkeypatch.setattr(
        column, "_start", lambda group, start=column._start: (starts.append(group), start(group))
    )
    held = set()
    for number in range(40):
        assert column[number].as_py()["bytes"] == png(number)
        held.add(len(column._held))
    assert starts == [0]
    assert max(held) < 10
    assert column[1].as_py()["bytes"] == png(1)
    assert starts == [0, 0]


def test_a_picture_that_is_not_in_its_file_is_one_line(hub):
    file = hub / "data" / "train-00000-of-00002.parquet"
    for place, reason in (
        ("99.images.0", "the file has 6 rows"),
        ("1.photo", "photo"),
        ("1.bbox", "holds no picture"),
    ):
        with pytest.raises(OSError, match=reason):
            load_original(file / place)


def test_a_folder_of_save_to_disk(tmp_path):
    table = pa.Table.from_pylist(
        [{"question": "Q?", "answer": 7, "image": {"bytes": png(3), "path": None}, "__index_level_0__": 5}]
    )
    path = str(tmp_path / "data-00000-of-00001.arrow")
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
    )
    (tmp_path / "dataset_info.json").write_text("{}")
    [row] = read_rows(tmp_path)
    assert (row.answer, row.size) == (("7",), (WIDTH + 3, 80))
    assert load_original(row.image).size == row.size
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../secret.arrow"}]}))
    with pytest.raises(DataError, match="which does not exist"):
        read_rows(tmp_path)


def test_shards_of_webdataset(tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"shard-00000{shard}.tar", "w") as tar:
            for number in range(3):
                meta = json.dumps({"question": "Q?", "answer": number}).encode()
                for name, data in ((f"a/{number:04}.png", png(number)), (f"a/{number:04}.json", meta)):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    mapping = columns_of(["question=json.question", "answer=json.answer", "image=png"])
    rows = read_rows(tmp_path, columns=mapping)
    assert [row.answer[0] for row in rows] == ["0", "1", "2"] * 2
    assert [load_original(row.image).width for row in rows] == [100, 101, 102] * 2
    with pytest.raises(DataError, match=r"question=json\.question answer=json\.answer image=png"):
        read_rows(tmp_path)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_folder_of_pictures_with_its_metadata(tmp_path, name):
    (tmp_path / "a.png").write_bytes(png(1))
    record = {"file_name": "a.png", "question": "Q?", "answer": "B", "choices": ["red", "blue"]}
    text = json.dumps(record)
    if name.endswith("csv"):  # as pandas writes it, with its index
        text = ",file_name,question,answer,choices,id\n0,a.png,Q?,B,\"['red', 'blue']\",\n"
    (tmp_path / name).write_text(text)
    [row] = read_rows(tmp_path)
    assert (row.choices, row.size, row.id) == (("red", "blue"), (101, 80), "1")


def test_an_array_of_json_and_a_pattern(tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    for number in range(2):
        record = {"question": "Q?", "answer": 7.5 + number, "image": "a.png"}
        (tmp_path / f"part-{number}.json").write_text(json.dumps([record]))
    assert [row.answer[0] for row in read_rows(tmp_path / "part-*.json")] == ["7.5", "8.5"]


def test_several_splits_have_to_be_named(hub):
    test = hub / "data" / "test-00000-of-00001.parquet"
    test.write_bytes((hub / "data" / "train-00001-of-00002.parquet").read_bytes())
    with pytest.raises(DataError, match=r"holds several sets of rows \(data/test-\*\.parquet, data/train-\*"):
        read_rows(hub)
    assert len(read_rows(hub / "data" / "train-*.parquet", columns=columns_of(MAPPING))) == 10


@pytest.mark.parametrize(
    ("words", "columns", "read"),
    [
        (["answer=label:index", "choices=A,B,C"], {"label": 1, "A": "red", "B": "blue", "C": ""}, ("B", 2)),
        (["choices=options"], {"answer": "A", "options": {"A": "red", "B": "blue"}}, ("A", 2)),
        (["answer=conversations.1.value"], {"conversations": [{"value": "Q"}, {"value": "KR"}]}, ("KR", 0)),
    ],
)
def test_answers_and_options_where_others_have_them(tmp_path, words, columns, read):
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "Q?", "image": "a.png"} | columns))
    [row] = read_rows(tmp_path / "rows.jsonl", columns=columns_of(words))
    assert (row.answer[0], len(row.choices or ())) == read


@pytest.mark.parametrize(
    ("layout", "box"),
    [
        ("xyxy", [25, 20, 75, 60]),
        ("xywh", [25, 20, 50, 40]),
        ("cxcywh", [50, 40, 50, 40]),
        ("xyxy-1", [0.25, 0.25, 0.75, 0.75]),
        ("xywh-100", [25, 25, 50, 50]),
        ("cxcywh-1000", [500, 500, 500, 500]),
    ],
)
def test_boxes_of_every_kind_become_corners_in_pixels(tmp_path, layout, box):
    (tmp_path / "a.png").write_bytes(png(0))
    record = {"question": "Q?", "answer": "A", "image": "a.png", "objects": {"bbox": [box, box]}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(record))
    [row] = read_rows(tmp_path / "rows.jsonl", columns=columns_of([f"targets=objects.bbox:{layout}"]))
    assert [region.tolist() for region in row.regions] == [[[25, 20, 75, 60]]] * 2


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("problem", "--columns takes NAME=COLUMN, such as question=problem, got 'problem'"),
        ("text=problem", "--columns text=problem: a row has the columns question, answer"),
        ("targets=bbox:yxyx", "boxes must be one of xyxy, xywh"),
        ("question=", "behind '=' stands a column"),
    ],
)
def test_a_mapping_that_cannot_be_read_is_one_line(word, message):
    with pytest.raises(UserError, match=message):
        columns_of([word])


def test_a_column_that_is_not_there_is_named_with_its_row(hub):
    with pytest.raises(
        DataError, match=r"parquet row 1: question must be in 'query', got the columns 'problem'"
    ):
        read_rows(hub, columns=columns_of(["question=query", *MAPPING[1:]]))
