"""`locus_reward`: recorded vectors, what a reader would ask, properties, mistakes of the caller."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards import Frame, locus_parts, locus_reward

VECTORS = (Path(__file__).parent / "data" / "locus_reference.jsonl").read_text(encoding="utf-8").splitlines()
TARGET = [10, 20, 50, 60]


def said(answer, thought="so"):
    return f"<think>{thought}</think><answer>{answer}</answer>"


def parts(text, target=TARGET, **options):
    return [float(part[0]) for part in locus_parts([text], [target], **options)]


@pytest.mark.parametrize("row", [json.loads(line) for line in VECTORS], ids=lambda row: row["id"])
def test_vectors(row):
    call, expected = row["input"], row["expected"]
    found = parts(call["text"], call["gt"], format_weight=call["alpha"])
    assert found == pytest.approx([expected["r_loc"], expected["r_format"], expected["r"]], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (said("[10, 20, 50, 60]"), [1, 1, 1]),
        (said("[10, 20, 50, 40]"), [0.5, 1, 0.55]),
        (said('```json\n[{"bbox_2d": [10, 20, 50, 60], "label": "crop"}]\n```'), [1, 1, 1]),
        (said("[1e1, +20, 5E1, 60.]"), [1, 1, 1]),
        (said("[[10, 20, 50, 60]]"), [1, 1, 1]),
        (said("[10, 20, 50, 60] or [0, 0, 9, 9]"), [1, 1, 1]),  # the first counts
        (said("[0, 0, 9, 9] or [10, 20, 50, 60]"), [0, 1, 0.1]),
        (said("[50, 60, 10, 20]"), [0, 1, 0.1]),
        (said("[10, 20, 10, 60]"), [0, 1, 0.1]),
        (said("[10, 20, 50]"), [0, 1, 0.1]),
        (said(f"[10, 20, 50, {'9' * 400}]"), [0, 1, 0.1]),
        (said("none", "[10, 20, 50, 60]"), [0, 1, 0.1]),  # thinking is never an answer
        ("<answer>[10, 20, 50, 60]</answer>", [1, 0, 0.9]),
        ("[10, 20, 50, 60]", [0, 0, 0]),
        (said("[10, 20, 50, 60]") + said("[0, 0, 9, 9]"), [0, 0, 0]),
        ("", [0, 0, 0]),
    ],
)
def test_what_counts(text, expected):
    assert parts(text) == pytest.approx(expected)


def test_without_a_target_the_format_is_left():
    found = locus_parts([said("x"), "x"], [None, None])
    assert np.isnan(found.iou).all()
    assert found.total.tolist() == [0.1, 0.0]


@pytest.mark.parametrize(
    ("frame", "box", "sizes"),
    [
        ("original", [10, 20, 50, 60], {}),
        (Frame.SHOWN, [5, 20, 25, 60], {"image_sizes": (100, 80), "shown_sizes": (50, 80)}),
        ("relative_1000", [100, 250, 500, 750], {"image_sizes": [(100, 80)]}),
    ],
)
def test_the_box_is_brought_to_the_original_image(frame, box, sizes):
    assert parts(said(box), frame=frame, **sizes)[0] == pytest.approx(1.0)


pieces = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "[10, 20, 50, 60]",
        "[[",
        "]",
        "[",
        "1e400",
        "[ 3",
        "٣",
        ",",
    ]
)
texts = st.lists(pieces | st.text(max_size=3), max_size=9).map("".join)


@given(st.lists(texts, max_size=5))
def test_any_text_gets_a_reward_of_its_own(rows):
    whole = locus_reward(rows, [TARGET] * len(rows))
    assert whole.shape == (len(rows),)
    assert ((whole >= 0) & (whole <= 1)).all()
    assert whole.tolist() == [float(locus_reward([row], [TARGET])[0]) for row in rows]


numbers = st.sampled_from(["1", "-2.5", "+3", ".5", "7.", "1e2", " 4 ", "\u00a05", "9" * 20, "x", "٣"])
lists = st.lists(numbers, min_size=3, max_size=5).map(lambda each: f"[{','.join(each)}]")


@given(st.lists(lists | st.sampled_from(["[", "]", "[[", " so "]), max_size=4).map("".join))
def test_the_box_is_the_first_that_a_regular_expression_finds(text):
    number = r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
    found = re.search(rf"\[{','.join([number] * 4)}\]", text)
    box = list(map(float, found.groups())) if found else [0, 0, 0, 0]
    target = [0, 0, 10, 10]
    shared = math.prod(max(min(box[k + 2], 10) - max(box[k], 0), 0) for k in (0, 1))
    proper = box[0] < box[2] and box[1] < box[3]
    expected = shared / ((box[2] - box[0]) * (box[3] - box[1]) + 100 - shared) if proper else 0.0
    assert parts(said(text), target)[0] == pytest.approx(expected)


@given(st.tuples(*[st.integers(-50, 50)] * 4), st.integers(1, 20), st.integers(1, 20))
def test_moving_both_boxes_changes_nothing(shift, width, height):
    x, y, dx, dy = shift
    here = parts(said([x, y, x + width, y + height]), [0, 0, 10, 10])
    there = parts(said([x + dx, y + dy, x + dx + width, y + dy + height]), [dx, dy, 10 + dx, 10 + dy])
    assert here == pytest.approx(there)


@pytest.mark.parametrize(
    ("targets", "options", "error"),
    [
        ([TARGET] * 2, {}, "targets must have one entry per completion, got 2 for 1"),
        ([[50, 60, 10, 20]], {}, r"targets\[0\] must be four finite numbers with x0 < x1"),
        ([TARGET], {"format_weight": 1.5}, r"format_weight must lie in \[0, 1\], got 1.5"),
        ([TARGET], {"frame": "shown"}, "shown_size is needed"),
    ],
)
def test_mistakes_of_the_caller_are_named(targets, options, error):
    with pytest.raises(ValueError, match=error):
        locus_reward(["x"], targets, **options)


def test_an_empty_batch_is_an_empty_array():
    assert locus_reward([], []).shape == (0,)
