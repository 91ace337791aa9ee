"""Formats, frames and sizes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lfpc_rewards as lr
from tests.core.strategies import float_boxes, int_boxes

DATA = Path(__file__).parent / "data"
FORMATS = {"xyxy": [10, 20, 40, 60], "xywh": [10, 20, 30, 40], "cxcywh": [25, 40, 30, 40]}


def vectors(name):
    rows = [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
    return [pytest.param(row, id=row["id"]) for row in rows]


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_each_format_becomes_each_other(source, target):
    boxes = np.array([FORMATS[source]] * 2)
    np.testing.assert_array_equal(lr.convert_boxes(boxes, source, target), [FORMATS[target]] * 2)
    np.testing.assert_array_equal(boxes, [FORMATS[source]] * 2)


@given(float_boxes(), st.sampled_from(sorted(FORMATS)))
def test_formats_round_trip(box, other):
    there = lr.convert_boxes(box, "xyxy", other)
    assert lr.convert_boxes(there, other, "xyxy") == pytest.approx(box, abs=1e-12)


def test_conversion_returns_a_new_array_and_keeps_float32():
    box = np.array([1, 2, 3, 4], "f4")
    for result in (lr.convert_boxes(box, "xyxy", "xyxy"), lr.convert_frame(box, "shown", "shown")):
        assert result.dtype == np.float32
        assert not np.shares_memory(result, box)
    assert lr.convert_frame(box, "relative", "relative_1000").dtype == np.float32
    assert lr.convert_frame(box, "relative", "original", original_size=(9, 9)).dtype == np.float32


def test_unknown_formats_are_refused():
    with pytest.raises(ValueError, match=r"source must be .xyxy., .xywh. or .cxcywh., got 'yxyx'"):
        lr.convert_boxes([0, 0, 1, 1], "yxyx", "xyxy")
    with pytest.raises(ValueError, match=r"target must be .* got 'xy'"):
        lr.convert_boxes([0, 0, 1, 1], "xyxy", "xy")


CLIP = [
    ("inside", [1, 2, 3, 4], [1, 2, 3, 4]),
    ("larger than the image", [-5, -5, 500, 500], [0, 0, 100, 80]),
    ("right of the image", [120, 10, 130, 20], [100, 10, 100, 20]),
    ("above the image", [10, -30, 20, -10], [10, 0, 20, 0]),
    ("inverted stays inverted", [50, 40, 20, 10], [50, 40, 20, 10]),
    ("NaN stays NaN", [np.nan, 0, 500, 5], [np.nan, 0, 100, 5]),
]


@pytest.mark.parametrize(("box", "expected"), [row[1:] for row in CLIP], ids=[row[0] for row in CLIP])
def test_clip_boxes(box, expected):
    np.testing.assert_array_equal(lr.clip_boxes(box, (100, 80)), expected)
    np.testing.assert_array_equal(lr.clip_boxes([[box]], [[[100, 80]]]), [[expected]])


@given(float_boxes(), int_boxes(empty=False))
def test_clipping_keeps_what_lies_in_the_image(box, target):
    size = (40, 30)
    assert lr.intersection(lr.clip_boxes(box, size), target) == pytest.approx(
        lr.intersection(box, target), rel=1e-9, abs=1e-12
    )


def test_clip_refuses_bad_sizes():
    with pytest.raises(
        ValueError, match=r"image_sizes must be a positive finite \(width, height\), got \[0.0, 5.0\]"
    ):
        lr.clip_boxes([0, 0, 1, 1], (0, 5))
    with pytest.raises(
        ValueError, match=r"boxes and image_sizes must broadcast, got shapes \(2, 4\) and \(3, 2\)"
    ):
        lr.clip_boxes([[0, 0, 1, 1]] * 2, [[1, 1]] * 3)


def test_frame_is_a_string():
    assert lr.Frame.SHOWN == "shown"
    assert [frame.value for frame in lr.Frame] == ["original", "shown", "relative", "relative_1000"]


SAME = {"original": [100, 50, 200, 100], "shown": [25, 25, 50, 50], "relative": [0.25, 0.25, 0.5, 0.5],
        "relative_1000": [250, 250, 500, 500]}  # fmt: skip


@pytest.mark.parametrize("source", SAME)
@pytest.mark.parametrize("target", SAME)
def test_each_frame_becomes_each_other(source, target):
    result = lr.convert_frame(SAME[source], source, target, original_size=(400, 200), shown_size=(100, 100))
    np.testing.assert_allclose(result, SAME[target], rtol=1e-15)


def test_sizes_broadcast_per_row():
    result = lr.convert_frame([[0, 0, 1, 1]] * 2, "relative", lr.Frame.SHOWN, shown_size=[[10, 20], [30, 40]])
    np.testing.assert_array_equal(result, [[0, 0, 10, 20], [0, 0, 30, 40]])


def test_a_missing_size_is_refused():
    with pytest.raises(
        ValueError, match="original_size is needed to convert from relative to original, got None"
    ):
        lr.convert_frame([0, 0, 1, 1], "relative", "original", shown_size=(9, 9))
    with pytest.raises(
        ValueError, match="shown_size is needed to convert from shown to relative_1000, got None"
    ):
        lr.convert_frame([0, 0, 1, 1], "shown", "relative_1000", original_size=(9, 9))
    with pytest.raises(
        ValueError, match=r"shown_size must be a positive finite \(width, height\), got \[0.0, 9.0\]"
    ):
        lr.convert_frame([0, 0, 1, 1], "shown", "relative", shown_size=(0, 9))
    with pytest.raises(
        ValueError, match="source must be one of original, shown, relative, relative_1000, got 'px'"
    ):
        lr.convert_frame([0, 0, 1, 1], "px", "relative")
    with pytest.raises(ValueError, match=r"boxes \(2, 4\) and the sizes must broadcast"):
        lr.convert_frame([[0, 0, 1, 1]] * 2, "relative", "original", original_size=[[1, 1]] * 3)


@pytest.mark.parametrize("row", vectors("coord_convert.jsonl"))
def test_coordinate_vectors(row):
    given, expected = row["input"], row["expected"]
    width, height = given["image_size"]
    limits = {key: given[key] for key in ("factor", "min_pixels", "max_pixels")}
    shown = lr.smart_resize(height, width, **limits)[::-1]
    assert list(shown) == expected["resized_wh"]
    frame = {"abs_resized": "shown", "norm1000": "relative_1000"}[given["convention"]]
    sizes = {"original_size": (width, height), "shown_size": shown}
    model_box = lr.convert_frame(given["orig_box"], "original", frame, **sizes)
    assert model_box == pytest.approx(expected["model_box"], abs=1e-6)
    back = lr.convert_frame(expected["model_box_int"], frame, "original", **sizes)
    assert back == pytest.approx(expected["back_box"], abs=1e-6)
    assert lr.iou(back, given["orig_box"]) == pytest.approx(expected["iou_roundtrip"], abs=1e-6)
    assert lr.iou(expected["model_box_int"], given["orig_box"]) == pytest.approx(
        expected["iou_if_not_converted"], abs=1e-6
    )


@pytest.mark.parametrize("row", vectors("smart_resize.jsonl"))
def test_smart_resize_vectors(row):
    if "__error__" in row["expected"]:
        with pytest.raises(ValueError, match="height and width must differ by a factor of at most 200"):
            lr.smart_resize(**row["input"])
    else:
        assert list(lr.smart_resize(**row["input"])) == row["expected"]


sides = st.integers(1, 9000) | st.sampled_from([14, 42, 70, 98, 27, 28, 29])


@given(
    height=sides,
    width=sides,
    factor=st.sampled_from([14, 28, 32]),
    limits=st.tuples(st.integers(1, 2**24), st.integers(1, 2**24)).map(sorted),
)
def test_smart_resize_equals_transformers(height, width, factor, limits):
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    options = {"factor": factor, "min_pixels": limits[0], "max_pixels": limits[1]}
    try:
        expected = module.smart_resize(height, width, **options)
    except ValueError:
        with pytest.raises(ValueError, match="at most 200"):
            lr.smart_resize(height, width, **options)
    else:
        assert lr.smart_resize(height, width, **options) == expected
        assert lr.visual_tokens(height, width, **options) == expected[0] * expected[1] / factor**2


@pytest.mark.parametrize("limits", [(784, 4704), (4704, 7840), (4704, 4704)])
def test_an_area_at_a_limit_is_left_alone(limits):
    # 70 x 90 rounds to 56 x 84 pixels, which are 4,704.
    assert lr.smart_resize(70, 90, min_pixels=limits[0], max_pixels=limits[1]) == (56, 84)


def test_bad_sizes_are_refused():
    good = {"height": 100, "width": 100, "factor": 28, "min_pixels": 784, "max_pixels": 7840}
    for name in ("height", "width", "factor", "min_pixels"):
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            lr.smart_resize(**{**good, name: 0})
    with pytest.raises(ValueError, match="min_pixels must be at most max_pixels, got 784 and 783"):
        lr.smart_resize(**{**good, "max_pixels": 783})
    with pytest.raises(ValueError, match="at most 200, got 20 and 4001"):
        lr.visual_tokens(20, 4001, min_pixels=784, max_pixels=7840)
    assert lr.visual_tokens(20, 4000, min_pixels=784, max_pixels=78400) > 0
