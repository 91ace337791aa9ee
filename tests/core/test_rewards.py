"""The reward terms and their total: tables, laws, the oracle in exact fractions, error texts."""

import asyncio
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lfpc_rewards as lr
from tests.core import oracles
from tests.core.strategies import BAD_CROPS, IMAGE, completions, crops, int_boxes, nested_boxes

B1, B2 = [40, 40, 60, 60], [20, 20, 80, 80]
SIZE = (100, 100)
REDUCE = ["best", "last", "first", "mean"]
WELL = "<think>x</think><answer>B</answer>"
LOOKED = [
    {"role": "assistant", "content": "<think>x</think>", "tool_calls": [
        {"function": {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": B1}}}]},
    {"role": "tool", "content": [{"type": "image"}]},
    {"role": "assistant", "content": WELL},
]  # fmt: skip


def vectors(function):
    text = (Path(__file__).parent / "data" / "lfpc_reference.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [pytest.param(row, id=row["id"]) for row in rows if row["function"] == function]


@pytest.mark.parametrize("row", vectors("r_geo"))
def test_grounding_vectors(row):
    given, expected = row["input"], row["expected"]
    parts = lr.grounding_parts(
        [[] if given["pred"] is None else [given["pred"]]],
        [given["gts"]],
        given["image_size"],
        overlap_threshold=given["tau"],
        iou_weight=given["omega"],
    )
    names = {"coverage": parts.overlap, "r_iou": parts.iou, "r_l1": parts.nearness, "r_geo": parts.total}
    for name, value in expected.items():
        assert names[name][0] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("row", vectors("stage1"))
def test_stage_1_vectors(row):
    """The weighted sum from our terms; the vectors also hold format 1, which is not one of our values."""
    given = row["input"]
    rollouts = [LOOKED if given["n_successful_crops"] else WELL]
    bonus = lr.tool_bonus(rollouts, [given["acc"]])[0]
    weights = given["w"]
    assert weights[0] * given["acc"] + weights[1] * given["format"] + weights[2] * bonus == pytest.approx(
        row["expected"]
    )


TREEVGR = (Path(__file__).parent / "data" / "treevgr_iou.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    "row", [pytest.param(json.loads(line), id=json.loads(line)["id"]) for line in TREEVGR]
)
def test_mean_best_iou_of_treevgr(row):
    """TreeVGR reads only whole non-negative numbers; the metric is `iou_matrix` then max, then mean."""
    import re

    boxes = [
        json.loads(box)
        for box in re.findall(r"<box>(\[\d+,\d+,\d+,\d+\])</box>", row["input"]["predict_str"])
    ]
    best = lr.iou_matrix(boxes, row["input"]["target_boxes"]).max(axis=0, initial=0)
    assert (best.mean() if len(best) else 0.0) == pytest.approx(row["expected"], abs=1e-9)


GROUNDING = [  # id, crops, target, overlap, iou, nearness, max_iou
    ("the innermost box", [B1], [B1, B2], 1, 1, 1, 1),
    ("the outer box", [B2], [B1, B2], 1, 1, 1, 1),
    ("nothing", [], [B1, B2], 0, 0, 0, 0),
    ("None", [None], [B1], 0, 0, 0, 0),
    ("covers exactly the threshold", [[40, 40, 58, 60]], [B1], 0.9, 0, 0.995, 0.9),
    ("covers a little more", [[40, 40, 59, 60]], [B1], 0.95, 0.95, 0.9975, 0.95),
    ("the whole image", [[0, 0, 100, 100]], [B1], 1, 0.04, 0.6, 0.04),
    ("touches", [[60, 40, 80, 60]], [B1], 0, 0, 0.9, 0),
    ("far outside the image", [[-900, -900, 900, 900]], [B1], 1, 400 / 1800**2, 0, 400 / 1800**2),
]


@pytest.mark.parametrize(
    ("crops", "target", "overlap", "iou", "nearness", "max_iou"),
    [row[1:] for row in GROUNDING],
    ids=[row[0] for row in GROUNDING],
)
@pytest.mark.parametrize("reduce", REDUCE)
def test_one_crop_scores_the_same_however_reduced(crops, target, overlap, iou, nearness, max_iou, reduce):
    parts = lr.grounding_parts([crops], [target], SIZE, reduce=reduce)
    assert parts._asdict() == {
        "overlap": pytest.approx([overlap]),
        "iou": pytest.approx([iou]),
        "nearness": pytest.approx([nearness]),
        "total": pytest.approx([0.5 * iou + 0.5 * nearness]),
        "max_iou": pytest.approx([max_iou]),
    }
    assert lr.grounding_reward([crops], [target], SIZE, reduce=reduce) == parts.total


BAD_TYPES = [
    "text",
    7,
    "1234",
    [True, False, True, True],
    ["0", "0", "9", "9"],
    {"x": 1},
    [0, 0, 10**400, 9],
    [[0], [0], [9], [9]],
]


@pytest.mark.parametrize("bad", [*BAD_CROPS[:9], *BAD_TYPES], ids=lambda bad: str(bad)[:40])
def test_a_bad_crop_scores_zero_and_spoils_nothing(bad):
    parts = lr.grounding_parts([[bad], [bad, B1], [B1]], [[B1]] * 3, SIZE)
    for name in ("overlap", "iou", "nearness", "total", "max_iou"):
        assert getattr(parts, name).tolist() == [0, 1, 1]


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_crop_over_the_target_with_one_number_that_is_none_scores_zero(place, number):
    crop = [*B1[:place], number, *B1[place + 1 :]]
    parts = lr.grounding_parts([[crop]], [[B1]], SIZE, overlap_threshold=None)
    assert np.array(parts).tolist() == [[0.0]] * 5


@pytest.mark.parametrize("crop", [[60, 40, 40, 60], [40, 60, 60, 40], [50, 40, 50, 60], [40, 50, 60, 50]])
def test_a_crop_over_the_target_without_area_scores_zero(crop):
    parts = lr.grounding_parts([[crop]], [[B1]], SIZE, overlap_threshold=None)
    assert np.array(parts).tolist() == [[0.0]] * 5


HUGE = sys.float_info.max
FAR = [  # id, crop, its overlap with the target
    ("around everything", [-HUGE, -HUGE, HUGE, HUGE], 1),
    ("a strip through the target", [-HUGE, 40, HUGE, 60], 1),
    ("a hair through the target", [-HUGE, 50, HUGE, 50.000001], 5e-8),
    ("far to the left", [-HUGE, -HUGE, -1e300, -1e300], 0),
    ("far to the right", [1e300, 1e300, HUGE, HUGE], 0),
    ("hardly a point", [0, 0, 1e-200, 1e-200], 0),
]


@pytest.mark.parametrize(("crop", "overlap"), [case[1:] for case in FAR], ids=[case[0] for case in FAR])
def test_huge_and_tiny_crops_stay_finite(crop, overlap):
    parts = lr.grounding_parts([[crop]], [[B1, B2]], SIZE, overlap_threshold=None)
    assert parts.overlap[0] == pytest.approx(overlap, rel=1e-5)
    assert parts.iou.tolist() == parts.max_iou.tolist() == pytest.approx([0.0], abs=1e-90)
    assert (parts.nearness[0] == 0) == (max(map(abs, crop)) > 1e10)
    assert np.isfinite(parts.total).all()


@pytest.mark.parametrize("count", range(1, 60))
def test_full_marks_are_exactly_one_for_any_number_of_regions(count):
    for reduce in REDUCE:
        assert lr.grounding_reward([[B1] * 3], [[[B1]] * count], SIZE, reduce=reduce) == 1


def test_ways_to_reduce_two_crops_and_two_regions():
    pair = [[[10, 10, 20, 20]], [[70, 70, 90, 90]]]
    good_for_one, good_for_other = [10, 10, 20, 20], [70, 70, 90, 90]

    def score(*row, reduce="best"):
        return lr.grounding_reward([list(row)], [pair], SIZE, reduce=reduce)[0]

    assert score(good_for_one, good_for_other) == 1
    assert score(good_for_other, good_for_one) == 1
    half = score(good_for_one)
    assert half < 0.75
    assert score(good_for_one, good_for_other, reduce="first") == half
    assert score(good_for_other, good_for_one, reduce="last") == half
    assert score(good_for_one, None, reduce="last") == 0
    assert score(None, good_for_one, reduce="first") == 0
    assert score(good_for_one, None, reduce="mean") == pytest.approx(half / 2)
    assert score(good_for_one, None, reduce="best") == half


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_of_crops_with_equal_totals_the_earlier_one_is_taken(weight):
    # Ten pixels too wide and ten too narrow are as far from the target; far away, both have no IoU.
    pairs = {0.0: ([30, 40, 60, 60], [50, 40, 60, 60]), 1.0: ([0, 40, 20, 60], [0, 0, 9, 9])}
    for row in (pairs[weight], pairs[weight][::-1]):
        parts = lr.grounding_parts([row], [[B1]], SIZE, iou_weight=weight)
        alone = [lr.grounding_parts([[crop]], [[B1]], SIZE, iou_weight=weight) for crop in row]
        assert alone[0].total == alone[1].total
        assert alone[0][:3] != alone[1][:3]
        assert parts == alone[0]


def test_rows_without_a_target_are_nan_in_every_part():
    for nothing in (None, [], ()):
        parts = lr.grounding_parts([[B1], []], [nothing, [B1]], SIZE)
        assert np.isnan([column[0] for column in parts]).all()
        assert parts.total[1] == 0


def test_ablations_are_one_option_away():
    crop = [[[40, 40, 50, 60]]]  # half of the innermost box
    assert lr.grounding_reward(crop, [[B1]], SIZE, iou_weight=1.0) == 0
    assert lr.grounding_reward(crop, [[B1]], SIZE, iou_weight=1.0, overlap_threshold=None) == 0.5
    assert lr.grounding_reward(crop, [[B1]], SIZE, iou_weight=1.0, overlap_threshold=0.4) == 0.5
    assert lr.grounding_reward(crop, [[B1]], SIZE, iou_weight=0.0) == pytest.approx(0.975)
    assert lr.grounding_reward([[[60, 40, 80, 60]]], [[B1]], SIZE, iou_weight=1.0, overlap_threshold=0.0) == 0


def test_the_overlap_belongs_to_the_innermost_box_alone():
    outer_only = [[20, 20, 80, 45]]
    parts = lr.grounding_parts([outer_only], [[B1, B2]], SIZE)
    assert parts.overlap == 0.25
    assert parts.iou == 0
    assert parts.max_iou == pytest.approx(60 * 25 / 3600)


@given(
    st.lists(st.tuples(crops, st.none() | st.lists(nested_boxes(), min_size=1, max_size=3)), max_size=4),
    st.sampled_from([0.0, 0.5, 0.9, 0.999, None]),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.sampled_from(REDUCE),
)
def test_grounding_equals_exact_fractions(rows, threshold, weight, reduce):
    parts = lr.grounding_parts(
        [row[0] for row in rows],
        [row[1] for row in rows],
        IMAGE,
        overlap_threshold=threshold,
        iou_weight=weight,
        reduce=reduce,
    )
    for i, (row_crops, regions) in enumerate(rows):
        got = [column[i] for column in parts]
        if regions is None:
            assert np.isnan(got).all()
        else:
            expected = oracles.grounding(
                row_crops, regions, IMAGE, threshold=threshold, weight=weight, reduce=reduce
            )
            if (
                reduce == "best"
            ):  # equal totals up to rounding may take another crop; the total is what counts
                got, expected = got[3:4], expected[3:4]
            assert got == pytest.approx(expected, abs=1e-12)


@given(
    st.lists(int_boxes(empty=False), min_size=1, max_size=3), st.lists(nested_boxes(), min_size=1, max_size=2)
)
def test_laws_of_the_grounding_reward(row, regions):
    def score(*boxes, reduce="best"):
        return lr.grounding_reward([list(boxes)], [regions], IMAGE, reduce=reduce)[0]

    best = score(*row)
    assert 0 <= score(*row, reduce="mean") <= best + 1e-12
    assert best <= 1
    assert score(*row, None) == best  # further crops never cost
    assert score(*row, *[region[0] for region in regions]) == pytest.approx(
        1
    )  # the gold boxes earn full marks
    assert score(*row, reduce="last") == score(row[-1])
    assert score(*row, reduce="first") == score(row[0])
    parts = lr.grounding_parts([row], [regions], IMAGE, iou_weight=0.3)
    assert parts.total == pytest.approx(0.3 * parts.iou + 0.7 * parts.nearness)
    assert (parts.iou <= parts.max_iou).all()


def test_rows_do_not_see_their_neighbours():
    rows = [
        ([B1], [B1, B2]),
        ([], [B1]),
        ([[0, 0, 9, 9], None], None),
        ([[9, 9, 1, 1]], [[B1], [B2]]),
        ([B2, B1], [[B1], [B2]]),
    ]
    together = lr.grounding_reward([row[0] for row in rows], [row[1] for row in rows], SIZE)
    alone = [lr.grounding_reward([row[0]], [row[1]], SIZE)[0] for row in rows]
    np.testing.assert_array_equal(together, alone)


def test_crops_may_be_arrays_and_tuples():
    expected = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    forms = [
        np.array([B1]),
        (tuple(B1),),
        np.zeros((0, 4)),
        None,
        [np.array(B1)],
        [[np.float32(n) for n in B1]],
    ]
    assert lr.grounding_reward(forms, [[B1]] * 6, SIZE).tolist() == expected


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.float64])
def test_an_array_of_one_box_per_rollout_is_one_crop_each(kind):
    boxes = np.array([B1, B2, [0, 0, 9, 9], [60, 60, 40, 40]], kind)
    expected = lr.grounding_reward([[box] for box in boxes.tolist()], [[B1]] * 4, SIZE)
    assert expected[0] == 1
    for form in (boxes, list(boxes), boxes[:, None], np.asfortranarray(boxes)):
        assert lr.grounding_reward(form, [[B1]] * 4, SIZE).tolist() == expected.tolist()
    total = lr.lfpc_reward([WELL] * 4, ["B"] * 4, crops=boxes, targets=[[B1]] * 4, image_sizes=SIZE)
    assert total.tolist() == pytest.approx(0.8 + expected)


@pytest.mark.parametrize("box", [B1, tuple(B1), [40.0, 40.5, 60, 60], list(np.array(B1))])
def test_a_box_without_the_list_around_it_is_refused(box):
    message = r"crops\[1\] must be a list of boxes, got the single box \[.*\]: put it in a list"
    with pytest.raises(ValueError, match=message):
        lr.grounding_reward([[B1], box], [[B1]] * 2, SIZE)
    with pytest.raises(ValueError, match=message):
        lr.lfpc_reward([WELL] * 2, ["B"] * 2, crops=[[B1], box], targets=[[B1]] * 2, image_sizes=SIZE)


@pytest.mark.parametrize("shape", [(5,), (2, 5), (3,), (1, 1, 4), (4, 1)])
def test_an_array_that_holds_no_boxes_is_refused(shape):
    with pytest.raises(
        ValueError, match=r"crops\[0\] must be boxes \(n, 4\) or one box \(4,\), got an array"
    ):
        lr.grounding_reward([np.ones(shape)], [[B1]], SIZE)


def test_bare_numbers_that_make_no_box_are_bad_crops():
    rows = [[7], [7, 7, 7], [7, 7, 7, 7, 7], [True] * 4, [7, 7, 7, None], [7, B1]]
    assert lr.grounding_reward(rows, [[B1]] * 6, SIZE).tolist() == [0, 0, 0, 0, 0, 1]


def test_options_and_lengths_are_checked():
    with pytest.raises(ValueError, match='reduce must be "best", "last", "first" or "mean", got \'max\''):
        lr.grounding_reward([], [], SIZE, reduce="max")
    for weight in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"iou_weight must lie in \[0, 1\], got"):
            lr.grounding_reward([], [], SIZE, iou_weight=weight)
    for threshold in (-0.1, 1.0, 1.1, math.nan):
        message = "overlap_threshold must be at least 0 and below 1, or none, got"
        with pytest.raises(ValueError, match=message):
            lr.grounding_reward([], [], SIZE, overlap_threshold=threshold)
        with pytest.raises(ValueError, match=message):
            lr.lfpc_reward([], [], targets=[], image_sizes=SIZE, overlap_threshold=threshold)
    with pytest.raises(ValueError, match="crops and targets must have the same length, got 1 and 2"):
        lr.grounding_reward([[]], [[B1]] * 2, SIZE)
    with pytest.raises(ValueError, match="image_sizes is needed unless targets is a Targets, got None"):
        lr.grounding_reward([[]], [[B1]])
    with pytest.raises(ValueError, match="image_sizes must be None when targets is a Targets"):
        lr.grounding_reward([[]], lr.Targets([[B1]], SIZE), SIZE)
    with pytest.raises(TypeError, match=r"crops\[1\] must be a list of boxes, got str"):
        lr.grounding_reward([[], "x"], [[B1]] * 2, SIZE)


def test_accuracy():
    rows = [
        (WELL, "B", None),
        (WELL, "A", None),
        ("B", "B", None),
        (WELL, ["A", "B"], None),
        (WELL, None, None),
        (WELL, "blue", ["red", "blue"]),
        (LOOKED, "B", None),
        (LOOKED[:2], "B", None),
    ]
    scores = lr.accuracy_reward(*(list(column) for column in zip(*rows, strict=True)))
    np.testing.assert_array_equal(scores, [1, 0, 0, 1, np.nan, 1, 1, 0])
    assert scores.dtype == np.float64
    assert lr.accuracy_reward([], []).shape == (0,)


def test_accuracy_names_the_row_of_bad_gold_data():
    with pytest.raises(ValueError, match=r"answers\[1\]: accepted must name one of the 2 choices, got 'E'"):
        lr.accuracy_reward([WELL, WELL], ["B", "E"], [None, ["red", "blue"]])
    with pytest.raises(
        TypeError, match=r"answers\[0\]: accepted must be a string or a list of strings, got 7"
    ):
        lr.accuracy_reward([WELL], [7])
    with pytest.raises(ValueError, match="answers must have one entry per completion, got 1 for 2"):
        lr.accuracy_reward([WELL, WELL], ["B"])
    with pytest.raises(ValueError, match="choices must have one entry per completion, got 0 for 1"):
        lr.accuracy_reward([WELL], ["B"], [])
    with pytest.raises(TypeError, match="answers must be a list with one entry per completion, got 'B'"):
        lr.accuracy_reward([WELL], "B")


def test_format():
    assert lr.format_reward([WELL, "B", LOOKED, LOOKED[:2], []]).tolist() == [0, -1, 0, -1, -1]
    assert lr.format_reward([]).shape == (0,)
    assert lr.format_reward([]).dtype == np.float64


def test_tool_bonus_needs_a_right_answer_and_a_delivered_crop():
    typed = (
        "<think>x</think><tool_call>{}</tool_call><tool_response><image></tool_response><answer>B</answer>"
    )
    failed = [LOOKED[0], {"role": "tool", "content": "Error"}, LOOKED[2]]
    rollouts = [LOOKED, LOOKED, WELL, typed, failed, LOOKED, LOOKED]
    scores = lr.tool_bonus(rollouts, [1, 0, 1, 1, 1, math.nan, 0.5])
    np.testing.assert_array_equal(scores, [1, 0, 0, 0, 0, np.nan, 1])
    assert lr.tool_bonus([], []).shape == (0,)
    with pytest.raises(ValueError, match=r"accuracy must have shape \(1,\), one per completion, got \(2,\)"):
        lr.tool_bonus([WELL], [1, 1])


TOTAL = [  # id, completion, answer, target, expected
    ("right after a look", LOOKED, "B", None, 0.8 + 1.2),
    ("right without a look", WELL, "B", None, 0.8),
    ("right, malformed", "<answer>B</answer>", "B", None, 0.8 - 0.2),
    ("wrong after a look", LOOKED, "A", None, 0.0),
    ("wrong, malformed", "A", "B", None, -0.2),
    ("nothing known about the answer", LOOKED, None, None, 0.0),
    ("right, looked at the target", LOOKED, "B", [B1, B2], 3.0),
    ("wrong, but looked at the target", LOOKED, "A", [B1, B2], 1.0),
    ("right, did not look at the target", WELL, "B", [B1], 0.8),
]


@pytest.mark.parametrize(
    ("completion", "answer", "target", "expected"), [r[1:] for r in TOTAL], ids=[r[0] for r in TOTAL]
)
def test_total(completion, answer, target, expected):
    targets = [target, [B1]] if target else [None, [B1]]
    total = lr.lfpc_reward([completion, WELL], [answer, "B"], targets=targets, image_sizes=SIZE)
    assert total == pytest.approx([expected, 0.8])
    if target is None:
        assert lr.lfpc_reward([completion], [answer]) == pytest.approx([expected])


def test_total_is_the_weighted_sum_of_the_terms():
    rows = [LOOKED, WELL, "B", LOOKED]
    answers, targets, boxes = (
        ["B", "B", "B", None],
        [[B1], None, [B2], [[B1], [B2]]],
        [[B2], [B1], [], [[0, 0, 9, 9]]],
    )
    accuracy = lr.accuracy_reward(rows, answers)
    terms = [
        accuracy,
        lr.format_reward(rows),
        lr.tool_bonus(rows, accuracy),
        lr.grounding_reward(boxes, targets, SIZE, overlap_threshold=0.5, iou_weight=0.25, reduce="mean"),
    ]
    weights = [0.1, 0.3, 0.7, 1.3]
    total = lr.lfpc_reward(
        rows,
        answers,
        [None] * 4,
        crops=boxes,
        targets=lr.Targets(targets, SIZE),
        accuracy_weight=0.1,
        format_weight=0.3,
        tool_weight=0.7,
        grounding_weight=1.3,
        overlap_threshold=0.5,
        iou_weight=0.25,
        reduce="mean",
    )
    assert total == pytest.approx(np.nansum([w * t for w, t in zip(weights, terms, strict=True)], axis=0))
    assert lr.lfpc_reward([], []).shape == (0,)
    with pytest.raises(ValueError, match="targets must have one entry per completion, got 1 for 4"):
        lr.lfpc_reward(rows, answers, targets=[None], image_sizes=SIZE)
    with pytest.raises(ValueError, match="crops must have one entry per completion, got 1 for 4"):
        lr.lfpc_reward(rows, answers, targets=targets, crops=[[]], image_sizes=SIZE)


async def impatient_judge(question, answer, accepted):
    return "no"


TERMS = {  # name: (how to call it, lowest, highest)
    "accuracy_reward": (lambda rows: lr.accuracy_reward(rows, ["B"] * len(rows)), 0, 1),
    "judged_accuracy_reward": (lambda rows: asyncio.run(
        lr.judged_accuracy_reward(rows, ["B"] * len(rows), judge=impatient_judge)), 0, 1),
    "format_reward": (lr.format_reward, -1, 0),
    "tool_bonus": (lambda rows: lr.tool_bonus(rows, [1.0] * len(rows)), 0, 1),
    "grounding_reward": (lambda rows: lr.grounding_reward(
        [[c.box for c in r.crops] for r in lr.parse_completions(rows)], [[B1, B2]] * len(rows), SIZE), 0, 1),
    "lfpc_reward": (lambda rows: lr.lfpc_reward(
        rows, ["B"] * len(rows), targets=[[B1, B2]] * len(rows), image_sizes=SIZE), -0.2, 3),
    "locus_reward": (lambda rows: lr.locus_reward(rows, [B1] * len(rows)), 0, 1),
}  # fmt: skip


def test_no_term_is_left_out_of_the_table():
    assert set(TERMS) == {name for name in lr.__all__ if name.endswith(("_reward", "_bonus"))}


@pytest.mark.parametrize("name", TERMS)
@given(rows=st.lists(completions, max_size=3))
def test_every_term_gives_one_float_in_range_for_any_text(name, rows):
    term, lowest, highest = TERMS[name]
    scores = term(rows)
    assert (scores.shape, scores.dtype) == ((len(rows),), np.float64)
    assert ((lowest <= scores) & (scores <= highest + 1e-12)).all()
    np.testing.assert_array_equal(scores, [term([row])[0] for row in rows])
    np.testing.assert_array_equal(scores, term(lr.parse_completions(rows)))


def judged(said, answers, verdicts, **more):
    """(scores, what the judge was asked) with a judge that looks its verdicts up."""
    asked = []

    async def judge(question, answer, accepted):
        asked.append((question, answer, accepted))
        await asyncio.sleep(0)
        return verdicts[answer]

    completions = [f"<answer>{text}</answer>" for text in said]
    scores = asyncio.run(lr.judged_accuracy_reward(completions, answers, judge=judge, **more))
    return scores, asked


def test_a_judge_is_asked_in_doubt_only_and_unknown_is_no_verdict():
    said = ["crimson", "scarlet", "azure", "red", "", "8", "crimson", "x"]
    accepted = ["red", "red", "red", "red", "red", "7", "red", None]
    verdicts = {"crimson": "yes", "azure": "no", "scarlet": "unknown"}
    scores, asked = judged(said, accepted, verdicts)
    np.testing.assert_array_equal(scores, [1, np.nan, 0, 1, 0, 0, 1, np.nan])
    assert asked == [(None, "crimson", ["red"]), (None, "scarlet", ["red"]), (None, "azure", ["red"])]


def test_a_judge_reads_the_question_and_every_accepted_answer():
    rows = [["red", "ruby"], ["red", "ruby"], ["red"]]
    scores, asked = judged(
        ["crimson"] * 3, rows, {"crimson": "yes"}, questions=["Colour?", "Stone?", "Colour?"]
    )
    assert scores.tolist() == [1, 1, 1]
    assert asked == [
        ("Colour?", "crimson", ["red", "ruby"]),
        ("Stone?", "crimson", ["red", "ruby"]),
        ("Colour?", "crimson", ["red"]),
    ]


def test_a_judge_decides_between_options_only_if_none_is_named():
    options = [["red", "blue"]] * 4
    scores, asked = judged(
        ["the sky's", "blue", "A", "A or B"], ["B"] * 4, {"the sky's": "yes"}, choices=options
    )
    assert scores.tolist() == [1, 1, 0, 0]
    assert len(asked) == 1


def test_a_judge_that_says_anything_else_is_an_error():
    for said in ("maybe", None, True):
        with pytest.raises(ValueError, match=r'judge must say "yes", "no" or "unknown", got .* for row 1'):
            judged(["red", "crimson"], ["red", "red"], {"crimson": said})
    with pytest.raises(KeyError):  # what the judge raises is the caller's business
        judged(["crimson"], ["red"], {})


def test_a_judge_needs_the_same_rows_as_the_rules():
    with pytest.raises(ValueError, match=r"^answers\[1\]: accepted must hold at least one answer"):
        judged(["x", "y"], ["x", ""], {})
    with pytest.raises(ValueError, match="questions must have one entry per completion, got 1 for 2"):
        judged(["x", "y"], ["x", "y"], {}, questions=["?"])
    assert judged([], [], {})[0].shape == (0,)


REQUEST = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": %s}}</tool_call>'


def test_requested_crops_are_scored_for_strings_and_messages_alike():
    texts = [REQUEST % B1 + REQUEST % "null" + REQUEST.replace("zoom", "turn") % B1, WELL, REQUEST % B2]
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    options = {"targets": [[B1, B2]] * 3, "image_sizes": SIZE, "accuracy_weight": 0, "format_weight": 0}
    for reduce, first in (("best", 1.0), ("mean", 0.5), ("last", 0.0)):
        for rows in (texts, chats):
            scores = lr.lfpc_reward(rows, ["B"] * 3, crops="requested", reduce=reduce, **options)
            assert scores[:2].tolist() == [first, 0]
            assert scores[2] == lr.grounding_reward([[B2]], [[B1, B2]], SIZE)[0]
            assert lr.lfpc_reward(rows, ["B"] * 3, **options).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="crops must be a list of rows, None or \"requested\", got 'all'"):
        lr.lfpc_reward(texts, ["B"] * 3, crops="all", **options)


def test_a_bad_number_is_bad_in_a_batch_of_any_size():
    """True is not 1, text is not a number, also where a large batch is packed in steps."""
    expected = lr.grounding_reward([[B1]], [[B1]], SIZE)[0]
    for rows in (1, 3, 2000):
        for bad in (
            [40, 40, 60, True],
            [False, 40, 60, 60],
            [40, "40", 60, 60],
            [40, 40, 60, 10**400],
            None,
            [1],
        ):
            crops = [[B1]] * (rows - 1) + [[bad]]
            scores = lr.grounding_reward(crops, lr.Targets([[B1]] * rows, SIZE))
            assert scores.tolist() == [expected] * (rows - 1) + [0]
        crops = [[[0, 1, 1, 2], [0.0, 1.0, 1, 2.0]]] * rows  # numbers that could be truth values and are none
        assert lr.grounding_reward(crops, [[[0, 1, 1, 2]]] * rows, SIZE).tolist() == [1] * rows


def test_the_same_answer_again_and_again_is_judged_the_same():
    said, options = (
        ["<answer>blue</answer>", "<answer>red</answer>"] * 5,
        [["red", "blue"], ["blue", "red"]] * 5,
    )
    scores = lr.accuracy_reward(said, ["B"] * 10, options)
    assert scores.tolist() == [1, 1] * 5
    assert lr.accuracy_reward(said, ["blue"] * 10).tolist() == [1, 0] * 5
    with pytest.raises(TypeError, match=r"^answers\[1\]: choices must be a list of strings, got "):
        lr.accuracy_reward(said[:2], ["B", "B"], [["red", "blue"], ["red", ["blue"]]])
    with pytest.raises(TypeError, match=r"^answers\[1\]: choices must be a list of strings, got "):
        lr.accuracy_reward(said[:1] * 2, ["b", "b"], [["a", "blue"], "ab"])
