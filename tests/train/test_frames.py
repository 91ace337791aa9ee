"""Boxes that count in something else than pixels: told from a whole file, and never from an ordinary one."""

import json
import shlex

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lfpc_trl import cli
from lfpc_trl.data.boxes import Sample, likely_layout
from lfpc_trl.data.frames import frame_warning
from lfpc_trl.data.rows import read_rows
from lfpc_trl.train.check_data import check_data
from tests.tiny import make_rows

SIZES = [(3840, 2160), (1920, 1080), (640, 480), (1000, 1000), (4000, 3000), (768, 1024), (7680, 4320)]


def boxes_in_pixels(rng, size, count, *, share=0.15):
    """Corners of `count` boxes anywhere on a picture, the sides up to a share of its own."""
    sides = np.maximum(rng.uniform(0.01, share, (count, 2)) * size, 1)
    corners = rng.uniform(0, 1, (count, 2)) * (np.array(size) - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def written(boxes, size, layout):
    """The same boxes as another tool writes them."""
    boxes = boxes / np.tile(size, 2) * {"1": 1, "1000": 1000}.get(layout.partition("-")[2], np.tile(size, 2))
    if layout.startswith("xywh"):
        boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return boxes if layout.endswith("-1") else boxes.round()


def layout_of(boxes, size):
    guess = likely_layout([Sample(box, size) for box in boxes.tolist()])
    return None if guess is None else guess.layout


@pytest.mark.parametrize("layout", ["xyxy-1", "xywh-1", "xyxy-1000", "xywh-1000", "xywh"])
@pytest.mark.parametrize("size", [(3840, 2160), (4000, 3000)])
@pytest.mark.parametrize("seed", range(5))
def test_boxes_of_another_layout_are_told(seed, size, layout):
    boxes = boxes_in_pixels(np.random.default_rng(seed), size, 24)
    assert layout_of(written(boxes, size, layout), size) == layout


def test_thousandths_are_told_on_pictures_smaller_than_a_thousand_pixels():
    boxes = boxes_in_pixels(np.random.default_rng(0), (640, 480), 24)
    assert layout_of(written(boxes, (640, 480), "xyxy-1000"), (640, 480)) == "xyxy-1000"


def test_corner_and_size_are_told_where_every_box_could_be_corners():
    rng = np.random.default_rng(0)
    boxes = boxes_in_pixels(rng, (1000, 800), 600, share=0.7)
    sides = boxes[:, 2:] - boxes[:, :2]
    passing = boxes[(sides > boxes[:, :2]).all(axis=1)][:12]
    assert len(passing) == 12
    assert layout_of(written(passing, (1000, 800), "xywh"), (1000, 800)) == "xywh"
    assert layout_of(passing, (1000, 800)) is None or (passing[:, :2] + passing[:, 2:] <= (1000, 800)).all()


@given(st.integers(0, 2**32), st.sampled_from(SIZES), st.integers(1, 60), st.floats(0.02, 0.9))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_no_warning_on_boxes_in_pixels(seed, size, count, share):
    boxes = boxes_in_pixels(np.random.default_rng(seed), size, count, share=share)
    assert layout_of(boxes, size) is None


ORDINARY = {
    "no boxes": [],
    "one": [Sample((10, 20, 60, 70), (3840, 2160))],
    "one box in every row": [Sample((40, 40, 80, 70), (224, 168))] * 40,
    "whole pictures": [Sample((0, 0, *size), size) for size in SIZES],
    "in a corner of 8K": [Sample((20 + i, 30 + i, 220 + i, 90 + i), (7680, 4320)) for i in range(60)],
    "on pictures of a thousand pixels": [
        Sample((90 * i, 80 * i, 90 * i + 95, 80 * i + 85), (1000, 1000)) for i in range(10)
    ],
    "one mistake among many": [
        *(Sample((50 * i, 40 * i, 50 * i + 90, 40 * i + 80), (3840, 2160)) for i in range(40)),
        Sample((900, 800, 50, 40), (3840, 2160)),
    ],
    "some that stick out": [
        *(Sample((50 * i, 40 * i, 50 * i + 90, 40 * i + 80), (800, 600)) for i in range(12)),
        Sample((700, 500, 990, 800), (800, 600)),
    ],
}


@pytest.mark.parametrize("name", ORDINARY)
def test_no_warning_on_ordinary_files(name):
    assert likely_layout(ORDINARY[name]) is None


def rows_file(folder, boxes, size, **columns):
    """Rows about one picture, a box each."""
    Image.new("RGB", size, (90, 90, 90)).save(folder / "a.png")
    row = {"question": "What does it say?", "answer": "EXIT", "image": "a.png"} | columns
    path = folder / "rows.jsonl"
    lines = [json.dumps(row | {"question": f"What is {i}?", "targets": [box]}) for i, box in enumerate(boxes)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("layout", ["xyxy-1", "xyxy-1000", "xywh"])
def test_check_data_names_the_layout_and_the_command_that_converts(tmp_path, capsys, layout):
    size = (2400, 1800)
    boxes = boxes_in_pixels(np.random.default_rng(1), size, 16).round()
    path = rows_file(tmp_path, written(boxes, size, layout).tolist(), size)
    cli.main(["check-data", "--data", str(path)])
    out = capsys.readouterr().out
    assert "warning, boxes that may not be pixels (1):" in out
    [line] = [line for line in out.splitlines() if "convert them" in line]
    command = shlex.split(
        line.partition("convert them: lfpc ")[2].replace("NEW.jsonl", str(tmp_path / "new.jsonl"))
    )
    assert command[-2:] == ["--box-layout", layout]
    assert cli.main(command) == 0
    found = [row.regions[0][0] for row in read_rows(tmp_path / "new.jsonl")]
    np.testing.assert_allclose(found, boxes, atol=0.5 if layout == "xywh" else 1.3)
    assert "boxes that may not be pixels" not in check_data(tmp_path / "new.jsonl").warnings


def test_check_data_does_not_warn_of_pixels(tmp_path):
    boxes = boxes_in_pixels(np.random.default_rng(1), (2400, 1800), 16)
    path = rows_file(tmp_path, boxes.tolist(), (2400, 1800))
    assert "boxes that may not be pixels" not in check_data(path).warnings


def test_a_dry_run_warns_of_boxes_that_are_fractions(model_dir, tmp_path, capsys):
    path = make_rows(tmp_path, 4, targets=[[0.1, 0.2, 0.4, 0.5]])
    arguments = ["--config", "cpu-stage2", "--model", str(model_dir), "--data", str(path)]
    small = ["--prompts_per_step", "4", "--prompts_per_update", "4", "--shown-tokens", "12"]
    small += ["--output", str(tmp_path / "run")]
    assert cli.main(["train", *arguments, *small, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert (
        "warning              " + str(frame_warning(path, [Sample((0.1, 0.2, 0.4, 0.5), (224, 168))])) in out
    )
    assert "--box-layout xyxy-1" in out
    good = make_rows(tmp_path / "good", 4)
    arguments = ["--config", "cpu-stage2", "--model", str(model_dir), "--data", str(good)]
    assert cli.main(["train", *arguments, *small, "--dry-run"]) == 0
    assert "targets look like" not in capsys.readouterr().out


READERS = {  # without check-data and the dry run, which have a report
    "train": ("--config", "cpu-stage2", "--model", "nowhere", "--output", "run", "--data"),
    "select-resolution": (
        "--model",
        "nowhere",
        "--output",
        "new.jsonl",
        "--engine",
        "transformers",
        "--data",
    ),
    "eval": ("--model", "nowhere", "--output", "evaluation", "--data"),
    "locus-data": ("--output", "new.jsonl", "--data"),
    "view": ("run", "--data"),
    "annotate": ("--export", "new.jsonl"),
}


def command_line(name, path):
    return [name, *READERS[name], str(path)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a run, in which no page is served."""
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lfpc_trl.html.server.serve", lambda *_: None)
    return tmp_path


@pytest.mark.parametrize("name", READERS)
def test_every_command_that_reads_boxes_warns(place, capsys, name):
    path = make_rows(place / "data", 4, targets=[[0.1, 0.2, 0.4, 0.5]])
    cli.main(command_line(name, path))
    warning = frame_warning(path, [Sample((0.1, 0.2, 0.4, 0.5), (224, 168))])
    assert capsys.readouterr().err.count(f"warning: {warning}\n") == 1
    cli.main(command_line(name, make_rows(place / "good", 4)))
    assert "targets look like" not in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in READERS if name != "annotate"])
def test_where_pixels_refuse_the_boxes_the_same_line_says_what_they_may_be(place, capsys, name):
    boxes = [[900, 700, 60, 40], [1200, 200, 80, 50], [300, 800, 90, 40], [700, 100, 50, 30]]
    path = rows_file(place, boxes, (1600, 900))
    assert cli.main(command_line(name, path)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lfpc: error: {path} row 1: targets need x1 < x2 and y1 < y2, got [900")
    assert line.endswith("--box-layout xywh")


def test_boxes_beside_a_benchmark_are_warned_of_without_a_command_that_reads_rows(place, capsys):
    path = make_rows(place / "data", 4)
    boxes = place / "boxes.jsonl"
    boxes.write_text("".join(f'{{"id": "q{i}", "targets": [[0.1, 0.2, 0.4, 0.5]]}}\n' for i in range(4)))
    cli.main([*command_line("eval", path), "--boxes", str(boxes)])
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert line.startswith(f"warning: {boxes}: targets look like fractions of the picture (0 to 1)")
    assert line.endswith("if they are, convert them")
