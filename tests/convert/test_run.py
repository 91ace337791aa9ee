"""A whole conversion: counts, rejects, both directions, and memory that does not grow."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from lfpc_trl import cli
from lfpc_trl.convert import label_studio, run
from lfpc_trl.convert.run import convert
from lfpc_trl.data.rows import read_rows
from lfpc_trl.errors import DataError, InterruptedRun, UserError
from tests.convert import published

ROOT = Path(__file__).parents[2]
GOOD = {"question": "What?", "answer": "KR", "image": "a.jpg"}


@pytest.fixture
def folder(tmp_path):
    published.add_picture(tmp_path / "a.jpg")
    return tmp_path


def lines_of(path):
    # Of bytes: those of text would end at U+2028 as well, which JSON may hold as it is.
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_every_bad_row_is_in_the_rejects_file_and_the_rest_goes_on(folder):
    path = folder / "rows.jsonl"
    (folder / "text.jpg").write_text("no picture")
    bad = [
        GOOD | {"image": "text.jpg"},
        GOOD | {"id": "x"},
        GOOD | {"id": "x"},
        GOOD | {"answer": []},
        GOOD | {"targets": [[1, 2, float("nan"), 4]]},
        GOOD | {"target": []},
        GOOD | {"choices": ["red", "blue"], "answer": "green"},
        GOOD | {"question": "\udcff"},
    ]
    published.write_lines(path, GOOD, *bad, GOOD)
    with path.open("ab") as file:
        file.write(b'{"question": "\xff"}\nno JSON\n')
    summary = convert([path], folder / "out" / "new.jsonl", source="rows")
    assert (summary.converted, summary.rejected) == (3, 9)
    assert [row.id for row in read_rows(folder / "out" / "new.jsonl")] == ["rows-1", "x", "rows-10"]
    entries = lines_of(folder / "out" / "new.rejects.jsonl")
    assert [entry["row"] for entry in entries] == [2, 4, 5, 6, 7, 8, 9, 11, 12]
    assert {entry["file"] for entry in entries} == {str(path)}
    assert entries[1]["id"] == "x"
    assert entries[1]["reason"] == "id must be unique, got 'x' as in rows.jsonl row 3"
    assert "unknown column 'target' (did you mean 'targets'?)" in entries[4]["reason"]
    assert "text must be UTF-8" in entries[6]["reason"]
    assert sum(summary.reasons.values()) == 9


def test_without_bad_rows_there_is_no_rejects_file(folder):
    path = published.write_lines(folder / "rows.jsonl", GOOD)
    convert([path], folder / "out" / "new.jsonl", source="rows")
    assert sorted(each.name for each in (folder / "out").iterdir()) == ["images", "new.jsonl"]


def test_ids_are_unique_over_all_files(folder):
    first = published.write_lines(folder / "1.jsonl", GOOD | {"id": "x"})
    second = published.write_lines(folder / "2.jsonl", GOOD, GOOD | {"id": "x"})
    summary = convert([first, second], folder / "out.jsonl", source="rows")
    assert (summary.converted, summary.rejected) == (2, 1)
    assert lines_of(folder / "out.rejects.jsonl")[0]["reason"].endswith("as in 1.jsonl row 1")


def test_what_stands_before_a_break_is_kept_and_the_break_is_told(folder):
    (folder / "rows.json").write_text(json.dumps([GOOD, GOOD])[:-20])
    with pytest.raises(UserError, match=r"rows.json: the JSON breaks off .*; 1 rows are in .*out.jsonl"):
        convert([folder / "rows.json"], folder / "out.jsonl", source="rows")
    assert len(read_rows(folder / "out.jsonl")) == 1


def test_an_interrupted_run_says_what_is_there(folder, monkeypatch):
    path = published.write_lines(folder / "rows.jsonl", GOOD, GOOD)

    def read(path):
        yield 1, GOOD
        raise KeyboardInterrupt

    monkeypatch.setitem(run.FORMATS, "rows", run.FORMATS["rows"]._replace(read=read))
    with pytest.raises(InterruptedRun, match=r"the first 1 rows are in .*out.jsonl.part"):
        convert([path], folder / "out.jsonl", source="rows")
    assert len(lines_of(folder / "out.jsonl.part")) == 1


MISUSES = [
    (
        "two foreign sides",
        {"source": "coco", "to": "verl"},
        "one side must be rows, got --from coco --to verl",
    ),
    ("wrong suffix", {"source": "rows", "output": "out.parquet"}, "rows is written to a .jsonl file"),
    ("output exists", {"source": "rows", "output": "old.jsonl"}, "old.jsonl: already exists"),
    ("rejects exist", {"source": "rows", "rejects": "old.jsonl"}, "old.jsonl: already exists"),
    ("no input", {"source": "rows", "input": "gone.jsonl"}, "gone.jsonl: no such file"),
    ("no folder of pictures", {"source": "rows", "images": "gone"}, "gone: no such folder"),
    (
        "a layout without boxes",
        {"source": "cof", "layout": "xywh"},
        "--box-layout cannot be used with cof, which has no boxes",
    ),
]


@pytest.mark.parametrize(
    ("options", "message"), [case[1:] for case in MISUSES], ids=[case[0] for case in MISUSES]
)
def test_a_mistake_on_the_command_line_is_told_before_anything_is_written(folder, options, message):
    (folder / "old.jsonl").write_text("old")
    published.write_lines(folder / "rows.jsonl", GOOD)
    before = sorted(folder.rglob("*"))
    options = dict(options)
    paths = {name: folder / options.pop(name) for name in ("images", "rejects") if name in options}
    path, output = folder / options.pop("input", "rows.jsonl"), folder / options.pop("output", "out.jsonl")
    with pytest.raises(UserError, match=message):
        convert([path], output, **options, **paths)
    assert sorted(folder.rglob("*")) == before


def test_the_command_prints_the_counts(folder, capsys):
    path = published.pixel_reasoner(folder)
    output = folder / "out" / "rows.jsonl"
    assert (
        cli.main(["convert", "--from", "pixel-reasoner", "--input", str(path), "--output", str(output)]) == 0
    )
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["converted: 3", f"rejected: 2, see {output.with_suffix('.rejects.jsonl')}"]
    assert sorted(out[2:]) == [
        "  1 x a question must be about a picture",
        "  1 x id must be unique",
    ]


def test_a_conversion_without_a_row_is_no_success(folder, capsys):
    bad = [GOOD | {"image": "gone.jpg"}, GOOD | {"image": "away.jpg"}, GOOD | {"answer": ""}]
    path = published.write_lines(folder / "rows.jsonl", *bad)
    arguments = ["convert", "--from", "rows", "--input", str(path), "--output", str(folder / "out.jsonl")]
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert "rejected: 3" in said.out
    assert said.err.splitlines()[-1] == (
        "lfpc: error: none of the 3 records became a row, 2 because image must exist; "
        f"see {folder / 'out.rejects.jsonl'}"
    )


def test_a_conversion_of_nothing_is_no_success(folder, capsys):
    path = published.write_lines(folder / "rows.jsonl")
    arguments = ["convert", "--from", "rows", "--input", str(path), "--output", str(folder / "out.jsonl")]
    assert cli.main(arguments) == 2
    assert "rows.jsonl: there are no records" in capsys.readouterr().err


def test_formulas_and_sentences_are_counted(folder, capsys):
    path = published.thinklite(folder)
    arguments = ["--from", "thinklite", "--input", str(path), "--output", str(folder / "out.jsonl")]
    cli.main(["convert", *arguments])
    assert "answers that are formulas or sentences, for a judge: 1" in capsys.readouterr().out


# --- there and back ----------------------------------------------------------------------------------

SIZE = (3840, 2160)
word = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(str.strip)


@st.composite
def nested(draw):
    """Boxes around each other, with corners at any thousandth of a pixel."""
    steps = st.integers(0, 200_000).map(lambda thousandths: thousandths / 1000)
    x, y = draw(st.integers(700, 1500)), draw(st.integers(700, 1000))
    region = [[float(x), float(y), x + draw(st.integers(40, 400)), y + draw(st.integers(40, 400))]]
    for _ in range(draw(st.integers(0, 2))):
        x1, y1, x2, y2 = region[-1]
        box = [x1 - draw(steps), y1 - draw(steps), x2 + draw(steps), y2 + draw(steps)]
        region.append([round(side, 3) for side in box])
    return region


@st.composite
def records(draw):
    record = {
        "id": draw(word),
        "question": draw(word),
        "answer": draw(st.lists(word, min_size=1, max_size=2)),
    }
    if draw(st.booleans()):
        record["choices"] = draw(st.lists(word, min_size=2, max_size=4, unique_by=str.casefold))
        record["answer"] = ["B"]
    if draw(st.booleans()):
        record["targets"] = draw(st.lists(nested(), min_size=1, max_size=3))
    if draw(st.booleans()):
        record |= {"shown_size": [532, 308], "selected_level": 2, "x_note": draw(word)}
    return record


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "a.png"
    Image.new("RGB", SIZE).save(path, compress_level=1)
    return path


@pytest.mark.parametrize(("form", "suffix"), [("verl", ".parquet"), ("label-studio", ".json")])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(records(), min_size=1, max_size=3, unique_by=lambda record: record["id"]))
def test_rows_come_back_unchanged(tmp_path_factory, large, form, suffix, rows):
    folder = tmp_path_factory.mktemp("round")
    (folder / "a.png").hardlink_to(large)
    path = published.write_lines(folder / "rows.jsonl", *(row | {"image": "a.png"} for row in rows))
    convert([path], folder / "first" / "rows.jsonl", source="rows")
    there = folder / "there" / f"rows{suffix}"
    convert([folder / "first" / "rows.jsonl"], there, source="rows", to=form)
    summary = convert([there], folder / "back" / "rows.jsonl", source=form)
    assert summary.rejected == 0
    first, back = (lines_of(folder / name / "rows.jsonl") for name in ("first", "back"))
    assert back == first
    assert [row["id"] for row in first] == [row["id"] for row in rows]
    for row, came in zip(rows, first, strict=True):
        if "targets" in row:
            np.testing.assert_allclose(
                np.concatenate(came["targets"]), np.concatenate(row["targets"]), atol=1e-9
            )


def test_verl_gets_its_columns_and_nothing_else(folder):
    record = GOOD | {"choices": ["red", "blue"], "answer": "B", "targets": [[1, 1, 30, 40]], "id": "r"}
    path = published.write_lines(folder / "rows.jsonl", *(record | {"id": f"r{i}"} for i in range(20)))
    convert([path], folder / "v.parquet", source="rows", to="verl", data_source="signs")
    file = parquet.ParquetFile(folder / "v.parquet")
    names = ["data_source", "prompt", "images", "ability", "reward_model", "extra_info"]
    assert file.schema_arrow.names == names
    assert file.metadata.num_row_groups == 2
    row = file.read().to_pylist()[19]
    assert row["data_source"] == "signs"
    assert row["prompt"] == [{"role": "user", "content": "<image>\nWhat?\nA. red\nB. blue"}]
    assert row["reward_model"] == {"style": "rule", "ground_truth": "B"}
    assert [image["bytes"] for image in row["images"]] == [(folder / "a.jpg").read_bytes()]
    assert (row["extra_info"]["index"], row["extra_info"]["split"]) == (19, "train")
    assert sorted(each.name for each in folder.iterdir()) == ["a.jpg", "rows.jsonl", "v.parquet"]


def test_a_verl_file_of_another_system_has_no_boxes_to_lose(folder):
    """DeepEyes's columns without our own entry are read as any verl file."""
    summary = convert([published.deepeyes(folder)], folder / "out.jsonl", source="verl")
    assert summary.converted == 4  # one of them about two pictures


