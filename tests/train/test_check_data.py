"""Data files: every bad row is listed, every good one can earn full marks, and what else is worth knowing."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lfpc_rewards import Frame
from lfpc_trl import cli
from lfpc_trl.data.rows import Problem, Row, read_rows, scan_rows
from lfpc_trl.errors import DataError
from lfpc_trl.pictures.crops import BoxError, crop_box
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.transcript import GroundingSettings
from lfpc_trl.train.check_data import CEILING, best_box, check_data
from tests.tiny import make_picture, make_rows

GOOD = {"question": "What?", "answer": "red", "image": "a.png"}


@pytest.fixture
def folder(tmp_path):
    make_picture(tmp_path / "a.png")
    return tmp_path


def write(folder, *records):
    path = folder / "rows.jsonl"
    path.write_text("\n".join(text if isinstance(text, str) else json.dumps(text) for text in records) + "\n")
    return path


def places(problems):
    return [int(problem.place.rpartition(" ")[2]) for problem in problems]


# --- every bad row -----------------------------------------------------------------------------------


def test_scanning_collects_what_reading_stops_at(folder):
    records = [GOOD, "[1]", GOOD | {"answer": ""}, GOOD | {"id": "1"}, "{", GOOD | {"image": "gone.png"}]
    path = write(folder, *records)
    good, problems = scan_rows(path)
    assert [row.name for row in good] == [f"{path} row 1"]
    assert places(problems) == [2, 3, 4, 5, 6]
    assert problems[0] == Problem(f"{path} row 2", "each record must be a JSON object, got [1]")
    assert "id must be unique, got '1' as in row 1" in problems[2].rule
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert str(caught.value) == f"{path} row 2: each record must be a JSON object, got [1] (and 4 more)"


def test_scanning_good_rows_gives_the_rows(folder):
    path = make_rows(folder, 3)
    good, problems = scan_rows(path)
    assert problems == []
    assert [row.id for row in good] == [row.id for row in read_rows(path)]


def test_scanning_still_refuses_a_file_that_holds_nothing(folder):
    (folder / "rows.jsonl").write_text("\n")
    for read in (scan_rows, check_data):
        with pytest.raises(DataError, match="the file holds no rows"):
            read(folder / "rows.jsonl")
        with pytest.raises(DataError, match="no such file"):
            read(folder / "none.jsonl")


def test_bad_rows_are_listed_in_file_order_with_those_that_only_playing_finds(folder):
    path = write(
        folder,
        GOOD | {"answer": "</answer>"},
        GOOD | {"answer": ""},
        GOOD | {"question": "Which?"},
        GOOD | {"question": "Who?", "targets": [[0, 0, 1, 0]]},
        GOOD | {"question": "How?", "answer": ["two", "<answer>2</answer>"]},
    )
    report = check_data(path)
    assert places(report.problems) == [1, 2, 4, 5]
    assert (report.rows, report.bad_rows) == (5, 4)
    assert report.problems[0].rule == (
        "a rollout that ends with its answer must be well formed, got '</answer>'"
    )
    assert "<answer>2</answer>" in report.problems[3].rule


def test_an_answer_that_its_own_comparison_rejects_is_bad(folder):
    path = write(folder, GOOD, GOOD | {"question": "Which?", "answer": ["red", '""']})
    [problem] = check_data(path).problems
    assert problem == Problem(f"{path} row 2", "the accuracy reward must accept its own answer, got '\"\"'")


def test_stage_2_needs_targets(folder):
    path = write(folder, GOOD, GOOD | {"question": "Which?", "targets": [[10, 10, 60, 50]]})
    assert check_data(path).problems == []
    assert places(check_data(path, stage=2).problems) == [1]


def test_a_picture_whose_pixels_are_damaged_is_bad(folder):
    path = write(folder, GOOD, GOOD | {"image": "b.jpg"})
    Image.effect_noise((640, 480), 90).convert("RGB").save(folder / "b.jpg", progressive=True)
    data = bytearray((folder / "b.jpg").read_bytes())
    start = data.find(b"\xff\xda")
    data[start + 4 : start + 12] = b"\x00" * 8  # a scan header that says nothing
    (folder / "b.jpg").write_bytes(data)
    assert scan_rows(path)[1] == []
    [problem] = check_data(path).problems
    assert problem.rule.startswith(f"image must be readable, got '{folder / 'b.jpg'}' (")


def test_a_picture_from_which_nothing_can_be_cut_is_bad(folder):
    make_picture(folder / "thin.png", (60, 5))
    [problem] = check_data(write(folder, GOOD | {"image": "thin.png"})).problems
    assert problem.rule == "the crop tool must be able to cut its targets, got: " + str(BoxError("thin"))


# --- the best box ------------------------------------------------------------------------------------


def row_with(regions, size=(1000, 800), shown=(504, 392)):
    return Row(
        id="1",
        question="What?",
        answer=("A",),
        choices=None,
        image=None,
        size=size,
        regions=tuple(np.array(region, dtype=float) for region in regions),
        shown_size=shown,
    )


def crop_of(row, frame, *, min_side=8):
    crops = CropSettings(frame, 28, min_side=min_side)
    box = best_box(row, row.regions[0], crops, GroundingSettings())
    assert all(side == int(side) for side in box)
    return crop_box(box, frame=frame, shown_size=row.shown_size, original_size=row.size, min_side=min_side)


def test_in_pixels_of_the_original_the_best_crop_is_a_target():
    assert crop_of(row_with([[[100, 100, 200, 150]]]), Frame.ORIGINAL) == (100, 100, 200, 150)
    nested = [[[100.4, 100, 200, 150], [80, 80, 260, 190]]]
    assert crop_of(row_with(nested), Frame.ORIGINAL) == (80, 80, 260, 190)


def test_in_whole_shown_pixels_the_best_crop_covers_the_target():
    left, top, right, bottom = crop_of(row_with([[[101, 101, 131, 121]]], shown=(140, 112)), Frame.SHOWN)
    assert left <= 101 < 101 + 30 <= right
    assert top <= 101 < 121 <= bottom


def test_a_target_smaller_than_a_crop_may_be_is_widened():
    assert crop_of(row_with([[[500, 400, 503, 402]]]), Frame.ORIGINAL) == (497, 397, 505, 405)
    assert crop_of(row_with([[[0, 0, 3, 2]]]), Frame.ORIGINAL) == (0, 0, 8, 8)
    assert crop_of(row_with([[[997, 798, 1000, 800]]]), Frame.ORIGINAL) == (992, 792, 1000, 800)


def brute_force(row, region, frame, reach=3):
    """The best score of all whole boxes near the target, by plain loops and plain formulas."""
    width, height = row.shown_size if frame is Frame.SHOWN else (1000, 1000)
    scale_x, scale_y = row.size[0] / width, row.size[1] / height
    best = 0.0
    ranges = []
    for index, scale in enumerate((scale_x, scale_y, scale_x, scale_y)):
        values = {round(box[index] / scale) + step for box in region for step in range(-reach, reach + 1)}
        ranges.append(sorted(values))
    for x1 in ranges[0]:
        for x2 in ranges[2]:
            for y1 in ranges[1]:
                for y2 in ranges[3]:
                    left, right = int(np.floor(x1 * scale_x)), int(np.ceil(x2 * scale_x))
                    top, bottom = int(np.floor(y1 * scale_y)), int(np.ceil(y2 * scale_y))
                    if min(x1, y1) < 0 or right > row.size[0] or bottom > row.size[1]:
                        continue
                    if x1 >= x2 or y1 >= y2 or min(right - left, bottom - top) < 8:
                        continue
                    if not covers((left, top, right, bottom), region[0]):
                        continue
                    best = max(best, max(overlap_ratio((left, top, right, bottom), box) for box in region))
    return best


def covers(crop, box):
    return crop[0] <= box[0] and crop[1] <= box[1] and crop[2] >= box[2] and crop[3] >= box[3]


def overlap_ratio(a, b):
    wide, tall = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inner = max(wide, 0) * max(tall, 0)
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


@settings(max_examples=30, deadline=None)
@given(
    frame=st.sampled_from([Frame.SHOWN, Frame.RELATIVE_1000]),
    x=st.integers(100, 700),
    y=st.integers(100, 500),
    width=st.integers(20, 120),
    height=st.integers(20, 120),
    tokens=st.sampled_from([(5, 4), (9, 7), (18, 14)]),
)
def test_no_box_nearby_fits_the_target_better(frame, x, y, width, height, tokens):
    row = row_with([[[x, y, x + width, y + height]]], shown=(28 * tokens[0], 28 * tokens[1]))
    crop = crop_of(row, frame)
    assert covers(crop, row.regions[0][0])
    assert overlap_ratio(crop, row.regions[0][0]) >= brute_force(row, row.regions[0], frame, 2) - 1e-9


# --- what a perfect crop earns -----------------------------------------------------------------------


def ceiling_warnings(report):
    return report.warnings.get("perfect crops that earn little", [])


def test_a_target_that_coarse_coordinates_cannot_fit_is_a_warning_with_the_number(folder):
    make_picture(folder / "large.png", (2240, 1680))
    path = write(folder, GOOD | {"image": "large.png", "targets": [[1001, 1001, 1013, 1011]]})
    fine = check_data(path, stage=2)
    assert ceiling_warnings(fine) == []
    assert fine.statistics["perfect_crop_earns"]["min"] == pytest.approx(1.0)
    coarse = check_data(path, stage=2, crops=CropSettings(Frame.SHOWN, 28), shown_tokens=48)
    assert coarse.problems == []
    [warning] = ceiling_warnings(coarse)
    earned = coarse.statistics["perfect_crop_earns"]["min"]
    assert earned < CEILING
    assert warning.rule.startswith(f"perfect crops earn {earned:.2f} of 1 (IoU ")
    assert "innermost target of 12 x 10 pixels, boxes in whole numbers of shown" in warning.rule


def test_more_regions_than_crops_are_a_warning(folder):
    boxes = [[[20 * i, 20, 20 * i + 10, 40]] for i in range(6)]
    path = write(folder, GOOD | {"targets": boxes})
    [warning] = ceiling_warnings(check_data(path))
    assert "6 regions, 4 crops allowed" in warning.rule


def test_several_regions_are_each_cropped(folder):
    path = write(folder, GOOD | {"targets": [[[10, 10, 40, 40]], [[100, 100, 150, 140], [90, 90, 160, 150]]]})
    report = check_data(path, stage=2)
    assert report.problems == []
    assert report.warnings == {}
    assert report.statistics["perfect_crop_earns"] == {"min": 1.0, "median": 1.0, "max": 1.0}


def test_rows_without_targets_are_played_with_the_whole_picture(folder):
    make_picture(folder / "strip.png", (1900, 10))
    report = check_data(write(folder, GOOD, GOOD | {"image": "strip.png"}))
    assert report.problems == []
    assert report.statistics["perfect_crop_earns"] is None


# --- across rows -------------------------------------------------------------------------------------


def kinds(report):
    return {kind: places(found) for kind, found in report.warnings.items()}


def test_the_same_question_about_the_same_picture(folder):
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    make_picture(folder / "b.png", seed=1)
    path = write(
        folder,
        GOOD,
        GOOD | {"question": " what? "},
        GOOD | {"image": "copy.png", "answer": "blue"},
        GOOD | {"image": "b.png"},
        GOOD | {"question": "Where?"},
    )
    report = check_data(path)
    assert kinds(report) == {"asked twice": [2, 3]}
    first, second = report.warnings["asked twice"]
    assert first.rule == f"same picture and question as {path} row 1"
    assert second.rule == f"same picture and question as {path} row 1, but another answer"


def test_questions_that_hold_their_answer(folder):
    choices = {"choices": ["red", "blue"]}
    path = write(
        folder,
        GOOD | {"question": "Is the red sign red?"},
        GOOD | {"question": "Is it reddish?"},
        GOOD | {"question": "Red or blue?", "answer": "A"} | choices,
        GOOD | {"question": "Which is RED?", "answer": "A"} | choices,
        GOOD | {"question": "Where is A?", "answer": "A"},
    )
    assert kinds(check_data(path)) == {"the question holds its answer": [1, 4]}


@pytest.mark.parametrize(
    ("columns", "kind", "rule"),
    [
        (
            {"question": "Which?\nA. red\nB. blue"},
            "the question holds the options",
            "the question lists 2 options; put them into choices",
        ),
        (
            {"question": "Which?\nred\nblue", "choices": ["red", "blue"]},
            "the question holds the options",
            "the question holds the options, which are shown below it anyway",
        ),
        ({"question": "<image>What?"}, "a mark for the picture", "the question holds the text '<image>'"),
        (
            {"choices": ["A. red", "B. blue"], "answer": "A"},
            "options begin with their letters",
            "choices begin with their own letters, such as 'A. red'",
        ),
    ],
)
def test_texts_that_were_written_for_another_prompt(folder, columns, kind, rule):
    report = check_data(write(folder, GOOD | columns))
    assert report.warnings[kind][0].rule.startswith(rule)


@pytest.mark.parametrize(
    "columns",
    [
        {"question": "Is it red or blue?", "choices": ["red", "blue"]},
        {"question": "Is A. Smith on the sign?", "answer": "yes"},
        {"choices": ["A. Smith", "C. Jones"], "answer": "A"},
    ],
)
def test_texts_that_only_look_so(folder, columns):
    report = check_data(write(folder, GOOD | columns))
    odd = {"the question holds the options", "a mark for the picture", "options begin with their letters"}
    assert not odd & set(report.warnings)


def test_equal_choices(folder):
    choices = ["red", "blue", "Red "]
    [warning] = check_data(write(folder, GOOD | {"answer": "B", "choices": choices})).warnings[
        "equal choices"
    ]
    assert warning.rule == "choices A and C are both 'red'"


def test_a_letter_that_is_right_too_often(folder):
    def report(right):
        rows = [
            GOOD | {"question": f"What is {number}?", "choices": ["w", "x", "y", "z"], "answer": letter}
            for number, letter in enumerate(right)
        ]
        return check_data(write(folder, *rows))

    biased = report("B" * 30 + "ACD" * 10)
    [warning] = biased.warnings["one letter too often"]
    assert warning.rule == "always answering 'B' is right in 50% of the rows with choices, guessing in 25%"
    assert biased.statistics["letters"] == {"A": 10, "B": 30, "C": 10, "D": 10}
    assert biased.statistics["right_by_guessing"] == 0.25
    assert "one letter too often" not in report("ABCD" * 15).warnings
    assert "one letter too often" not in report("B" * 10).warnings  # too few to tell


def test_figures_about_the_rows(folder):
    make_picture(folder / "b.png", (448, 336), seed=1)
    path = write(
        folder,
        GOOD | {"shown_size": [112, 84], "targets": [[0, 0, 112, 84]]},
        GOOD
        | {"question": "Which?", "shown_size": [224, 168], "targets": [[[0, 0, 56, 42], [0, 0, 112, 84]]]},
        GOOD | {"image": "b.png", "choices": ["red", "blue"]},
    )
    figures = check_data(path).statistics
    assert (figures["well_formed_rows"], figures["pictures"], figures["rows_with_targets"]) == (3, 2, 2)
    assert (figures["smallest_picture"], figures["largest_picture"]) == ([224, 168], [448, 336])
    assert figures["shown_tokens"] == {12: 1, 48: 1}
    assert (figures["rows_with_shown_size"], figures["rows_shown_in_full"]) == (2, 1)
    assert figures["regions_per_row"] == {1: 2}
    assert figures["boxes_per_region"] == {1: 1, 2: 1}
    assert figures["innermost_share_of_picture"] == {"min": 0.0625, "median": 0.15625, "max": 0.25}


def test_pictures_that_are_converted_to_be_seen_are_counted_in_one_line(folder, capsys):
    Image.new("I;16", (224, 168), 20_000).save(folder / "grey.png")
    Image.new("RGBA", (224, 168)).save(folder / "clear.png")
    Image.new("RGBA", (224, 168)).save(folder / "empty.webp")
    names = ("a.png", "grey.png", "clear.png", "empty.webp", "clear.png")
    path = write(folder, *(GOOD | {"image": name, "question": f"{n}?"} for n, name in enumerate(names)))
    assert cli.main(["check-data", "--data", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "rows: 5, bad: 0" in lines
    assert "converted pictures: 16-bit grey to 8 bits 1, alpha onto white 2" in lines


def test_a_picture_whose_colours_have_no_rule_is_bad(folder):
    Image.new("F", (224, 168), 900.0).save(folder / "float.tif")
    Image.new("I", (224, 168), 70_000).save(folder / "whole.tif")
    report = check_data(write(folder, GOOD, GOOD | {"image": "float.tif"}, GOOD | {"image": "whole.tif"}))
    reasons = [problem.rule.partition(" (")[2] for problem in report.problems]
    assert reasons[0].startswith("float values must be between 0 and 1 to be displayed")
    assert reasons[1].startswith("32-bit or signed 16-bit integers have no known range or display meaning")
    assert len(reasons) == 2


# --- with a model, and the command -------------------------------------------------------------------


def run(capsys, data, *options):
    status = cli.main(["check-data", "--data", str(data), *map(str, options)])
    return status, capsys.readouterr()


def test_rows_that_fit_the_model(model_dir, data_file, capsys):
    status, output = run(capsys, data_file, "--model", model_dir, "--stage", "2", "--rows", "2")
    assert (status, output.err) == (0, "")
    lines = output.out.splitlines()
    assert "rows: 4, bad: 0" in lines
    assert "pictures: 4" in lines
    assert any(line.startswith("longest prompt: ") for line in lines)
    assert any(line.startswith("shortest rollout with the largest crop: ") for line in lines)


def test_everything_that_is_wrong_is_printed_and_the_exit_code_is_2(model_dir, data_file, tmp_path, capsys):
    path = make_rows(tmp_path, 7, shown_size=[90, 60])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, "[]", lines[0]]) + "\n")
    status, output = run(capsys, path, "--model", model_dir)
    assert status == 2
    assert output.err == f"lfpc: error: {path}: 9 of 9 rows are bad\n"
    printed = output.out.splitlines()
    assert [line.partition(": ")[0] for line in printed[:9]] == [f"{path} row {n}" for n in range(1, 10)]
    assert "shown_size must be multiples of" in printed[0]
    _, output = run(capsys, path, "--model", model_dir, "--json")
    record = json.loads(output.out)
    assert (record["rows"], record["bad_rows"], len(record["problems"])) == (9, 9, 9)
    assert record["problems"][7]["rule"] == "each record must be a JSON object, got []"


def test_a_budget_that_does_not_fit_is_an_error_of_its_own(model_dir, data_file, capsys):
    status, output = run(capsys, data_file, "--model", model_dir, "--trajectory-tokens", 20)
    assert status == 2
    assert output.err.startswith("lfpc: error: trajectory_tokens: one crop of ")
    assert "rows: 4, bad: 0" in output.out


def test_long_lists_of_warnings_are_cut_in_print_and_whole_as_json(folder, capsys):
    path = write(folder, *[GOOD] * 9)
    status, output = run(capsys, path, "--json")
    assert status == 0
    assert "warning, asked twice (8):" in output.err
    assert "  and 3 more, --json lists them" in output.err
    assert len(json.loads(output.out)["warnings"]["asked twice"]) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "0"], "--rows must be at least 1, got 0"),
        (["--crop-tokens", "0"], "--crop-tokens must be at least 1, got 0"),
        (["--trajectory-tokens", "9"], "--trajectory-tokens needs --model"),
    ],
)
def test_options_that_make_no_sense(folder, capsys, options, message):
    status, output = run(capsys, write(folder, GOOD), *options)
    assert (status, output.err) == (2, f"lfpc: error: {message}\n")


def test_all_rows_can_go_through_the_processor(model_dir, data_file, capsys):
    status, output = run(capsys, data_file, "--model", model_dir, "--rows", "all")
    assert status == 0
    assert "rows that went through the model's processor: 4" in output.out
    status, output = run(capsys, data_file, "--rows", "some")
    assert status == 2
    assert "invalid number of rows value: 'some'" in output.err
