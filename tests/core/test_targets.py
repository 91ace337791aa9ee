"""Ground truth is a contract: packed once, refused loudly."""

import copy
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lfpc_rewards as lr
from tests.core.strategies import IMAGE, nested_boxes

INNER, OUTER = [40, 40, 60, 60], [20, 20, 80, 80]
SIZE = (100, 80)
NAN, INF = float("nan"), float("inf")

BAD = [  # id, boxes of region 1 of row 2, which box, rule
    (
        "a zero width",
        [[40, 40, 40, 60]],
        0,
        "must be four finite numbers with x0 < x1, y0 < y1 and a finite positive",
    ),
    ("a zero height", [[40, 60, 60, 60]], 0, "must be four finite numbers"),
    ("inverted", [[60, 40, 40, 60]], 0, "must be four finite numbers"),
    ("inverted in both directions", [[60, 60, 40, 40]], 0, "must be four finite numbers"),
    ("an area beyond all numbers", [[0, 0, 1e200, 1e200]], 0, "must be four finite numbers"),
    ("NaN", [[NAN, 40, 60, 60]], 0, "must be four finite numbers"),
    ("infinite", [[40, 40, INF, 60]], 0, "must be four finite numbers"),
    ("an area of 0 by rounding", [[0, 0, 1e-200, 1e-200]], 0, "must be four finite numbers"),
    ("left of the image", [[-1, 0, 9, 9]], 0, "must lie inside its image of 100 x 80 pixels, got"),
    ("above the image", [[0, -0.5, 9, 9]], 0, "must lie inside its image"),
    ("right of the image", [[0, 0, 100.5, 9]], 0, "must lie inside its image"),
    ("below the image", [[0, 0, 9, 81]], 0, "must lie inside its image"),
    (
        "outer before inner",
        [OUTER, INNER],
        1,
        r"must contain the box before it \(\[20.0, 20.0, 80.0, 80.0\]\): boxes go",
    ),
    ("sticks out left", [INNER, [41, 20, 80, 80]], 1, "must contain the box before it"),
    ("sticks out above", [INNER, [20, 41, 80, 80]], 1, "must contain the box before it"),
    ("sticks out right", [INNER, [20, 20, 59, 80]], 1, "must contain the box before it"),
    ("sticks out below", [INNER, [20, 20, 80, 59]], 1, "must contain the box before it"),
    ("the third box", [INNER, OUTER, INNER], 2, "must contain the box before it"),
]