def test_label_studio_gets_tasks_with_boxes_in_percent(folder):
    record = GOOD | {"id": "r", "targets": [[[32, 24, 64, 48], [16, 12, 160, 120]]]}
    path = published.write_lines(folder / "rows.jsonl", record)
    convert([path], folder / "t" / "tasks.json", source="rows", to="label-studio")
    [task] = json.loads((folder / "t" / "tasks.json").read_text())
    assert task["data"]["question"] == "What?"
    image = task["data"]["image"].removeprefix("/data/local-files/?d=")
    assert (folder / "t" / image).is_file()
    results = task["predictions"][0]["result"]
    assert [each["value"]["rectanglelabels"] for each in results] == [["B1"], ["B2"]]
    assert results[0]["value"] | {"rectanglelabels": None} == {
        "x": 10,
        "y": 10,
        "width": 10,
        "height": 10,
        "rotation": 0,
        "rectanglelabels": None,
    }
    assert {each["type"] for each in results} == {"rectanglelabels"}
    assert all(f'value="{label}"' in label_studio.CONFIG for label in ("B1", "B2", "$image", "$question"))


def rectangle(x, y, width, height, label="B1", name="z"):
    value = {"x": x, "y": y, "width": width, "height": height, "rectanglelabels": [label]}
    return {"id": name, "type": "rectanglelabels", "value": value}


