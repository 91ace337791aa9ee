"""Geometry: tables for what a reader would ask, laws, oracles, error texts."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import lfpc_rewards as lr
from lfpc_rewards import _kernels
from tests.core import oracles
from tests.core.strategies import float_boxes, int_boxes

PAIRS = [lr.intersection, lr.iou, lr.giou, lr.coverage]
MATRICES = [(lr.iou_matrix, lr.iou), (lr.giou_matrix, lr.giou), (lr.coverage_matrix, lr.coverage)]

IOU = [
    ("the same box", [0, 0, 10, 10], [0, 0, 10, 10], 1.0),
    ("half of it", [0, 0, 10, 10], [0, 0, 5, 10], 0.5),
    ("shifted by half", [0, 0, 10, 10], [5, 0, 15, 10], 1 / 3),
    ("shares an edge only", [0, 0, 10, 10], [10, 0, 20, 10], 0.0),
    ("shares a corner only", [0, 0, 10, 10], [10, 10, 20, 20], 0.0),
    ("apart in both axes", [0, 0, 10, 10], [20, 20, 30, 30], 0.0),
    ("a point inside", [0, 0, 10, 10], [5, 5, 5, 5], 0.0),
    ("the same point", [5, 5, 5, 5], [5, 5, 5, 5], 0.0),
    ("the same line", [5, 0, 5, 9], [5, 0, 5, 9], 0.0),
    ("negative coordinates", [-10, -10, 0, 0], [-5, -10, 0, 0], 0.5),
]


@pytest.mark.parametrize(("box", "other", "expected"), [row[1:] for row in IOU], ids=[row[0] for row in IOU])
def test_iou(box, other, expected):
    assert lr.iou(box, other) == pytest.approx(expected, abs=1e-15)


GIOU = [
    ("the same box", [0, 0, 10, 10], [0, 0, 10, 10], 1.0),
    ("side by side fill their hull", [0, 0, 10, 10], [10, 0, 20, 10], 0.0),
    ("far apart", [0, 0, 1, 1], [99, 99, 100, 100], -0.9998),
    ("the same point", [5, 5, 5, 5], [5, 5, 5, 5], 0.0),
    ("two points: an empty hull side", [5, 5, 5, 5], [9, 5, 9, 5], 0.0),
    ("two points apart", [5, 5, 5, 5], [9, 9, 9, 9], -1.0),
]


@pytest.mark.parametrize(
    ("box", "other", "expected"), [row[1:] for row in GIOU], ids=[row[0] for row in GIOU]
)
def test_giou(box, other, expected):
    assert lr.giou(box, other) == pytest.approx(expected, abs=1e-15)
    assert lr.giou_matrix([box], [other]) == pytest.approx(expected, abs=1e-15)


COVERAGE = [
    ("whole image", [-9, -9, 99, 99], [0, 0, 10, 10], 1.0),
    ("half", [5, 0, 15, 10], [0, 0, 10, 10], 0.5),
    ("shares an edge only", [10, 0, 20, 10], [0, 0, 10, 10], 0.0),
    ("empty crop", [5, 5, 5, 5], [0, 0, 10, 10], 0.0),
]


@pytest.mark.parametrize(
    ("crop", "target", "expected"), [row[1:] for row in COVERAGE], ids=[row[0] for row in COVERAGE]
)
def test_coverage(crop, target, expected):
    assert lr.coverage(crop, target) == expected
    assert lr.union_coverage([crop], target) == expected


def test_corner_distance_is_the_mean_over_the_four_normalised_coordinates():
    assert lr.corner_distance([10, 20, 30, 40], [20, 20, 30, 80], (100, 200)) == pytest.approx(
        (0.1 + 0 + 0 + 0.2) / 4
    )
    assert lr.corner_distance([0, 0, 0, 0], [100, 80, 100, 80], (100, 80)) == 1.0


@given(int_boxes(), int_boxes())
@example([20, 20, 30, 30], [0, 0, 10, 10])
def test_pairs_equal_counted_pixels(box, other):
    assert lr.area(box) == len(oracles.pixels(box))
    assert lr.intersection(box, other) == len(oracles.pixels(box) & oracles.pixels(other))
    assert lr.iou(box, other) == pytest.approx(oracles.iou_by_counting(box, other), abs=1e-12)
    assert lr.giou(box, other) == pytest.approx(oracles.giou_by_counting(box, other), abs=1e-12)


@given(int_boxes(), int_boxes(empty=False))
def test_coverage_equals_counted_pixels(crop, target):
    assert lr.coverage(crop, target) == pytest.approx(oracles.coverage_by_counting(crop, target), abs=1e-12)


@given(st.lists(int_boxes(width=14, height=12), max_size=6), int_boxes(empty=False, width=14, height=12))
def test_union_coverage_equals_counted_pixels(crops, target):
    assert lr.union_coverage(crops, target) == pytest.approx(
        oracles.union_coverage_by_counting(crops, target), abs=1e-12
    )


@given(st.lists(float_boxes(), min_size=1, max_size=5), float_boxes())
def test_geometry_agrees_with_shapely(boxes, target):
    shapely = pytest.importorskip("shapely")
    # Shapely errs where coordinates such as 1e-300 meet: it finds 0.09375 in place of 0.0625.
    boxes, target = np.round(boxes, 6).tolist(), np.round(target, 6).tolist()
    polygons, region = [shapely.box(*box) for box in boxes], shapely.box(*target)
    shared = [p.intersection(region).area for p in polygons]
    union = shapely.union_all(polygons).intersection(region).area / region.area
    assert lr.area(boxes) == pytest.approx([p.area for p in polygons], rel=1e-9)
    # Sides of 1e-3 near coordinate 200 keep about ten digits in shapely and in us.
    assert lr.intersection(boxes, target) == pytest.approx(shared, rel=1e-7, abs=1e-9)
    assert lr.coverage(boxes, target) == pytest.approx([s / region.area for s in shared], rel=1e-6, abs=1e-6)
    assert lr.iou(boxes, target) == pytest.approx(
        [s / p.union(region).area for s, p in zip(shared, polygons, strict=True)], rel=1e-6, abs=1e-6
    )
    assert lr.union_coverage(boxes, target) == pytest.approx(union, rel=1e-5, abs=1e-5)


@given(int_boxes(), int_boxes(empty=False), st.integers(1, 1000), st.integers(1, 1000))
def test_corner_distance_equals_exact_fractions(crop, target, width, height):
    scale = [width, height, width, height]
    exact = sum(Fraction(abs(a - b), s) for a, b, s in zip(crop, target, scale, strict=True)) / 4
    assert lr.corner_distance(crop, target, (width, height)) == pytest.approx(float(exact), abs=1e-12)


@given(int_boxes(), int_boxes(), st.integers(-50, 50), st.sampled_from([0.5, 1, 4]))
def test_iou_and_giou_are_symmetric_in_range_and_keep_under_shift_and_scale(box, other, shift, scale):
    moved, moved_other = (np.array(b) * scale + shift for b in (box, other))
    for measure, lowest in ((lr.iou, 0), (lr.giou, -1)):
        value = measure(box, other)
        assert lowest <= value <= 1
        assert measure(other, box) == value
        assert measure(moved, moved_other) == pytest.approx(value, abs=1e-12)


@given(float_boxes(), float_boxes())
def test_no_measure_leaves_its_range(box, other):
    for a, b in ((box, other), (box, box)):
        for dtype in (np.float32, np.float64):
            x, y = np.array(a, dtype), np.array(b, dtype)
            assert 0 <= lr.iou(x, y) <= 1
            assert -1 <= lr.giou(x, y) <= 1
            assert 0 <= lr.coverage(x, y) <= 1
            assert 0 <= lr.union_coverage([x, y], y) <= 1


@given(int_boxes(), int_boxes(empty=False), st.integers(0, 9))
def test_a_larger_crop_never_covers_less(crop, target, grow):
    larger = [crop[0] - grow, crop[1] - grow, crop[2] + grow, crop[3] + grow]
    assert lr.coverage(larger, target) >= lr.coverage(crop, target)


@given(st.lists(int_boxes(), min_size=1, max_size=5), int_boxes(empty=False))
def test_crops_together_cover_at_least_the_best_and_at_most_the_sum(crops, target):
    alone = lr.coverage(crops, target)
    together = lr.union_coverage(crops, target)
    assert alone.max() - 1e-12 <= together <= min(alone.sum(), 1) + 1e-12
    assert lr.union_coverage(crops[::-1], target) == pytest.approx(together, abs=1e-12)


@given(st.lists(int_boxes(), max_size=5), st.lists(int_boxes(empty=False), max_size=5))
def test_matrices_equal_their_rows(boxes, others):
    for matrix, row in MATRICES:
        result = matrix(boxes, others)
        assert result.shape == (len(boxes), len(others))
        for i, box in enumerate(boxes):
            for j, other in enumerate(others):
                assert result[i, j] == row(box, other)


@given(st.lists(int_boxes(width=3, height=3) | float_boxes(), max_size=5))
def test_matrices_of_boxes_with_and_without_area_equal_their_rows(boxes):
    for matrix, row in MATRICES[:2]:
        result = matrix(boxes, boxes)
        expected = [[row(box, other) for other in boxes] for box in boxes]
        np.testing.assert_array_equal(result, np.reshape(expected, result.shape))
        assert (result <= 1).all()


@given(st.lists(st.tuples(float_boxes(), st.floats(0, 0.4), st.floats(0, 0.4)), min_size=1, max_size=20))
@example([([0.0, 0.0, 0.8, 0.9], 0.25, 0.125)])  # the union is rounded above the hull
def test_rounding_lifts_no_measure_above_its_bound(nested):
    boxes = np.array([box for box, _, _ in nested])
    sides = boxes[:, 2:] - boxes[:, :2]
    left, right = np.array([shares[1:] for shares in nested]).T
    inner = np.concatenate([boxes[:, :2] + sides * left[:, None], boxes[:, 2:] - sides * right[:, None]], 1)
    for others in (inner, boxes):
        for a, b in ((boxes, others), (others, boxes), *[(boxes.astype("f4"), others.astype("f4"))]):
            assert (lr.iou(a, b) <= 1).all()
            assert (lr.iou_matrix(a, b) <= 1).all()
            assert (lr.giou(a, b) <= lr.iou(a, b)).all()
            assert (lr.giou_matrix(a, b) <= lr.iou_matrix(a, b)).all()
    assert (lr.coverage(boxes, inner) <= 1).all()


def test_leading_axes_broadcast():
    boxes = np.array([[[0, 0, 2, 2]], [[1, 1, 3, 3]]])  # (2, 1, 4)
    others = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [9, 9, 10, 10]])  # (3, 4)
    assert lr.iou(boxes, others).shape == (2, 3)
    np.testing.assert_array_equal(lr.iou(boxes, others), lr.iou_matrix(boxes[:, 0], others))
    assert lr.corner_distance(boxes, others, [[[10, 10]]]).shape == (2, 3)
    assert lr.area(boxes).shape == (2, 1)


@pytest.mark.parametrize("function", PAIRS)
def test_empty_batches_give_empty_scores(function):
    assert function([], []).shape == (0,)
    assert function(np.zeros((0, 4)), [0, 0, 1, 1]).shape == (0,)
    assert function(np.zeros((3, 0, 4)), [0, 0, 1, 1]).shape == (3, 0)


@pytest.mark.parametrize("function", PAIRS)
def test_float32_stays_float32_and_everything_else_is_float64(function):
    box = np.array([[0, 0, 10, 10]])
    assert function(box.astype("f4"), box.astype("f4")).dtype == np.float32
    assert function(box.astype("f4"), box).dtype == np.float64
    assert function(box.astype("i8"), box.astype("f2")).dtype == np.float64


@pytest.mark.parametrize(("matrix", "row"), MATRICES)
def test_matrices_keep_float32(matrix, row):
    boxes = np.array([[0, 0, 10, 10], [1, 2, 5, 7]], "f4")
    assert matrix(boxes, boxes).dtype == np.float32
    np.testing.assert_array_equal(matrix(boxes, boxes), row(boxes[:, None], boxes))


def test_every_input_layout_reuses_one_compiled_kernel():
    base = np.array([[0, 0, 2, 2], [1, 1, 3, 3]])
    expected = [1.0, 1 / 7]
    read_only = base.astype(float)
    read_only.flags.writeable = False
    for boxes in (
        base,
        base.astype("f8"),
        np.asfortranarray(base),
        base[::-1][::-1],
        base.tolist(),
        read_only,
    ):
        assert lr.iou(boxes, [0, 0, 2, 2]) == pytest.approx(expected)
    signatures = getattr(_kernels.iou_rows, "signatures", [])  # no attribute when JIT is off
    assert len({signature[0].dtype for signature in signatures}) == len(signatures)


def test_inputs_are_never_changed():
    boxes = np.array([[0.0, 0, 2, 2], [1, 1, 3, 3]])
    before = boxes.copy()
    for function in (
        lr.area,
        lambda b: lr.iou(b, b),
        lambda b: lr.giou_matrix(b, b),
        lambda b: lr.union_coverage(b, b[0]),
    ):
        function(boxes)
        np.testing.assert_array_equal(boxes, before)


def test_out_is_filled_and_returned():
    box = np.array([[0.0, 0, 10, 10]])
    for call, shape in (
        (lambda out: lr.area(box, out=out), (1,)),
        (lambda out: lr.iou(box, box, out=out), (1,)),
        (lambda out: lr.intersection(box, box, out=out), (1,)),
        (lambda out: lr.giou(box, box, out=out), (1,)),
        (lambda out: lr.coverage(box, box, out=out), (1,)),
        (lambda out: lr.corner_distance(box, box, (10, 10), out=out), (1,)),
        (lambda out: lr.iou_matrix(box, box, out=out), (1, 1)),
        (lambda out: lr.giou_matrix(box, box, out=out), (1, 1)),
        (lambda out: lr.coverage_matrix(box, box, out=out), (1, 1)),
    ):
        out = np.full(shape, -7.0)
        assert call(out) is out
        assert out.flat[0] != -7.0


@pytest.mark.parametrize(
    "out",
    [np.empty(2), np.empty(1, "f4"), np.empty((1, 1)), np.empty(2)[::2]],
    ids=["rows", "dtype", "axes", "strided"],
)
def test_an_unfitting_out_is_refused(out):
    if out.shape == (1,) and out.dtype == np.float64:
        out = np.empty(4)[::4]
        out.flags.writeable = False
    with pytest.raises(
        ValueError, match=r"out must be a writeable C-contiguous float64 array of shape \(1,\), got"
    ):
        lr.area([[0, 0, 1, 1]], out=out)


def test_an_out_that_is_no_array_is_refused():
    with pytest.raises(TypeError, match="out must be a numpy array, got list"):
        lr.area([[0, 0, 1, 1]], out=[0.0])


NAN, INF = float("nan"), float("inf")
BAD = [
    [3, 0, 1, 1],
    [0, 3, 1, 1],
    [NAN, 0, 1, 1],
    [0, 0, 1, NAN],
    [0, 0, INF, 1],
    [-INF, 0, 1, 1],
    [INF, 0, INF, 0],
    [-1e308, 0, 1e308, 1],
    [0, 0, 1e200, 1e200],
    [0, 0, 1e154, 1e154],
    [0, 0, 1e154, 4.6e153],  # four of them are too large for a number
]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("function", [*PAIRS, lr.iou_matrix, lr.giou_matrix, lr.coverage_matrix])
def test_a_bad_box_is_named_with_its_row(function, bad):
    first, second = ("crops", "targets") if "coverage" in function.__name__ else ("boxes", "others")
    good, empty = [0, 0, 1, 1], [5, 5, 5, 5]  # a box of zero area is not to blame
    ordered = "must be four finite numbers with x0 <= x1, y0 <= y1 and a finite area"
    rule = "must be four finite numbers with x0 < x1, y0 < y1" if second == "targets" else ordered
    with pytest.raises(ValueError, match=rf"^{first}\[1\] {ordered}"):
        function([empty, bad], [good, good])
    with pytest.raises(ValueError, match=rf"^{second}\[1\] {rule}"):
        function([empty, empty], [good if second == "targets" else empty, bad])


def test_the_largest_box_is_measured():
    largest = [0, 0, 1e154, 4.4e153]
    assert lr.area(largest) == pytest.approx(4.4e307)
    assert lr.iou(largest, largest) == lr.giou(largest, largest) == lr.iou_matrix([largest], [largest]) == 1


@pytest.mark.parametrize("function", PAIRS)
def test_a_bad_box_in_a_nested_batch_is_named_with_all_its_indices(function):
    with pytest.raises(ValueError, match=r"^(crops|boxes)\[0, 1\] must be four finite numbers"):
        function([[[0, 0, 1, 1], [3, 0, 1, 1]]], [0, 0, 1, 1])


def test_a_bad_box_is_shown():
    with pytest.raises(
        ValueError, match=r"boxes\[2\] must be .* and a finite area, got \[5\.0, 0\.0, 2\.0, 1\.0\]$"
    ):
        lr.area([[0, 0, 1, 1], [0, 0, 2, 1], [5, 0, 2, 1]])
    with pytest.raises(ValueError, match=r"^boxes must be four finite"):
        lr.area([5, 0, 2, 1])


@pytest.mark.parametrize("empty", [[3, 0, 3, 9], [0, 4, 9, 4], [2, 2, 2, 2]])
def test_a_target_without_area_is_refused(empty):
    rule = r"must be four finite numbers with x0 < x1, y0 < y1 and a finite positive area, got"
    with pytest.raises(ValueError, match=rf"^targets\[1\] {rule}"):
        lr.coverage([0, 0, 9, 9], [[0, 0, 1, 1], empty])
    with pytest.raises(ValueError, match=rf"^targets\[1\] {rule}"):
        lr.coverage_matrix([[0, 0, 9, 9]], [[0, 0, 1, 1], empty])
    with pytest.raises(ValueError, match=rf"^target {rule}"):
        lr.union_coverage([[0, 0, 9, 9]], empty)


def test_bad_sizes_and_shapes_are_refused():
    box = [0, 0, 1, 1]
    for size in [[bad, 5] for bad in (NAN, INF, -1, 0)] + [[5, bad] for bad in (NAN, INF, -1, 0)]:
        with pytest.raises(
            ValueError, match=r"^image_sizes\[1\] must be a positive finite \(width, height\), got"
        ):
            lr.corner_distance([[5, 5, 5, 5]] * 2, [5, 5, 5, 5], [[1, 1], size])
    for bad in BAD:
        with pytest.raises(ValueError, match=r"^crops must be four finite"):
            lr.corner_distance(bad, box, (1, 1))
        with pytest.raises(ValueError, match=r"^targets must be four finite"):
            lr.corner_distance(box, bad, (1, 1))
    with pytest.raises(ValueError, match=r"boxes must have shape \(..., 4\), got \(3,\)"):
        lr.area([1, 2, 3])
    with pytest.raises(ValueError, match=r"boxes must have shape \(..., 4\), got rows of different lengths"):
        lr.area([[1, 2, 3, 4], [1, 2]])
    with pytest.raises(ValueError, match=r"boxes must have shape \(n, 4\), got \(4,\)"):
        lr.iou_matrix(box, [box])
    with pytest.raises(ValueError, match=r"targets must have shape \(n, 4\), got \(1, 3\)"):
        lr.coverage_matrix([box], [[1, 2, 3]])
    with pytest.raises(ValueError, match=r"target must have shape \(4,\), got \(1, 4\)"):
        lr.union_coverage([box], [box])
    with pytest.raises(
        ValueError, match=r"boxes and others must broadcast, got shapes \(2, 4\) and \(3, 4\)"
    ):
        lr.iou([box] * 2, [box] * 3)
    with pytest.raises(ValueError, match=r"crops\[0\] must be four finite"):
        lr.union_coverage([[3, 0, 1, 1]], box)
    with pytest.raises(TypeError, match="boxes must hold numbers, got <U1 values"):
        lr.area(["a", "b", "c", "d"])
    with pytest.raises(TypeError, match="boxes must hold numbers, got object values"):
        lr.area([0, 0, None, 1])


def test_huge_boxes_stay_defined():
    big = [0, 0, 6e153, 6e153]  # four times its area is just finite
    assert lr.iou(big, big) == 1
    assert -1 <= lr.giou(big, [-6e153, -6e153, 0, 0]) <= 0
    assert -1 <= lr.giou([0, 0, 1, 1], [1e300, 1e300, 1e300, 1e300]) <= -0.5
