"""Rows about several pictures: how they are read, refused and written."""

import json

import pytest

from lfpc_trl.data.columns import columns_of, recognised, without_marks
from lfpc_trl.data.frames import read_with_warning
from lfpc_trl.data.rows import as_record, read_rows, rows_digest, with_shown_tokens, write_rows
from lfpc_trl.errors import DataError
from tests import tiny


@pytest.fixture
def folder(tmp_path):
    tiny.make_several(tmp_path, 2)
    tiny.make_rows(tmp_path, 1)
    return tmp_path


def record(folder, file="several.jsonl", **columns):
    found = json.loads((folder / file).read_text().splitlines()[0]) | columns
    return {name: value for name, value in found.items() if value is not ...}


def write(folder, *records, name="new.jsonl"):
    (folder / name).write_text("".join(json.dumps(each) + "\n" for each in records))
    return folder / name


def test_a_row_has_its_pictures_in_order_and_each_target_its_own(folder):
    row = read_rows(folder / "several.jsonl")[0]
    assert [picture.image.name for picture in row.pictures] == ["0-1.png", "0-2.png", "0-3.png"]
    assert [picture.size for picture in row.pictures] == [(224, 168), (112, 112), (196, 252)]
    assert row.shown_sizes == ((112, 84), (56, 56), (84, 112))
    assert [(target.image, len(target.boxes)) for target in row.targets] == [(3, 2), (1, 1)]


def test_image_is_the_short_form_of_a_list_of_one(folder):
    plain = record(folder, "rows.jsonl")
    listed = {name: value for name, value in plain.items() if name not in ("image", "shown_size")}
    listed |= {"images": [plain["image"]], "shown_sizes": [plain["shown_size"]], "target_images": [1]}
    [one], [other] = (read_rows(write(folder, each)) for each in (plain, listed))
    assert as_record(other, folder) == as_record(one, folder)
    assert rows_digest([one]) == rows_digest([other])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_is_written_reads_as_the_same_rows_beside_rows_with_one_picture(folder, suffix):
    path = write(folder, record(folder), record(folder, "rows.jsonl", id="one"))
    rows = read_rows(path)
    write_rows(rows, folder / f"again{suffix}")
    again = read_rows(folder / f"again{suffix}")
    assert [as_record(row, folder) for row in again] == [as_record(row, folder) for row in rows]
    assert rows_digest(again) == rows_digest(rows)


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"images": ["images/0-2.png", "images/0-1.png", "images/0-3.png"]}, "the order of the pictures"),
        ({"target_images": [3, 3]}, "the picture of a target"),
        ({"shown_sizes": [[112, 84], [28, 28], [84, 112]]}, "the size of the second"),
    ],
)
def test_the_digest_of_rows_sees_every_picture(folder, change, column):
    targets = [[[10, 10, 80, 70]], [[20, 20, 60, 60]]]
    [one], [other] = (
        read_rows(write(folder, record(folder, targets=targets) | each)) for each in ({}, change)
    )
    assert rows_digest([one]) != rows_digest([other]), column


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"image": "images/0-1.png"}, "a row has image or images, got both"),
        ({"images": ...}, "image is missing"),
        ({"images": []}, r"images must be a list of paths, got \[\]"),
        ({"images": "images/0-1.png"}, "images must be a list of paths, got 'images/0-1.png'"),
        ({"images": ["images/0-1.png", "images/0-2.png", "gone.png"]}, "image must exist, got '.*gone.png'"),
        (
            {"images": ["images/0-1.png", 7, "images/0-3.png"]},
            "image must be a text that is not empty, got 7",
        ),
        (
            {"target_images": ...},
            "target_images are needed: each target is on one of the 3 images",
        ),
        (
            {"target_images": [3]},
            "target_images must have one number for each region of targets, got 1 for 2",
        ),
        (
            {"target_images": [4, 1]},
            "target_images must be whole numbers from 1 to 3, the number of images, got 4",
        ),
        ({"target_images": [0, 1]}, "target_images must be whole numbers from 1 to 3, .*, got 0"),
        ({"target_images": ["3", 1]}, "target_images must be whole numbers from 1 to 3, .*, got '3'"),
        # Inside the first picture, not inside the second.
        ({"target_images": [3, 2], "targets": [[[1, 1, 20, 20]], [[40, 40, 200, 70]]]}, "112 x 112 pixels"),
        ({"shown_size": [112, 84]}, "a row has shown_size or shown_sizes, got both"),
        ({"shown_sizes": [112, 84]}, r"shown_size must be \[width, height\] in whole pixels, got 112"),
        ({"shown_sizes": "small"}, "shown_sizes must be a list of sizes, one for each image, got 'small'"),
        ({"shown_sizes": [[112, 84]]}, "shown_sizes must have one size for each image, got 1 for 3"),
    ],
)
def test_a_bad_row_is_refused_with_one_line(folder, change, rule):
    with pytest.raises(DataError, match=rf"new.jsonl row 1: {rule}" if rule[0] != "1" else rule):
        read_rows(write(folder, record(folder, **change)))