DRAWN = [  # id, rectangles, regions or the reason
    ("one box", [(10, 10, 5, 5)], [[(10, 10, 5, 5)]]),
    ("outer first", [(0, 0, 50, 50), (10, 10, 5, 5)], [[(10, 10, 5, 5), (0, 0, 50, 50)]]),
    ("two regions", [(10, 10, 5, 5), (60, 60, 5, 5)], [[(10, 10, 5, 5)], [(60, 60, 5, 5)]]),
    (
        "one box around two",
        [(10, 10, 5, 5), (30, 10, 5, 5), (0, 0, 50, 50)],
        [[(10, 10, 5, 5), (0, 0, 50, 50)], [(30, 10, 5, 5), (0, 0, 50, 50)]],
    ),
    ("three deep", [(0, 0, 90, 90), (20, 20, 5, 5), (10, 10, 50, 50)], [
        [(20, 20, 5, 5), (10, 10, 50, 50), (0, 0, 90, 90)]
    ]),
    ("equal boxes", [(10, 10, 5, 5), (10, 10, 5, 5)], [[(10, 10, 5, 5), (10, 10, 5, 5)]]),
    ("crossing boxes around one", [(20, 20, 5, 5), (10, 10, 40, 20), (15, 15, 20, 60)], "must be nested"),
]  # fmt: skip