@pytest.mark.parametrize(("region", "box", "rule"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_target_is_named_with_row_region_box_and_rule(region, box, rule):
    targets = [[INNER], None, [[INNER, OUTER], region]]
    with pytest.raises(ValueError, match=rf"^targets\[2\] region 1 box {box} {rule}"):
        lr.Targets(targets, SIZE)
    with pytest.raises(ValueError, match=rf"^targets\[2\] region 1 box {box} {rule}"):
        lr.grounding_reward([[], [], []], targets, SIZE)
    with pytest.raises(
        ValueError, match=rf"got \[{', '.join(re.escape(str(float(n))) for n in region[box])}\]$"
    ):
        lr.Targets(targets, SIZE)


def test_bad_sizes_and_lengths_are_refused():
    with pytest.raises(
        ValueError, match=r"image_sizes\[1\] must be a positive finite \(width, height\), got \[0.0, 80.0\]"
    ):
        lr.Targets([[INNER], [INNER]], [SIZE, (0, 80)])
    for size in [(bad, 80) for bad in (NAN, INF, -5, 0)] + [(100, bad) for bad in (NAN, INF, -5, 0)]:
        with pytest.raises(ValueError, match=r"image_sizes\[0\] must be a positive"):
            lr.Targets([[INNER]], size)
    with pytest.raises(ValueError, match=r"image_sizes must have shape \(2, 2\) or \(2,\), .* got \(3, 2\)"):
        lr.Targets([[INNER], [INNER]], [SIZE] * 3)
    with pytest.raises(ValueError, match=r"image_sizes must have shape \(..., 2\), got \(3,\)"):
        lr.Targets([[INNER]], (100, 80, 3))
    assert len(lr.Targets([None, [INNER]], [(0, 0), SIZE])) == 2  # a size without a target is not read


def test_other_shapes_are_refused():
    with pytest.raises(
        TypeError, match=r"targets\[1\] must be nested boxes \(n, 4\), a list of such regions or None, got 7"
    ):
        lr.Targets([[INNER], 7], SIZE)
    for one_box in (INNER, np.array(INNER)):  # without the list of nested boxes around it
        with pytest.raises(TypeError, match=r"targets\[0\] must be nested boxes \(n, 4\), .* got"):
            lr.Targets([one_box], SIZE)
    with pytest.raises(ValueError, match=r"targets\[0\] region 1 must hold at least one box, got none"):
        lr.Targets([[[INNER], []]], SIZE)
    with pytest.raises(ValueError, match=r"targets\[0\] region 0 must have shape \(n, 4\), got \(1, 3\)"):
        lr.Targets([[[1, 2, 3]]], SIZE)
    for inside in (None, 10**400, "x"):
        with pytest.raises(TypeError, match=r"targets\[0\] region 0 must hold numbers, got"):
            lr.Targets([[[1, 2, 3, inside]]], SIZE)
    for inside in (7, None, "x"):
        with pytest.raises((TypeError, ValueError), match=r"targets\[0\] region 1 must"):
            lr.Targets([[[INNER], inside]], SIZE)
    with pytest.raises(TypeError, match=r"targets\[0\] region 0 must hold numbers, got object values"):
        lr.Targets([[[1, 2, 3, None]]], SIZE)


def test_a_box_may_equal_the_one_before_it_and_the_image():
    lr.Targets([[INNER, INNER, [0, 0, 100, 80]]], SIZE)


def test_one_region_may_come_without_its_list_and_arrays_are_fine():
    forms = [
        [[INNER, OUTER]],
        [[[INNER, OUTER]]],
        [np.array([INNER, OUTER])],
        [np.array([[INNER, OUTER]])],
        [[np.array([INNER, OUTER])]],
        ((tuple(INNER), tuple(OUTER)),),
        np.array([[INNER, OUTER]]),
    ]
    for form in forms:
        targets = lr.Targets(form, SIZE)
        assert repr(targets) == "Targets(rows=1, regions=1, boxes=2)"
        assert targets.boxes.tolist() == INNER + OUTER


def test_selections_keep_order_and_repeats():
    targets = lr.Targets([[INNER], None, [[INNER], [OUTER]]], [SIZE, (1, 1), (90, 90)])
    crops = [[INNER]] * 5
    expected = lr.grounding_reward([[INNER]] * 3, targets)
    for indices in ([2, 0, 1, 2, 2], np.array([2, 0, 1, 2, 2]), [-1, 0, 1, 2, 2]):
        np.testing.assert_array_equal(lr.grounding_reward(crops, targets[indices]), expected[[2, 0, 1, 2, 2]])
    assert len(targets[:2]) == len(targets[np.array([True, False, True])]) == 2
    assert len(targets[1]) == 1
    assert len(targets[[]]) == 0
    assert repr(targets[[0, 1, 2]][[2]]) == "Targets(rows=1, regions=2, boxes=2)"
    with pytest.raises(IndexError):
        targets[[3]]


def test_the_callers_arrays_are_neither_kept_nor_frozen():
    boxes, sizes = np.array([[INNER]], float), np.array([SIZE], float)
    targets = lr.Targets(boxes, sizes)
    boxes[:], sizes[:] = 0, 0
    assert lr.grounding_reward([[INNER]], targets) == 1
    with pytest.raises(ValueError, match="read-only"):
        targets.boxes[0] = 1


def test_targets_pickle():
    targets = lr.Targets([[INNER, OUTER], None], SIZE)
    copy = pickle.loads(pickle.dumps(targets))
    crops = [[[30, 30, 70, 70]], []]
    np.testing.assert_array_equal(lr.grounding_reward(crops, copy), lr.grounding_reward(crops, targets))


@pytest.mark.parametrize("copied", [lambda t: pickle.loads(pickle.dumps(t)), copy.copy, copy.deepcopy])
def test_copies_are_frozen_as_well(copied):
    twin = copied(lr.Targets([[INNER, OUTER], None], SIZE)[[1, 0]])
    for name in lr.Targets.__slots__:
        with pytest.raises(ValueError, match="read-only"):
            getattr(twin, name)[0] = 1


def test_rows_with_and_without_regions_mix():
    rows = [[INNER], None, [INNER, OUTER], [], [[INNER], [OUTER]], (INNER,), [tuple(INNER)]]
    counts = [(1, 1), (0, 0), (1, 2), (0, 0), (2, 2), (1, 1), (1, 1)]
    for chosen in ([0, 1, 2, 3], [1, 3], [0, 2, 6], range(7)):
        targets = lr.Targets([rows[i] for i in chosen], SIZE)
        for place, row in enumerate(chosen):
            regions, boxes = counts[row]
            assert repr(targets[place]) == f"Targets(rows=1, regions={regions}, boxes={boxes})"


def test_a_box_is_a_list_a_tuple_or_an_array():
    with pytest.raises(TypeError, match=r"targets\[0\] must be nested boxes"):
        lr.Targets([[{0, 1, 2, 3}]], SIZE)
    for region in ([{0, 1, 2, 3}], [{0, 1, 2, 3}, INNER]):
        with pytest.raises((TypeError, ValueError), match=r"targets\[1\] region 0 must"):
            lr.Targets([[INNER], [region]], SIZE)
    with pytest.raises(TypeError, match=r"targets\[0\] region 0 must hold numbers, got bool values"):
        lr.Targets([[[False, False, True, True]]], SIZE)


def test_no_rows_at_all():
    assert len(lr.Targets([], SIZE)) == 0
    assert lr.grounding_reward([], [], SIZE).shape == (0,)
    assert lr.grounding_reward([], [], []).shape == (0,)


@given(st.lists(st.none() | st.lists(nested_boxes(), max_size=3), max_size=5))
def test_packing_once_changes_nothing(rows):
    crops = [[[3, 3, 9, 9]]] * len(rows)
    np.testing.assert_array_equal(
        lr.grounding_reward(crops, lr.Targets(rows, IMAGE)),
        lr.grounding_reward(crops, rows, [IMAGE] * len(rows)),
    )