def test_one_number_holds_for_all_regions(folder):
    [row] = read_rows(write(folder, record(folder, target_images=3, targets=[[1, 1, 30, 30]])))
    assert [target.image for target in row.targets] == [3]


def test_each_picture_is_shown_at_the_budget(folder):
    [row] = with_shown_tokens(read_rows(folder / "several.jsonl")[:1], 12, factor=28)
    assert row.shown_sizes == ((112, 84), (84, 84), (84, 84))


def test_columns_of_other_names_give_several_pictures(folder):
    found = {
        "problem": "<image><image>\nIs the sign of <image> in the first?",
        "solution": "yes",
        "images": record(folder)["images"],
        "bbox": [[0.5, 0.5, 0.75, 1.0]],
        "on": [3],
    }
    columns = columns_of(
        ["question=problem", "answer=solution", "images=images", "targets=bbox:xyxy-1", "target_images=on"]
    )
    [row], _ = read_with_warning(write(folder, found), columns=columns)
    assert len(row.pictures) == 3
    assert row.question == "Is the sign of Image 3 in the first?"
    assert [target.boxes.tolist() for target in row.targets] == [[[98, 126, 147, 252]]]


def test_a_mapping_to_one_picture_of_several_names_the_other(folder):
    found = {"problem": "?", "solution": "yes", "images": record(folder)["images"]}
    columns = columns_of(["question=problem", "answer=solution", "image=images"])
    with pytest.raises(DataError, match=r"image must be one picture, got 3 of them.* map several to images"):
        read_rows(write(folder, found), columns=columns)
    first = columns_of(["question=problem", "answer=solution", "image=images.1"])
    [row] = read_rows(write(folder, found), columns=first)
    assert [picture.image.name for picture in row.pictures] == ["0-2.png"]


def test_usual_names_of_several_pictures_are_proposed(folder):
    found = {"problem": "?", "solution": "yes", "images": record(folder)["images"]}
    assert recognised(found)["images"] == "images"
    with pytest.raises(DataError, match=r"add: --columns question=problem answer=solution images=images$"):
        read_rows(write(folder, found))


@pytest.mark.parametrize(
    ("text", "pictures", "expected"),
    [
        ("<image>\nWhat?", 1, "What?"),
        ("<image><image>\nWhat?", 2, "What?"),
        ("<image>\n<image>\nIs <image> it?", 3, "Is Image 3 it?"),
        ("Is <image> in <image>?", 2, "Is Image 1 in Image 2?"),
        ("What? <image> <image>", 2, "What?"),
        ("<image> What? <image>", 2, "What?"),
        ("What?", 2, "What?"),
    ],
)
def test_marks_between_words_become_names(text, pictures, expected):
    assert without_marks(text, pictures) == expected


def test_more_marks_than_pictures_are_refused():
    with pytest.raises(DataError, match="about its 2 pictures, got 3 times <image>"):
        without_marks("<image><image><image>", 2)
    with pytest.raises(DataError, match="about one picture, got 2 times <image>"):
        without_marks("<image><image>", 1)