@pytest.mark.parametrize(("drawn", "expected"), [case[1:] for case in DRAWN], ids=[case[0] for case in DRAWN])
def test_boxes_drawn_by_hand_nest_by_what_they_contain(drawn, expected):
    task = {
        "data": {"image": "a.jpg", "question": "What?", "answer": "KR"},
        "annotations": [{"result": [rectangle(*box) for box in drawn]}],
    }
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            label_studio.from_label_studio(task)
    else:
        found = label_studio.from_label_studio(task).regions
        assert [[tuple(box) for box in region] for region in found] == expected


def test_the_last_annotation_counts_and_its_text_areas_replace_the_data():
    task = {
        "data": {"image": "a.jpg", "question": "What?", "answer": "old"},
        "annotations": [
            {"result": [rectangle(1, 1, 5, 5)]},
            {
                "result": [
                    rectangle(2, 2, 5, 5),
                    {"type": "textarea", "from_name": "answer", "value": {"text": ["KR", "K.R."]}},
                ]
            },
            {"result": [rectangle(3, 3, 5, 5)], "was_cancelled": True},
        ],
        "predictions": [{"result": [rectangle(4, 4, 5, 5)]}],
    }
    draft = label_studio.from_label_studio(task)
    assert draft.regions == [[[2, 2, 5, 5]]]
    assert draft.answer == ["KR", "K.R."]
    del task["annotations"]
    assert label_studio.from_label_studio(task).regions == [[[4, 4, 5, 5]]]


def test_json_min_says_the_same_as_the_whole_export(folder):
    whole = json.loads(published.label_studio(folder).read_text())[:1]
    [task] = whole
    results = task["annotations"][0]["result"]
    flat = {
        "id": 1,
        **task["data"],
        "box": [each["value"] | {"original_width": 320, "original_height": 240} for each in results],
        "annotator": 1,
        "annotation_id": 1001,
        "created_at": "2021-03-09T21:52:49.513742Z",
        "updated_at": "2021-03-09T21:52:49.513742Z",
        "lead_time": 4.2,
    }
    records = [flat, flat | {"id": 2, "answer": {"text": ["KR", "K.R."]}}, flat | {"id": 3, "box": []}]
    rows = []
    for name, tasks in (("whole", whole), ("min", records)):
        path = published.write_json(folder / f"{name}.json", tasks)
        convert([path], folder / "out" / f"{name}.jsonl", source="label-studio")
        rows += read_rows(folder / "out" / f"{name}.jsonl")
    expected, same, accepted, bare = rows
    assert [region.tolist() for region in same.regions] == [region.tolist() for region in expected.regions]
    assert (same.question, same.answer, same.image) == (expected.question, expected.answer, expected.image)
    assert accepted.answer == ("KR", "K.R.")
    assert bare.regions is None


def test_a_rotated_rectangle_of_json_min_is_refused():
    task = {"image": "a.jpg", "question": "What?", "answer": "KR"}
    box = {"x": 1, "y": 1, "width": 5, "height": 5, "rotation": 30, "rectanglelabels": ["B1"]}
    with pytest.raises(DataError, match="a rectangle must not be rotated"):
        label_studio.from_label_studio(task | {"box": [box]})


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", ["street signs/café n°1.jpg", "100% a+b.jpg", "a%20b.jpg"])
def test_percent_encoded_paths_of_label_studio_are_found(tmp_path, name, flat):
    published.add_picture(tmp_path / "media" / name)
    data = {"image": f"/data/local-files/?d={quote(name)}", "question": "What?", "answer": "KR"}
    path = published.write_json(tmp_path / "tasks.json", [data if flat else {"data": data}])
    summary = convert([path], tmp_path / "out.jsonl", source="label-studio", images=tmp_path / "media")
    assert (summary.converted, summary.rejected) == (1, 0)


def test_a_percent_encoded_path_does_not_lead_outside(tmp_path):
    published.add_picture(tmp_path / "secret.jpg")
    (tmp_path / "media").mkdir()
    task = {"data": {"image": "/data/local-files/?d=%2e%2e/secret.jpg", "question": "What?", "answer": "KR"}}
    path = published.write_json(tmp_path / "tasks.json", [task])
    summary = convert([path], tmp_path / "out.jsonl", source="label-studio", images=tmp_path / "media")
    assert (summary.converted, summary.rejected) == (0, 1)


def test_a_region_that_lost_its_innermost_box_is_refused():
    task = {
        "data": {"image": "a.jpg", "question": "What?", "answer": "KR"},
        "predictions": [{"result": [rectangle(1, 1, 5, 5, name="r1b2")]}],
    }
    with pytest.raises(DataError, match="the boxes of a region must be b1, b2"):
        label_studio.from_label_studio(task)


# --- memory ------------------------------------------------------------------------------------------

MEASURE = """
import re, sys
from pathlib import Path
from lfpc_trl.convert.run import convert
import pyarrow.parquet
source, path, output = sys.argv[1:]
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
peaks = {0: peak()}
summary = convert([Path(path)], Path(output), source=source, progress=lambda n: peaks.update({n: peak()}))
peaks[summary.converted] = peak()
print(*(number for pair in peaks.items() for number in pair))
"""
"""The peak of this process in kB by records; `ru_maxrss` would also count its parent's before the exec."""


def write_many(path, count):
    """Records of 2 kB, all different: as lines, as one array, or as one row group."""
    record = {"image": ["a.jpg"], "answer": [r"\boxed{12}"], "is_video": None}
    many = (record | {"qid": f"q-{i}", "question": f"{i} " * 300 + "x" * 500} for i in range(count))
    if path.suffix == ".parquet":
        schema = {"qid": pa.string(), "is_video": pa.bool_(), "question": pa.string()}
        lists = {"image": pa.list_(pa.string()), "answer": pa.list_(pa.string())}
        table = pa.Table.from_pylist(list(many), schema=pa.schema(schema | lists))
        parquet.write_table(table, path, row_group_size=count)
        return
    start, between, end = ("[", ",", "]") if path.suffix == ".json" else ("", "\n", "\n")
    with path.open("w") as file:
        file.write(start)
        for i, each in enumerate(many):
            file.write((between if i else "") + json.dumps(each))
        file.write(end)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_memory_does_not_grow_with_the_number_of_records(folder, suffix):
    count = 16_000
    path = folder / f"many{suffix}"
    write_many(path, count)
    command = [sys.executable, "-c", MEASURE, "pixel-reasoner", str(path), str(folder / "out.jsonl")]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'integrations'}", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    numbers = list(map(int, done.stdout.split()))
    peaks = dict(zip(numbers[::2], numbers[1::2], strict=True))
    assert max(peaks) == count
    # All records together take 32 MB and more. Arrow's buffers and what its allocator keeps of them, which
    # differs by version, fill up within the first thousands; behind them nothing may be added.
    assert peaks[count] - peaks[0] < (60_000 if suffix == ".parquet" else 6_000), peaks
    assert peaks[count] - peaks[count // 2] < 3_000, peaks


# --- after a kill ------------------------------------------------------------------------------------

KILLED = {
    "while it wrote": ["new.jsonl.part", "new.rejects.jsonl.part"],
    "while it wrote, by an older version": ["new.jsonl.part", "new.rejects.jsonl"],
    "while it gave its files their names": ["new.jsonl.part", "new.rejects.jsonl"],
}


@pytest.mark.parametrize("left", KILLED.values(), ids=KILLED)
@pytest.mark.parametrize("bad", [True, False])
def test_the_same_command_starts_over_after_a_kill(folder, left, bad):
    path = folder / "rows.jsonl"
    published.write_lines(path, GOOD, *([GOOD | {"answer": []}] if bad else []))
    out = folder / "out"
    out.mkdir()
    for name in left:
        (out / name).write_text('{"half a li')
    summary = convert([path], out / "new.jsonl", source="rows")
    assert (summary.converted, summary.rejected) == (1, int(bad))
    files = {each.name for each in out.iterdir()} - {"images"}
    assert files == {"new.jsonl", "new.rejects.jsonl"} if bad else {"new.jsonl"}
    assert len(read_rows(out / "new.jsonl")) == 1


def test_a_rejects_file_of_somebody_else_is_left_alone(folder):
    (folder / "new.rejects.jsonl").write_text("mine")
    with pytest.raises(UserError, match=r"new.rejects.jsonl: already exists"):
        convert([folder / "rows.jsonl"], folder / "new.jsonl", source="rows")
    assert (folder / "new.rejects.jsonl").read_text() == "mine"


def test_a_full_disk_leaves_no_file_under_the_final_name(folder, monkeypatch):
    path = folder / "rows.jsonl"
    published.write_lines(path, GOOD)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        convert([path], folder / "out" / "new.jsonl", source="rows")
    assert not (folder / "out" / "new.jsonl").exists()


@pytest.mark.parametrize("name", [".new-abc123", f".new-{socket.gethostname()}-4194305-abc"])
def test_what_a_kill_left_beside_pictures_is_removed(folder, name):
    path = folder / "rows.jsonl"
    published.write_lines(path, GOOD)
    left = folder / "out" / "images" / "ab" / name
    left.mkdir(parents=True)
    (left / "picture").write_bytes(b"half")
    other = left.with_name(f".new-elsewhere-{os.getpid()}-abc")
    other.write_bytes(b"of a machine that shares the disk")
    convert([path], folder / "out" / "new.jsonl", source="rows")
    assert not left.exists()
    assert other.exists()
